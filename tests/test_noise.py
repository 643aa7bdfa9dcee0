"""Noise of the selector and of the decoder's inputs."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import scipy.stats
import torch

from ipcae_sklearn._noise import InputMasks, Jitter, Pool, selector_noise, shown_rows

CPU = torch.device("cpu")
P = 8


def noise_of(noise, k, gradient="relaxed"):
    options = SimpleNamespace(noise=noise, gradient=gradient, n_gradient_samples=4)
    return selector_noise(k, options, range(1, 1 + len(k)), 0, CPU)


# Of the selector


@pytest.mark.parametrize("noise", ["pool", "batch", "sample"])
def test_noise_is_gumbel(noise):
    source = noise_of(noise, [3, 2])
    draws = [source.draw(4, 500)[0] for _ in range(5)]
    leading = (4,) if noise == "sample" else ()
    assert draws[0].shape == (2, *leading, 3, 500)
    own = [d[0].flatten() for d in draws] + [d[1, ..., :2, :].flatten() for d in draws]
    values = torch.cat(own).double()
    assert scipy.stats.kstest(values, scipy.stats.gumbel_r.cdf).pvalue > 1e-3


@pytest.mark.parametrize("noise", ["pool", "batch", "sample"])
def test_runs_rows_and_steps_have_noise_of_their_own(noise):
    source = noise_of(noise, [2, 2])
    draws = torch.stack([source.draw(3, 50)[0] for _ in range(4)])
    rows = draws.reshape(-1, 50)
    assert len(rows.unique(dim=0)) == len(rows)


@pytest.mark.parametrize("noise", ["pool", "batch", "sample"])
def test_a_run_has_the_same_noise_in_company(noise, monkeypatch):
    monkeypatch.setattr(Pool, "STEPS", 3)
    alone, together = noise_of(noise, [3]), noise_of(noise, [3, 5])
    for _ in range(8):
        own, both = (source.draw(4, P)[0] for source in (alone, together))
        assert torch.equal(own[0], both[0][..., :3, :])


@pytest.mark.parametrize("k", [[4], [4, 3]])
def test_some_rows_have_the_noise_that_they_have_among_all(k):
    every, some = noise_of("pool", k), noise_of("pool", k)
    for rows in torch.tensor([[[2, 0], [1, 2]], [[3, 1], [0, 1]]])[:, : len(k)]:
        expected = every.draw(4, P)[0].gather(1, rows.unsqueeze(-1).expand(-1, -1, P))
        assert torch.equal(some.draw(4, P, rows)[0], expected)


def pool(n_rows):
    return Pool([n_rows], [1], 0, CPU, lambda size, generator: torch.randn(size))


def test_a_pool_is_drawn_anew(monkeypatch):
    monkeypatch.setattr(Pool, "SIZE", 64)
    monkeypatch.setattr(Pool, "STEPS", 3)
    source = pool(2)
    pools = []
    for _ in range(7):
        source.rows(2, P)
        pools.append(source.values)
    same = [torch.equal(a, b) for a, b in pairwise(pools)]
    assert same == [True, True, False, True, True, False]


@pytest.mark.parametrize(("k", "size"), [(1, 4), (3, 50), (16, 64)])
def test_a_pool_is_not_read_past_its_end(k, size, monkeypatch):
    monkeypatch.setattr(Pool, "SIZE", size)
    source = pool(k)
    for _ in range(200):
        values = source.rows(k, P)[0]
        (stride, _), start = values.stride(), values.storage_offset()
        assert stride >= 1
        assert start + (k - 1) * stride + P <= len(source.values)


def test_more_rows_than_a_pool_is_made_for_are_read_from_its_beginning(monkeypatch):
    monkeypatch.setattr(Pool, "SIZE", 64)
    source = pool(4)
    values = source.rows(50, P)[0]
    stride, start = source.places[0][0]
    for i in range(50):
        first = (start + i * stride) % 64
        assert torch.equal(values[i], source.values[first : first + P])


# Of the decoder's inputs


def test_jitter_is_normal_and_new_in_each_step():
    jitter = Jitter([0.5], 3, CPU)
    draws = torch.stack([jitter(100, 20) for _ in range(5)])
    assert draws.shape == (5, 1, 100, 20)
    assert len(draws.unique()) > 0.95 * draws.numel()
    scaled = draws.flatten().double() / 0.5
    assert scipy.stats.kstest(scaled, scipy.stats.norm.cdf).pvalue > 1e-3


def test_jitter_does_not_depend_on_the_width(monkeypatch):
    monkeypatch.setattr(Pool, "STEPS", 3)
    narrow, wide = Jitter([0.5], 3, CPU), Jitter([0.5], 3, CPU)
    for _ in range(8):
        assert torch.equal(narrow(10, 4), wide(10, 7)[..., :4])


def test_jitter_of_decoders_differs_by_size_alone():
    none, some, more = Jitter([0.0, 0.5, 1.0], 3, CPU)(10, 4)
    assert not none.any()
    assert torch.equal(2 * some, more)


def test_inputs_are_left_out_at_random():
    masks = InputMasks([2, 4], [0.0, 0.75], [3, 4], CPU)
    drawn = torch.stack([masks() for _ in range(2000)])[:, :, 0]  # (s, r, k)
    assert (drawn[:, 0] == torch.tensor([1.0, 1, 0, 0])).all()  # two spare inputs
    assert set(drawn[:, 1].flatten().tolist()) == {0.0, 4.0}
    torch.testing.assert_close(drawn[:, 1].mean(0), torch.ones(4), rtol=0, atol=0.2)
    alone = InputMasks([4], [0.75], [4], CPU)
    assert torch.equal(alone()[0], drawn[0, 1:])


def test_rows_of_inputs_that_are_not_left_out():
    factors = torch.tensor([[[0.0, 2, 0, 2]], [[0, 0, 3, 0]]])
    shown, rows = shown_rows(factors)
    assert rows.tolist() == [[1, 3], [2, 0]]
    assert shown.tolist() == [[[2, 2]], [[3, 0]]]
    every = torch.ones(2, 1, 4)
    assert shown_rows(every) == (every, None)
    shown, rows = shown_rows(torch.zeros(1, 1, 4))
    assert rows.shape == (1, 1) and not shown.any()
