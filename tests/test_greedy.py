"""Greedy columns against the slow, obvious implementation, and planted answers."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ipcae_sklearn import _greedy
from ipcae_sklearn._greedy import greedy_columns, reconstruction_residual

SHAPES = [(60, 12), (14, 30), (20, 20)]  # more rows, more columns, square


def slow_residual(
    X,
    columns,
    target=None,
    target_weight=0.5,
    sample_weight=None,
    column_weight=None,
    alpha=0.0,
):
    """By one least-squares problem, on rows as they are; a penalty is more rows."""
    w = np.ones(len(X)) if sample_weight is None else sample_weight
    c = np.ones(X.shape[1]) if column_weight is None else column_weight

    def centered(A):
        return (A - np.average(A, axis=0, weights=w)) * np.sqrt(w)[:, None]

    X = centered(X)
    T = X * np.sqrt(c)
    if target is not None:
        Y = centered(target.reshape(len(X), -1))
        scaled = [A / np.linalg.norm(A) for A in (Y, T)]
        T = np.hstack(
            [scaled[0] * target_weight**0.5, scaled[1] * (1 - target_weight) ** 0.5]
        )
    penalty = np.diag(np.sqrt(alpha) * np.linalg.norm(X[:, columns], axis=0))
    A = np.vstack([X[:, columns], penalty])
    T = np.vstack([T, np.zeros((len(penalty), T.shape[1]))])
    coef = np.linalg.lstsq(A, T, rcond=None)[0]
    return np.sum((T - A @ coef) ** 2) / np.sum(T**2)


def best_addition(X, columns, **options):
    """The column, not among these, that leaves the least."""
    others = [j for j in range(X.shape[1]) if j not in columns]
    return min(others, key=lambda j: slow_residual(X, [*columns, j], **options))


def slow_greedy(X, k, n_swap_passes=0, **options):
    columns = []
    for _ in range(k):
        columns.append(best_addition(X, columns, **options))
    for _ in range(n_swap_passes):
        for i in range(k):
            others = columns[:i] + columns[i + 1 :]
            columns[i] = best_addition(X, others, **options)
    return columns


def correlated(n, p, seed=0):
    """Columns of unequal size with a common part, around a mean far from 0."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 5)) @ rng.normal(size=(5, p))
    return (common + rng.normal(size=(n, p))) * rng.uniform(0.5, 2, p) + 10


def make_options(shape, target, weighted, seed=1):
    rng, (n, p) = np.random.default_rng(seed), shape
    options = {}
    if weighted:
        options["sample_weight"] = rng.integers(0, 4, n) * 0.7
        options["column_weight"] = rng.integers(0, 4, p) * 0.7
    if target == "vector":
        options |= {"target": rng.normal(size=n), "target_weight": 0.8}
    elif target == "one-hot":
        options |= {"target": np.eye(4)[rng.integers(0, 4, n)]}
    return options


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", [None, "vector", "one-hot"])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_slow_reference(shape, target, weighted):
    X, options = correlated(*shape), make_options(shape, target, weighted)
    for n_swap_passes in (0, 2):
        columns = greedy_columns(X, 6, n_swap_passes=n_swap_passes, **options)
        assert_array_equal(columns, slow_greedy(X, 6, n_swap_passes, **options))
        assert_allclose(
            reconstruction_residual(X, columns, **options),
            slow_residual(X, columns, **options),
            rtol=1e-10,
        )


