"""Planted answers have to be in the data, and nowhere else."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from ipcae_sklearn.datasets import load_benchmark, make_blocks, make_linear, make_xor

MAKERS = [make_linear, make_xor, make_blocks]


def others(X, relevant):
    return np.delete(X, relevant, axis=1)


# All of them


@pytest.mark.parametrize("make", MAKERS)
def test_same_seed_same_data(make):
    for again, first in zip(make(random_state=3), make(random_state=3), strict=True):
        assert_array_equal(again, first)


@pytest.mark.parametrize("make", MAKERS)
def test_random_state_is_used_up(make):
    rng = np.random.RandomState(3)
    first, second = make(random_state=rng), make(random_state=rng)
    assert_array_equal(first[0], make(random_state=3)[0])
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("make", MAKERS)
def test_global_generator_is_untouched_by_a_seed(make):
    before = np.random.get_state()  # noqa: NPY002
    make(random_state=0)
    np.testing.assert_equal(np.random.get_state(), before)  # noqa: NPY002


@pytest.mark.parametrize("make", [make_linear, make_xor])
def test_shapes_and_types(make):
    X, y, relevant = make(30, 12, 5, random_state=0)
    assert X.shape == (30, 12) and X.dtype == np.float64
    assert y.shape == (30,)
    assert relevant.shape == (5,) and relevant.dtype.kind == "i"
    assert_array_equal(relevant, np.unique(relevant))
    assert relevant.min() >= 0 and relevant.max() < 12


@pytest.mark.parametrize("make", [make_linear, make_xor])
def test_any_column_can_be_relevant(make):
    drawn = [make(2, 10, 2, random_state=seed)[2] for seed in range(200)]
    counts = np.bincount(np.concatenate(drawn), minlength=10)  # 40 each, on average
    assert counts.min() > 20 and counts.max() < 60


@pytest.mark.parametrize("make", MAKERS)
def test_every_column_may_be_planted(make):
    X, *_, last = make(40, 6, 6, random_state=0)
    assert X.shape == (40, 6)
    assert_array_equal(np.sort(last), np.arange(6))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("n", [0, -1, 2.0, "2", True, None])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_wrong_sizes_are_named(make, n, position):
    planted = "n_blocks" if make is make_blocks else "n_informative"
    name = ("n_samples", "n_features", planted)[position]
    sizes = {"n_samples": 20, "n_features": 10, planted: 2} | {name: n}
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
        make(**sizes)


@pytest.mark.parametrize("make", MAKERS)
def test_more_planted_than_columns_is_an_error(make):
    planted = "n_blocks" if make is make_blocks else "n_informative"
    with pytest.raises(ValueError, match=f"^{planted} must be >= 1 and <= 10, got 11"):
        make(n_features=10, **{planted: 11})


@pytest.mark.parametrize("make", [make_linear, make_blocks])
@pytest.mark.parametrize("noise", [-0.1, np.nan, np.inf, "0.1", True, None])
def test_wrong_noise_is_named(make, noise):
    with pytest.raises((TypeError, ValueError), match=r"^noise must be"):
        make(noise=noise)


@pytest.mark.parametrize("make", MAKERS)
def test_numpy_integers_are_integers(make):
    small = make(np.int64(20), np.int32(8), np.uint8(2), random_state=0)
    assert_array_equal(small[0], make(20, 8, 2, random_state=0)[0])


# make_linear


def test_linear_without_noise_is_exactly_linear():
    X, y, relevant = make_linear(noise=0.0, random_state=0)
    planted, *_ = np.linalg.lstsq(X[:, relevant], y, rcond=None)
    assert_allclose(X[:, relevant] @ planted, y, atol=1e-12)
    assert_allclose(np.linalg.norm(planted), 1.0)
    assert np.abs(planted).max() <= 2 * np.abs(planted).min()
    assert {-1.0, 1.0} == set(np.sign(planted))


def test_linear_target_is_in_the_relevant_columns_only():
    X, y, relevant = make_linear(2000, random_state=0)
    train, test = slice(1000), slice(1000, None)

    def score(columns):
        model = LinearRegression().fit(columns[train], y[train])
        return model.score(columns[test], y[test])

    assert score(X[:, relevant]) > 0.98
    assert score(others(X, relevant)) < 0.05
    for j in relevant:
        assert score(X[:, relevant[relevant != j]]) < 0.97


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
def test_linear_noise_is_a_standard_deviation(noise):
    X, y, relevant = make_linear(20_000, 12, 3, noise=noise, random_state=0)
    left = y - LinearRegression().fit(X[:, relevant], y).predict(X[:, relevant])
    assert_allclose(left.std(), noise, rtol=0.02)
    assert_allclose(y.var() - left.var(), 1.0, atol=0.1)


def test_linear_noise_changes_nothing_else():
    quiet = make_linear(noise=0.0, random_state=0)
    noisy = make_linear(noise=1.0, random_state=0)
    assert_array_equal(quiet[0], noisy[0])
    assert_array_equal(quiet[2], noisy[2])


def test_linear_classes():
    X, y, relevant = make_linear(2000, task="classification", random_state=0)
    train, test = slice(1000), slice(1000, None)

    def score(columns):
        model = LogisticRegression().fit(columns[train], y[train])
        return model.score(columns[test], y[test])

    assert y.dtype == np.int64
    assert_array_equal(np.bincount(y), [1000, 1000])
    assert score(X[:, relevant]) > 0.94
    assert score(others(X, relevant)) < 0.6


def test_linear_classes_are_the_thresholded_target():
    X, y, relevant = make_linear(random_state=0)
    classes = make_linear(task="classification", random_state=0)
    assert_array_equal(classes[0], X)
    assert_array_equal(classes[1], y > np.median(y))
    assert_array_equal(classes[2], relevant)


@pytest.mark.parametrize("task", ["reconstruction", "auto", None])
def test_linear_wrong_task_is_named(task):
    with pytest.raises(ValueError, match=r"^task must be 'regression' or"):
        make_linear(task=task)


# make_xor


@pytest.mark.parametrize("n_informative", [1, 2, 3, 4])
def test_xor_is_the_parity_of_the_signs(n_informative):
    X, y, relevant = make_xor(n_informative=n_informative, random_state=0)
    assert_array_equal(y, np.logical_xor.reduce(X[:, relevant] > 0, axis=1))
    assert y.dtype == np.int64


def test_xor_takes_all_relevant_columns():
    X, y, relevant = make_xor(4000, 10, 2, random_state=0)
    train, test = slice(2000), slice(2000, None)

    def score(columns):
        # Not a depth of 2: greedy growth wastes its first splits on a parity.
        tree = DecisionTreeClassifier(min_samples_leaf=20, random_state=0)
        return tree.fit(columns[train], y[train]).score(columns[test], y[test])

    assert score(X[:, relevant]) > 0.95
    assert score(others(X, relevant)) < 0.55
    for j in relevant:
        assert score(X[:, [j]]) < 0.55


def test_xor_default_is_two_columns():
    assert len(make_xor(random_state=0)[2]) == 2


@pytest.mark.parametrize("flip_y", [0.0, 0.2, 1.0])
def test_xor_flip_y_redraws_that_share(flip_y):
    X, y, relevant = make_xor(20_000, 5, flip_y=flip_y, random_state=0)
    clean_X, clean_y, clean_relevant = make_xor(20_000, 5, random_state=0)
    assert_array_equal(X, clean_X)
    assert_array_equal(relevant, clean_relevant)
    assert_allclose(np.mean(y != clean_y), flip_y / 2, atol=0.01)


@pytest.mark.parametrize("flip_y", [-0.1, 1.1, np.nan, np.inf, "0", True])
def test_xor_wrong_flip_y_is_named(flip_y):
    with pytest.raises((TypeError, ValueError), match=r"^flip_y must be"):
        make_xor(flip_y=flip_y)


# make_blocks


def test_blocks_shapes_and_sizes():
    X, blocks = make_blocks(30, 23, 5, random_state=0)
    assert X.shape == (30, 23) and X.dtype == np.float64
    assert blocks.shape == (23,) and blocks.dtype.kind == "i"
    assert_array_equal(np.sort(np.bincount(blocks)), [4, 4, 5, 5, 5])


def test_blocks_are_mixed():
    firsts = [make_blocks(2, 20, 4, random_state=seed)[1][0] for seed in range(200)]
    counts = np.bincount(firsts, minlength=4)  # 50 each, on average
    assert counts.min() > 30 and counts.max() < 70
    blocks = make_blocks(random_state=0)[1]
    assert np.mean(blocks[1:] == blocks[:-1]) < 0.2


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_blocks_correlate_within_and_not_across(noise):
    X, blocks = make_blocks(20_000, 40, 8, noise=noise, random_state=0)
    correlation = np.corrcoef(X, rowvar=False)
    same = blocks[:, None] == blocks
    np.fill_diagonal(correlation, 1 / (1 + noise**2))
    assert_allclose(correlation[same], 1 / (1 + noise**2), atol=0.03)
    assert_allclose(correlation[~same], 0.0, atol=0.03)


def test_blocks_without_noise_are_copies():
    X, blocks = make_blocks(noise=0.0, random_state=0)
    representatives = np.unique(blocks, return_index=True)[1]
    assert_array_equal(X, X[:, representatives[blocks]])
    assert np.linalg.matrix_rank(X) == 10


def test_one_column_of_each_block_reconstructs_the_rest():
    X, blocks = make_blocks(noise=0.1, random_state=0)

    def unexplained(columns):
        model = LinearRegression().fit(X[:, columns], X)
        return np.mean((X - model.predict(X[:, columns])) ** 2) / X.var()

    good = np.unique(blocks, return_index=True)[1]
    # The same number of columns, of which two are of one block and one is missing.
    bad = np.append(good[1:], np.flatnonzero(blocks == 1)[1])
    assert unexplained(good) < 0.03
    assert unexplained(bad) > 0.08


# load_benchmark


def test_benchmark_arrays_come_back_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "X": rng.normal(size=(6, 3)).astype(np.float32),
        "y": np.array(list("aabbcc")),
        "groups": np.arange(6),
    }
    np.savez(tmp_path / "toy.npz", **arrays)
    for home in (tmp_path, str(tmp_path)):
        data = load_benchmark("toy", data_home=home)
        assert set(data) == set(arrays)
        for name, array in arrays.items():
            assert_array_equal(getattr(data, name), array)
            assert data[name].dtype == array.dtype


def test_benchmark_with_an_official_split(tmp_path):
    keys = ("X_train", "y_train", "X_test", "y_test", "groups_train")
    np.savez(tmp_path / "toy.npz", **dict.fromkeys(keys, np.zeros(2)))
    assert set(load_benchmark("toy", data_home=tmp_path)) == set(keys)


def test_benchmark_missing_file_says_where_data_come_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="'toy'") as error:
        load_benchmark("toy", data_home=tmp_path)
    assert str(tmp_path / "toy.npz") in str(error.value)
    assert "sklearn.datasets.fetch_openml" in str(error.value)


def test_benchmark_directory_is_required():
    with pytest.raises(TypeError, match="data_home"):
        load_benchmark("toy")


@pytest.mark.parametrize(
    "keys", [["X"], ["data", "target"], ["X_train", "y_train"], ["X_train", "y"]]
)
def test_benchmark_missing_arrays_are_an_error(tmp_path, keys):
    np.savez(tmp_path / "toy.npz", **dict.fromkeys(keys, np.zeros(2)))
    with pytest.raises(ValueError, match="must hold the arrays X and y, or X_train"):
        load_benchmark("toy", data_home=tmp_path)


def test_benchmark_never_unpickles(tmp_path):
    labels = np.array(["a", "b"], dtype=object)
    np.savez(tmp_path / "toy.npz", X=np.zeros((2, 1)), y=labels)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_benchmark("toy", data_home=tmp_path)
