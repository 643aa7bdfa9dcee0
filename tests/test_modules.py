"""Modules with a run axis against torch's own modules and plain loops."""

import math

import pytest
import torch
from torch import nn

from ipcae_sklearn._modules import (
    MAPS,
    ConcreteAutoencoder,
    CustomDecoder,
    DirectLogits,
    IndirectLogits,
    MLPDecoder,
    make_decoder,
)


def generators(r, first=0):
    """Run i has the same generator alone (``first=i``) and in company."""
    return [torch.Generator().manual_seed(first + i) for i in range(r)]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def indirect(k=(3,), p=6, d=4, start=None, first=0, start_logit=5.0, **options):
    return IndirectLogits(
        k,
        p,
        generators(len(k), first),
        embedding_dim=d,
        start=start or [None] * len(k),
        start_logit=start_logit,
        **options,
    )


def direct(k=(3,), p=6, start=None, first=0):
    return DirectLogits(
        k,
        p,
        generators(len(k), first),
        start=start or [None] * len(k),
        start_logit=5.0,
    )


def autoencoder(k=(3,), p=6, first=0, hidden=(5,), **options):
    decoder = MLPDecoder(k, hidden, p, generators(len(k), first + 100))
    return ConcreteAutoencoder(indirect(k, p, first=first, **options), decoder, k)


@pytest.mark.parametrize("map_name", ["direct", *(m for m in MAPS if m != "full")])
def test_kept_rows_work_as_before(map_name):
    k, rows = (3, 4), [torch.tensor([0, 2]), torch.tensor([1])]
    p, d = (6, 6) if map_name == "direct" else sizes_of(map_name)
    logits = direct(k, p) if map_name == "direct" else indirect(k, p, d, map=map_name)
    decoder = MLPDecoder(k, (5,), 2, generators(2, 100))
    model = ConcreteAutoencoder(logits, decoder, k)
    before = model.logits().detach()
    z = normal(2, 7, 4)
    z[0, :, 1] = z[1, :, [0, 2, 3]] = 0  # the rows to be dropped say nothing
    expected = model(z)
    states = [model.decoder.run_state(i) for i in range(2)]
    model.keep_rows(rows)
    assert model.k == [2, 1]
    assert model.row_mask.tolist() == [[True, True], [True, False]]
    torch.testing.assert_close(model.logits()[0], before[0, [0, 2]])
    torch.testing.assert_close(model.logits()[1, 0], before[1, 1])
    kept = torch.stack([z[0][:, [0, 2]], z[1][:, [1, 0]]])
    torch.testing.assert_close(model(kept), expected)
    # The state of a decoder that had more inputs: the first of them.
    model.decoder.load_run_state(0, states[0])
    first = model.decoder.run_state(0)["layers.0.weight"]
    assert torch.equal(first, states[0]["layers.0.weight"][:, :2])


def sizes_of(map_name):
    """p and d: the elementwise maps need them equal."""
    return (6, 6) if map_name in ("diagonal", "scalar") else (6, 4)


# Logits


def loop_over_map(module, psi, i):
    """Logits (k, p) of run i, one number at a time."""
    W = module.weight[i]
    k, p = len(psi), 6
    logits = torch.zeros(k, p)
    for row in range(k):
        for column in range(p):
            logits[row, column] = {
                "shared": lambda r, c: W[c] @ psi[r],
                "per_row": lambda r, c: W[r, c] @ psi[r],
                "full": lambda r, c: sum(W[r, c, j] @ psi[j] for j in range(k)),
                "diagonal": lambda r, c: psi[r, c] * W[0, c],
                "scalar": lambda r, c: psi[r, c] * W[0, 0],
            }[module.map](row, column)
            if module.bias is not None:
                per_row = module.map in ("per_row", "full")
                logits[row, column] += module.bias[i, row if per_row else 0, column]
    return logits


@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("r", [1, 2])
def test_indirect_logits_equal_their_formula(map_name, bias, r):
    p, d = sizes_of(map_name)
    module = indirect([3] * r, p, d, map=map_name, bias=bias)
    logits = module()
    assert logits.shape == (r, 3, p)
    for i in range(r):
        expected = loop_over_map(module, module.embedding[i], i)
        torch.testing.assert_close(logits[i], expected)