@pytest.mark.parametrize("alpha", [0.1, 10.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_penalty_equals_slow_reference(shape, alpha):
    X, options = correlated(*shape), make_options(shape, "one-hot", True)
    options["alpha"] = alpha
    for n_swap_passes in (0, 2):
        columns = greedy_columns(X, 6, n_swap_passes=n_swap_passes, **options)
        assert_array_equal(columns, slow_greedy(X, 6, n_swap_passes, **options))


def test_a_large_penalty_ranks_columns_by_what_each_explains_alone():
    X, y = correlated(40, 30), np.random.default_rng(2).normal(size=40)
    alone = [abs(np.corrcoef(x, y)[0, 1]) for x in X.T]
    best = np.argsort(alone)[::-1][:8]
    options = {"target": y, "target_weight": 1.0}
    found = greedy_columns(X, 8, alpha=1e9, **options)
    assert_array_equal(found, best)
    found = greedy_columns(X, 8, alpha=1e9, start=[1, 2], n_swap_passes=2, **options)
    assert set(found) == set(best)


def test_target_alone():
    X, options = correlated(40, 10), make_options((40, 10), "one-hot", False)
    options["target_weight"] = 1.0
    assert_array_equal(greedy_columns(X, 5, **options), slow_greedy(X, 5, **options))


def test_target_weight_zero_is_no_target():
    X, y = correlated(40, 10), np.arange(40)
    columns = greedy_columns(X, 5, target=y, target_weight=0.0)
    assert_array_equal(columns, greedy_columns(X, 5))


@pytest.mark.parametrize("n", [7, 5000])
def test_triangle_keeps_scalar_products(n):
    # 5000 rows are several blocks.
    X, Y = correlated(n, 8), correlated(n, 2, seed=1)
    weight = np.random.default_rng(2).uniform(0.1, 1, n)
    own = np.random.default_rng(3).uniform(0.1, 1, 8)
    Z, T = _greedy._factor(X, Y, 0.3, weight, own)
    A = np.hstack([X, Y])
    A = (A - np.average(A, axis=0, weights=weight)) * np.sqrt(weight)[:, None]
    A[:, :8] /= np.abs(X).max()
    assert len(Z) == min(n, 10) and T.shape[1] <= len(T)
    assert_allclose(Z.T @ Z, A[:, :8].T @ A[:, :8], rtol=1e-9, atol=1e-12)
    blocks = [A[:, 8:], A[:, :8] * np.sqrt(own)]
    scaled = [
        share**0.5 * B / np.linalg.norm(B)
        for share, B in zip((0.3, 0.7), blocks, strict=True)
    ]
    product = A[:, :8].T @ np.hstack(scaled)
    assert_allclose((T.T @ Z).T @ (T.T @ Z), product @ product.T, rtol=1e-9, atol=1e-9)
    assert_allclose(np.sum(T**2), 1)


@pytest.mark.parametrize("seed", range(10))
def test_swaps_never_increase_the_residual(seed):
    X = correlated(25, 40, seed)
    residuals = [
        reconstruction_residual(X, greedy_columns(X, 8, n_swap_passes=passes))
        for passes in range(4)
    ]
    assert np.all(np.diff(residuals) <= 1e-12)


def test_swaps_improve_a_forward_choice_that_misleads():
    # The noisy sum is the best single column, and no use beside the two it adds up.
    rng = np.random.default_rng(0)
    a, b, noise = rng.normal(size=(3, 50))
    X, y = np.column_stack([a, b, a + b + 0.3 * noise]), a + b
    options = {"target": y, "target_weight": 1.0}
    assert greedy_columns(X, 2, **options)[0] == 2
    swapped = greedy_columns(X, 2, n_swap_passes=2, **options)
    assert sorted(swapped) == [0, 1]
    assert reconstruction_residual(X, swapped, **options) < 1e-25


def test_converged_swaps_cannot_be_improved():
    X = correlated(40, 15)
    columns = list(greedy_columns(X, 4, n_swap_passes=50))
    for i in range(4):
        assert best_addition(X, columns[:i] + columns[i + 1 :]) == columns[i]


@pytest.mark.parametrize("n", [200, 25])
def test_copies_to_begin_with_do_not_keep_others_from_being_swapped(n):
    X = correlated(n, 30)
    X = np.column_stack([X, X[:, 3], 2 * X[:, 4] - X[:, 3]])
    start = [3, 30, 4, 31, 0]  # of which three say something
    columns = greedy_columns(X, 5, start=start, n_swap_passes=50)
    assert len(set(columns)) == 5
    for i in range(5):
        others = [j for j in columns if j != columns[i]]
        assert best_addition(X, others) == columns[i]
    # As they are where nothing is swapped, and where there is nothing else.
    assert_array_equal(greedy_columns(X, 5, start=start), start)
    spanned = X[:, [3, 30, 4, 31]]
    columns = greedy_columns(spanned, 3, start=[1, 0, 2], n_swap_passes=2)
    assert_array_equal(columns, [1, 0, 2])


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_residual_state_does_not_drift(alpha):
    X = correlated(150, 120)
    factor = _greedy._factor(X, np.empty((150, 0)), 0, np.ones(150), np.ones(120))
    residual = _greedy._Residual(*factor, alpha, 60)
    columns, live = _greedy._forward(residual, 60)
    assert live.all()
    for _ in range(5):
        _greedy._swap_pass(residual, columns)
    Q = _greedy._basis(residual.X[:, columns])
    E = residual.X - Q @ (Q.T @ residual.X)
    assert_allclose(residual.E, E, atol=1e-13 * np.linalg.norm(residual.X))
    assert_allclose(residual.C, residual.T.T @ E, atol=1e-13)


@pytest.mark.parametrize("n", [9, 200])
@pytest.mark.parametrize("n_swap_passes", [0, 2])
def test_exactly_k_distinct_whatever_the_rank(n, n_swap_passes):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(n, 3))
    X = np.column_stack([np.full(n, 0.1), base, base, base.sum(1), np.ones((n, 2))])
    p = X.shape[1]
    for k in range(1, p + 1):
        columns = greedy_columns(X, k, n_swap_passes=n_swap_passes)
        assert columns.shape == (k,) and len(set(columns)) == k
        assert 0 <= columns.min() and columns.max() < p
        if k >= 3:
            assert reconstruction_residual(X, columns) < 1e-25
    # Full up with the constant columns last, the lowest index first.
    assert_array_equal(columns[-3:], [0, 8, 9])
    variance = X.var(0)[columns[3:]]
    assert np.all(np.diff(variance) <= 1e-12)


def test_small_live_columns_before_large_dead_ones():
    rng = np.random.default_rng(0)
    big, small = rng.normal(size=(2, 30, 2)) * [[[1e3]], [[1e-4]]]
    X = np.hstack([big, big[:, ::-1] * 2, small])
    # The gain of a column does not depend on its size: the first of parallel ones.
    columns = greedy_columns(X, 6)
    assert set(columns[:2]) == {0, 1} and set(columns[2:4]) == {4, 5}


def test_ill_conditioned_columns_stay_stable():
    X = np.vander(np.linspace(0, 1, 200), 30)
    for k in (5, 12, 30):
        columns = greedy_columns(X, k, n_swap_passes=2)
        assert len(set(columns)) == k
        assert (
            reconstruction_residual(X, columns)
            <= reconstruction_residual(X, greedy_columns(X, k)) + 1e-12
        )


def test_nothing_to_choose_by():
    assert_array_equal(greedy_columns(np.full((5, 4), 0.1), 3), [0, 1, 2])
    assert_array_equal(greedy_columns(np.arange(4.0)[None], 2), [0, 1])  # one row
    # A constant target alone explains nothing: variance decides.
    X = np.arange(10.0)[:, None] * [1, 3, 2]
    columns = greedy_columns(X, 2, target=np.ones(10), target_weight=1.0)
    assert_array_equal(columns, [1, 2])


def test_all_columns():
    X = correlated(30, 6)
    columns = greedy_columns(X, 6, n_swap_passes=2)
    assert sorted(columns) == list(range(6))
    assert reconstruction_residual(X, columns) < 1e-25


@pytest.mark.parametrize("scale", [-3.0, 1e-200, 1e200, 1e306])
def test_blind_to_scale_and_offset(scale):
    X = correlated(30, 12)
    options = {"target": X[:, :2] + 1, "n_swap_passes": 1}
    expected = greedy_columns(X, 6, **options)
    options["target"] = -7 * options["target"]
    assert_array_equal(greedy_columns(scale * X, 6, **options), expected)
    if abs(scale) < 10:
        assert_array_equal(greedy_columns(X + 1e4, 6, **options), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_blind_to_row_order_even_in_ties(shape):
    X = np.tile(correlated(*shape), 2)  # every column twice
    rows = np.random.default_rng(0).permutation(len(X))
    expected = greedy_columns(X, 8, n_swap_passes=1)
    assert_array_equal(greedy_columns(X[rows], 8, n_swap_passes=1), expected)
    assert expected.max() < shape[1]  # the first of equal columns


def test_permuted_columns_permute_the_choice():
    X = correlated(50, 15)
    order = np.random.default_rng(0).permutation(15)
    assert_array_equal(order[greedy_columns(X[:, order], 6)], greedy_columns(X, 6))


def test_rest_of_a_target_explained_exactly_follows_variance():
    X = correlated(100, 10)
    y = X[:, [3, 6]] @ [1.0, 2.0]
    rows = np.random.default_rng(0).permutation(100)
    columns = greedy_columns(X, 9, target=y, target_weight=1.0)
    again = greedy_columns(X[rows], 9, target=y[rows], target_weight=1.0)
    assert_array_equal(columns, again)


def test_weights_are_repetitions_and_zero_leaves_out():
    X, y = correlated(30, 10), np.arange(30.0)
    weight = np.arange(30) % 3
    X[weight == 0] = 1e6
    columns = greedy_columns(X, 5, target=y, sample_weight=weight, n_swap_passes=1)
    repeated = greedy_columns(
        np.repeat(X, weight, 0), 5, target=np.repeat(y, weight), n_swap_passes=1
    )
    assert_array_equal(columns, repeated)


def test_columns_of_no_weight_need_not_be_explained():
    # Of two pairs of near copies one has no weight; a column of it is as good as noise.
    rng = np.random.default_rng(0)
    a, b, noise = rng.normal(size=(3, 200, 2))
    X = np.column_stack([a[:, 0], a[:, 0], b[:, 0], b[:, 0]]) + 0.1 * np.hstack(
        [noise, noise]
    )
    weight = np.array([0, 0, 1, 1])
    assert greedy_columns(X, 1, column_weight=weight)[0] in {2, 3}
    assert reconstruction_residual(X, [2], column_weight=weight) < 0.1
    assert reconstruction_residual(X, [0], column_weight=weight) > 0.9


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, bool])
def test_types_agree_with_float64(dtype):
    X = (correlated(50, 12) * 5 - 30).clip(0, 200).astype(dtype)
    if dtype is bool:
        X = correlated(50, 12) > 10
    expected = greedy_columns(X.astype(np.float64), 6, n_swap_passes=1)
    assert_array_equal(greedy_columns(X, 6, n_swap_passes=1), expected)


