"""From arrays to batches: statistics, splits, folds, errors that name a column."""

import copy
import re
import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ipcae_sklearn import _advice, _batches, _data, _targets
from ipcae_sklearn._advice import GreedyAdviser
from ipcae_sklearn._batches import TrainingBatches, split_rows
from ipcae_sklearn._data import (
    Rows,
    check_finite,
    column_statistics,
    is_memory_mapped,
    resolve_device,
)
from ipcae_sklearn._problem import Runs, l4_scale, plan_runs
from ipcae_sklearn._regression import gram_matrix
from ipcae_sklearn._targets import encode_labels, encode_values
from ipcae_sklearn.datasets import make_blocks, make_linear

CPU = torch.device("cpu")
FORMATS = {
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "csr": scipy.sparse.csr_matrix,
    "csc": scipy.sparse.csc_matrix,
    "csr_array": scipy.sparse.csr_array,
}


def sparse_like(n=40, p=6, seed=0):
    """Values of which two thirds are 0, a column without and one full of them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * (rng.uniform(size=(n, p)) < 1 / 3)
    X[:, 0] = rng.normal(size=n) + 3
    X[:, 1] = 0
    return X


def encode_nothing(X):
    return _targets.Target("squared_error", X.shape[1])


def weighted_statistics(X, weights):
    mean = np.average(X, axis=0, weights=weights)
    return mean, np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))


def peak_bytes(function):
    """The most that arrays made by a function take at a time."""
    tracemalloc.start()
    try:
        kept = function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        del kept


# Devices


def test_device_is_resolved():
    assert resolve_device("cpu") == CPU
    assert resolve_device(CPU) == CPU
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize("device", ["gpu", "cpu:x", 1.5, None, ["cpu"]])
def test_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="device must be 'auto' or a torch device"):
        resolve_device(device)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device='cuda:0'.*finds no CUDA device"):
        resolve_device("cuda:0")


# Finite values


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_bad_values_are_named_and_counted(form, value, kind):
    X = sparse_like()
    X[[3, 8], 2] = value
    with pytest.raises(ValueError, match=rf"{kind} in column 2 \(2 of 40 rows\)"):
        check_finite(FORMATS[form](X))


@pytest.mark.parametrize("form", ["dense", "csr"])
def test_bad_column_is_named_as_the_frame_does(form):
    X = sparse_like()
    X[5, 4] = np.nan
    names = np.array(list("abcdef"), dtype=object)
    with pytest.raises(ValueError, match=r"column 'e' \(1 of 40 rows\)"):
        check_finite(FORMATS[form](X), names)


def test_first_bad_column_is_named():
    X = sparse_like()
    X[0, 5], X[39, 3] = np.nan, np.inf
    with pytest.raises(ValueError, match="infinity in column 3"):
        check_finite(X)


def test_infinities_that_cancel_are_found():
    X = np.zeros((4, 2))
    X[0, 1], X[1, 1] = np.inf, -np.inf
    with pytest.raises(ValueError, match=r"infinity in column 1 \(2 of 4 rows\)"):
        check_finite(X)


@pytest.mark.parametrize("form", FORMATS)
def test_finite_values_pass(form):
    check_finite(FORMATS[form](sparse_like()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finite_values_pass_though_their_sum_overflows(dtype):
    check_finite(np.full((10, 3), np.finfo(dtype).max))


def test_bad_value_in_a_later_chunk_is_found(monkeypatch):
    monkeypatch.setattr(_data, "_CHUNK_BYTES", 8 * 6 * 7)  # 7 rows of 6 columns
    X = sparse_like()
    X[-1, -1] = np.nan
    with pytest.raises(ValueError, match="NaN in column 5"):
        check_finite(X)


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_sparse_values_are_checked_where_they_are(form):
    X = FORMATS[form](scipy.sparse.random(20_000, 100, 0.5, random_state=0))
    assert peak_bytes(lambda: check_finite(X)) < X.data.nbytes / 4


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_bad_column_of_wide_sparse_data_is_found(form):
    X = scipy.sparse.coo_array(
        ([1, np.nan, np.inf], ([0, 1, 2], [3, 400_000, 300_000])), (3, 500_000)
    )
    with pytest.raises(ValueError, match="infinity in column 300000"):
        check_finite(FORMATS[form](X))


def test_integers_are_finite():
    check_finite(np.arange(6).reshape(2, 3))


# Column statistics


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_equal_numpy(form, weighted):
    X = sparse_like()
    # Not of mean 1, and zeros, which leave rows out.
    weights = np.random.default_rng(1).integers(0, 4, len(X)) * 0.7
    statistics = column_statistics(FORMATS[form](X), weights if weighted else None)
    mean, std = weighted_statistics(X, weights if weighted else None)
    assert_allclose(statistics.mean, mean, rtol=1e-12, atol=1e-14)
    assert_allclose(statistics.std, std, rtol=1e-12, atol=1e-14)
    assert statistics.std[1] == 0
    deviation = X - statistics.mean
    fourth = np.average(deviation**4, axis=0, weights=weights if weighted else None)
    assert_allclose(statistics.l4[[0, 2, 3, 4, 5]], fourth[[0, 2, 3, 4, 5]] ** 0.25)
    assert statistics.l4[1] == 0


def test_a_weight_of_zero_leaves_a_row_out():
    X = sparse_like()
    weights = np.repeat([1.0, 0.0], 20)
    for form in FORMATS.values():
        statistics = column_statistics(form(X), weights)
        half = column_statistics(X[:20])
        assert_allclose(statistics.mean, half.mean)
        assert_allclose(statistics.std, half.std)
        assert_allclose(statistics.l4, half.l4)


def test_a_weight_near_zero_is_nearly_none():
    X = sparse_like()
    X[0] = 1e6
    weights = np.append(1e-40, np.ones(len(X) - 1))
    without = column_statistics(X[1:]).l4
    assert_allclose(column_statistics(X, weights).l4, without, atol=1e-3)


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_statistics_are_float64_for_every_dtype(form, dtype):
    X = (10 * sparse_like()).astype(dtype)
    statistics = column_statistics(FORMATS[form](X))
    assert statistics.mean.dtype == statistics.std.dtype == np.float64
    assert_allclose(statistics.mean, X.astype(float).mean(0), rtol=1e-12)
    assert_allclose(statistics.std, X.astype(float).std(0), rtol=1e-12)


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_statistics_of_very_small_and_very_large_values(form, dtype, scale):
    # The squares overflow or vanish in float32.
    X = (scale * sparse_like()).astype(dtype)
    statistics = column_statistics(FORMATS[form](X))
    exact = X.astype(np.float64) / scale
    assert_allclose(statistics.mean / scale, exact.mean(0), rtol=1e-10, atol=1e-12)
    assert_allclose(statistics.std / scale, exact.std(0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_statistics_of_values_whose_squares_leave_float64(scale):
    X = scale * sparse_like()
    assert_allclose(column_statistics(X).std / scale, sparse_like().std(0))


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("value", [0, 0.1, -1e6 / 3, 1e30 / 7, 1e-30 / 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_constant_columns_have_a_deviation_of_exactly_zero(form, value, weighted):
    X = np.full((1001, 2), value)
    weights = np.random.default_rng(0).uniform(size=1001) if weighted else None
    statistics = column_statistics(FORMATS[form](X), weights)
    assert_array_equal(statistics.std, 0)
    assert_allclose(statistics.mean, value, rtol=1e-12)


@pytest.mark.parametrize("form", ["dense", "csr"])
def test_a_far_mean_does_not_make_a_column_constant(form):
    X = np.random.default_rng(0).normal(size=(1000, 3)) + 1e6
    statistics = column_statistics(FORMATS[form](X))
    assert_allclose(statistics.std, X.std(0), rtol=1e-8)


def test_a_single_row_is_constant():
    assert_array_equal(column_statistics(np.array([[0.3, -7e8]])).std, 0)


def test_chunks_do_not_change_the_statistics(monkeypatch):
    X, weights = sparse_like(), np.arange(40.0)
    whole = column_statistics(X, weights)
    monkeypatch.setattr(_data, "_CHUNK_BYTES", 8 * 6 * 7)  # 7 rows of 6 columns
    chunked = column_statistics(X, weights)
    assert_allclose(chunked.mean, whole.mean, rtol=1e-12)
    assert_allclose(chunked.std, whole.std, rtol=1e-12)
    assert_allclose(chunked.l4, whole.l4, rtol=1e-12)


def test_sparse_column_is_constant_if_it_is_where_rows_are_seen():
    X = np.array([[0.1, 0], [0.1, 0], [0, 0.1], [0.1, 0]])
    weights = np.array([0.3, 0.3, 0, 0.1])
    statistics = column_statistics(scipy.sparse.csr_array(X), weights)
    assert_array_equal(statistics.std, 0)
    assert_allclose(statistics.mean, [0.1, 0])


def test_values_stored_in_parts_are_added_up():
    data, columns = np.array([1.0, 2, 3, 4]), np.array([1, 1, 0, 1])
    X = scipy.sparse.csr_array((data, columns, np.array([0, 2, 4])))
    statistics = column_statistics(X)
    assert_allclose(statistics.mean, [1.5, 3.5])
    assert_allclose(statistics.std, [1.5, 0.5])
    assert_allclose(statistics.l4, [1.5, 0.5])
    assert_array_equal(X.data, [1, 2, 3, 4])  # the user's own are as they were


@pytest.mark.parametrize("shape", [(50_000, 100), (500, 10_000)])
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_statistics_take_a_bounded_memory(form, shape):
    X = FORMATS[form](np.ones(shape, dtype=np.float32))  # in float64 40 MB
    assert peak_bytes(lambda: column_statistics(X)) < 8 * 2**20


@pytest.mark.parametrize("factor", [1, 1e-200, 1e200])
def test_l4_scale_makes_the_mean_variance_one(factor):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(100, 2)), np.arange(100) < 3, np.zeros(100)])
    X = factor * X * [1, 10, 1, 1] + factor
    scale = l4_scale(column_statistics(X))
    scaled = X[:, :3] / scale[:3]
    assert_allclose(scaled.var(axis=0).mean(), 1)
    deviations = scaled - scaled.mean(axis=0)
    assert np.ptp((deviations**4).mean(axis=0)) < 1e-9  # the same for all
    # Values that are seldom taken do not lie as far out as they would standardised.
    assert scaled[:, 2].std() < 0.6 * scaled[:, 0].std()
    assert np.isfinite(X / scale).all()  # constant columns, too


def test_l4_scale_of_columns_that_are_all_constant():
    assert_array_equal(l4_scale(column_statistics(np.ones((5, 2)))), 1)


# Rows


def make_rows(X, columns=None):
    """Rows of X, each column in use with a centre and a scale of its own."""
    columns = np.arange(X.shape[1]) if columns is None else columns
    return Rows(X, columns, columns - 2.0, columns + 0.5, CPU)


def memory_mapped(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


@pytest.mark.parametrize("columns", [None, np.array([0, 3, 4])])
@pytest.mark.parametrize("form", [*FORMATS, "memmap"])
def test_rows_are_centred_and_scaled(form, columns, tmp_path):
    X = sparse_like()
    array = memory_mapped(X, tmp_path) if form == "memmap" else FORMATS[form](X)
    rows = make_rows(array, columns)
    index = [5, 0, 5, 39]
    used = np.arange(6) if columns is None else columns
    expected = (X[np.ix_(index, used)] - (used - 2.0)) / (used + 0.5)
    taken = rows.take(torch.tensor(index))
    assert taken.dtype == torch.float32
    assert_allclose(taken.numpy(), expected, rtol=1e-6)
    some = torch.tensor([2, 0, 2])
    assert torch.equal(rows.take(torch.tensor(index), some), taken[:, some])


def test_only_dense_arrays_in_memory_are_kept_on_the_device(tmp_path):
    X = sparse_like()
    assert make_rows(X).resident is not None
    assert make_rows(scipy.sparse.csr_matrix(X)).resident is None
    assert make_rows(memory_mapped(X, tmp_path)).resident is None


def test_a_large_array_is_not_copied(monkeypatch):
    monkeypatch.setattr(_data, "_RESIDENT_BYTES", 4 * 40 * 6 - 1)
    X = sparse_like()
    assert make_rows(X).resident is None
    assert make_rows(X, np.arange(5)).resident is not None
    assert make_rows(np.asfortranarray(X)).resident is not None  # rows lie apart


def test_rows_that_do_not_fit_on_a_gpu_are_read_by_batch(monkeypatch):
    X, index, read = sparse_like(), torch.tensor([39, 2, 17]), Rows._read
    expected = make_rows(X).take(index)

    def in_little_memory(rows, own, columns=None):
        if len(own) == len(X):
            raise torch.cuda.OutOfMemoryError
        return read(rows, own, columns)

    monkeypatch.setattr(Rows, "_read", in_little_memory)
    with pytest.warns(RuntimeWarning, match="X does not fit .* read batch by batch"):
        rows = make_rows(X)
    assert rows.resident is None
    assert torch.equal(rows.take(index), expected)


@pytest.mark.parametrize("form", ["dense", "csr", "memmap"])
def test_rows_read_by_batch_equal_those_kept(form, tmp_path, monkeypatch):
    X = sparse_like()
    index = torch.tensor([39, 2, 17, 2, 0, 31, 30, 1])
    expected = make_rows(X).take(index)
    monkeypatch.setattr(_data, "_RESIDENT_BYTES", 0)
    monkeypatch.setattr(_data, "_CHUNK_BYTES", 8 * 6 * 3)  # 3 rows of 6 columns
    array = memory_mapped(X, tmp_path) if form == "memmap" else FORMATS[form](X)
    rows = make_rows(array)
    assert rows.resident is None
    assert torch.equal(rows.take(index), expected)
    columns = torch.tensor([5, 1, 1])
    assert torch.equal(rows.take(index, columns), expected[:, columns])


def test_a_batch_is_read_in_a_bounded_memory(monkeypatch):
    monkeypatch.setattr(_data, "_RESIDENT_BYTES", 0)
    X = np.ones((64, 50_000), dtype=np.float32)
    rows = make_rows(X)
    # The batch itself is torch's, which is not counted; a row takes 0.4 MB.
    assert peak_bytes(lambda: rows.take(torch.arange(64))) < 5 * 2**20
    columns = torch.arange(0, 50_000, 1000)
    assert peak_bytes(lambda: rows.take(torch.arange(64), columns)) < 2**18


def test_a_column_of_sparse_rows_is_read_in_a_bounded_memory():
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((20_000, 500), density=0.2, format="csr", rng=rng)
    rows = make_rows(X)  # of 24 MB
    index, column = torch.arange(20_000), torch.tensor([3])
    assert peak_bytes(lambda: rows.take(index, column)) < 5 * 2**20


def test_a_memory_map_is_read_forwards(tmp_path):
    read = []

    class Watched(np.memmap):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    X = memory_mapped(np.arange(12.0).reshape(6, 2), tmp_path)
    rows = make_rows(X.view(Watched))
    taken = rows.take(torch.tensor([4, 1, 5, 1]))
    assert_array_equal(read[0], [1, 1, 4, 5])
    assert_array_equal(taken[:, 0] / 4 - 1, [4, 1, 5, 1])


def test_a_memory_map_is_let_go_every_few_rows(tmp_path, monkeypatch):
    X = memory_mapped(np.arange(600.0).reshape(300, 2), tmp_path)
    rows, let_go = make_rows(X), []
    monkeypatch.setattr(_data, "_let_go", let_go.append)
    for columns in (None, torch.tensor([1])):
        let_go.clear()
        rows.take(torch.arange(300), columns)
        assert len(let_go) >= 300 / 32  # rows, of which each may have mapped 2 MB


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="needs Linux to count pages"
)
def test_pages_of_a_memory_map_are_let_go(tmp_path):
    X = memory_mapped(np.ones((2000, 1000)), tmp_path)

    def resident_kilobytes():
        maps = Path("/proc/self/smaps").read_text()
        return int(re.search(rf"{tmp_path}.*?Rss: *(\d+)", maps, re.DOTALL)[1])

    X.sum()
    assert resident_kilobytes() > 10_000  # of 16,000
    check_finite(X)
    assert resident_kilobytes() < 1000
    X.sum()
    make_rows(X).take(torch.arange(100))
    assert resident_kilobytes() < 1000


def test_changes_to_a_copy_on_write_map_stay(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((3, 2)))
    X = np.load(tmp_path / "X.npy", mmap_mode="c")
    X[1] = 7
    check_finite(X)
    column_statistics(X)
    make_rows(X).take(torch.arange(3))
    assert_array_equal(X[1], 7)


def test_rows_are_centred_in_float64():
    # In float32 the 16 values between 1e9 and 1e9 + 1 would all be the same.
    X = 1e9 + np.linspace(0, 1, 16).reshape(-1, 1)
    rows = Rows(X, np.arange(1), np.array([1e9]), np.ones(1), CPU)
    taken = rows.take(torch.arange(16)).numpy()
    assert_allclose(taken.ravel(), np.linspace(0, 1, 16), atol=1e-6)


def test_a_view_of_a_memory_map_is_one(tmp_path):
    X = memory_mapped(sparse_like(), tmp_path)
    assert is_memory_mapped(X)
    assert is_memory_mapped(np.asarray(X)[3:])
    assert not is_memory_mapped(np.array(X))
    assert not is_memory_mapped(scipy.sparse.csr_matrix(X))


# Batches


def make_batches(n=23, n_validation=5, batch_size=6, target=None, seed=0, **weights):
    X = np.arange(2.0 * n).reshape(n, 2)
    rows = Rows(X, np.arange(2), np.zeros(2), np.ones(2), CPU)
    index = torch.arange(n)
    defaults = {"weights": None, "validation_weights": None}
    return TrainingBatches(
        rows,
        target,
        index[n_validation:],
        index[:n_validation],
        batch_size=batch_size,
        seed=seed,
        **(defaults | weights),
    )


def row_numbers(batches):
    """Of each batch: the first column holds twice the number of the row."""
    return [(X[:, 0] / 2).long().tolist() for X, _, _ in batches]


@pytest.mark.parametrize("batch_size", [1, 4, 6, 17, 18, 100])
def test_an_epoch_has_each_training_row_once(batch_size):
    batches = make_batches(batch_size=batch_size)
    numbers = row_numbers(batches.train(0))
    assert sorted(chain(*numbers)) == list(range(5, 23))
    sizes = [len(batch) for batch in numbers]
    assert len(sizes) == batches.n_train_batches
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch_alone():
    batches = make_batches(seed=3)
    first, second = (row_numbers(batches.train(epoch)) for epoch in (0, 1))
    assert first != second
    torch.manual_seed(5)  # no epoch has to come before another
    assert row_numbers(make_batches(seed=3).train(1)) == second
    assert row_numbers(make_batches(seed=9).train(1)) != second


def test_global_generator_is_untouched():
    before = torch.get_rng_state()
    list(make_batches().train(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_carry_their_targets_and_weights():
    target = torch.arange(23) * 10
    weights = torch.stack([torch.arange(23.0), torch.arange(23.0) + 100])
    batches = make_batches(
        target=target, weights=weights, validation_weights=weights + 1000
    )
    for X, y, w in batches.train(0):
        number = X[:, 0] / 2
        assert torch.equal(y, (10 * number).long())
        assert torch.equal(w, torch.stack([number, number + 100]))
    (X, y, w), *rest = batches.validation()
    assert not rest
    number = X[:, 0] / 2
    assert number.tolist() == list(range(5))
    assert torch.equal(w[1], number + 1100)
    for part, sampled in zip((X, y, w), batches.sample(), strict=True):
        assert torch.equal(part, sampled)


def test_without_a_target_the_rows_are_their_own():
    for X, target, weights in make_batches().train(0):
        assert target is X
        assert weights is None


def batches_of(form, tmp_path, target, batch_size, **weights):
    """Rows in a form, and their batches: 30 to train on, 10 held out."""
    X = sparse_like()
    array = memory_mapped(X, tmp_path) if form == "memmap" else X
    array = scipy.sparse.csr_matrix(X) if form == "csr" else array
    defaults = {"weights": None, "validation_weights": None}
    return make_rows(array), TrainingBatches(
        make_rows(array),
        target,
        torch.arange(10, 40),
        torch.arange(10),
        batch_size=batch_size,
        seed=0,
        **(defaults | weights),
    )


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("form", ["resident", "csr", "memmap"])
def test_selected_columns_stand_in_for_the_rows(form, kept, tmp_path, monkeypatch):
    monkeypatch.setitem(_batches._SELECTED_BYTES, "cpu", 4 * 40 * 6 - (not kept))
    columns = torch.tensor([[4, 0, 2], [1, 4, 4]])
    for target in (torch.arange(40), None):
        _, batches = batches_of(form, tmp_path, target, 7)
        selected = batches.select(columns)
        for epoch in range(3):  # kept from the second on
            pairs = zip(selected.train(epoch), batches.train(epoch), strict=True)
            for (values, own, _), (rows, expected, _) in pairs:
                assert torch.equal(values, rows[:, columns].transpose(0, 1))
                assert torch.equal(own, expected)
        has_reason = target is not None or form == "resident"
        assert (selected.selected.kept is not None) == (kept and has_reason)
        for some, every in (
            (selected.validation(), batches.validation()),
            ([selected.sample()], [batches.sample()]),
            (selected.rows(np.array([3, 30])), batches.rows(np.array([3, 30]))),
        ):
            for (values, *_), (rows, *_) in zip(some, every, strict=True):
                assert torch.equal(values, rows[:, columns].transpose(0, 1))


def own_rows_case(form, target, tmp_path):
    """Batches of three runs that see 20, 20 and 19 of 30 rows, and hold out others."""
    weights = torch.arange(1.0, 41).repeat(3, 1)
    weights[0, 10:20] = weights[1, 20:30] = weights[2, 29:40] = 0
    weights /= weights[:, 10:].mean(1, keepdim=True)
    held_out = torch.zeros(3, 40)
    held_out[0, :4] = held_out[1, 4:7] = held_out[2, 7:10] = 2
    weights = {"weights": weights, "validation_weights": held_out}
    return batches_of(form, tmp_path, target, 11, **weights)


@pytest.mark.parametrize("n_groups", [1, 2, 3])
@pytest.mark.parametrize("selects", [False, True])
@pytest.mark.parametrize("target", [None, torch.arange(40), torch.randn(40, 2)])
@pytest.mark.parametrize("form", ["resident", "csr", "memmap"])
def test_groups_have_the_batches_of_the_epoch(
    form, target, selects, n_groups, tmp_path
):
    _, batches = own_rows_case(form, target, tmp_path)
    if selects:
        batches = batches.select(torch.tensor([[4, 0, 2], [1, 4, 4], [0, 1, 2]]))
    groups = list(batches.train_together(1, n_groups))
    assert len(groups) == n_groups
    sizes = [len(of_batches) for _, of_batches in groups]
    assert max(sizes) - min(sizes) <= 1
    every = batches.train(1)
    for X, of_batches in groups:
        expected = [next(every) for _ in of_batches]
        assert torch.equal(X, torch.cat([own for own, *_ in expected], -2))
        for found, (_, *own) in zip(of_batches, expected, strict=True):
            assert all(map(torch.equal, found, own))
    assert next(every, None) is None


@pytest.mark.parametrize("own_rows", [True, False])
def test_batches_of_an_epoch_may_be_read_at_once(own_rows, tmp_path, monkeypatch):
    target = torch.arange(40)
    if own_rows:
        _, batches = own_rows_case("resident", target, tmp_path)
    else:
        _, batches = batches_of("resident", tmp_path, target, 11)
    columns = torch.tensor([[4, 0, 2], [1, 4, 4], [0, 1, 2]])
    at_once = batches.select(columns)
    for epoch in range(2):
        every = list(at_once.train(epoch))
        with monkeypatch.context() as patched:
            patched.setitem(_batches._SELECTED_BYTES, "cpu", 0)
            one_by_one = list(batches.select(columns).train(epoch))
        for expected, found in zip(one_by_one, every, strict=True):
            for one, other in zip(expected, found, strict=True):
                assert one is other is None or torch.equal(one, other)
    assert own_rows == (found[2] is not None)


def rows_equal_to(targets, rows):
    """Numbers of the rows that are equal to these."""
    every = rows.take(torch.arange(40))
    return (targets.unsqueeze(-2) == every).all(-1).float().argmax(-1)


@pytest.mark.parametrize("form", ["resident", "csr", "memmap"])
@pytest.mark.parametrize("with_target", [True, False])
def test_of_selected_columns_a_run_gets_the_rows_that_count_for_it(
    form, with_target, tmp_path
):
    target = torch.arange(40) if with_target else None
    rows, batches = own_rows_case(form, target, tmp_path)
    columns = torch.tensor([[4, 0], [1, 4], [2, 2]])
    selected = batches.select(columns)
    for epoch in range(3):
        seen, n_own = [{}, {}, {}], [{}, {}, {}]
        sizes = []
        for values, targets, weights in selected.train(epoch):
            sizes.append(values.shape[1])
            if not with_target:
                targets = rows_equal_to(targets, rows)
            for i, numbers in enumerate(targets.expand(3, -1)):
                assert torch.equal(values[i], rows.take(numbers, columns[i]))
                pairs = zip(numbers.tolist(), weights[i].tolist(), strict=True)
                own = {number: w for number, w in pairs if w > 0}
                seen[i] |= own
                n_own[i] |= dict.fromkeys(own, len(own))
        # What is not in memory is read for all runs at once.
        assert sizes == ([7, 7, 7] if form == "resident" else [10, 10, 10])
        for i, found in enumerate(seen):
            original = batches.training.weights[i]
            assert sorted(found) == (10 + original.nonzero().flatten()).tolist()
            # In the mean over the run's own rows of a batch weights have a mean of 1.
            own_share = len(found) / 30 if form == "resident" else 1
            for number, weight in found.items():
                size = n_own[i][number] if form == "resident" else 10
                expected = original[number - 10].item() * own_share / size
                assert weight / sizes[0] == pytest.approx(expected, rel=1e-5)
    ((_, targets, weights),) = selected.validation()
    assert weights.shape == ((3, 4) if form == "resident" else (3, 10))
    assert (weights > 0).sum(1).tolist() == [4, 3, 3]
    if with_target:
        held_out = zip(targets.expand(3, -1), weights, strict=True)
        assert [set(t[w > 0].tolist()) for t, w in held_out] == [
            {0, 1, 2, 3},
            {4, 5, 6},
            {7, 8, 9},
        ]


def test_own_rows_are_the_same_alone_and_in_company(tmp_path):
    _, company = own_rows_case("resident", torch.arange(40), tmp_path)
    columns = torch.tensor([[4, 0], [1, 4], [2, 2]])
    for i in range(3):
        alone = copy.copy(company)
        alone.training = _batches._Part(
            company.training.index, company.training.weights[[i]]
        )
        pairs = zip(
            alone.select(columns[[i]]).train(0),
            company.select(columns).train(0),
            strict=True,
        )
        for (_, own, w), (_, every, weights) in pairs:
            assert own[w > 0].tolist() == every[i][weights[i] > 0].tolist()


def test_more_batches_than_rows_that_count_are_no_error(tmp_path):
    _, batches = own_rows_case("resident", torch.arange(40), tmp_path)
    batches.n_train_batches = 25
    selected = batches.select(torch.tensor([[4, 0], [1, 4], [2, 2]]))
    found = list(selected.train(0))
    assert len(found) == 25
    assert all(values.shape == (3, 1, 2) for values, *_ in found)
    n_rows = sum((weights > 0).sum(1) for *_, weights in found)
    assert n_rows.tolist() == [20, 20, 19]


def test_batches_repeated_are_for_all_runs_several_times(tmp_path):
    _, batches = own_rows_case("resident", torch.arange(40), tmp_path)
    columns = torch.tensor([[4, 0], [1, 4], [2, 2]])
    once = batches.select(columns)
    twice = batches.repeated(2).select(columns.repeat(2, 1))
    pairs = zip(
        [*once.train(1), *once.validation(), once.sample()],
        [*twice.train(1), *twice.validation(), twice.sample()],
        strict=True,
    )
    for ours, theirs in pairs:
        for own, both in zip(ours, theirs, strict=True):
            assert torch.equal(own, both[:3]) and torch.equal(own, both[3:])
    assert make_batches().repeated(2).training.weights is None


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mapped_array_that_is_not_to_be_seen_as_one(order, tmp_path):
    X = memory_mapped(np.asarray(sparse_like(), order=order), tmp_path)
    hidden = _data.as_in_memory(X)
    assert is_memory_mapped(X) and not is_memory_mapped(hidden)
    assert_array_equal(hidden, X)
    assert hidden.strides == X.strides and np.shares_memory(hidden, X)
    assert _data.as_in_memory(hidden) is hidden


def test_rows_of_a_file_that_several_runs_ask_for_are_read_once(tmp_path, monkeypatch):
    read, original = [], Rows._read
    monkeypatch.setattr(
        Rows, "_read", lambda self, *args: read.append(args[0]) or original(self, *args)
    )
    target = torch.arange(40)
    rows, batches = own_rows_case("memmap", target, tmp_path)
    columns = torch.tensor([[4, 0], [1, 4], [2, 2]])
    index = np.array([[3, 9, 5], [5, 3, 3], [9, 30, 3]])
    ((values, numbers, _),) = batches.select(columns).rows(index)
    assert [len(own) for own in read] == [4]
    assert_array_equal(numbers, index)
    for i in range(3):
        expected = rows.take(torch.from_numpy(index[i]), columns[i])
        assert torch.equal(values[i], expected)


def test_rows_to_reconstruct_are_read_once(monkeypatch):
    monkeypatch.setattr(_data, "_RESIDENT_BYTES", 0)
    read, original = [], Rows._read
    monkeypatch.setattr(
        Rows, "_read", lambda self, *args: read.append(args) or original(self, *args)
    )
    list(make_batches().select(torch.tensor([[0]])).train(0))
    assert len(read) == make_batches().n_train_batches


def test_a_batch_of_few_columns_has_room_for_more_rows(monkeypatch):
    monkeypatch.setattr(_batches, "_EVALUATION_BYTES", 4 * 2)
    columns = torch.tensor([[1]])
    for target, n_rows in ((torch.arange(23), 2), (None, 1)):
        batches = make_batches(target=target, batch_size=1).select(columns)
        assert next(len(y) for _, y, _ in batches.validation()) == n_rows


def test_validation_has_each_held_out_row_once(monkeypatch):
    monkeypatch.setattr(_batches, "_EVALUATION_ROWS", 2)
    batches = make_batches()
    assert batches.has_validation
    assert [*chain(*row_numbers(batches.validation()))] == list(range(5))
    assert row_numbers([batches.sample()]) == [[0, 4]]  # evenly spread


def test_evaluation_takes_as_many_rows_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(_batches, "_EVALUATION_BYTES", 3 * 2 * 4)  # 3 rows of 2 columns
    batches = make_batches(n_validation=8, batch_size=1)
    assert [len(rows) for rows in row_numbers(batches.validation())] == [3, 3, 2]
    assert row_numbers([batches.sample()]) == [[0, 3, 7]]
    # There is room for a training batch in any case.
    batches = make_batches(n_validation=8, batch_size=5)
    assert [len(rows) for rows in row_numbers(batches.validation())] == [5, 3]
    monkeypatch.setattr(_batches, "_EVALUATION_BYTES", 1)
    batches = make_batches(n_validation=2, batch_size=1)
    assert row_numbers(batches.validation()) == [[0], [1]]


def test_sample_is_of_training_rows_if_none_are_held_out():
    weights = torch.ones(1, 23)
    batches = make_batches(n_validation=0, weights=weights)
    assert not batches.has_validation
    X, _, sampled = batches.sample()
    assert len(X) == 23
    assert torch.equal(sampled, weights)


# Greedy columns of wide data


def complete_columns(X, target, columns, k, weights=None):
    statistics = column_statistics(X)
    scale = np.where(statistics.std == 0, 1, statistics.std)
    rows = Rows(X, np.arange(X.shape[1]), statistics.mean, scale, CPU)
    nothing = np.arange(0)
    runs = Runs([k], [0], 0, np.arange(len(X)), nothing, weights)
    return GreedyAdviser(rows, target, runs).complete([columns], [k])[0]


@pytest.fixture
def few_candidates(monkeypatch):
    """Screen the columns until about 44 of them are left."""
    monkeypatch.setattr(_advice, "_GREEDY_VALUES", 2000)
    monkeypatch.setitem(_advice._VALUES_AT_ONCE, "cpu", 5000)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_relevant_columns_of_wide_data_are_found(task, few_candidates):
    X, y, relevant = make_linear(400, 2000, 4, task=task, random_state=0)
    target = encode_values(y) if task == "regression" else encode_labels(y)
    found = complete_columns(X, target, (), 4)
    assert set(found) == set(relevant)


def test_columns_at_hand_stay_first_and_are_not_found_again(few_candidates):
    X, y, relevant = make_linear(400, 2000, 4, random_state=0)
    X[:, 7] = X[:, relevant[0]]  # nothing is left for it to say
    start = np.array([relevant[0], 1999])
    found = complete_columns(X, encode_values(y), start, 5)
    assert_array_equal(found[:2], start)
    assert set(found[2:]) == set(relevant[1:])


def test_blocks_of_wide_data_without_a_target_are_found(few_candidates):
    X, block = make_blocks(300, 1000, 5, random_state=0)
    found = complete_columns(X, encode_nothing(X), (), 5)
    assert len(np.unique(block[found])) >= 4


def test_rows_of_weight_zero_are_not_looked_at(few_candidates):
    X, y, relevant = make_linear(400, 2000, 4, random_state=0)
    y[300:] = 100 * X[300:, 5]
    weights = np.repeat([1.0, 0.0], [300, 100])
    target = encode_values(y, weights)
    found = complete_columns(X, target, (), 4, weights[np.newaxis])
    assert set(found) == set(relevant)


def test_greedy_columns_of_wide_data_take_a_bounded_memory():
    X, y, relevant = make_linear(300, 50_000, 5, random_state=0)
    found = None

    def find():
        nonlocal found
        found = complete_columns(X.astype(np.float32), encode_values(y), (), 5)

    # In float64 all of X would take 120 MB, five times: 600 MB.
    assert peak_bytes(find) < 180 * 2**20
    assert set(found) == set(relevant)


# Splits


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize(
    ("n", "fraction", "size"),
    [(20, 0.1, 2), (21, 0.5, 11), (1595, 500 / 1595, 500), (20, 1e-9, 1)],
)
def test_split_has_each_row_once(n, fraction, size, stratified):
    y = np.arange(n) % 2 if stratified else None
    train, held_out = split_rows(n, fraction, y, 0)
    assert len(held_out) == size
    assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(n))
    assert (np.diff(train) > 0).all() and (np.diff(held_out) > 0).all()


def test_nothing_is_held_out_of_fraction_zero():
    train, held_out = split_rows(7, 0, None, 0)
    assert_array_equal(train, np.arange(7))
    assert len(held_out) == 0


def test_split_depends_on_the_seed():
    splits = [split_rows(50, 0.3, None, seed)[1] for seed in (0, 0, 1)]
    assert_array_equal(splits[0], splits[1])
    assert not np.array_equal(splits[0], splits[2])


def test_classes_are_held_out_in_proportion():
    y = np.repeat(["a", "b", "c"], [60, 30, 10])
    for seed in range(5):
        _, held_out = split_rows(100, 0.2, y, seed)
        names, counts = np.unique(y[held_out], return_counts=True)
        assert dict(zip(names, counts, strict=True)) == {"a": 12, "b": 6, "c": 2}


def test_a_class_with_a_single_row_is_trained_on():
    y = np.repeat([0, 1, 2, 3], [1, 10, 10, 1])
    for seed in range(10):
        train, held_out = split_rows(22, 0.2, y, seed)
        assert {0, 21} <= set(train)
        assert len(held_out) == 5
        assert set(y[held_out]) == {1, 2}


@pytest.mark.parametrize("y", [np.arange(10), np.arange(10) // 2])
def test_more_classes_than_held_out_rows_are_split_at_random(y):
    train, held_out = split_rows(10, 0.2, y, 0)
    assert (len(train), len(held_out)) == (8, 2)


@pytest.mark.parametrize("stratify", [None, np.array([0])])
def test_split_that_leaves_no_row_is_refused(stratify):
    with pytest.raises(ValueError, match=r"validation_fraction=0\.9 of 1 rows leaves"):
        split_rows(1, 0.9, stratify, 0)


# Runs that train on the rows held out, too


def test_rows_held_out_join_the_others():
    plan = [3], [np.arange(20)], None, 2, lambda n: 0.3, None, 0
    runs = plan_runs(*plan)
    assert (len(runs.train_rows), len(runs.validation_rows)) == (14, 6)
    joined = runs.with_held_out()
    assert_array_equal(joined.train_rows, np.arange(20))
    assert not joined.holds_out
    assert joined.weights is None
    assert (joined.seeds, joined.order_seed) == (runs.seeds, runs.order_seed)


def test_rows_held_out_keep_their_weights_and_runs():
    rows = [np.arange(0, 16), np.arange(4, 24)]
    own = [np.arange(1.0, 17), np.arange(1.0, 21)]
    own[0][4:] = 0  # the first run alone has the others
    plan = [3, 2], rows, own, 1, lambda n: 0.5, None, 0
    joined = plan_runs(*plan).with_held_out()
    assert_array_equal(joined.train_rows, np.arange(24))
    for i in range(2):
        found = joined.weights[i, rows[i]]
        assert_allclose(found / found.sum(), own[i] / own[i].sum())
        assert_allclose(joined.weights[i, joined.train_rows].mean(), 1)


def test_halves_draw_from_the_same_rows_once_joined():
    rows = [np.arange(0, 16), np.arange(4, 24)]
    runs = plan_runs([3, 2], rows, None, 1, lambda n: 0.5, None, 0)
    joined = runs.with_held_out()
    for half, weights in zip(runs.halves(), joined.weights, strict=True):
        own = half.with_held_out()
        assert_array_equal(own.train_rows, joined.train_rows)
        assert_allclose(own.weights[0], weights)


def test_rows_without_weight_do_not_join():
    weights = np.ones(20)
    weights[::4] = 0
    plan = [3], [np.arange(20)], [weights], 1, lambda n: 0.3, None, 0
    joined = plan_runs(*plan).with_held_out()
    assert_array_equal(joined.train_rows, np.flatnonzero(weights))


# What is far out


@pytest.mark.parametrize("away", [0, 10])  # the mean of all rows from that of these
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_values_are_clipped_at_three_deviations_of_their_column(
    size, away, monkeypatch
):
    X = np.random.default_rng(0).normal(size=(500, 3)) * [size, 1, 1]
    X[0] = 50 * size, 50, 50
    seen = []
    monkeypatch.setattr(
        _advice,
        "gram_matrix",
        lambda X, share: seen.append(X[0].numpy()) or gram_matrix(X, share),
    )
    center, scale = X.mean(0) + away * X.std(0), np.full(3, X.std())
    rows = Rows(X, np.arange(3), center, scale, CPU)
    runs = Runs([1], [0], 0, np.arange(500), np.arange(0), None)
    GreedyAdviser(rows, encode_values(X[:, 1] + X[:, 2]), runs).complete([()], [1])
    clipped = center + seen[0] * scale
    furthest = np.abs(clipped - X.mean(0)).max(axis=0) / X.std(axis=0)
    assert_allclose(furthest, 3, rtol=1e-3)
    assert_allclose(clipped[1:], X[1:], atol=1e-4 * X.std())


# Folds


def in_folds(weights=None, n_runs=1, most=5, X=None, labels=None, seed=0, n=23):
    X = np.random.default_rng(seed).normal(size=(n, 4)) if X is None else X
    rows = Rows(X, np.arange(4), np.zeros(4), np.ones(4), torch.device("cpu"))
    target = None if labels is None else torch.from_numpy(labels)
    index = torch.arange(len(X))
    batches = TrainingBatches(
        rows,
        target,
        index,
        index[:0],
        weights=weights,
        validation_weights=None,
        batch_size=8,
        seed=3,
    )
    return batches.in_folds(most, n_runs)


def test_each_row_is_held_out_once_and_trained_on_else():
    folds, n_folds = in_folds(n_runs=2)
    assert n_folds == 5
    assert folds.has_validation
    held_out = folds.held_out.weights.view(5, 2, 23)
    trained = folds.training.weights.view(5, 2, 23)
    assert torch.equal(held_out.sum(0), torch.ones(2, 23))
    assert torch.equal(trained > 0, held_out == 0)
    torch.testing.assert_close(trained.mean(-1), torch.ones(5, 2))
    sizes = (held_out > 0).sum(-1)
    assert sizes.max() - sizes.min() <= 1


def test_folds_are_of_the_rows_that_count_for_each_run():
    weights = torch.rand(2, 23, generator=torch.Generator().manual_seed(0)) + 0.5
    weights[0, 4:20] = 0  # seven are left
    folds, n_folds = in_folds(weights, n_runs=2)
    assert n_folds == 5
    held_out = folds.held_out.weights.view(5, 2, 23)
    torch.testing.assert_close(held_out.sum(0), weights)
    sizes = (held_out > 0).sum(-1)
    assert sizes.tolist() == [[2, 5], [2, 5], [1, 5], [1, 4], [1, 4]]


def test_fewer_rows_make_fewer_folds():
    assert in_folds(n=3)[1] == 3
    assert in_folds(X=np.ones((6, 4)))[1] == 1  # all of them are the same


def test_folds_have_their_share_of_each_class():
    labels = np.array([0] * 10 + [1] * 5 + [2] * 5)
    folds, _ = in_folds(labels=labels, n=20)
    held_out = folds.held_out.weights.numpy() > 0
    counts = [np.bincount(labels[own], minlength=3).tolist() for own in held_out]
    assert counts == [[2, 1, 1]] * 5


def test_equal_rows_are_in_the_same_fold_and_their_order_does_not_matter():
    X = np.random.default_rng(0).normal(size=(12, 4))
    repeats = np.array([3, 1, 2] * 4)
    order = np.random.default_rng(1).permutation(repeats.sum())
    which = np.repeat(np.arange(12), repeats)[order]
    once = in_folds(X=X)[0].held_out.weights.numpy() > 0
    repeated = in_folds(X=X[which])[0].held_out.weights.numpy() > 0
    assert np.array_equal(repeated, once[:, which])


def test_a_value_far_out_leaves_folds_of_equal_size():
    X = np.random.default_rng(0).normal(size=(40, 4))
    X[3, 1] = 1e7
    folds, n_folds = in_folds(X=X)
    assert n_folds == 5
    assert (folds.held_out.weights > 0).sum(-1).tolist() == [8] * 5


def test_rows_of_equal_values_may_differ_in_the_sign_of_zero():
    X = np.eye(4)[[0, 0, 1, 1]]
    X[::2][X[::2] == 0] = -0.0
    folds, n_folds = in_folds(X=X)
    assert n_folds == 2
    held_out = folds.held_out.weights > 0
    assert held_out[:, 0].equal(held_out[:, 1]) and held_out[:, 2].equal(held_out[:, 3])