@pytest.mark.parametrize("r", [1, 2])
def test_hidden_layers_of_the_map(r):
    module = indirect([3] * r, hidden_layer_sizes=(7, 5))
    logits = module()
    for i in range(r):
        z = module.embedding[i]
        for j in (0, 3):
            linear, norm = module.hidden[j], module.hidden[j + 1]
            z = z @ linear.weight[i].T + linear.bias[i]
            z = z - z.mean(-1, keepdim=True)
            z = z / (z.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            z = torch.relu(z * norm.weight[i] + norm.bias[i])
        expected = z @ module.weight[i].T + module.bias[i]
        torch.testing.assert_close(logits[i], expected)


def test_the_identity_map_is_the_direct_parameterization():
    module = indirect([3, 3], p=6, d=6)
    plain = direct([3, 3], p=6)
    with torch.no_grad():
        module.weight.copy_(torch.eye(6))
        module.bias.zero_()
        module.embedding.copy_(plain.log_alpha)
    torch.testing.assert_close(module(), plain())


@pytest.mark.parametrize(
    ("map_name", "fan_in"), [("shared", 64), ("per_row", 64), ("full", 3 * 64)]
)
def test_the_map_begins_like_a_linear_layer(map_name, fan_in):
    module = indirect(p=300, d=64, map=map_name)
    bound = 1 / math.sqrt(fan_in)
    for t in (module.weight, module.bias):
        assert t.abs().max() <= bound
        assert t.abs().max() > 0.95 * bound
    # Uniform on [-bound, bound]: standard deviation bound / sqrt(3).
    std = module.weight.std().item()
    assert std == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("map_name", ["diagonal", "scalar"])
def test_elementwise_maps_begin_standard_normal(map_name):
    module = indirect([2] * 400, p=30, d=30, map=map_name)
    for t in (module.weight, module.bias):
        n = t.numel()
        assert t.mean().abs() < 5 / math.sqrt(n)
        assert abs(t.std().item() - 1) < 5 / math.sqrt(2 * n)


def test_embedding_begins_standard_normal():
    psi = indirect([100], d=200).embedding
    assert psi.mean().abs() < 5 / math.sqrt(psi.numel())
    assert abs(psi.std().item() - 1) < 5 / math.sqrt(2 * psi.numel())


def test_embedding_can_begin_with_rows_of_the_identity():
    module = indirect([3, 2], d=4, embedding_init="identity")
    expected = torch.eye(4)[:3].repeat(2, 1, 1)
    expected[1, 2] = 0  # the spare row
    assert torch.equal(module.embedding, expected)


def test_direct_logits_begin_almost_flat():
    logits = direct([3, 5], p=200)()
    torch.testing.assert_close(logits[0, :3].sum(-1), torch.ones(3))
    assert (logits[0, :3] > 0).all() and logits.max() < 0.02


def test_direct_logits_begin_at_the_start_columns():
    logits = direct([3, 2], p=50, start=[[7, 0, 49], None])()
    assert logits[0].argmax(-1).tolist() == [7, 0, 49]
    top = logits[0, [0, 1, 2], [7, 0, 49]]
    others = logits[0].topk(2).values[:, 1]
    assert ((top - others).sub(5).abs() < 0.1).all()
    assert logits[1].max() < 0.1  # the run without start columns


@pytest.mark.parametrize("bias", [True, False])
def test_indirect_logits_begin_at_the_start_columns(bias):
    columns = [[7, 0, 49], [3, 3, 1]]
    module = indirect([3, 3], p=50, d=64, start=columns, bias=bias)
    assert module().argmax(-1).tolist() == columns
    without_bias = module() - (module.bias if bias else 0)
    top = without_bias.gather(-1, torch.tensor(columns).unsqueeze(-1))
    torch.testing.assert_close(top, torch.full((2, 3, 1), 5.0))


def test_start_columns_of_one_run_leave_the_other_alone():
    plain = indirect([3, 3], p=50, d=64)
    module = indirect([3, 3], p=50, d=64, start=[None, [7, 0, 49]])
    assert torch.equal(module()[0], plain()[0])
    assert not torch.equal(module()[1], plain()[1])


# Decoders


def sequential(decoder, i, k, hidden, m):
    """The usual modules with the weights of run i."""
    layers, size = [], k
    for width in hidden:
        layers += [nn.Linear(size, width), nn.LayerNorm(width), nn.LeakyReLU(0.2)]
        size = width
    reference = nn.Sequential(*layers, nn.Linear(size, m))
    with torch.no_grad():
        for ours, theirs in zip(decoder.layers, reference, strict=True):
            for name, parameter in theirs.named_parameters():
                own = getattr(ours, name)[i]
                own = (
                    own[:, : parameter.shape[1]]
                    if name == "weight" and (parameter.dim() == 2)
                    else own.squeeze(0)
                )
                parameter.copy_(own)
    return reference


@pytest.mark.parametrize("hidden", [(), (5,), (5, 3)])
@pytest.mark.parametrize("k", [(4,), (4, 4, 4), (4, 2, 3)])
def test_mlp_decoder_equals_a_sequential(hidden, k):
    decoder = MLPDecoder(k, hidden, 6, generators(len(k)))
    with torch.no_grad():  # LayerNorm begins with ones and zeros, which hide mistakes
        for j, t in enumerate(decoder.parameters()):
            if t.shape[-2] == 1:
                t.copy_(normal(*t.shape, seed=j))
    z = normal(len(k), 10, max(k), seed=50)
    output = decoder(z)
    assert output.shape == (len(k), 10, 6)
    for i, k_i in enumerate(k):
        # The weights of spare inputs are 0, whatever the inputs are.
        expected = sequential(decoder, i, k_i, hidden, 6)(z[i, :, :k_i])
        torch.testing.assert_close(output[i], expected, rtol=1e-5, atol=1e-6)


def test_mlp_decoder_begins_like_linear_layers():
    decoder = MLPDecoder([50], (400,), 300, generators(1))
    for layer, fan_in in ((decoder.layers[0], 50), (decoder.layers[3], 400)):
        for t in (layer.weight, layer.bias):
            assert 0.95 / math.sqrt(fan_in) < t.abs().max() <= 1 / math.sqrt(fan_in)


def test_runs_have_values_of_their_own():
    decoder = MLPDecoder([3, 3], (5,), 2, generators(2))
    for layer in (decoder.layers[0], decoder.layers[3]):
        assert not torch.equal(layer.weight[0], layer.weight[1])


# Pullbacks


def assert_pullback_is_right(value, pullback, expected, sources, cotangent):
    """A pullback, called once, against torch's own gradients."""
    torch.testing.assert_close(value, expected.detach())
    gradients = torch.autograd.grad(
        expected, sources, cotangent, materialize_grads=True
    )
    for ours, theirs in zip(pullback(cotangent.clone()), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def decoder_of(k, hidden):
    """One of 6 outputs; a user's, if ``hidden`` is "custom"."""
    if hidden == "custom":
        return CustomDecoder(nn.Linear, k, 6)
    return MLPDecoder(k, hidden, 6, generators(len(k)))


@pytest.mark.parametrize("k", [(3,), (3, 3), (4, 2)])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 7), "custom"])
def test_pullback_of_a_decoder_equals_automatic_gradients(k, hidden):
    decoder = decoder_of(k, hidden)
    model = ConcreteAutoencoder(indirect(k), decoder, k).double()
    z = normal(len(k), 8, max(k)).double().requires_grad_()
    parameters = list(decoder.parameters())
    expected = model(z)
    cotangent = normal(*expected.shape, seed=1).double()
    with torch.no_grad():
        value, pullback = model.with_pullback(z.detach())

    def together(grad):
        grad, own = pullback(grad)
        return [grad, *own]

    sources = [z, *parameters]
    assert_pullback_is_right(value, together, expected, sources, cotangent)