def test_rounding_to_float32_changes_nothing():
    X = correlated(80, 20)
    expected = greedy_columns(X, 8, n_swap_passes=1)
    columns = greedy_columns(X.astype(np.float32), 8, n_swap_passes=1)
    assert_array_equal(columns, expected)


@pytest.mark.parametrize("n", [15, 300])
@pytest.mark.parametrize("seed", range(5))
def test_one_column_of_each_planted_block(n, seed):
    rng = np.random.default_rng(seed)
    block = rng.permutation(np.repeat(np.arange(5), 6))
    X = rng.normal(size=(n, 5))[:, block] + 0.05 * rng.normal(size=(n, 30))
    columns = greedy_columns(X, 5, n_swap_passes=1)
    assert sorted(block[columns]) == list(range(5))


def test_target_finds_its_columns():
    rng = np.random.default_rng(0)
    X = np.hstack([rng.normal(size=(200, 3)), 5 * rng.normal(size=(200, 20))])
    y = X[:, :3] @ [1.0, 2.0, 3.0] + 0.1 * rng.normal(size=200)
    assert sorted(greedy_columns(X, 3, target=y)) == [0, 1, 2]
    assert not set(greedy_columns(X, 3)) & {0, 1, 2}


def test_residual_of_few_and_of_repeated_columns():
    X = correlated(30, 8)
    assert reconstruction_residual(X, []) == 1.0
    assert reconstruction_residual(np.ones((4, 3)), [0]) == 0.0
    once, twice = (reconstruction_residual(X, c) for c in ([2, 5], [2, 5, 2]))
    assert_allclose(once, twice, rtol=1e-10)


