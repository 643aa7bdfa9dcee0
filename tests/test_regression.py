"""Greedy columns from scalar products, against those of the public function."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from ipcae_sklearn import _regression
from ipcae_sklearn._greedy import greedy_columns, reconstruction_residual
from ipcae_sklearn._regression import (
    _Residual,
    gram_matrix,
    greedy_from_products,
    products_with,
)


def some_data(n=200, p=30, m=8, seed=0):
    """Columns that have much in common, and a target that has it, too."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5)) @ rng.normal(size=(5, p)) + rng.normal(size=(n, p))
    Y = X[:, ::7] @ rng.normal(size=(len(X[0, ::7]), m)) + rng.normal(size=(n, m))
    return X.astype(np.float32), Y


def products_of(X, Y=None, weights=None):
    """Of one run: its Gram matrix and its products, each with a first axis of 1."""
    share = np.ones(len(X)) if weights is None else weights
    share = torch.from_numpy(share / share.sum())[None, :, None]
    X = torch.from_numpy(X)[None]
    Y = X[..., :0].double() if Y is None else torch.from_numpy(Y)[None]
    return gram_matrix(X, share), products_with(X, Y, share)


def roughly_greedy(X, k, Y=None, weights=None, column_weight=None, start=(), **options):
    if column_weight is not None:
        options["column_weight"] = torch.from_numpy(column_weight)[None]
    products = products_of(X, Y, weights)
    return greedy_from_products(*products, [k], [start], **options)[0].tolist()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_start", [0, 3])
@pytest.mark.parametrize("n_swap_passes", [0, 3])
@pytest.mark.parametrize("with_target", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_they_are_the_greedy_columns(
    weighted, n_start, n_swap_passes, with_target, alpha
):
    X, Y = some_data()
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, 200).astype(float) if weighted else None
    column_weight = rng.uniform(size=30) if weighted else None
    start = np.arange(n_start)
    expected = greedy_columns(
        X,
        12,
        target=Y if with_target else None,
        sample_weight=weights,
        column_weight=column_weight,
        alpha=alpha,
        start=start,
        n_swap_passes=n_swap_passes,
    )
    found = roughly_greedy(
        X,
        12,
        Y if with_target else None,
        weights,
        column_weight,
        start,
        alpha=alpha,
        n_swap_passes=n_swap_passes,
    )
    assert found == expected.tolist()


def test_they_are_the_greedy_columns_of_images():
    X, y = load_digits(return_X_y=True)
    X, Y = X.astype(np.float32), np.eye(10)[y]
    expected = greedy_columns(X, 20, target=Y, n_swap_passes=3)
    assert roughly_greedy(X, 20, Y, n_swap_passes=3) == expected.tolist()


def test_steps_read_all_that_changes_from_their_inputs(like_recordings):
    X, Y = some_data()
    expected = greedy_columns(X, 12, target=Y, start=[7, 8], n_swap_passes=3)
    found = roughly_greedy(X, 12, Y, start=[7, 8], n_swap_passes=3)
    assert found == expected.tolist()
    assert len(like_recordings) == 2


def test_perturbations_go_on_with_what_is_recorded(like_recordings):
    X, Y = some_data()
    options = {"n_swap_passes": 2, "n_perturbations": 5, "seeds": [3]}
    recorded = roughly_greedy(X, 12, Y, **options)
    assert len(like_recordings) == 2
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_regression, "replayed", lambda step, *_, **__: step)
        assert roughly_greedy(X, 12, Y, **options) == recorded


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_units_do_not_matter(unit):
    X, Y = np.random.default_rng(0).normal(size=(2, 200, 12))
    Y = X[:, [3]] + 0.1 * Y[:, :1]
    X[:, 3] *= unit
    X = X.astype(np.float32)
    expected = greedy_columns(X, 3, target=Y, n_swap_passes=2)
    assert roughly_greedy(X, 3, Y, n_swap_passes=2) == expected.tolist()


@pytest.mark.parametrize("n_swap_passes", [0, 2])
def test_copies_and_constant_columns_come_last(n_swap_passes):
    a, b = np.random.default_rng(0).normal(size=(2, 50, 2))
    X = np.hstack([a, a, np.zeros((50, 2)), b]).astype(np.float32)
    found = roughly_greedy(X, 8, a + b, start=[0], n_swap_passes=n_swap_passes)
    assert sorted(found) == list(range(8))
    assert {*found[:4]} in ({0, 1, 6, 7}, {0, 3, 6, 7})
    assert {*found[-2:]} == {4, 5}
    nothing = np.zeros((5, 3), dtype=np.float32)
    found = roughly_greedy(nothing, 3, np.zeros((5, 1)), n_swap_passes=n_swap_passes)
    assert sorted(found) == [0, 1, 2]


