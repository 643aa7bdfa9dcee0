"""Pure functions: against closed forms, slow references, and automatic gradients."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from ipcae_sklearn import _functional
from ipcae_sklearn._functional import (
    binary_cross_entropy,
    conditional_gumbel,
    cross_entropy,
    distinct_argmax,
    generalized_jsd,
    gumbel_,
    log_normalizer,
    relaxed_selection,
    sample_gumbel,
    squared_error,
    summary,
    temperature_at,
    workspace,
)


class _Differentiable(torch.autograd.Function):
    """A function with a pullback as one that automatic gradients go through."""

    @staticmethod
    def forward(ctx, function, argument):
        ctx.function, ctx.argument = function, argument.detach()
        return function(ctx.argument)[0].clone()  # no view of what is saved

    @staticmethod
    def backward(ctx, grad):
        _, pullback = ctx.function(ctx.argument)  # is for one call
        return None, pullback(grad)


def select(X, logits, gumbel, temperature, **options):
    """The selection, differentiable in the logits by its pullback."""

    def function(logits):
        return _functional.select(X, logits, gumbel, temperature, **options)

    return _Differentiable.apply(function, logits)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def uniform(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=generator(seed), dtype=dtype)


def problem(r=2, b=5, k=3, p=7):
    """X, logits that need a gradient, one Gumbel draw, and a cotangent, in float64."""
    X = normal(b, p, seed=1)
    logits = normal(r, k, p, seed=2).requires_grad_()
    gumbel = sample_gumbel((r, k, p), generator=generator(3), dtype=torch.float64)
    return X, logits, gumbel, normal(r, b, k, seed=4)


def gradient(output, logits, cotangent):
    return torch.autograd.grad((output * cotangent).sum(), logits)[0]


def reference_relaxed(X, logits, gumbel, temperature):
    M = torch.softmax((logits + gumbel) / temperature, -1)
    return torch.stack([X @ run.T for run in M])


# Gumbel noise


def test_gumbel_has_its_mean_and_distribution():
    draws = sample_gumbel(40_000, generator=generator()).double().numpy()
    # Standard deviation pi / sqrt(6) = 1.28: five standard errors are 0.032.
    assert abs(draws.mean() - np.euler_gamma) < 0.032
    assert scipy.stats.kstest(draws, scipy.stats.gumbel_r.cdf).pvalue > 1e-3


def test_gumbel_depends_on_the_generator_alone():
    first = sample_gumbel((3, 4), generator=generator(7))
    torch.manual_seed(123)
    again = sample_gumbel((3, 4), generator=generator(7))
    other = sample_gumbel((3, 4), generator=generator(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gumbel_is_finite_at_both_ends_of_the_uniform_values(dtype):
    largest = 1 - torch.finfo(dtype).eps / 2
    values = gumbel_(torch.tensor([0.0, largest], dtype=dtype))
    assert torch.isfinite(values).all()
    assert values[0] < -4 and values[1] > 16


def test_gumbel_of_is_minus_log_minus_log_in_place():
    u = uniform(50)
    expected = -torch.log(-torch.log(u))
    result = gumbel_(u)
    assert result is u
    torch.testing.assert_close(result, expected)


# Relaxed selection


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.01])
def test_relaxed_rows_are_probabilities(temperature):
    M = relaxed_selection(normal(2, 3, 50), normal(2, 3, 50, seed=1), temperature)
    torch.testing.assert_close(M.sum(-1), torch.ones(2, 3, dtype=M.dtype))
    assert (M > 0).all()


def test_relaxed_rows_tend_to_one_hot():
    logits, gumbel = normal(4, 20), normal(4, 20, seed=1)
    one_hot = F.one_hot((logits + gumbel).argmax(-1), 20).double()
    distance = [
        (relaxed_selection(logits, gumbel, tau) - one_hot).abs().max().item()
        for tau in (1.0, 0.1, 1e-3)
    ]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 1e-15


@pytest.mark.parametrize("spread", [1, 100, 1e4])
def test_relaxed_selection_has_no_subnormal_values(spread):
    # They make a processor several times slower; float32 is normal from 1.2e-38.
    logits = spread * normal(5, 1000, dtype=torch.float32)
    M = relaxed_selection(logits, torch.zeros_like(logits), 0.01)
    assert M.min() >= torch.finfo(torch.float32).tiny


def test_tails_that_are_lifted_do_not_change_a_float32_probability():
    logits = 3 * normal(5, 1000, dtype=torch.float32)
    M = relaxed_selection(logits, torch.zeros_like(logits), 0.05)
    exact = torch.softmax(logits.double() / 0.05, -1)
    torch.testing.assert_close(M.double(), exact, rtol=1e-4, atol=1e-12)


def test_relaxed_selection_leaves_its_arguments_alone():
    logits, gumbel = normal(3, 4), normal(3, 4, seed=1)
    copies = logits.clone(), gumbel.clone()
    relaxed_selection(logits, gumbel, 0.5)
    assert torch.equal(logits, copies[0]) and torch.equal(gumbel, copies[1])


# select: value and gradient


@pytest.mark.parametrize("temperature", [5.0, 0.5, 0.1])
def test_select_equals_softmax_and_matmul(temperature):
    X, logits, gumbel, cotangent = problem()
    output = select(X, logits, gumbel, temperature)
    expected = reference_relaxed(X, logits, gumbel, temperature)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        gradient(output, logits, cotangent),
        gradient(expected, logits, cotangent),
        rtol=1e-10,
        atol=1e-13,  # the floor of 1e-15, and rounding
    )


@pytest.mark.parametrize("r", [1, 3])
def test_select_passes_gradcheck(r, monkeypatch):
    # gradcheck wants a gradient of exactly 0 for a cotangent of 0.
    monkeypatch.setattr(_functional, "_GRADIENT_FLOOR", 0.0)
    X, logits, gumbel, _ = problem(r=r, b=4, k=2, p=5)
    assert torch.autograd.gradcheck(lambda z: select(X, z, gumbel, 0.7), logits)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", ["relaxed", "hard", "gumbel_rao", "per row"])
def test_select_of_each_runs_own_rows_is_that_of_each_run(request, kind, large):
    if large:
        request.getfixturevalue("small_parts")
    _, logits, gumbel, cotangent = problem()
    X = normal(*cotangent.shape[:2], logits.shape[-1], seed=5)  # (r, b, p)
    options = {"hard": True} if kind == "hard" else {}
    if kind == "gumbel_rao":
        options["uniform"] = uniform(4, *logits.shape, seed=6)
    if kind == "per row":
        size = gumbel.shape[0], X.shape[1], *gumbel.shape[1:]
        gumbel = sample_gumbel(size, generator=generator(7), dtype=torch.float64)
    output = select(X, logits, gumbel, 0.5, **options)
    grad = gradient(output, logits, cotangent)
    for i in range(len(X)):
        own = slice(i, i + 1)
        if kind == "gumbel_rao":
            options["uniform"] = uniform(4, *logits.shape, seed=6)[:, own]
        alone = select(X[i], logits[own], gumbel[own], 0.5, **options)
        torch.testing.assert_close(output[own], alone, rtol=1e-12, atol=1e-14)
        expected = gradient(alone, logits, cotangent[own])[own]
        torch.testing.assert_close(grad[own], expected, rtol=1e-10, atol=1e-13)


def test_select_gradient_does_not_vanish_in_the_tails():
    # Adam squares the gradient: what is far below a row's winner must stay a number
    # whose square is normal in float32.
    X = normal(5, 7, dtype=torch.float32)
    logits = (1e3 * torch.eye(7)[:3]).unsqueeze(0).requires_grad_()
    output = select(X, logits, torch.zeros(1, 3, 7), 1.0)
    tails = gradient(output, logits, torch.ones(1, 5, 3))[0][torch.eye(7)[:3] == 0]
    assert (tails.square() >= torch.finfo(torch.float32).tiny).all()
    assert tails.max() < 1e-14


def test_select_takes_a_temperature_tensor():
    X, logits, gumbel, cotangent = problem()
    results = [
        gradient(select(X, logits, gumbel, tau), logits, cotangent)
        for tau in (0.3, torch.tensor(0.3, dtype=torch.float64))
    ]
    torch.testing.assert_close(results[0], results[1])


def test_a_pullback_is_for_one_call():
    # Of large arrays the gradient has taken the place of the selection.
    X, logits, gumbel, cotangent = problem()
    _, pullback = _functional.select(X, logits.detach(), gumbel, 0.5)
    pullback(cotangent)
    with pytest.raises(AttributeError):
        pullback(cotangent)


@pytest.mark.parametrize("temperature", [1e-4, 1e-8, 1e-20])
def test_relaxed_selection_of_the_lowest_temperatures(temperature):
    logits = 20 * normal(5, 100, dtype=torch.float32)
    M = relaxed_selection(logits, torch.zeros_like(logits), temperature)
    one_hot = F.one_hot(logits.argmax(-1), 100).float()
    torch.testing.assert_close(M, one_hot, rtol=0, atol=1e-6)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("r", [1, 2])
def test_select_of_large_arrays_is_the_same_in_parts(small_parts, r, hard):
    X, logits, gumbel, cotangent = problem(r=r)
    assert _functional._is_large(logits)
    output = select(X, logits, gumbel, 0.5, hard=hard)
    expected = reference_relaxed(X, logits, gumbel, 0.5)
    if not hard:
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        gradient(output, logits, cotangent),
        gradient(expected, logits, cotangent),
        rtol=1e-10,
        atol=1e-13,
    )


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("takes_the_place", [False, True])
def test_select_of_large_arrays_in_a_workspace(small_parts, takes_the_place, hard):
    X, logits, gumbel, cotangent = problem()
    logits = logits.detach()
    expected, pullback = _functional.select(X, logits, gumbel, 0.5, hard=hard)
    gradient = pullback(cotangent)
    own = logits.clone()
    out = own if takes_the_place else torch.empty_like(logits)
    options = {"hard": hard, "out": out}
    selected, pullback = _functional.select(X, own, gumbel, 0.5, **options)
    assert torch.equal(selected, expected)
    assert torch.equal(pullback(cotangent), gradient)
    assert torch.equal(out, gradient)
    assert takes_the_place or torch.equal(own, logits)


def test_a_workspace_is_for_large_logits_on_a_processor(small_parts):
    assert workspace(2, 3, 7, torch.device("cpu")).shape == (2, 3, 7)
    assert workspace(2, 3, 3, torch.device("cpu")) is None
    assert workspace(2, 3, 7, torch.device("cuda")) is None


def test_select_of_noise_that_is_a_view_is_the_same_in_parts(small_parts):
    # The pool of noise gives rows that overlap.
    X, logits, _, _ = problem(r=1)
    pool = sample_gumbel(60, generator=generator(3), dtype=torch.float64)
    gumbel = pool.as_strided((3, 7), (5, 1), 4).unsqueeze(0)
    before = pool.clone()
    output = select(X, logits, gumbel, 0.5)
    torch.testing.assert_close(output, reference_relaxed(X, logits, gumbel, 0.5))
    assert torch.equal(pool, before)


def test_relaxed_selection_of_a_transposed_array_is_the_same_in_parts(small_parts):
    logits, gumbel = normal(3, 2, 7).transpose(0, 1), normal(2, 3, 7, seed=1)
    M = relaxed_selection(logits, gumbel, 0.5)
    torch.testing.assert_close(M, torch.softmax((logits + gumbel) / 0.5, -1))


def test_straight_through_takes_the_winning_column():
    X, logits, gumbel, cotangent = problem()
    output = select(X, logits, gumbel, 0.4, hard=True)
    for i, run in enumerate((logits + gumbel).argmax(-1)):
        assert torch.equal(output[i], X[:, run])
    relaxed = reference_relaxed(X, logits, gumbel, 0.4)
    torch.testing.assert_close(
        gradient(output, logits, cotangent), gradient(relaxed, logits, cotangent)
    )


@pytest.mark.parametrize("hard", [False, True])
def test_noise_per_row_equals_a_loop_over_rows(hard):
    X, logits, _, cotangent = problem(r=2, b=5, k=3, p=7)
    gumbel = sample_gumbel((2, 5, 3, 7), generator=generator(5), dtype=torch.float64)
    output = select(X, logits, gumbel, 0.6, hard=hard)
    rows = [select(X[[j]], logits, gumbel[:, j], 0.6, hard=hard) for j in range(len(X))]
    expected = torch.cat(rows, 1)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(
        gradient(output, logits, cotangent), gradient(expected, logits, cotangent)
    )


# Gumbel-Rao


def test_conditional_gumbel_keeps_the_winner():
    logits = normal(2, 3, 6)
    chosen = torch.randint(6, (2, 3), generator=generator(1))
    noise = conditional_gumbel(logits, chosen, uniform(200, 2, 3, 6, seed=2))
    assert noise.shape == (200, 2, 3, 6)
    assert ((logits + noise).argmax(-1) == chosen).all()


def test_conditional_gumbel_is_finite_where_the_uniform_values_are_extreme():
    logits = normal(1, 2, 4, dtype=torch.float32)
    extremes = torch.tensor([0.0, 1 - 2**-24]).repeat(2).expand(3, 1, 2, 4)
    noise = conditional_gumbel(logits, torch.tensor([[0, 3]]), extremes)
    assert torch.isfinite(noise).all()


@pytest.mark.parametrize("column", [0, 3])
def test_conditional_gumbel_is_gumbel_once_the_winner_is_drawn(column):
    n, logits = 20_000, torch.tensor([1.5, 0.0, -0.5, -1.0], dtype=torch.float64)
    many = logits.expand(n, 1, 4)
    first = sample_gumbel((n, 1, 4), generator=generator(1), dtype=torch.float64)
    chosen = (many + first).argmax(-1)
    noise = conditional_gumbel(many, chosen, uniform(1, n, 1, 4, seed=2))
    draws = noise[0, :, 0, column].numpy()
    assert scipy.stats.kstest(draws, scipy.stats.gumbel_r.cdf).pvalue > 1e-3


def test_gumbel_rao_backward_is_the_mean_of_softmax_jacobians():
    X, logits, gumbel, cotangent = problem(r=2, b=4, k=3, p=6)
    u, tau = uniform(5, 2, 3, 6, seed=9), 0.5
    output = select(X, logits, gumbel, tau, uniform=u)
    chosen = (logits + gumbel).argmax(-1)
    for i in range(2):
        assert torch.equal(output[i], X[:, chosen[i]])
    expected = torch.zeros_like(logits)
    # Given the noise, the perturbed logits are taken as constant plus the logits.
    noise = conditional_gumbel(logits.detach(), chosen, u)
    for s, i, j in itertools.product(range(5), range(2), range(3)):
        m = torch.softmax((logits.detach()[i, j] + noise[s, i, j]) / tau, -1)
        jacobian = (torch.diag(m) - torch.outer(m, m)) / tau
        expected[i, j] += jacobian @ (X.T @ cotangent[i, :, j]) / 5
    torch.testing.assert_close(gradient(output, logits, cotangent), expected)


def test_gumbel_rao_is_the_straight_through_gradient_with_less_variance():
    # Same mean over the noise (Rao-Blackwell); each mean within 5 standard errors.
    n, tau = 1500, 1.0
    X, logits, _, cotangent = problem(r=1, b=3, k=1, p=4)
    gumbel = sample_gumbel((n, 1, 1, 4), generator=generator(5), dtype=torch.float64)
    u = uniform(n, 8, 1, 1, 4, seed=6)
    estimates = {"relaxed": [], "rao": []}
    for g, v in zip(gumbel, u, strict=True):
        relaxed = select(X, logits, g, tau)
        estimates["relaxed"].append(gradient(relaxed, logits, cotangent))
        rao = select(X, logits, g, tau, uniform=v)
        estimates["rao"].append(gradient(rao, logits, cotangent))
    relaxed, rao = (torch.stack(values) for values in estimates.values())
    error = (relaxed.var(0) / n + rao.var(0) / n).sqrt()
    assert ((relaxed.mean(0) - rao.mean(0)).abs() < 5 * error).all()
    assert rao.var(0).sum() < relaxed.var(0).sum()


# Generalized Jensen-Shannon divergence


def naive_jsd(logits):
    pi = torch.softmax(logits, -1)  # (r, k, p)
    mean = pi.mean(1)
    mean_entropy = -(mean * mean.log()).sum(-1)
    return mean_entropy + (pi * pi.log()).sum(-1).mean(-1)


def test_gjsd_equals_the_formula_in_probability_space():
    logits = normal(3, 4, 9)
    torch.testing.assert_close(generalized_jsd(logits), naive_jsd(logits))


@pytest.mark.parametrize("scale", [0, 1, 100, 1e4])
def test_gjsd_of_equal_rows_is_zero_with_a_finite_gradient(scale):
    # The formula in probability space gives NaN for rows that are equal and peaked.
    row = scale * normal(1, 1, 9, dtype=torch.float32)
    logits = row.repeat(1, 4, 1).requires_grad_()
    value = generalized_jsd(logits)
    assert value.abs() < 1e-5
    assert torch.isfinite(torch.autograd.grad(value.sum(), logits)[0]).all()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_gjsd_of_disjoint_rows_is_log_k(k):
    logits = 1e3 * torch.eye(6)[:k].unsqueeze(0)
    torch.testing.assert_close(generalized_jsd(logits), torch.tensor([math.log(k)]))


def test_gjsd_of_large_arrays_is_the_same_in_parts(request):
    logits, mask = normal(2, 3, 11), torch.tensor([[True] * 3, [True] * 2 + [False]])
    logits.requires_grad_()
    expected, total = generalized_jsd(logits, mask), log_normalizer(logits)
    cotangent = normal(2, seed=1)
    request.getfixturevalue("small_parts")
    divergence = generalized_jsd(logits, mask)
    torch.testing.assert_close(divergence, expected)
    torch.testing.assert_close(
        gradient(divergence, logits, cotangent), gradient(expected, logits, cotangent)
    )
    torch.testing.assert_close(log_normalizer(logits), total)
    torch.testing.assert_close(total, logits.exp().sum(-1).log())


def test_gjsd_does_not_depend_on_the_order_of_rows_or_columns():
    logits = normal(2, 4, 6)
    shuffled = logits[:, [2, 0, 3, 1]][..., [5, 3, 1, 0, 2, 4]]
    torch.testing.assert_close(generalized_jsd(logits), generalized_jsd(shuffled))


def test_gjsd_ignores_spare_rows():
    logits = normal(2, 4, 6).requires_grad_()
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    value = generalized_jsd(logits, mask)
    torch.testing.assert_close(value[0], generalized_jsd(logits[[0]])[0])
    torch.testing.assert_close(value[1], generalized_jsd(logits[[1], :2])[0])
    spare = torch.autograd.grad(value.sum(), logits)[0][1, 2:]
    assert torch.equal(spare, torch.zeros_like(spare))


@pytest.mark.parametrize("n_values", [2**18, 16])
def test_a_summary_says_what_is_said_one_by_one(monkeypatch, n_values):
    monkeypatch.setattr(_functional, "_PART", n_values)
    logits, mask = normal(2, 4, 11), torch.tensor([[True] * 4, [True] * 3 + [False]])
    logits[0, 1, 3] = 60.0  # sure of its column
    preferred, probability, divergence = summary(logits, mask)
    torch.testing.assert_close(torch.from_numpy(preferred), logits.argmax(-1))
    expected = torch.softmax(logits, -1).amax(-1)
    torch.testing.assert_close(probability, expected)
    torch.testing.assert_close(divergence, generalized_jsd(logits, mask))


def test_gjsd_passes_gradcheck():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    logits = normal(2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: generalized_jsd(z, mask), logits)


# Temperature


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
@pytest.mark.parametrize(("start", "stop"), [(10.0, 0.01), (3.0, 0.7), (1.0, 1.0)])
@pytest.mark.parametrize("n_steps", [2, 3, 1000])
def test_temperature_is_exact_at_both_ends(schedule, start, stop, n_steps):
    assert temperature_at(0, n_steps, start, stop, schedule) == start
    assert temperature_at(n_steps - 1, n_steps, start, stop, schedule) == stop


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_temperature_falls_with_every_step(schedule):
    values = [temperature_at(i, 50, 10.0, 0.01, schedule) for i in range(50)]
    assert (np.diff(values) < 0).all()


def test_temperature_schedules_have_their_shape():
    geometric = [temperature_at(i, 9, 10.0, 0.01) for i in range(9)]
    np.testing.assert_allclose(geometric, np.geomspace(10, 0.01, 9))
    linear = [temperature_at(i, 9, 10.0, 0.01, "linear") for i in range(9)]
    np.testing.assert_allclose(linear, np.linspace(10, 0.01, 9))


def test_a_single_step_is_taken_at_the_stop_temperature():
    assert temperature_at(0, 1, 10.0, 0.01) == 0.01


# Distinct columns


def test_distinct_argmax_is_the_argmax_where_rows_differ():
    logits = normal(4, 30)
    logits[torch.arange(4), torch.tensor([7, 2, 29, 0])] = 10
    np.testing.assert_array_equal(distinct_argmax(logits), [7, 2, 29, 0])


@pytest.mark.parametrize(("k", "p"), [(1, 1), (2, 2), (2, 5), (3, 4), (4, 4), (3, 6)])
@pytest.mark.parametrize("seed", range(3))
def test_distinct_argmax_is_the_best_assignment(k, p, seed):
    # A strong common term makes all rows prefer the same columns.
    scores = normal(k, p, seed=seed) + 3 * normal(p, seed=seed + 100)
    log_probs = torch.log_softmax(scores, -1).numpy()
    best = max(
        itertools.permutations(range(p), k),
        key=lambda columns: log_probs[range(k), columns].sum(),
    )
    np.testing.assert_array_equal(distinct_argmax(torch.as_tensor(log_probs)), best)


@pytest.mark.parametrize(("k", "p"), [(20, 20), (20, 21), (30, 500)])
@pytest.mark.parametrize("seed", range(3))
def test_distinct_argmax_equals_the_full_assignment(k, p, seed):
    scores = normal(k, p, seed=seed) + 2 * normal(p, seed=seed + 100)
    log_probs = torch.log_softmax(scores, -1)
    columns = distinct_argmax(log_probs)
    assert len(set(columns.tolist())) == k
    # The assignment need not be unique: its value is compared.
    rows, best = linear_sum_assignment(log_probs.numpy(), maximize=True)
    value = log_probs.numpy()[rows, columns].sum()
    assert value == pytest.approx(log_probs.numpy()[rows, best].sum())


@pytest.mark.parametrize("scale", [0, 1, 1e4])
def test_distinct_argmax_of_equal_rows_is_distinct(scale):
    row = scale * normal(1, 8, dtype=torch.float32)
    columns = distinct_argmax(torch.log_softmax(row.repeat(5, 1), -1))
    assert columns.dtype == np.int64
    assert len(set(columns.tolist())) == 5
    if scale:  # the five best columns, in some order
        assert set(columns) == set(row[0].topk(5).indices.tolist())


# Losses


def test_squared_error_equals_torch():
    output, target = normal(3, 5, 4), normal(5, 4, seed=1)
    expected = F.mse_loss(output, target.expand(3, 5, 4), reduction="none").mean(-1)
    torch.testing.assert_close(squared_error(output, target), expected)


def test_cross_entropy_equals_torch():
    output = 50 * normal(3, 5, 4)
    target = torch.tensor([0, 3, 1, 1, 2])
    expected = torch.stack(
        [F.cross_entropy(run, target, reduction="none") for run in output]
    )
    torch.testing.assert_close(cross_entropy(output, target), expected)


def test_binary_cross_entropy_equals_torch():
    output, target = 50 * normal(3, 5, 4), (normal(5, 4, seed=1) > 0).double()
    expected = F.binary_cross_entropy_with_logits(
        output, target.expand(3, 5, 4), reduction="none"
    ).mean(-1)
    torch.testing.assert_close(binary_cross_entropy(output, target), expected)


@pytest.mark.parametrize(
    "loss",
    [squared_error, cross_entropy, binary_cross_entropy],
    ids=lambda loss: type(loss).__name__,
)
@pytest.mark.parametrize("r", [1, 3])
def test_gradient_of_a_loss_equals_the_automatic_one(loss, r):
    output = 5 * normal(r, 6, 4).requires_grad_()
    target = {
        squared_error: normal(6, 4, seed=1),
        cross_entropy: torch.arange(6) % 4,
        binary_cross_entropy: (normal(6, 4, seed=1) > 0).double(),
    }[loss]
    expected = loss(output, target)
    value, gradient = loss.with_gradient(output.detach(), target)
    torch.testing.assert_close(value, expected.detach())
    (automatic,) = torch.autograd.grad(expected.sum(), output)
    torch.testing.assert_close(gradient, automatic)
    # Targets of each run's own rows.
    own = torch.stack([target.roll(i, 0) for i in range(r)])
    value, gradient = loss.with_gradient(output.detach(), own)
    torch.testing.assert_close(loss(output, own).detach(), value)
    for i in range(r):
        alone = loss.with_gradient(output[[i]].detach(), own[i])
        torch.testing.assert_close(value[i], alone[0][0])
        torch.testing.assert_close(gradient[i], alone[1][0])