def test_input_is_left_alone():
    X, y, weight = correlated(30, 8), np.arange(30.0), np.ones(30)
    for array in (X, y, weight):
        array.flags.writeable = False
    greedy_columns(X, 3, target=y, sample_weight=weight, n_swap_passes=1)
    greedy_columns(np.asfortranarray(X.T), 3)


NAN_AT_END = np.r_[np.ones(9), np.nan]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("k", {"k": 0}),
        ("k", {"k": 5}),
        ("k", {"k": 2.0}),
        ("k", {"k": True}),
        ("X", {"X": np.ones(10)}),
        ("X", {"X": np.ones((0, 4))}),
        ("X", {"X": np.full((10, 4), np.inf)}),
        ("X", {"X": np.ones((10, 4), dtype=complex)}),
        ("X", {"X": np.full((10, 4), "a")}),
        ("target", {"target": np.ones(9)}),
        ("target", {"target": np.ones((10, 2, 2))}),
        ("target", {"target": np.ones((10, 0))}),
        ("target", {"target": NAN_AT_END}),
        ("target_weight", {"target_weight": 1.5}),
        ("target_weight", {"target_weight": np.nan}),
        ("target_weight", {"target_weight": "auto"}),
        ("sample_weight", {"sample_weight": np.ones(9)}),
        ("sample_weight", {"sample_weight": np.ones((10, 1))}),
        ("sample_weight", {"sample_weight": NAN_AT_END}),
        ("sample_weight", {"sample_weight": -np.ones(10)}),
        ("sample_weight", {"sample_weight": np.zeros(10)}),
        ("column_weight", {"column_weight": np.ones(10)}),
        ("column_weight", {"column_weight": -np.ones(4)}),
        ("alpha", {"alpha": -1.0}),
        ("alpha", {"alpha": np.nan}),
        ("alpha", {"alpha": "auto"}),
        ("n_swap_passes", {"n_swap_passes": -1}),
        ("n_swap_passes", {"n_swap_passes": 1.5}),
    ],
)
def test_bad_input_names_the_parameter(name, change):
    arguments = {"X": correlated(10, 4), "k": 2} | change
    with pytest.raises((TypeError, ValueError), match=rf"^{name} "):
        greedy_columns(**arguments)


