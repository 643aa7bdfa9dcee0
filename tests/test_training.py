"""The training loop: against an explicit step, planted columns, and its promises."""

import math
from dataclasses import replace
from functools import partial
from itertools import chain, islice, pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ipcae_sklearn import _batches, _training
from ipcae_sklearn._batches import TrainingBatches
from ipcae_sklearn._data import Rows
from ipcae_sklearn._decoding import (
    NonFiniteLossError,
    Setup,
    TrainingOptions,
    folds_of,
    importances,
    loss_with_pullback,
    tuning_epochs,
    tuning_lengths,
    validate,
)
from ipcae_sklearn._functional import cross_entropy, squared_error, workspace
from ipcae_sklearn._modules import (
    MAPS,
    ConcreteAutoencoder,
    CustomDecoder,
    DirectLogits,
    IndirectLogits,
    MLPDecoder,
)
from ipcae_sklearn._noise import SearchDraws, selector_noise
from ipcae_sklearn._training import (
    HISTORY,
    _claims,
    _optimizers,
    _search_step,
    train,
)

OPTIONS = TrainingOptions(
    n_decoder_steps=1,
    max_iter=30,
    tuning_iter=10,
    n_folds=0,
    n_trials=12,
    dropout=(),
    learning_rate=0.01,
    jitter=0.0,
    jitter_learning_rate=0.01,
    selector_learning_rate=0.05,
    weight_decay=0.0,
    temperature=(10.0, 0.01),
    temperature_schedule="exponential",
    noise="pool",
    gradient="relaxed",
    n_gradient_samples=4,
    diversity=0.0,
    early_stopping=False,
    n_iter_no_change=1000,
    tol=1e-4,
)
SHORT = replace(OPTIONS, max_iter=3, tuning_iter=2)
CPU = torch.device("cpu")
PLANTED = {1, 4, 6}
P = 8


def planted(n=200, seed=0):
    """Independent columns, and a target that three of them determine."""
    X = np.random.default_rng(seed).normal(size=(n, P))
    Y = X[:, [1, 4, 6]] @ np.array([[2.0, 0.0], [-1.5, 1.0], [1.0, 2.0]])
    return X, torch.from_numpy(Y).float()


def make_batches(
    n=200,
    validation=50,
    batch_size=50,
    weights=None,
    validation_weights=None,
    data=None,
):
    X, Y = planted(n) if data is None else data
    p = X.shape[1]
    rows = Rows(X, np.arange(p), np.zeros(p), np.ones(p), torch.device("cpu"))
    index = torch.arange(n)
    return TrainingBatches(
        rows,
        Y,
        index[validation:],
        index[:validation],
        weights=weights,
        validation_weights=validation_weights,
        batch_size=batch_size,
        seed=7,
    )


def make_model(
    k=(3,), first=0, hidden=(16,), m=2, d=6, logits=IndirectLogits, candidates=None
):
    """Run i draws from the same generator alone (``first=i``) and in company."""
    generators = [torch.Generator().manual_seed(first + i) for i in range(len(k))]
    options = {"embedding_dim": d} if logits is IndirectLogits else {}
    p = P if candidates is None else candidates.shape[1]
    selector = logits(
        k, p, generators, start=[None] * len(k), start_logit=5.0, **options
    )
    decoder = MLPDecoder(k, hidden, m, generators)
    return ConcreteAutoencoder(selector, decoder, k, candidates)


def fit(options=OPTIONS, model=None, batches=None, seeds=(11,), **keywords):
    model = make_model() if model is None else model
    batches = make_batches() if batches is None else batches
    setup = Setup(model, batches, squared_error, options)
    return train(setup, seeds=seeds, **keywords)


def assert_different(first, second):
    """The trained decoders are not the same."""
    states = [
        torch.cat([t.flatten() for t in r.state["decoder"].values()])
        for r in (first, second)
    ]
    assert not torch.allclose(*states, rtol=1e-6)


def assert_decoder(result, state, **tolerance):
    """The trained decoder has this state."""
    for name, tensor in result.state["decoder"].items():
        torch.testing.assert_close(tensor, state[name], **tolerance)


# What it is for


def fit_side_by_side(options, batches=None, logits=IndirectLogits, loss=squared_error):
    """Results of four runs of 180 steps."""
    batches = make_batches() if batches is None else batches
    options = replace(OPTIONS, max_iter=60, **options)
    model = make_model([3] * 4, logits=logits)
    return train(Setup(model, batches, loss, options), seeds=range(4))


def count_planted(results):
    """Runs that found the planted columns; by chance, one in 56 does."""
    return sum(set(r.selection.columns) == PLANTED for r in results)


@pytest.mark.parametrize(
    ("gradient", "noise"),
    [
        ("relaxed", "pool"),
        ("relaxed", "batch"),
        ("relaxed", "sample"),
        ("straight_through", "pool"),
        ("straight_through", "sample"),
        ("gumbel_rao", "batch"),  # has one draw for a batch, never from a pool
    ],
)
def test_planted_columns_are_found(gradient, noise):
    results = fit_side_by_side({"gradient": gradient, "noise": noise})
    assert count_planted(results) >= 2
    for result in results:
        for name in ("train_loss", "validation_loss"):
            loss = result.history[name]
            assert loss[-1] < 0.5 * loss[0]


def test_planted_columns_are_found_with_direct_logits():
    options = {"selector_learning_rate": 0.1}
    assert count_planted(fit_side_by_side(options, logits=DirectLogits)) >= 2


def test_planted_columns_are_found_from_labels():
    X, Y = planted()
    labels = (Y[:, 0] > 0).long()  # all three columns have a part in the first target
    batches = make_batches(data=(X, labels))
    assert count_planted(fit_side_by_side({}, batches, loss=cross_entropy)) >= 2


# One step, written out


def reference_step(model, X, Y, gumbel, tau, options):
    """Loss before, and parameters after one step by automatic gradients and torch's
    plain AdamW.
    """
    names, values = zip(*model.named_parameters(), strict=True)
    own = dict(
        zip(
            names, (v.detach()[0].clone().requires_grad_() for v in values), strict=True
        )
    )
    logits = own["logits.embedding"] @ own["logits.weight"].T + own["logits.bias"]
    M = torch.softmax((logits + gumbel) / tau, -1)
    hidden = X @ M.T @ own["decoder.layers.0.weight"].T
    hidden = nn.functional.layer_norm(
        hidden + own["decoder.layers.0.bias"],
        (16,),
        own["decoder.layers.1.weight"][0],
        own["decoder.layers.1.bias"][0],
    )
    hidden = nn.functional.leaky_relu(hidden, 0.2)
    output = hidden @ own["decoder.layers.3.weight"].T + own["decoder.layers.3.bias"]
    pi = torch.softmax(logits, -1)
    mean = pi.mean(0)
    gjsd = (pi * pi.log()).sum(-1).mean() - (mean * mean.log()).sum()
    loss = nn.functional.mse_loss(output, Y)
    (loss - options.diversity * gjsd).backward()
    selector = [t for name, t in own.items() if name.startswith("logits")]
    decoder = [t for name, t in own.items() if name.startswith("decoder")]
    for parameters, rate, decay in (
        (selector, options.selector_learning_rate, 0.0),
        (decoder, options.learning_rate, options.weight_decay),
    ):
        torch.optim.AdamW(parameters, lr=rate, weight_decay=decay).step()
    return loss.detach(), own