def test_constant_columns_are_worth_nothing():
    # Rounding of their mean, and of a product with it, would be as much as a column.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, Y = some_data(n=int(rng.integers(60, 3000)), seed=seed)
        X[:, [4, 9]] = rng.normal(size=2)
        weights = rng.uniform(0.1, 10, len(X)) if seed % 2 else None
        residual = _Residual(*products_of(X, Y, weights), None, 0.0)
        assert (residual.square[0, [4, 9]] == 0).all()
        assert (residual.gains()[0, [4, 9]] < 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_a_constant_target_is_none(weighted):
    X, _ = some_data(p=10)
    weights = np.random.default_rng(0).uniform(size=len(X)) if weighted else None
    constant = np.full((len(X), 3), [0.1, 1.0, 0.0])
    found = roughly_greedy(X, 4, constant, weights, n_swap_passes=2)
    assert found == roughly_greedy(X, 4, None, weights, n_swap_passes=2)


@pytest.mark.parametrize("noise", [1e-5, 1e-4])
def test_swaps_of_columns_that_are_almost_explained(noise):
    """As in spectra, of which each wave length tells almost all of its neighbours."""
    rng = np.random.default_rng(0)
    amounts, places = rng.uniform(size=(400, 12)), rng.uniform(size=(12, 1))
    peaks = np.exp(-((np.linspace(0, 1, 100) - places) ** 2) / 0.02)
    X = amounts @ peaks + noise * rng.normal(size=(400, 100))
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    Y = amounts[:, [0]]

    def left(columns):
        return reconstruction_residual(X, columns, target=Y)

    swapped = left(roughly_greedy(X, 20, Y, n_swap_passes=3))
    assert swapped < 0.8 * left(roughly_greedy(X, 20, Y))
    assert swapped < 1.05 * left(greedy_columns(X, 20, target=Y, n_swap_passes=3))


def test_few_rows_may_span_all_columns():
    X, Y = some_data(n=20, p=40, m=2)
    found = roughly_greedy(X, 30, Y, n_swap_passes=2)
    assert len(set(found)) == 30
    assert found == roughly_greedy(X, 30, Y)  # no swap explains more than all


@pytest.mark.parametrize("with_target", [False, True])
def test_copies_to_begin_with_make_room(with_target):
    X, Y = some_data()
    X[:, 5], X[:, 6] = X[:, 3], -2 * X[:, 4]
    start = np.array([3, 5, 4, 6, 0])
    own = X, 5, Y if with_target else None
    found = roughly_greedy(*own, start=start, n_swap_passes=3)
    expected = greedy_columns(
        X, 5, target=own[2], start=start, n_swap_passes=3
    ).tolist()
    assert found == expected
    assert unexplained(X, found, Y) < unexplained(X, start, Y)
    assert roughly_greedy(*own, start=start) == start.tolist()
    # Nothing else is left that would tell anything.
    few = X[:, [3, 4, 5, 6]], 4, own[2]
    found = roughly_greedy(*few, start=np.array([2, 0, 3, 1]), n_swap_passes=3)
    assert found == [2, 0, 3, 1]


@pytest.mark.parametrize("n_perturbations", [0, 2])
def test_what_makes_room_in_a_run_is_the_same_in_company(n_perturbations):
    X = some_data(p=6)[0]
    X[:, 1], X[:, 3] = X[:, 0], 2 * X[:, 2]
    few = X[:, [0, 1, 2, 3, 0, 0]]
    # A copy to begin with; all columns; nothing that is no copy; one of each.
    data, k = [X, X, few, X], [3, 6, 4, 3]
    start = [np.array(own) for own in ([0, 1], [4, 1, 0], [1, 3, 0], [5, 4, 2])]
    products = [products_of(own) for own in data]
    gram, others = (torch.cat(own) for own in zip(*products, strict=True))
    options = {"n_swap_passes": 3, "n_perturbations": n_perturbations}
    together = greedy_from_products(gram, others, k, start, seeds=range(4), **options)
    for i in range(4):
        own = {"seeds": [i], **options}
        (alone,) = greedy_from_products(*products[i], [k[i]], [start[i]], **own)
        assert alone.tolist() == together[i].tolist()
    assert len({0, 1} & {*together[0]}) == 1
    assert together[2].tolist()[:3] == [1, 3, 0]  # nothing is left to swap for


@pytest.mark.parametrize("n_perturbations", [0, 4])
def test_runs_are_the_same_alone_and_in_company(n_perturbations):
    k, start = [12, 3, 7, 5], [[1, 2], [], [29, 28, 27], []]
    start = [np.array(own, dtype=int) for own in start]
    data = [some_data(seed=seed) for seed in range(3)]
    data[2][0][:, 28] = data[2][0][:, 29]  # a copy among those to begin with
    constant = np.zeros((200, 30), dtype=np.float32), data[0][1]
    products = [products_of(*own) for own in [*data, constant]]
    gram, others = (torch.cat(own) for own in zip(*products, strict=True))
    options = {"n_swap_passes": 2, "n_perturbations": n_perturbations}
    seeds = [5, 6, 7, 8]
    together = greedy_from_products(gram, others, k, start, seeds=seeds, **options)
    for i in range(4):
        own = [k[i]], [start[i]]
        options["seeds"] = [seeds[i]]
        (alone,) = greedy_from_products(*products[i], *own, **options)
        assert alone.tolist() == together[i].tolist()
        assert len(set(alone)) == k[i]


def unexplained(X, columns, Y):
    """By a regression, of Y and of X in equal parts."""
    own = X[:, columns].astype(float)
    own, X, Y = (A - A.mean(0) for A in (own, X, Y))
    T = np.hstack([Y / np.linalg.norm(Y), X / np.linalg.norm(X)])
    return np.sum((T - own @ np.linalg.lstsq(own, T, rcond=None)[0]) ** 2)


def test_swaps_explain_more():
    X, Y = some_data(p=60)
    start = [7, 8, 9, 10]
    swapped = roughly_greedy(X, 4, Y, start=start, n_swap_passes=3)
    assert unexplained(X, swapped, Y) < 0.9 * unexplained(X, start, Y)


def test_perturbations_find_the_best_columns_where_swaps_are_stuck():
    every = np.array(list(itertools.combinations(range(14), 4)))
    options, n_stuck = {"n_swap_passes": 10}, 0
    for seed in range(20):
        X = np.random.default_rng(seed).normal(size=(40, 14)).astype(np.float32)
        gram = np.cov(X.T)
        own, others = gram[every[:, :, None], every[:, None]], gram[every]
        explained = np.sum(others * np.linalg.solve(own, others), axis=(1, 2))
        best = every[explained.argmax()].tolist()
        n_stuck += sorted(roughly_greedy(X, 4, **options)) != best
        perturbed = {"n_perturbations": 20, "seeds": [seed]}
        assert sorted(roughly_greedy(X, 4, **options, **perturbed)) == best
    assert n_stuck > 0


@pytest.mark.parametrize("k", [1, 9, 10])
def test_perturbations_of_nearly_all_columns(k):
    X, _ = some_data(p=10)
    options = {"n_swap_passes": 2, "seeds": [0]}
    swapped = roughly_greedy(X, k, **options)
    found = roughly_greedy(X, k, n_perturbations=5, **options)
    assert len(set(found)) == k
    assert unexplained(X, found, X) <= unexplained(X, swapped, X) + 1e-9


def test_perturbations_of_columns_that_span_all():
    X, _ = some_data(p=4)
    X = np.hstack([X, X[:, :2] + X[:, 2:], X[:, :1], np.ones_like(X[:, :1])])
    for k in (3, 4, 5, 8):
        options = {"n_swap_passes": 2, "n_perturbations": 5, "seeds": [0]}
        found = roughly_greedy(X.astype(np.float32), k, **options)
        assert len(set(found)) == k
        assert unexplained(X, found, X) < 1e-6 or k < 4


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_what_is_left_is_followed_through_every_step(alpha):
    X, Y = some_data()
    residual = _Residual(*products_of(X, Y), None, alpha)
    every = torch.tensor([True])
    for j in (3, 17, 8):
        residual.add(torch.tensor([j]), every)
    # In place of column 8, by its direction apart from the others.
    own, in_use = torch.tensor([[3, 17, 8]]), torch.ones(1, 3, dtype=torch.bool)
    basis, parts = residual.basis(own, in_use)
    residual.replace(basis @ parts[..., 2:], torch.tensor([5]), every)
    followed = residual.left.clone(), residual.explained.clone()
    own = torch.tensor([[3, 17, 5]])
    residual.explain_by(residual.basis(own, torch.ones_like(own) > 0)[0])
    for value, expected in zip(
        followed, (residual.left, residual.explained), strict=True
    ):
        assert_allclose(value, expected, atol=1e-12)


def test_products_are_weighted_and_centred():
    X, Y = some_data(n=3000, p=4, m=2)  # more rows than are read at once
    weights = np.random.default_rng(0).uniform(size=3000)
    gram, products = products_of(X + 1, Y, weights)
    expected = np.cov(X.T, Y.T, aweights=weights, ddof=0)
    assert_allclose(gram[0], expected[:4, :4], rtol=1e-5)
    total = np.sqrt(np.trace(expected[4:, 4:]))
    assert_allclose(products[0], expected[4:, :4] / total, rtol=1e-4, atol=1e-6)