@pytest.mark.parametrize("columns", [[4], [-1], [[0]], [0.0], [True, False]])
def test_bad_columns(columns):
    with pytest.raises(ValueError, match=r"^columns "):
        reconstruction_residual(correlated(10, 4), columns)


@pytest.mark.skipif("IPCAE_DATA" not in os.environ, reason="IPCAE_DATA is not set")
def test_usps_figures():
    """Test error of the linear reconstruction, as measured independently."""
    path = Path(os.environ["IPCAE_DATA"]) / "usps.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with np.load(path) as data:
        X, Z = (data[key].astype(np.float64) for key in ("X_train", "X_test"))
    low, width = X.min(0), np.ptp(X, axis=0)
    X, Z = (X - low) / width, ((Z - low) / width).clip(0, 1)
    mean = X.mean(0)
    for n_swap_passes, expected in ((0, 0.02329), (2, 0.02255)):
        c = greedy_columns(X, 50, n_swap_passes=n_swap_passes)
        coef = np.linalg.lstsq((X - mean)[:, c], X - mean, rcond=None)[0]
        error = np.mean((Z - mean - (Z - mean)[:, c] @ coef) ** 2)
        assert_allclose(error, expected, atol=1e-5)


def test_the_column_that_is_not_finite_is_named():
    X = correlated(10, 4)
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="X must be finite, but column 2 is not"):
        greedy_columns(X, 2)


def test_a_frame_of_numbers_and_booleans_is_taken_as_numbers():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=50), "b": rng.integers(0, 9, 50)})
    frame["c"] = frame["b"] > 4
    assert frame.to_numpy().dtype == object
    expected = greedy_columns(frame.to_numpy(dtype=float), 2)
    assert_array_equal(greedy_columns(frame, 2), expected)
    frame["d"] = "x"
    with pytest.raises(ValueError, match="X must hold real numbers, but column 3"):
        greedy_columns(frame, 2)