@pytest.mark.parametrize("diversity", [0.0, 0.5])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_a_step_equals_an_explicit_one(diversity, weight_decay):
    options = replace(
        OPTIONS, diversity=diversity, weight_decay=weight_decay, noise="batch"
    )
    model = make_model()
    X, Y, _ = next(make_batches().train(0))
    gumbel, _ = selector_noise(model.k, options, [5], 0, CPU).draw(*X.shape)
    expected = reference_step(model, X, Y, gumbel[0], 0.7, options)
    setup = Setup(model, make_batches(), squared_error, options)
    drawn = selector_noise(model.k, options, [5], 0, CPU).draw(*X.shape)
    with torch.no_grad():
        given = X, *drawn, None, None, 0.7, None, Y, None
        (value,) = _search_step(setup, *_optimizers(model, options), *given)
    torch.testing.assert_close(value[0], expected[0], rtol=1e-5, atol=1e-6)
    for name, t in model.named_parameters():
        torch.testing.assert_close(
            t.detach()[0], expected[1][name].detach(), rtol=0, atol=1e-6, msg=name
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_decoder_takes_a_step_on_each_batch_and_the_selector_one(weighted):
    """Written out: the decoder learns from batch to batch what the same relaxation
    selects, and the selector follows the mean of the gradients met on the way.
    """
    ours, theirs = make_model([3, 2]), make_model([3, 2])
    (X, own), *_ = make_batches(batch_size=20).train_together(0, 2)
    own = [(Y, torch.rand(2, len(Y)) if weighted else None) for Y, _ in own]
    assert len(own) > 2
    gumbel, _ = selector_noise([3, 2], OPTIONS, [5, 6], 0, CPU).draw(*X.shape)
    with torch.no_grad():
        drawn = gumbel, None, None, None, 0.7, None
        setup = Setup(ours, make_batches(), squared_error, OPTIONS)
        losses = _search_step(
            setup, *_optimizers(ours, OPTIONS), X, *drawn, *chain(*own)
        )
    of_selector = torch.optim.AdamW(theirs.logits.parameters(), 0.05, weight_decay=0)
    of_decoder = torch.optim.AdamW(theirs.decoder.parameters(), 0.01, weight_decay=0)
    M = torch.softmax((theirs.logits() + gumbel) / 0.7, -1)
    first = 0
    for (Y, weights), loss in zip(own, losses, strict=True):
        selected = X[first : first + len(Y)] @ M.mT
        first += len(Y)
        rows = squared_error(theirs(selected), Y)
        expected = (rows if weights is None else weights * rows).mean(-1)
        torch.testing.assert_close(loss, expected.detach())
        of_decoder.zero_grad()
        expected.sum().backward(retain_graph=True)
        of_decoder.step()
    assert first == len(X)
    for p in theirs.logits.parameters():
        p.grad /= len(own)
    of_selector.step()
    pairs = zip(ours.named_parameters(), theirs.parameters(), strict=True)
    for (name, p), q in pairs:
        torch.testing.assert_close(p, q, msg=name, rtol=1e-4, atol=1e-5)


def test_the_temperature_falls_from_step_to_step_of_the_selector(monkeypatch):
    taken, original = [], _training._search_step

    def step(setup, of_selector, of_decoder, X, *inputs):
        taken.append((len(X), inputs[4], len(inputs[6:]) // 2))
        return original(setup, of_selector, of_decoder, X, *inputs)

    monkeypatch.setattr(_training, "_search_step", step)
    batches = make_batches(batch_size=20)
    fit(replace(SHORT, n_decoder_steps=3), batches=batches)
    n_rows, temperatures, n_batches = zip(*taken, strict=True)
    n_groups = -(-batches.n_train_batches // 3)
    assert len(taken) == 3 * n_groups
    assert sum(n_batches[:n_groups]) == batches.n_train_batches
    assert max(n_batches) - min(n_batches) <= 1
    assert sum(n_rows[:n_groups]) == len(batches.training)
    expected = np.geomspace(10.0, 0.01, 3 * n_groups)
    np.testing.assert_allclose(temperatures, expected)


def group_of(n_batches):
    """X of so many batches and, one after the other, their targets and weights."""
    batches = make_batches()
    X, own = next(batches.train_together(0, batches.n_train_batches // n_batches))
    assert len(own) == n_batches
    return X, tuple(chain(*own))


@pytest.mark.parametrize("n_batches", [1, 3])
@pytest.mark.parametrize("diversity", [0.0, 0.5])
@pytest.mark.parametrize("gradient", ["relaxed", "straight_through", "gumbel_rao"])
@pytest.mark.parametrize("noise", ["batch", "sample"])
@pytest.mark.parametrize("logits", [DirectLogits, IndirectLogits])
def test_steps_in_a_workspace_are_the_same(
    small_parts, logits, noise, gradient, diversity, n_batches
):
    options = replace(OPTIONS, noise=noise, gradient=gradient, diversity=diversity)
    X, of_batches = group_of(n_batches)
    ends = []
    for used in (False, True):
        space = workspace(2, 3, P, X.device) if used else None
        assert (space is not None) == used
        model = make_model([3, 2], logits=logits)
        setup = Setup(model, make_batches(), squared_error, options)
        own = setup, *_optimizers(model, options)
        source = selector_noise(model.k, options, [5, 6], 0, CPU)
        with torch.no_grad():
            for tau in (2.0, 0.7, 0.1):
                drawn = *source.draw(*X.shape), None, None
                _search_step(*own, X, *drawn, tau, space, *of_batches)
        ends.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


@pytest.mark.parametrize("n_batches", [1, 3])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("k", [[5], [5, 4]])
@pytest.mark.parametrize("logits", [DirectLogits, IndirectLogits])
def test_rows_whose_features_are_hidden_may_be_left_out(
    request, logits, k, large, n_batches
):
    if large:
        request.getfixturevalue("small_parts")
    X, of_batches = group_of(n_batches)
    ends = []
    for leaves_out in (False, True):
        model = make_model(k, logits=logits)
        setup = Setup(model, make_batches(), squared_error, OPTIONS)
        own = setup, *_optimizers(model, OPTIONS)
        options = replace(OPTIONS, dropout=(0.6,) * len(k))
        draws = SearchDraws(model.k, options, [5, 6][: len(k)], 0, CPU)
        draws.leaves_out &= leaves_out
        space = workspace(len(k), 5, P, CPU)
        assert (space is not None) == large
        losses = []
        for tau in (2.0, 1.0, 0.5):
            drawn = draws(*X.shape)
            assert (drawn[-1] is not None) == leaves_out
            with torch.no_grad():
                losses += _search_step(*own, X, *drawn, tau, space, *of_batches)
        parameters = torch.cat([p.detach().flatten() for p in model.parameters()])
        ends.append((torch.stack(losses), parameters))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_a_search_of_large_arrays_is_the_same(small_parts, monkeypatch):
    made, original = [], _training.workspace

    def counted(*arguments):
        made.append(original(*arguments))
        return made[-1]

    monkeypatch.setattr(_training, "workspace", counted)
    in_space = fit(SHORT)
    assert len(made) == SHORT.max_iter and all(m is not None for m in made)
    monkeypatch.setattr(_training, "workspace", lambda *arguments: None)
    anew = fit(SHORT)
    for a, b in zip(in_space, anew, strict=True):
        assert np.array_equal(a.probabilities, b.probabilities)


def test_the_optimizer_is_that_of_torch():
    options = replace(OPTIONS, weight_decay=0.1)
    ours, theirs = make_model([3, 2]), make_model([3, 2])
    own = _optimizers(ours, options)
    groups = [
        {"params": theirs.logits.parameters(), "lr": 0.05, "weight_decay": 0.0},
        {"params": theirs.decoder.parameters(), "lr": 0.01, "weight_decay": 0.1},
    ]
    expected = torch.optim.AdamW(groups)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        gradients = [
            [torch.randn(p.shape, generator=generator) for p in module.parameters()]
            for module in (ours.logits, ours.decoder)
        ]
        with torch.no_grad():
            for optimizer, of_module in zip(own, gradients, strict=True):
                optimizer.step(of_module)
        for p, grad in zip(theirs.parameters(), chain(*gradients), strict=True):
            p.grad = grad
        expected.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_a_batch_is_that_of_its_weighted_mean(weighted):
    model = make_model([3, 2])
    X, Y, _ = next(make_batches().train(0))
    weights = torch.rand(2, len(X)) if weighted else None
    selected = X[:, :3].expand(2, -1, -1).clone().requires_grad_()
    rows = (model(selected) - Y).square().mean(-1)
    expected_loss = (rows if weights is None else weights * rows).mean(-1)
    parameters = list(model.decoder.parameters())
    expected = torch.autograd.grad(expected_loss.sum(), [selected, *parameters])
    with torch.no_grad():
        setup = Setup(model, make_batches(), squared_error, OPTIONS)
        loss, pullback = loss_with_pullback(setup, selected.detach(), Y, weights)
        grad, own = pullback()
    torch.testing.assert_close(loss, expected_loss.detach())
    for g, e in zip([grad, *own], expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-6)


def assert_steps_are_those_of_torch(model, reference, options):
    """Three steps by pullbacks, and three by automatic gradients and torch's AdamW."""
    X, Y, _ = next(make_batches().train(0))
    k = len(model.row_mask[0])
    setup = Setup(model, make_batches(), squared_error, options)
    of_selector, of_decoder = _optimizers(model, options)
    groups = [
        {"params": reference.logits.parameters(), "lr": 0.05, "weight_decay": 0.0},
        {"params": reference.decoder.parameters(), "lr": 0.01},
    ]
    expected = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
    cotangent = torch.randn(1, k, P, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        with torch.no_grad():
            _, of_logits = model.logits.with_pullback()
            _, pullback = loss_with_pullback(setup, X[None, :, :k], Y, None)
            of_selector.step(of_logits(cotangent.clone())[1])
            of_decoder.step(pullback()[1])
        expected.zero_grad()
        loss = squared_error(reference(X[None, :, :k]), Y).mean()
        (loss + (reference.logits() * cotangent).sum()).backward()
        expected.step()
    pairs = zip(model.named_parameters(), reference.parameters(), strict=True)
    for (name, ours), theirs in pairs:
        torch.testing.assert_close(ours, theirs, msg=name, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("map_name", MAPS)
def test_steps_of_every_map_are_those_of_torch(map_name):
    # The optimizer reads gradients in the order of memory.
    d = P if map_name in ("diagonal", "scalar") else 6

    def make():
        generators = [torch.Generator().manual_seed(0)]
        keywords = {"embedding_dim": d, "map": map_name}
        ends = {"start": [None], "start_logit": 5.0}
        logits = IndirectLogits([3], P, generators, **keywords, **ends)
        decoder = MLPDecoder([3], (16,), 2, generators)
        return ConcreteAutoencoder(logits, decoder, [3])

    assert_steps_are_those_of_torch(make(), make(), OPTIONS)


class _Odd(nn.Module):
    """Gradients that are not laid out as the parameters, and one that is not there."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.summed = nn.Parameter(torch.linspace(0, 1, 50))
        self.transposed = nn.Parameter(torch.ones(n_outputs, n_inputs).T)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, z):
        return z @ self.transposed + self.summed.sum()


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_steps_of_a_users_decoder_are_those_of_torch(weight_decay):
    def make():
        decoder = CustomDecoder(_Odd, [3], 2)
        return ConcreteAutoencoder(make_model().logits, decoder, [3])

    options = replace(OPTIONS, weight_decay=weight_decay)
    model = make()
    assert_steps_are_those_of_torch(model, make(), options)
    assert model.decoder.runs[0].unused.tolist() == [1, 1]


class _WithGaps(nn.Module):
    """Parameters that are views of larger or smaller memory."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        values = torch.linspace(-1, 1, 40).view(5, 8)
        self.weight = nn.Parameter(values[:n_inputs, :n_outputs])
        self.bias = nn.Parameter(torch.zeros(1).expand(n_outputs))

    def forward(self, z):
        return z @ self.weight + self.bias


def test_a_users_parameters_have_memory_of_their_own():
    decoder = CustomDecoder(_WithGaps, [3], 2)
    dense = CustomDecoder(lambda n, m: nn.Linear(n, m), [3], 2)
    with torch.no_grad():
        dense.runs[0].weight.copy_(decoder.runs[0].weight.T)
        dense.runs[0].bias.zero_()
    results = [
        fit(SHORT, ConcreteAutoencoder(make_model().logits, own, [3]), seeds=[0])[0]
        for own in (decoder, dense)
    ]
    torch.testing.assert_close(decoder.runs[0].weight, dense.runs[0].weight.T)
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-4)


class _HalfFrozen(nn.Module):
    """A user's decoder with a layer that is not to be trained, and one without use."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.frozen = nn.Linear(n_inputs, 4).requires_grad_(False)
        self.trained = nn.Linear(4, n_outputs)
        self.unused = nn.Linear(2, 2)

    def forward(self, z):
        return self.trained(self.frozen(z))


def test_what_a_user_has_frozen_stays_and_what_has_no_use_is_no_error():
    decoder = CustomDecoder(_HalfFrozen, [3], 2)
    model = ConcreteAutoencoder(make_model().logits, decoder, [3])
    before = {name: t.clone() for name, t in decoder.runs[0].state_dict().items()}
    fit(SHORT, model, seeds=[0])
    after = decoder.runs[0].state_dict()
    changed = {name for name, t in after.items() if not torch.equal(t, before[name])}
    assert changed == {"trained.weight", "trained.bias"}


@pytest.mark.parametrize("names", [["weight"], ["bias"], ["embedding"], ["log_alpha"]])
def test_frozen_logits_stay_as_they_are(names):
    direct = names == ["log_alpha"]
    model = make_model(logits=DirectLogits if direct else IndirectLogits)
    before = model.run_state(0)["selector"]
    for name in names:
        getattr(model.logits, name).requires_grad_(False)
    fit(SHORT, model, seeds=[0])
    after = model.run_state(0)["selector"]
    same = [name for name, t in after.items() if torch.equal(t, before[name])]
    assert same == names


# Company


@pytest.mark.parametrize("noise", ["pool", "batch", "sample"])
@pytest.mark.parametrize("diversity", [0.0, 0.1])
def test_a_run_is_the_same_alone_and_in_company(noise, diversity):
    options = replace(
        OPTIONS,
        max_iter=4,
        tuning_iter=2,
        jitter=0.5,
        noise=noise,
        diversity=diversity,
    )
    k, seeds = [3, 2, 4], [11, 12, 13]
    company = fit(options, make_model(k), seeds=seeds)
    for i, together in enumerate(company):
        (alone,) = fit(options, make_model(k[i : i + 1], i), seeds=seeds[i : i + 1])
        for name in HISTORY:
            np.testing.assert_allclose(
                together.history[name], alone.history[name], rtol=1e-4, atol=1e-6
            )
        assert together.loss == pytest.approx(alone.loss, rel=1e-4)
        for name in ("columns", "n_unique"):
            np.testing.assert_array_equal(
                getattr(together.selection, name), getattr(alone.selection, name)
            )
        for name in ("importances", "probabilities"):
            np.testing.assert_allclose(
                getattr(together, name), getattr(alone, name), rtol=1e-3, atol=1e-5
            )
        assert together.importances.shape == (k[i],)
        assert together.probabilities.shape == (k[i], P)


def test_gumbel_rao_is_the_same_alone_and_in_company():
    options = replace(SHORT, gradient="gumbel_rao")
    company = fit(options, make_model([3, 2]), seeds=[11, 12])
    (alone,) = fit(options, make_model([2], 1), seeds=[12])
    np.testing.assert_allclose(
        company[1].history["train_loss"], alone.history["train_loss"], rtol=1e-4
    )


def test_a_run_that_stopped_is_the_same_in_company():
    # Without weights a run has a loss of 0 from the start, and only the decay of its
    # weights goes on after it stopped.
    options = replace(
        OPTIONS,
        max_iter=12,
        tuning_iter=0,
        weight_decay=0.5,
        early_stopping=True,
        n_iter_no_change=2,
    )
    weights = torch.stack([torch.zeros(200), torch.ones(200)])
    company = fit(
        options,
        make_model([3, 3]),
        make_batches(validation=0, weights=weights),
        seeds=[11, 12],
    )
    single = make_batches(validation=0, weights=weights[:1])
    (alone,) = fit(options, batches=single)
    assert len(company[1].history["train_loss"]) > 3
    assert len(company[0].history["train_loss"]) == 3
    assert company[0].loss == alone.loss == 0
    for name, t in alone.state["decoder"].items():
        torch.testing.assert_close(company[0].state["decoder"][name], t)


def test_a_search_among_some_columns_is_that_in_a_table_of_these():
    candidates = np.array([[0, 1, 4, 6, 7], [1, 2, 3, 4, 6]])
    weights = torch.ones(2, 200)
    weights[0, 60:90] = weights[1, :30] = 0

    batches = make_batches(validation=0, weights=weights)
    model = partial(make_model, logits=DirectLogits)
    both = fit(
        model=model([3, 3], candidates=torch.from_numpy(candidates)),
        batches=batches,
        seeds=[11, 12],
    )
    X, Y = planted()
    for i, found in enumerate(both):
        own = candidates[i]
        data = X[:, own], Y
        table = make_batches(validation=0, weights=weights[[i]], data=data)
        # All of them, so that each run gets rows of its own here, too.
        every = torch.arange(5).unsqueeze(0)
        (alone,) = fit(
            model=model(first=i, candidates=every), batches=table, seeds=[11 + i]
        )
        assert set(found.selection.columns) == PLANTED
        np.testing.assert_array_equal(
            found.selection.columns, own[alone.selection.columns]
        )
        assert found.probabilities.shape == (3, P)
        np.testing.assert_allclose(
            found.probabilities[:, own], alone.probabilities, atol=1e-5
        )
        assert (found.probabilities > 0).any(0).sum() == 5
        np.testing.assert_allclose(
            found.history["train_loss"], alone.history["train_loss"], rtol=1e-3
        )


# Weights


def test_rows_of_weight_zero_do_not_count():
    # Full batch: batches of other sizes would take other steps.
    options = replace(SHORT, noise="batch")
    weights = torch.ones(1, 200)
    weights[:, ::2], weights[:, 1::2] = 0, 2  # 1 in the mean
    X, Y = planted()
    X[::2] *= 3  # so that they would matter
    weighted = make_batches(validation=0, batch_size=200, weights=weights, data=(X, Y))
    without = make_batches(n=100, validation=0, batch_size=200, data=(X[1::2], Y[1::2]))
    histories = [fit(options, batches=b)[0].history for b in (weighted, without)]
    for name in ("train_loss", "gjsd"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-4)


def test_batches_of_few_heavy_rows_are_unbiased():
    # One row in 50 has nearly all of the weight. Were weights to be normalised in each
    # batch, the batches without it would pull the output towards the light rows.
    weights = torch.full((1, 200), 0.02)
    weights[:, ::50] = 49.02
    weights /= weights.mean()
    Y = torch.zeros(200, 1)
    Y[::50] = 1.0
    batches = make_batches(
        validation=0, batch_size=4, weights=weights, data=(np.zeros((200, P)), Y)
    )
    options = replace(OPTIONS, max_iter=20, tuning_iter=20, learning_rate=0.005)
    decoder = MLPDecoder([3], (), 1, [torch.Generator().manual_seed(0)])
    model = ConcreteAutoencoder(make_model().logits, decoder, [3])
    fit(options, model, batches)
    output = model(torch.zeros(1, 1, 3)).item()
    share = (weights * Y.T).sum() / weights.sum()
    assert output == pytest.approx(share.item(), abs=0.05)


def test_weights_of_one_are_no_weights():
    ones = torch.ones(1, 200)
    weighted = make_batches(weights=ones, validation_weights=ones)
    results = [fit(SHORT, batches=b)[0] for b in (weighted, make_batches())]
    for name in HISTORY:
        np.testing.assert_allclose(
            results[0].history[name], results[1].history[name], rtol=1e-5
        )


def test_validation_loss_is_weighted():
    # Held-out rows of weight 0 are filled with values that would be seen.
    X, Y = planted()
    Y[:25] += 100
    weights = torch.ones(1, 200)
    weights[:, :25] = 0
    batches = make_batches(validation_weights=weights, data=(X, Y))
    assert fit(SHORT, batches=batches)[0].loss < 50
    assert fit(SHORT, batches=make_batches(data=(X, Y)))[0].loss > 1000


@pytest.mark.parametrize("weighted", [False, True])
def test_validation_loss_is_the_mean_over_all_held_out_rows(weighted, monkeypatch):
    # 50 rows in batches of 20, 20 and 10, of very unequal weight.
    monkeypatch.setattr(_batches, "_EVALUATION_ROWS", 20)
    weights = torch.linspace(0, 3, 200).square().unsqueeze(0) if weighted else None
    batches = make_batches(validation_weights=weights)
    model = make_model()
    (result,) = fit(replace(SHORT, tuning_iter=0), model, batches)
    X, Y = planted()
    selected = torch.from_numpy(X[:50, result.selection.columns]).float()
    losses = squared_error(model(selected.unsqueeze(0)), Y[:50])[0].detach()
    expected = np.average(losses, weights=weights[0, :50] if weighted else None)
    assert result.loss == pytest.approx(expected, rel=1e-5)


# Options


@pytest.mark.parametrize(
    "change",
    [
        {"diversity": 1.0},
        {"weight_decay": 1.0},
        {"learning_rate": 0.02},
        {"selector_learning_rate": 0.2},
        {"temperature": (1.0, 0.01)},
        {"temperature_schedule": "linear"},
        {"noise": "batch"},
        {"noise": "sample"},
        {"gradient": "straight_through"},
        {"gradient": "gumbel_rao"},
        {"gradient": "gumbel_rao", "n_gradient_samples": 1},
    ],
)
def test_each_option_changes_the_result(change):
    base = {"gradient": change.get("gradient", "relaxed")} if len(change) > 1 else {}
    options = replace(SHORT, **base)
    assert_different(fit(options)[0], fit(replace(options, **change))[0])


def test_diversity_spreads_the_rows():
    options = replace(OPTIONS, max_iter=10, tuning_iter=0)
    plain, diverse = (
        fit(replace(options, diversity=d))[0].history["gjsd"][-1] for d in (0, 5)
    )
    assert diverse > plain + 0.1


def test_the_training_loss_in_the_history_is_without_the_diversity_term():
    # As good as no step is taken: with and without the term the losses are equal.
    options = replace(SHORT, learning_rate=1e-9, selector_learning_rate=1e-9)
    losses = [
        fit(replace(options, diversity=d))[0].history["train_loss"] for d in (0, 5)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_weight_decay_shrinks_the_decoder_and_spares_the_selector():
    # Without a gradient, decay is all that moves a parameter.
    options = replace(SHORT, weight_decay=0.5, max_iter=1, tuning_iter=0)
    weights = torch.zeros(1, 200)
    batches = make_batches(validation=0, batch_size=200, weights=weights)
    before = make_model().run_state(0)
    (result,) = fit(options, batches=batches)
    shrunk = 1 - options.weight_decay * options.learning_rate
    for name, t in before["decoder"].items():
        torch.testing.assert_close(result.state["decoder"][name], t * shrunk)
    for name, t in before["selector"].items():
        torch.testing.assert_close(result.state["selector"][name], t, atol=1e-6, rtol=0)


def test_same_seed_same_result():
    first, again, other = fit(SHORT)[0], fit(SHORT)[0], fit(SHORT, seeds=[12])[0]
    for name in HISTORY:
        np.testing.assert_array_equal(first.history[name], again.history[name])
    assert_different(first, other)


def test_global_generators_are_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    for noise in ("pool", "batch", "sample"):
        fit(replace(SHORT, noise=noise))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


# History


@pytest.mark.parametrize("validation", [0, 50])
def test_history_has_a_value_for_each_epoch(validation):
    (result,) = fit(SHORT, batches=make_batches(validation=validation))
    assert tuple(result.history) == HISTORY
    assert {len(values) for values in result.history.values()} == {3 + 2}
    assert np.isfinite(result.history["train_loss"]).all()
    held_out = result.history["validation_loss"]
    assert np.isfinite(held_out).all() if validation else np.isnan(held_out).all()


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_temperature_ends_exactly_at_stop(schedule):
    options = replace(SHORT, temperature_schedule=schedule, temperature=(9.0, 0.03))
    temperature = fit(options)[0].history["temperature"]
    assert temperature[2] == 0.03
    assert (np.diff(temperature[:3]) < 0).all()
    assert np.isnan(temperature[3:]).all()  # the tuning has none


def test_on_epoch_sees_the_history():
    seen = []
    results = fit(
        SHORT,
        make_model([3, 2]),
        seeds=[11, 12],
        on_epoch=lambda epoch, values: seen.append((epoch, values)),
    )
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3, 4]
    for i, result in enumerate(results):
        for name in HISTORY:
            np.testing.assert_array_equal(
                [values[name][i] for _, values in seen], result.history[name]
            )


def test_probabilities_are_of_the_kept_model():
    (result,) = fit(SHORT)
    state = result.state["selector"]
    logits = state["embedding"] @ state["weight"].T + state["bias"]
    np.testing.assert_allclose(
        result.probabilities, torch.softmax(logits, -1), rtol=1e-4
    )


def test_a_run_that_is_sure_of_its_columns_has_converged():
    assert fit(replace(OPTIONS, max_iter=60))[0].converged
    assert not fit(SHORT)[0].converged


# Which model is kept


@pytest.mark.parametrize("tuning_iter", [0, 5])
def test_the_model_of_least_validation_loss_is_kept(tuning_iter):
    # Of the held-out rows the opposite is true: the more is learnt, the worse.
    X, Y = planted()
    Y[:50] *= -1
    options = replace(OPTIONS, max_iter=10, tuning_iter=tuning_iter)
    model, batches = make_model(), make_batches(data=(X, Y))
    (result,) = fit(options, model, batches)
    losses = result.history["validation_loss"]
    if tuning_iter:  # the tuning begins with the model that the search ended with
        losses = losses[9:]
    assert result.loss == losses.min() < losses[-1]
    # The model is left in that state, and has that loss.
    (X, Y, _), *_ = batches.validation()
    output = model(X[:, result.selection.columns].unsqueeze(0))
    loss = squared_error(output, Y).mean().item()
    assert loss == pytest.approx(result.loss, rel=1e-5)
    for name, t in model.run_state(0)["decoder"].items():
        assert torch.equal(t, result.state["decoder"][name])


def test_without_validation_the_last_model_is_kept():
    states = []
    model = make_model()

    def remember(epoch, values):
        states.append(model.run_state(0)["decoder"])

    batches = make_batches(validation=0)
    options = replace(SHORT, learning_rate=0.1)
    (result,) = fit(options, model, batches, on_epoch=remember)
    assert result.loss == result.history["train_loss"][-1]
    for name, t in states[-1].items():
        assert torch.equal(t, result.state["decoder"][name])


# Stopping


def test_early_stopping_ends_each_phase():
    options = replace(OPTIONS, early_stopping=True, n_iter_no_change=2, tol=1e6)
    # The first epoch is an improvement, the two that follow are not.
    assert len(fit(options)[0].history["train_loss"]) == 3 + 3


def test_without_early_stopping_a_run_that_is_unsure_goes_on():
    options = replace(SHORT, n_iter_no_change=1, tol=1e6)
    (result,) = fit(options)
    assert len(result.history["train_loss"]) == 3 + 2
    assert not result.converged


@pytest.mark.parametrize("tuning_iter", [0, 2])
def test_a_sure_run_that_stalls_stops_before_its_time_if_a_tuning_follows(tuning_iter):
    own = {"max_iter": 200, "tuning_iter": tuning_iter}
    options = replace(OPTIONS, **own, n_iter_no_change=3, tol=1e6)
    (result,) = fit(options)
    assert result.converged
    n_searched = np.isfinite(result.history["temperature"]).sum()
    assert n_searched == 200 if tuning_iter == 0 else n_searched < 100


@pytest.mark.parametrize("true", [True, np.True_])
def test_on_epoch_can_end_a_phase(true):
    def stop(epoch, values):
        return true if epoch in (1, OPTIONS.max_iter) else False

    (result,) = fit(OPTIONS, on_epoch=stop)
    # Two epochs of the search, one of the tuning, whose numbers begin at max_iter.
    assert len(result.history["train_loss"]) == 2 + 1


def test_infinite_loss_is_an_error():
    X, Y = planted()
    Y[100] = math.inf
    with pytest.raises(NonFiniteLossError, match="non-finite in epoch 1"):
        fit(SHORT, batches=make_batches(data=(X, Y)))


def test_exploding_training_is_an_error():
    with pytest.raises(NonFiniteLossError, match="Lower learning_rate_init"):
        fit(replace(OPTIONS, learning_rate=1e30))


# Given columns, and the tuning


def test_given_columns_are_taken_as_they_are():
    options = replace(OPTIONS, tuning_iter=15)
    before = make_model().run_state(0)["selector"]
    (result,) = fit(options, columns=[np.array([6, 4, 1])])
    assert result.selection.columns.tolist() == [6, 4, 1]
    assert result.selection.n_unique == 3
    assert len(result.history["train_loss"]) == 15
    assert result.history["train_loss"][-1] < 0.2 * result.history["train_loss"][0]
    for name, t in result.state["selector"].items():
        assert torch.equal(t, before[name])


def test_without_a_tuning_a_search_takes_the_place_of_given_columns():
    options = replace(OPTIONS, tuning_iter=0)
    (result,) = fit(options, columns=[np.array([6, 4, 1])])
    assert len(result.history["train_loss"]) == OPTIONS.max_iter
    np.testing.assert_array_equal(
        result.selection.columns, fit(options)[0].selection.columns
    )


@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_the_columns_of_a_tuning_are_chosen_from_the_rows_once(jitter, monkeypatch):
    selected = []
    select = TrainingBatches.select
    monkeypatch.setattr(
        TrainingBatches,
        "select",
        lambda batches, columns: selected.append(columns) or select(batches, columns),
    )
    options = replace(OPTIONS, tuning_iter=15, jitter=jitter)
    fit(options, columns=[np.array([6, 4, 1])])
    assert len(selected) == 2  # for the tuning, and for the importances


def test_given_columns_of_several_runs():
    columns = [np.array([1, 4, 6]), np.array([0])]
    results = fit(SHORT, make_model([3, 1]), seeds=[1, 2], columns=columns)
    for result, own in zip(results, columns, strict=True):
        np.testing.assert_array_equal(result.selection.columns, own)
    assert results[0].loss < results[1].loss


def test_tuning_leaves_the_selector_alone():
    options = replace(SHORT, tuning_iter=0)
    search, both = fit(options)[0], fit(SHORT)[0]
    # The search is the same; with validation the tuning starts from its best model.
    for name, t in search.state["selector"].items():
        assert torch.equal(both.state["selector"][name], t)
    assert_different(search, both)
    np.testing.assert_array_equal(search.selection.columns, both.selection.columns)


def test_each_epoch_has_an_order_of_its_own(monkeypatch):
    asked, original = [], TrainingBatches._parts

    def parts(self, epoch):
        asked.append(epoch)
        return original(self, epoch)

    monkeypatch.setattr(TrainingBatches, "_parts", parts)
    fit(SHORT)
    assert asked == [0, 1, 2, 3, 4]


def test_tuning_ends_at_a_rate_near_zero():
    states = []
    model = make_model()

    def remember(epoch, values):
        state = model.run_state(0)["decoder"].values()
        states.append(torch.cat([t.flatten() for t in state]))

    fit(
        replace(OPTIONS, tuning_iter=20),
        model,
        columns=[np.array([1, 4, 6])],
        on_epoch=remember,
    )
    steps = [(b - a).norm() for a, b in pairwise(states)]
    assert steps[-1] < 0.2 * steps[0]


# Rows that share a column


def test_the_surest_row_keeps_a_shared_column():
    logits = torch.zeros(4, 6)
    logits[0, 2], logits[1, 2], logits[2, 5], logits[3, 2] = 3, 6, 1, 4
    columns, kept = _claims(logits)
    assert columns.tolist() == [2, 2, 5, 2]
    assert kept.tolist() == [False, True, True, False]


class SomeAdviser:
    """Completes by the planted columns, and has alternatives as they are given."""

    asks_decoder = False

    def __init__(self, *alternatives):
        self.found = alternatives
        self.asked = []

    def complete(self, columns, k):
        own = zip(range(len(k)), columns, k, strict=True)
        return [self._completed(*of_run) for of_run in own]

    def _completed(self, i, columns, k):
        if len(columns) < k:
            self.asked.append((i, columns.tolist(), k))
        rest = [j for j in sorted(PLANTED) if j not in columns]
        return np.array([*columns, *rest])[:k]

    def distinct(self, columns):
        return [np.full(len(own), True) for own in columns]

    def alternatives(self, columns):
        self.asked += [(i, own.tolist()) for i, own in enumerate(columns)]
        return [[np.array(own)] * len(columns) for own in self.found]


def test_shared_columns_are_completed_before_the_tuning():
    model = make_model([3, 3], logits=DirectLogits)
    with torch.no_grad():
        model.logits.log_alpha.zero_()
        model.logits.log_alpha[0, :, 1] = 50  # all rows of the first run on column 1
        model.logits.log_alpha[1, [0, 1, 2], [6, 4, 1]] = 50
    adviser = SomeAdviser()
    options = replace(SHORT, selector_learning_rate=1e-6)
    first, second = fit(options, model, seeds=[1, 2], adviser=adviser)
    assert adviser.asked[0] == (0, [1], 3)
    assert first.selection.columns.tolist() == [1, 4, 6]
    assert first.selection.n_unique == 1
    assert second.selection.columns.tolist() == [6, 4, 1]
    # The loss of the columns before does not count any more.
    assert first.loss == first.history["validation_loss"][3:].min()


def test_inputs_are_left_out_at_random_in_the_search():
    assert_different(fit(SHORT)[0], fit(replace(SHORT, dropout=(0.5,)))[0])


# Columns that are tried in place of those found


def wrong_start(k=1):
    """A model whose rows stay at columns 0, 2, 3, of which none is planted."""
    model = make_model([3] * k, logits=DirectLogits)
    with torch.no_grad():
        model.logits.log_alpha.zero_()
        model.logits.log_alpha[:, [0, 1, 2], [0, 2, 3]] = 50
    return model


STAY = replace(OPTIONS, max_iter=3, tuning_iter=10, selector_learning_rate=1e-6)


@pytest.mark.parametrize(
    "others", [[[1, 4, 6]], [[0, 2, 5], [1, 4, 6]], [[1, 4, 6], [0, 2, 5]]]
)
def test_better_columns_are_taken(others):
    adviser = SomeAdviser(*others)
    (result,) = fit(STAY, wrong_start(), adviser=adviser)
    assert adviser.asked == [(0, [0, 2, 3])]
    assert result.selection.columns.tolist() == [1, 4, 6]
    # One search, one tuning; how the columns were compared is not part of it.
    assert len(result.history["train_loss"]) == 1 + 10
    assert result.loss == result.history["validation_loss"][1:].min()


def test_worse_columns_are_not_taken():
    X, _ = planted()
    Y = torch.from_numpy(X[:, [0, 2]]).float()
    batches = make_batches(data=(X, Y))
    (result,) = fit(STAY, wrong_start(), batches, adviser=SomeAdviser([1, 4, 6]))
    assert result.selection.columns.tolist() == [0, 2, 3]


def test_without_held_out_rows_or_trials_nothing_is_tried():
    without_rows = fit(
        STAY, wrong_start(), make_batches(validation=0), adviser=SomeAdviser([1, 4, 6])
    )
    options = replace(STAY, n_trials=0)
    without_trials = fit(options, wrong_start(), adviser=SomeAdviser([1, 4, 6]))
    for (result,) in (without_rows, without_trials):
        assert result.selection.columns.tolist() == [0, 2, 3]


def test_columns_are_distinct_without_complete():
    model = make_model([3], logits=DirectLogits)
    with torch.no_grad():
        model.logits.log_alpha.copy_(torch.linspace(0, 50, P).expand(1, 3, P))
    (result,) = fit(replace(SHORT, selector_learning_rate=1e-6), model)
    assert set(result.selection.columns) == {5, 6, 7}
    assert result.selection.n_unique == 1


# Importances


def first_column_only(n_inputs, n_outputs):
    layer = nn.Linear(n_inputs, n_outputs)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[:, 0] = 1
    return layer


def test_importance_is_the_loss_that_a_column_saves():
    X, _ = planted()
    Y = torch.from_numpy(X[:, [4]]).float()
    decoder = CustomDecoder(first_column_only, [2], 1)
    model = ConcreteAutoencoder(make_model([2]).logits, decoder, [2])
    setup = Setup(model, make_batches(data=(X, Y)), squared_error, OPTIONS)
    (found,) = importances(setup, [np.array([4, 0])])
    # The decoder returns column 4: without it, the loss is that column's square.
    assert found[1] == 0
    assert found[0] == pytest.approx(np.mean(X[:50, 4] ** 2), rel=1e-5)


def test_importance_of_a_useless_column_is_small():
    options = replace(OPTIONS, tuning_iter=30)
    columns = [np.array([1, 0, 4, 6])]
    (result,) = fit(options, make_model([4]), columns=columns)
    useful = result.importances[[0, 2, 3]]
    assert useful.min() > 0.3
    assert abs(result.importances[1]) < 0.1 * useful.min()


# Decoders of the user


def seeded(module):
    """Torch's own initial values come from its global generator."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for t in module.parameters():
            t.uniform_(-0.5, 0.5, generator=generator)
    return module


def linear(n_inputs, n_outputs):
    return seeded(nn.Linear(n_inputs, n_outputs))


def with_gradients(n_inputs, n_outputs):
    """A module as one is left by an earlier training."""
    module = linear(n_inputs, n_outputs)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    return module


def batch_norm(n_inputs, n_outputs):
    return nn.Sequential(nn.BatchNorm1d(n_inputs), linear(n_inputs, n_outputs))


def custom_model(factory):
    return ConcreteAutoencoder(make_model().logits, CustomDecoder(factory, [3], 2), [3])


def test_gradients_that_a_decoder_brings_along_do_not_count():
    (clean,) = fit(SHORT, custom_model(linear))
    (other,) = fit(SHORT, custom_model(with_gradients))
    np.testing.assert_array_equal(
        clean.history["train_loss"], other.history["train_loss"]
    )


def test_gradients_go_when_they_are_used():
    model = make_model()
    fit(SHORT, model)
    assert all(p.grad is None for p in model.parameters())


def test_a_custom_decoder_learns():
    (result,) = fit(replace(OPTIONS, max_iter=60), custom_model(linear))
    assert set(result.selection.columns) == PLANTED


@pytest.mark.parametrize("validation", [0, 50])
def test_training_mode_is_for_steps_and_for_nothing_else(validation):
    # Also of a model that was trained before, which leaves it in evaluation mode.
    model = custom_model(batch_norm)
    modes = []
    model.decoder.runs[0].register_forward_hook(
        lambda module, *_: modes.append((module.training, torch.is_grad_enabled()))
    )
    for _ in range(2):
        fit(SHORT, model, make_batches(validation=validation))
    assert set(modes) == {(True, True), (False, False)}


def test_held_out_rows_do_not_enter_running_statistics():
    X, Y = planted()
    X[:50] += 1000
    model = custom_model(batch_norm)
    fit(SHORT, model, make_batches(data=(X, Y)))
    assert model.decoder.runs[0][0].running_mean.abs().max() < 1


# How long to tune


def noisy_batches(n=40, noise=3.0, seed=0, weights=None):
    rng = np.random.default_rng(seed)
    X, Y = planted(n, seed)
    Y = Y + noise * torch.from_numpy(rng.normal(size=Y.shape)).float()
    return make_batches(n, 0, n, weights=weights, data=(X, Y))


LONG = replace(OPTIONS, max_iter=2, tuning_iter=200, n_folds=5)


def length_of(batches, options=LONG, k=(3,)):
    model = make_model(k, hidden=(50,))
    columns = torch.tensor([[1, 4, 6][:i] + [0] * (max(k) - i) for i in k])
    return length_on(model, batches, options, columns)


def length_on(model, batches, options, columns):
    setup = Setup(model, batches, squared_error, options)
    folds = folds_of(setup)
    if folds is None:
        return None
    (length,) = tuning_lengths(setup, *folds, [columns.repeat(folds[1], 1)])
    return length


def test_noise_on_the_inputs_is_for_the_tuning_alone():
    options = replace(SHORT, jitter=0.5, jitter_learning_rate=0.02)
    without, jittered = fit(SHORT)[0], fit(options)[0]
    for name in ("train_loss", "validation_loss"):
        own, other = without.history[name], jittered.history[name]
        np.testing.assert_array_equal(own[:3], other[:3])
        assert (own[3:] != other[3:]).all()
    np.testing.assert_array_equal(*(r.selection.columns for r in (without, jittered)))


def test_noise_that_ruins_the_decoders_is_not_kept():
    k, seeds = [3, 2], [11, 12]
    without = fit(SHORT, make_model(k), seeds=seeds)
    reported = []

    def on_epoch(epoch, values):
        reported.append(values)

    options = replace(SHORT, jitter=5.0)
    both = fit(options, make_model(k), seeds=seeds, on_epoch=on_epoch)
    assert [len(values["train_loss"]) for values in reported] == [2] * 5
    for own, other in zip(both, without, strict=True):
        assert own.loss == pytest.approx(other.loss, rel=1e-6)
        for name in HISTORY:
            pair = own.history[name], other.history[name]
            np.testing.assert_allclose(*pair, rtol=1e-6)
        assert_decoder(own, other.state["decoder"])


def test_noise_is_tuned_for_shorter_than_what_can_be_learned():
    noisy, clear = length_of(noisy_batches()), length_of(noisy_batches(noise=0.0))
    assert 0 < noisy.n_epochs[0] < clear.n_epochs[0] <= 200
    assert clear.loss[0] < 1 < noisy.loss[0]


def test_the_length_is_the_best_epoch_of_the_folds():
    batches = noisy_batches()
    found = length_of(batches)
    folds, n_folds = batches.in_folds(5, 1)
    decoders = make_model(hidden=(50,)).decoders_alone(n_folds)
    columns = torch.tensor([[1, 4, 6]]).repeat(n_folds, 1)
    setup = Setup(decoders, folds, squared_error, LONG).of(columns)
    epochs = islice(tuning_epochs(setup), int(found.n_epochs[0]) + 20)
    losses = [validate(setup).mean() for _ in epochs]
    assert 1 + int(np.argmin(losses)) == found.n_epochs[0]
    assert found.loss[0] == pytest.approx(min(losses), rel=1e-6)


def test_the_length_of_a_run_is_the_same_in_company():
    weights = torch.ones(2, 40)
    weights[1, 30:] = 0
    both = length_of(noisy_batches(weights=weights), k=(3, 2))
    alone = length_of(noisy_batches(weights=weights[:1]), k=(3,))
    assert both.n_epochs[0] == alone.n_epochs[0]
    assert both.loss[0] == pytest.approx(alone.loss[0], rel=1e-4)


@pytest.mark.parametrize(
    "options", [replace(LONG, n_folds=0), replace(LONG, n_folds=1)]
)
def test_no_length_without_folds(options):
    assert length_of(noisy_batches(), options) is None


def test_a_fit_without_held_out_rows_is_tuned_for_that_long():
    model = make_model(hidden=(50,))
    result = fit(LONG, model, noisy_batches())[0]
    columns = torch.from_numpy(result.selection.columns).unsqueeze(0)
    untrained = make_model(hidden=(50,))
    expected = length_on(untrained, noisy_batches(), LONG, columns)
    n_epochs = int(expected.n_epochs[0])
    assert len(result.history["train_loss"]) == 2 + n_epochs < 202
    assert result.loss == pytest.approx(expected.loss[0], rel=1e-5)
    setup = Setup(untrained, noisy_batches(), squared_error, LONG)
    list(islice(tuning_epochs(setup.of(columns)), n_epochs))
    state = untrained.decoder.run_state(0)
    assert_decoder(result, state, rtol=1e-4, atol=1e-5)


def test_with_held_out_rows_these_tell():
    result = fit(replace(LONG, tuning_iter=20), batches=make_batches())[0]
    assert len(result.history["train_loss"]) == 22
    assert result.loss == np.min(result.history["validation_loss"][2:])


# The last tuning, on all rows


TUNED = replace(OPTIONS, tuning_iter=30)
COLUMNS = [np.array([1, 4, 2])]


def tuned(options=TUNED, batches=None, **keywords):
    """The result for given columns, and the number of the best epoch."""
    model = make_model(hidden=(50,))
    (result,) = fit(options, model, batches, columns=COLUMNS, **keywords)
    return result, 1 + int(np.argmin(result.history["validation_loss"]))


def every_row(n_epochs=None):
    return make_batches(validation=0)


def assert_tuned_on_all_rows(result, n_epochs, options, jitter=None):
    """The decoder is that of an untrained one after so many epochs."""
    model = make_model(hidden=(50,))
    setup = Setup(model, every_row(), squared_error, options)
    columns = torch.from_numpy(np.stack(COLUMNS))
    list(islice(tuning_epochs(setup.of(columns), jitter), n_epochs))
    expected = model.decoder.run_state(0)
    assert_decoder(result, expected)


@pytest.mark.parametrize(("rate", "n_best"), [(0.01, 30), (0.3, 12)])
def test_the_decoder_is_tuned_anew_on_all_rows(rate, n_best):
    options = replace(TUNED, learning_rate=rate)
    result, n_epochs = tuned(options, all_rows=every_row)
    assert abs(n_epochs - n_best) < 8  # so soon, at so high a rate
    assert_tuned_on_all_rows(result, n_epochs, options)


@pytest.mark.parametrize(("jitter", "preferred"), [(0.2, 0.2), (3.0, 0.0)])
def test_it_has_the_noise_that_the_held_out_rows_prefer(jitter, preferred):
    options = replace(TUNED, jitter=jitter, jitter_learning_rate=0.01)
    result, n_epochs = tuned(options, all_rows=every_row)
    assert_tuned_on_all_rows(result, n_epochs, options, np.array([preferred]))


def test_what_is_told_of_it_is_from_before():
    with_all, _ = tuned(all_rows=every_row)
    judged, _ = tuned()
    assert_different(with_all, judged)
    assert with_all.loss == judged.loss
    np.testing.assert_array_equal(with_all.importances, judged.importances)
    for name in HISTORY:
        np.testing.assert_array_equal(with_all.history[name], judged.history[name])


@pytest.fixture
def judgements(monkeypatch):
    """What the held-out rows have told, fit by fit."""
    found, own = [], _training._tune_on_all_rows

    def tune(setup, keeper, judged):
        found.append(judged)
        own(setup, keeper, judged)

    monkeypatch.setattr(_training, "_tune_on_all_rows", tune)
    return found


def test_epochs_of_the_search_do_not_count(judgements):
    (result,) = fit(TUNED, all_rows=every_row)
    losses = result.history["validation_loss"]
    assert len(losses) > 30  # of which 30 are of the tuning
    assert judgements[0].n_epochs == [1 + int(np.argmin(losses[-30:]))]


def test_it_goes_on_for_as_long_as_any_run_needs():
    told = []
    tuned(all_rows=lambda n_epochs: told.append(n_epochs) or every_row())
    _, n_epochs = tuned()
    assert told == [n_epochs]


def test_each_run_has_its_own_noise_and_length(judgements):
    options = replace(
        TUNED, jitter=0.2, jitter_learning_rate=0.1, tuning_iter=60, learning_rate=0.1
    )
    columns = [np.array([1, 4, 2]), np.array([1, 4, 6])]

    def results(runs):
        model = make_model([3] * len(runs), first=runs[0], hidden=(50,))
        own = [columns[i] for i in runs]
        found = fit(options, model, seeds=runs, columns=own, all_rows=every_row)
        for i, result in enumerate(found):  # the model is left so
            state = model.decoder.run_state(i)
            assert_decoder(result, state, rtol=0, atol=0)
        return found

    both = results([0, 1])
    together = judgements[0]
    assert len(set(together.n_epochs)) == len(set(together.jitter)) == 2
    for i, own in enumerate(both):
        (alone,) = results([i])
        assert judgements[-1].n_epochs == together.n_epochs[i : i + 1]
        assert_decoder(own, alone.state["decoder"], rtol=1e-3, atol=1e-4)


def never(n_epochs):
    raise AssertionError("nobody has asked for it")


def test_a_fit_that_is_stopped_is_not_tuned_anew():
    tuned(on_epoch=lambda epoch, values: True, all_rows=never)


def test_after_the_last_epoch_there_is_nothing_to_stop(judgements):
    tuned(on_epoch=lambda epoch, values: epoch == 59, all_rows=every_row)
    assert len(judgements) == 1


def test_without_held_out_rows_or_a_tuning_there_is_no_last_one():
    fit(TUNED, batches=every_row(), all_rows=never)
    fit(replace(OPTIONS, tuning_iter=0), all_rows=never)


def test_runs_of_rows_of_their_own_are_tuned_anew_as_alone():
    generator = np.random.default_rng(0)
    weights = torch.from_numpy(generator.uniform(0.5, 2, size=(2, 200))).float()
    weights[0, :20] = weights[1, 150:] = 0
    columns = [np.array([1, 4, 2]), np.array([6, 3, 0])]

    def results(runs):
        own = {"weights": weights[runs], "validation_weights": weights[runs]}
        batches = make_batches(**own)
        model = make_model([3] * len(runs), first=runs[0])
        return fit(
            TUNED,
            model,
            batches,
            seeds=runs,
            columns=[columns[i] for i in runs],
            all_rows=lambda n_epochs: make_batches(validation=0, weights=weights[runs]),
        )

    both = results([0, 1])
    lengths = {int(np.argmin(own.history["validation_loss"])) for own in both}
    assert len(lengths) == 2  # they end at different epochs
    for i, own in enumerate(both):
        (alone,) = results([i])
        assert_decoder(own, alone.state["decoder"], rtol=1e-3, atol=1e-4)