def test_pullback_of_a_decoder_without_its_input():
    decoder = MLPDecoder([3], (5,), 6, generators(1))
    z, cotangent = normal(1, 8, 3), normal(1, 8, 6)
    with torch.no_grad():
        grad, own = decoder.with_pullback(z)[1](cotangent.clone(), to_input=False)
        _, expected = decoder.with_pullback(z)[1](cotangent.clone())
    assert grad is None
    for ours, theirs in zip(own, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("k", [(3,), (4, 2)])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 7), "custom"])
def test_pullback_to_the_first_layer_alone(k, hidden):
    decoder = decoder_of(k, hidden)
    h = decoder.enter(normal(len(k), 8, max(k))).detach()
    cotangent = normal(len(k), 8, 6, seed=1)
    with torch.no_grad():
        both = [decoder.leave_with_pullback(h.clone())[1] for _ in range(2)]
        grad, own = both[0](cotangent.clone(), to_own=False)
        expected, _ = both[1](cotangent.clone())
    assert own == []
    assert torch.equal(grad, expected)


@pytest.mark.parametrize("k", [(3,), (4, 2)])
@pytest.mark.parametrize(
    "options",
    [
        *({"map": name} for name in MAPS),
        {"bias": False},
        {"hidden_layer_sizes": (5,)},
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [None, [[2, 0], [1, 0]]], ids=["all", "some"])
def test_pullback_of_logits_equals_automatic_gradients(k, options, rows):
    if options is None:
        logits = direct(k).double()
    else:
        p, d = sizes_of(options.get("map", "shared"))
        logits = indirect(k, p, d, **options).double()
    expected = logits()
    if rows is not None:
        rows = torch.tensor(rows)[: len(k)]
        expected = torch.stack(
            [own[index] for own, index in zip(expected, rows, strict=True)]
        )
    cotangent = normal(*expected.shape, seed=1).double()
    with torch.no_grad():
        value, pullback = logits.with_pullback(rows=rows)
    assert_pullback_is_right(
        value,
        lambda grad: pullback(grad)[1],
        expected,
        list(logits.parameters()),
        cotangent,
    )


@pytest.mark.parametrize("map_name", MAPS)
def test_a_run_is_the_same_alone_and_in_company(map_name):
    p, d = sizes_of(map_name)
    k = [3, 2, 5]

    def outcome(k, first):
        model = autoencoder(k, p, d=d, first=first, map=map_name)
        X = normal(8, p)
        selected = torch.einsum("bp,rkp->rbk", X, torch.softmax(model.logits(), -1))
        output = model(selected)
        loss = (output - X).square().mean((1, 2))
        loss.sum().backward()
        return model, output

    company, outputs = outcome(k, 0)
    for i, k_i in enumerate(k):
        alone, output = outcome([k_i], i)
        torch.testing.assert_close(outputs[i], output[0], rtol=1e-5, atol=1e-6)
        for (name, ours), theirs in zip(
            company.named_parameters(), alone.parameters(), strict=True
        ):
            own = tuple(slice(size) for size in theirs.shape[1:])
            assert torch.equal(ours[i][own], theirs[0]), name
            torch.testing.assert_close(
                ours.grad[i][own], theirs.grad[0], rtol=1e-4, atol=1e-7, msg=name
            )
            # What is padding stays so: neither value nor gradient.
            for t in (ours[i], ours.grad[i]):
                padding = t.detach().clone()
                padding[own] = 0
                assert not padding.any(), name


def test_run_state_round_trip():
    source, other = autoencoder([3, 2]), autoencoder([3, 2], first=10)
    state = source.run_state(1)
    untouched = other.run_state(0)
    other.load_run_state(1, state)
    for part in ("selector", "decoder"):
        for name, t in other.run_state(1)[part].items():
            assert torch.equal(t, state[part][name])
        for name, t in other.run_state(0)[part].items():
            assert torch.equal(t, untouched[part][name])


def test_run_state_is_a_copy():
    model = autoencoder()
    state = model.run_state(0)
    before = model.logits.embedding[0].detach().clone()
    with torch.no_grad():
        for t in model.parameters():
            t.add_(1)
    assert torch.equal(state["selector"]["embedding"], before)
    assert not any(t.requires_grad for t in state["decoder"].values())


def test_a_model_without_bias_has_a_run_state():
    model = autoencoder(bias=False)
    assert set(model.run_state(0)["selector"]) == {"embedding", "weight"}


# Decoders of the user


def batch_norm(n_inputs, n_outputs):
    return nn.Sequential(nn.BatchNorm1d(n_inputs), nn.Linear(n_inputs, n_outputs))


def too_wide(n_inputs, n_outputs):
    return nn.Linear(n_inputs, n_outputs + 1)


def test_custom_decoder_calls_one_module_for_each_run():
    decoder = CustomDecoder(nn.Linear, [4, 2], 3)
    z = normal(2, 5, 4)
    output = decoder(z)
    torch.testing.assert_close(output[0], decoder.runs[0](z[0]))
    torch.testing.assert_close(output[1], decoder.runs[1](z[1, :, :2]))


def test_custom_decoder_with_buffers_keeps_its_state():
    decoder = CustomDecoder(batch_norm, [4, 2], 3)
    z = normal(2, 20, 4)
    decoder(z)
    states = [decoder.run_state(i) for i in range(2)]
    assert states[0]["0.num_batches_tracked"] == 1
    decoder.eval()
    expected = decoder(z)
    other = CustomDecoder(batch_norm, [4, 2], 3).eval()
    assert not torch.equal(other(z), expected)
    for i, state in enumerate(states):
        other.load_run_state(i, state)
    assert torch.equal(other(z), expected)


def test_run_state_of_a_custom_decoder_is_a_copy():
    decoder = CustomDecoder(batch_norm, [4], 3)
    state = decoder.run_state(0)
    decoder(normal(1, 20, 4))
    assert state["0.num_batches_tracked"] == 0
    assert not state["0.running_mean"].any()


def test_a_custom_decoder_that_cannot_take_its_inputs_says_so():
    decoder = CustomDecoder(lambda n, m: nn.Linear(n + 1, m), [4], 3)
    with pytest.raises(ValueError, match=r"maps \(5, 4\) to \(5, 3\).*5x4 and 5x3"):
        decoder(torch.zeros(1, 5, 4))


def test_a_custom_decoder_may_need_more_memory_than_there_is():
    class Large(nn.Linear):
        def forward(self, z):
            raise torch.cuda.OutOfMemoryError

    with pytest.raises(torch.cuda.OutOfMemoryError):
        CustomDecoder(Large, [4], 3)(torch.zeros(1, 5, 4))


@pytest.mark.parametrize("r", [1, 2])
def test_custom_decoder_of_the_wrong_width_is_named(r):
    decoder = CustomDecoder(too_wide, [4] * r, 3)
    with pytest.raises(ValueError, match=r"decoder must map \(5, 4\) to \(5, 3\)"):
        decoder(normal(r, 5, 4))


def test_make_decoder_prefers_the_users():
    assert isinstance(make_decoder(nn.Linear, [3], (5,), 2, None), CustomDecoder)
    assert isinstance(make_decoder(None, [3], (5,), 2, generators(1)), MLPDecoder)


# The autoencoder


@pytest.mark.parametrize("k", [[4], [4, 4]])
def test_without_spare_rows_the_output_is_the_decoders(k):
    model = autoencoder(k)
    z = normal(len(k), 5, 4)
    assert model.row_mask.all()
    assert torch.equal(model(z), model.decoder(z))


def test_spare_inputs_do_not_count():
    model = autoencoder([4, 2])
    with torch.no_grad():  # no help from the zeros that the decoder is padded with
        model.decoder.layers[0].weight.normal_(
            generator=torch.Generator().manual_seed(3)
        )
    assert model.row_mask.tolist() == [[True] * 4, [True, True, False, False]]
    z = normal(2, 5, 4)
    changed = z.clone()
    changed[1, :, 2:] += 100
    assert torch.equal(model(z), model(changed))
    changed[1, :, 1] += 1
    assert not torch.equal(model(z), model(changed))


def test_row_mask_is_not_part_of_the_state():
    assert "row_mask" not in autoencoder([4, 2]).state_dict()
