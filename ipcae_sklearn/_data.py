"""From the user's arrays to batches on a device.

Rows of any array (dense, memory-mapped, sparse) become float32 batches, centred and
scaled; targets become tensors and predictions become targets again.
"""

from __future__ import annotations

import copy
import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from torch import Tensor

from ipcae_sklearn._warnings import warn

_CHUNK_BYTES = 2**20  # of float64 values worked on at once; they fit a cache
# Rows of a memory-mapped file that are read before its pages are let go: the system may
# map 2 MB for each.
_MAPPED_ROWS = 32
_RESIDENT_BYTES = 2**28  # of the largest float32 copy of X that is kept on the CPU
_EVALUATION_ROWS = 1024  # at most, in a batch that needs no gradient
_ASKED_ROWS = 256  # at most, in a batch of which decoders are asked
# "auto" is not sure of more whole numbers than this, if some are in fewer rows; floats
# are values if this share of them comes only once.
_MANY_CLASSES, _FEW_ROWS, _OF_VALUES = 20, 10, 0.25
_EVALUATION_BYTES = 2**25  # of its float32 values, if a training batch is smaller
# Of the selected columns that are kept side by side, by type of device.
_SELECTED_BYTES = {"cpu": 2**26, "cuda": 2**30}
_READ_ROWS = 4096  # of them that are read at once


def resolve_device(device) -> torch.device:
    """The torch device of a ``device`` parameter; "auto" prefers CUDA."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto' or a torch device such as 'cpu' or 'cuda:0', got "
            f"{device!r}."
        ) from error
    if resolved.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be a CPU or CUDA device, got {device!r}.")
    if resolved.type == "cpu":
        return resolved
    if not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} was asked for, but torch finds no CUDA device. Use "
            "device='auto' or device='cpu'."
        )
    n_devices = torch.cuda.device_count()
    if (resolved.index or 0) >= n_devices:
        raise ValueError(
            f"device={device!r} was asked for, but the last of the CUDA devices that "
            f"torch finds is 'cuda:{n_devices - 1}'."
        )
    return resolved


def row_blocks(shape, most: int | None = None) -> Iterator[slice]:
    """Slices of rows that are small enough to be worked on in float64."""
    n, p = shape
    size = max(1, int(_CHUNK_BYTES // (8 * max(p, 1))))
    size = min(size, most or size)
    return (slice(start, start + size) for start in range(0, n, size))


def _memory_map(X) -> np.memmap | None:
    """The memory-mapped array that X is or is a view of."""
    while isinstance(X, np.ndarray) and not isinstance(X.base, mmap.mmap):
        X = X.base
    return X if isinstance(X, np.memmap) else None


def is_memory_mapped(X) -> bool:
    """Whether an array is a view of a memory-mapped file."""
    return _memory_map(X) is not None


def as_in_memory(X):
    """The array as one that is not seen to be memory-mapped, if it is."""
    return np.asarray(memoryview(X)) if is_memory_mapped(X) else X


def _let_go(X) -> None:
    """Let go of the pages of a memory-mapped file that have been read.

    The system would count all that was ever read as memory of this process. It keeps
    the pages in its cache of files as long as there is room.
    """
    mapped = _memory_map(X)
    # Changes to a copy-on-write map ("c") are held in its pages alone.
    if mapped is not None and mapped.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.base.madvise(mmap.MADV_DONTNEED)  # type: ignore[union-attr]


def _blocks(X) -> Iterator[tuple[slice, np.ndarray]]:
    """Chunks of rows of a dense array, as they are."""
    for rows in row_blocks(X.shape):
        yield rows, X[rows]
        _let_go(X)


def check_finite(X, names=None) -> None:
    """Raise an error that names the first column with NaN or infinite values."""
    if X.dtype.kind != "f":
        return
    values = X.data[:, np.newaxis] if scipy.sparse.issparse(X) else X
    # The sum of a chunk is finite if its values are, at a fraction of the cost.
    with np.errstate(over="ignore", invalid="ignore"):
        bad = any(
            not np.isfinite(block.sum(dtype=np.float64))
            and not np.isfinite(block).all()
            for _, block in _blocks(values)
        )
    if bad:
        _raise_for_first_column(X, names)


def _raise_for_first_column(X, names):
    j = _first_bad_column(X)
    name = j if names is None else repr(str(names[j]))
    column = X[:, [j]].toarray() if scipy.sparse.issparse(X) else X[:, j]
    kind, wrong = "NaN", np.isnan(column)
    what_to_do = (
        "Impute it, for instance with sklearn.impute.SimpleImputer in front of the "
        "selector in a Pipeline"
    )
    if not wrong.any():
        kind, wrong = "infinity", np.isinf(column)
        what_to_do = "Clip it, or replace it by NaN and impute that"
    raise ValueError(
        f"Input X contains {kind} in column {name} ({wrong.sum()} of {X.shape[0]} "
        f"rows). {what_to_do}, or drop the column."
    )


def _first_bad_column(X) -> int:
    if scipy.sparse.issparse(X):
        return X.tocoo(copy=False).col[~np.isfinite(X.data)].min()
    finite = np.ones(X.shape[1], dtype=bool)
    for _, block in _blocks(X):
        finite &= np.isfinite(block).all(axis=0)
    return int(np.argmin(finite))


@dataclass(frozen=True)
class ColumnStatistics:
    """Weighted moments of each column (p,), in float64."""

    mean: np.ndarray
    std: np.ndarray  # 0 for constant columns
    l4: np.ndarray  # fourth root of the mean fourth power of the deviations; 0 as std


def column_statistics(X, weights=None) -> ColumnStatistics:
    """Moments of the columns, a chunk of rows at a time.

    Columns are divided by their largest value on the way, so that powers of very
    large and very small values neither overflow nor vanish.
    """
    n, p = X.shape
    share = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    if scipy.sparse.issparse(X):
        return _sparse_statistics(X.tocsr(), share)
    mean, largest = np.zeros(p), np.zeros(p)
    for rows, block in _blocks(X):
        values = block.astype(np.float64)
        mean += share[rows] @ values
        np.maximum(largest, np.abs(values, out=values).max(0), out=largest)
    largest[largest == 0] = 1
    variance, fourth = np.zeros(p), np.zeros(p)
    for rows, block in _blocks(X):
        values = block.astype(np.float64)
        values -= mean
        values /= largest
        variance += share[rows] @ np.square(values, out=values)
        fourth += share[rows] @ np.square(values, out=values)
    return _from_moments(mean, variance, fourth, largest, n)


def _sparse_statistics(X, share) -> ColumnStatistics:
    n, p = X.shape
    mean, largest = np.zeros(p), np.zeros(p)
    stored, n_stored = np.zeros(p), np.zeros(p)  # share and number of stored values
    for values, columns, weight in _entries(X, share):
        mean += np.bincount(columns, weight * values, minlength=p)
        stored += np.bincount(columns, weight, minlength=p)
        n_stored += np.bincount(columns[weight > 0], minlength=p)
        np.maximum.at(largest, columns, np.abs(values))
    largest[largest == 0] = 1
    # Counted, because shares add up to 1 but for rounding.
    full = n_stored == np.count_nonzero(share)
    zeros = np.where(full, 0, np.maximum(1 - stored, 0))
    variance = zeros * (mean / largest) ** 2
    fourth = zeros * (mean / largest) ** 4
    for values, columns, weight in _entries(X, share):
        square = np.square((values - mean[columns]) / largest[columns])
        variance += np.bincount(columns, weight * square, minlength=p)
        fourth += np.bincount(columns, weight * square**2, minlength=p)
    return _from_moments(mean, variance, fourth, largest, n)


def _entries(X, share) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Chunks of the stored values of a CSR matrix, their columns and rows' shares."""
    n = X.shape[0]
    for rows in row_blocks((n, X.nnz / n)):
        chunk = X[rows]
        chunk.sum_duplicates()
        weight = np.repeat(share[rows], np.diff(chunk.indptr))
        yield chunk.data.astype(np.float64), chunk.indices, weight


def _from_moments(mean, variance, fourth, largest, n) -> ColumnStatistics:
    """Statistics from moments of columns that are divided by their largest values."""
    # Rounding alone leaves a constant column with a variance of this size.
    rounding = (n * mean / largest * np.finfo(np.float64).eps) ** 2
    constant = variance <= rounding
    std = np.where(constant, 0, np.sqrt(variance))
    l4 = np.where(constant, 0, fourth**0.25)
    return ColumnStatistics(mean, std * largest, l4 * largest)


class Rows:
    """Rows of X as float32 tensors, centred and scaled.

    Dense data in memory are copied to the device whole, unless that takes too much
    memory. Those, sparse and memory-mapped data are read batch by batch.

    Parameters
    ----------
    X : ndarray or CSR/CSC matrix of shape (n, n_columns)
    columns : int array of shape (p,)
        Numbers of the columns in use.
    center, scale : float64 arrays of shape (p,)
        Rows are ``(x[columns] - center) / scale``.
    device : torch.device
    """

    def __init__(self, X, columns, center, scale, device):
        all_columns = len(columns) == X.shape[1]
        self.columns = slice(None) if all_columns else columns
        if scipy.sparse.issparse(X):
            X = X.tocsr() if all_columns else X.tocsr()[:, columns]
            self.columns = slice(None)
        self.X = X
        self.center, self.scale = center, scale
        self.device = device
        self.n_features = len(center)
        self.resident = self._on_device()

    def _on_device(self) -> Tensor | None:
        if scipy.sparse.issparse(self.X) or is_memory_mapped(self.X):
            return None
        n_bytes = 4 * self.X.shape[0] * self.n_features
        by_rows = self.X.strides[0] >= self.X.strides[1]  # else a row is slow to read
        if self.device.type == "cpu" and by_rows and n_bytes > _RESIDENT_BYTES:
            return None
        try:
            return self._read(np.arange(self.X.shape[0]))
        except torch.cuda.OutOfMemoryError:
            warn(
                f"X does not fit on {self.device} and is read batch by batch, which "
                "is slower.",
                RuntimeWarning,
            )
        return None

    def _read(self, index: np.ndarray, columns: np.ndarray | None = None) -> Tensor:
        """Rows of the given numbers, all or some columns, a chunk at a time."""
        m = self.n_features if columns is None else len(columns)
        taken = torch.empty((len(index), m), device=self.device, dtype=torch.float32)
        width = m
        if scipy.sparse.issparse(self.X):  # all values of a row are copied
            width = max(m, self.X.nnz / self.X.shape[0])
        most = _MAPPED_ROWS if is_memory_mapped(self.X) else None
        own, center, scale = self.columns, self.center, self.scale
        if columns is not None:
            own = columns if isinstance(own, slice) else own[columns]
            center, scale = center[columns], scale[columns]
        scaled = np.empty((0, m))
        for rows in row_blocks((len(index), width), most):
            block = self._block(index[rows], own, columns is None)
            if not len(scaled):  # once: new memory takes longer than the arithmetic
                scaled = np.empty(block.shape)
            values = scaled[: len(block)]
            np.subtract(block, center, out=values)
            np.divide(values, scale, out=values)
            taken[rows].copy_(torch.from_numpy(values))
            _let_go(self.X)
        return taken

    def _block(self, index, columns, whole_rows: bool) -> np.ndarray:
        """Values of X in some rows and columns, as they are."""
        if scipy.sparse.issparse(self.X):
            block = self.X[index]
            return (block if whole_rows else block[:, columns]).toarray()
        if len(index) == 1:  # no copy of a row, which may be long
            return self.X[index[0] : index[0] + 1, columns]
        if whole_rows:
            return self.X[index][:, columns]
        return self.X[index[:, np.newaxis], columns]  # these values alone

    def take(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        """Rows of the given numbers, (b,) -> (b, p), or their values in some columns
        (m,), (b, m). If all are in memory, those of r runs, too: (r, b) -> (r, b, p)
        or, with columns (r, m), (r, b, m).
        """
        if self.resident is not None:
            if columns is None:  # faster than by brackets
                rows = self.resident.index_select(0, index.flatten())
                return rows.view(*index.shape, -1)
            places = self.n_features * index.unsqueeze(-1) + columns.unsqueeze(-2)
            values = self.resident.view(-1).index_select(0, places.flatten())
            return values.view(places.shape)
        places = None if columns is None else columns.cpu().numpy()
        if not is_memory_mapped(self.X):
            return self._read(index.cpu().numpy(), places)
        index, order = index.sort()  # a file is read forwards
        return self._read(index.cpu().numpy(), places)[order.argsort()]


class _Selected:
    """Values of some columns (r, k) of the rows: those that r decoders get.

    All values are kept, unless they take too much memory, once as many rows have been
    asked for as there are, or :meth:`keep` is called.
    """

    def __init__(self, rows: Rows, columns: Tensor):
        self.rows, self.columns = rows, columns
        self.n_rows = rows.X.shape[0]
        self.n_taken = 0
        self.kept: Tensor | None = None  # (r, n, k)

    def take(self, index: Tensor) -> Tensor:
        """Values (r, b, k) of the rows of the given numbers, (b,) or (r, b)."""
        self.n_taken += index.shape[-1]
        if self.n_taken > self.n_rows:
            self.keep()
        if self.kept is None:
            return self._read(index)
        if index.dim() == 1:
            return self.kept.index_select(1, index)
        r, k = self.columns.shape
        first = self.n_rows * torch.arange(r, device=index.device)
        places = (first.unsqueeze(-1) + index).flatten()
        return self.kept.view(-1, k).index_select(0, places).view(r, -1, k)

    def keep(self) -> None:
        """Read all values (r, n, k) for later, unless they take too much memory."""
        n_bytes = 4 * self.n_rows * self.columns.numel()
        if self.kept is None and n_bytes <= _SELECTED_BYTES[self.rows.device.type]:
            self.kept = self._read_all()

    def _read_all(self) -> Tensor:
        r, k = self.columns.shape
        shape, device = (r, self.n_rows, k), self.rows.device
        values = torch.empty(shape, device=device, dtype=torch.float32)
        if self.rows.resident is not None:
            for own, columns in zip(values, self.columns, strict=True):
                torch.index_select(self.rows.resident, 1, columns, out=own)
            return values
        for part in torch.arange(self.n_rows, device=device).split(_READ_ROWS):
            values[:, part[0] : part[-1] + 1] = self._read(part)
        return values

    def of(self, rows: Tensor) -> Tensor:
        """Values (r, b, k) of rows (b, p)."""
        return rows[:, self.columns].transpose(0, 1)

    def _read(self, index: Tensor) -> Tensor:
        if index.dim() == 1:
            values = self.rows.take(index, self.columns.flatten())
            return values.view(-1, *self.columns.shape).transpose(0, 1)
        if self.rows.resident is not None:
            return self.rows.take(index, self.columns)
        every, places = index.unique(return_inverse=True)  # to read each row once
        values = self.rows.take(every, self.columns.flatten())
        runs = torch.arange(len(index), device=index.device).unsqueeze(-1)
        return values.view(-1, *self.columns.shape)[places, runs]


class _Part:
    """Rows to draw from: numbers, and a row of weights for each run or None.

    Parameters
    ----------
    index : int Tensor of shape (n,), or (r, n) for rows of each run's own
    weights : Tensor of shape (r, n) or None
    """

    def __init__(self, index: Tensor, weights: Tensor | None):
        self.index, self.weights = index, weights

    def __len__(self):
        return self.index.shape[-1]

    def at(self, places: Tensor) -> _Part:
        """The rows at some places."""
        weights = None if self.weights is None else self.weights[:, places]
        return _Part(self.index[..., places], weights)

    def repeated(self, times: int) -> _Part:
        """The same rows for all runs several times."""
        weights = None if self.weights is None else self.weights.repeat(times, 1)
        return _Part(self.index, weights)

    @cached_property
    def _parting(self) -> Tensor | None:
        """The weights, if some rows have none in some run."""
        if self.weights is None or bool((self.weights > 0).all()):
            return None
        return self.weights

    @cached_property
    def own(self) -> _Part:
        """For each run the rows that count, and others if it has fewer than some."""
        weights = self._parting
        if weights is None:
            return self
        order = torch.arange(len(self), device=weights.device)
        places, n_rows = _first_those_that_count(weights, order)
        places = places[:, : int(n_rows.max())]
        index = self.index[places.to(self.index.device)]
        return _Part(index, weights.gather(1, places))

    def split(self, order: Tensor, n_batches: int, device) -> Iterator[_Part]:
        """Batches that differ by one row at most, with their numbers on a device."""
        # All at once: a GPU would have to wait for those of each batch.
        numbers, order = self.index[order].to(device), order.to(device)
        parts = (values.tensor_split(n_batches) for values in (numbers, order))
        for index, places in zip(*parts, strict=True):
            yield _Part(index, _of_rows(self.weights, places))

    def split_by_run(self, order: Tensor, n_batches: int, device) -> Iterator[_Part]:
        """The same of the rows that count for each run, independent of the others.

        So that no run has to compute what does not count. A batch that is shorter than
        others is made up with rows that have no weight in it.
        """
        weights = self._parting
        if weights is None:
            yield from self.split(order, n_batches, device)
            return
        order = order.to(weights.device)
        places, n_rows = _first_those_that_count(weights, order)
        batch = torch.arange(n_batches, device=order.device)
        size, n_longer = n_rows[:, None] // n_batches, n_rows[:, None] % n_batches
        first = size * batch + torch.minimum(batch, n_longer)  # (r, n_batches)
        size = size + (batch < n_longer)
        most = int(size.max())
        within = torch.arange(most, device=order.device)
        at = (first[..., None] + within).clamp_(max=len(self) - 1)
        at = places.gather(1, at.flatten(1))  # (r, n_batches * most)
        # The mean over a batch is that over its own rows, of weights of mean 1.
        share = most / size.clamp(min=1) * n_rows[:, None] / len(self)
        share = (within < size[..., None]) * share[..., None]
        own_weights = weights.gather(1, at).view_as(share) * share.to(weights)
        index = self.index.to(device)[at].view_as(share)
        yield from map(_Part, index.unbind(1), own_weights.unbind(1))


def _first_those_that_count(weights: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """For each run the places in this order (r, n), and how many have a weight (r,)."""
    counts = weights[:, order] > 0
    last = (~counts).byte().argsort(dim=-1, stable=True)
    return order[last], counts.sum(-1)


class TrainingBatches:
    """Shuffled batches of training rows, and the held-out rows.

    A batch is (X, target, weights), X of shape (b, p) or, of batches that
    :meth:`select` has made, (r, b, k). There the rows may be each run's own.

    Parameters
    ----------
    rows : Rows
    target : Tensor of shape (n, ...) or None
        None to reconstruct the rows themselves.
    train_index, validation_index : int Tensors
        Numbers of the rows to train on and of the held-out ones.
    weights, validation_weights : Tensor of shape (r, n) or None
        Weights of the rows for each run, in training and when held out; None for
        equal weights.
    batch_size : int
    seed : int
        Of the order of the rows.
    """

    def __init__(
        self,
        rows,
        target,
        train_index,
        validation_index,
        *,
        weights,
        validation_weights,
        batch_size,
        seed,
    ):
        self.source = rows
        self.selected: _Selected | None = None
        self.target = target
        self.training = _Part(train_index, _of_rows(weights, train_index))
        weights = _of_rows(validation_weights, validation_index)
        self.held_out = _Part(validation_index, weights)
        self.batch_size = batch_size
        self.seed = seed
        self.n_features = rows.n_features
        self.n_train_batches = -(-len(train_index) // batch_size)
        self.has_validation = len(validation_index) > 0

    def repeated(self, times: int) -> TrainingBatches:
        """The same batches, for all runs several times."""
        other = copy.copy(self)
        other.training = self.training.repeated(times)
        other.held_out = self.held_out.repeated(times)
        return other

    def in_folds(self, most: int, n_runs: int) -> tuple[TrainingBatches, int]:
        """For all runs several times the training rows, but a fold that is held out.

        Another one each time; also returns how many there are, at most so many. Folds
        have their share of each class, and equal rows are in the same.
        """
        index, weights = self.training.index, self.training.weights
        if weights is None:
            shape = n_runs, len(index)
            weights = torch.ones(shape, device=self.source.device, dtype=torch.float32)
        counts = weights.cpu().numpy() > 0
        labels, along, values = self._labels_and_places(index)
        of_rows = [_distinct(labels[own], along[own], values[own]) for own in counts]
        n_folds = min(most, *(1 + int(numbers.max()) for numbers in of_rows))
        fold = np.full(counts.shape, -1)
        for own, place, numbers in zip(fold, counts, of_rows, strict=True):
            own[place] = numbers % n_folds
        held_out = np.concatenate([fold == f for f in range(n_folds)])
        is_held_out = torch.from_numpy(held_out).to(weights.device)
        weights = weights.repeat(n_folds, 1)
        trained = weights * ~is_held_out
        other = copy.copy(self)
        other.training = _Part(index, trained / trained.mean(1, keepdim=True))
        other.held_out = _Part(index, weights * is_held_out)
        other.has_validation = True
        return other, n_folds

    def training_of(self, runs: slice) -> TrainingBatches:
        """The batches of some runs that have weights, without held-out rows."""
        other = copy.copy(self)
        other.training = _Part(self.training.index, self.training.weights[runs])
        other.held_out = _Part(self.held_out.index[..., :0], None)
        other.has_validation = False
        return other

    def train_weights(self, n_rows: int) -> np.ndarray:
        """Weights (r, n_rows) of all rows in training, where runs have weights."""
        weights = self.training.weights.cpu().numpy()
        every = np.zeros((len(weights), n_rows))
        every[:, self.training.index.cpu().numpy()] = weights
        return every

    def _labels_and_places(self, index: Tensor) -> tuple[np.ndarray, ...]:
        """The classes of rows, 0 without any, where they lie along a random direction,
        and numbers that are equal for rows of equal values.
        """
        reference = np.random.default_rng(self.seed).normal(size=self.source.n_features)
        along, digests = [], []
        for some in index.split(_MAPPED_ROWS):
            rows = self.source.take(some.to(self.source.device)).cpu().numpy()
            along.append(rows @ reference)
            rows += 0.0  # of two zeros, one is negative
            digests += [hashlib.blake2b(row).digest() for row in rows]
        labels = np.zeros(len(index), dtype=np.int64)
        if self.target is not None and not self.target.is_floating_point():
            labels = self.target[index.to(self.target.device)].cpu().numpy()
        _, first, values = np.unique(digests, return_index=True, return_inverse=True)
        # Sums over equal rows may differ by rounding.
        return labels, np.concatenate(along)[first][values], values

    def select(self, columns: Tensor) -> TrainingBatches:
        """The same batches, but for the values of some columns (r, k) in place of X."""
        other = copy.copy(self)
        other.selected = _Selected(self.source, columns)
        if other._by_run is not None:
            other.held_out = self.held_out.own
        return other

    @property
    def _by_run(self) -> _Selected | None:
        """The selected values, if each run gets its own rows: if all are in memory.
        (Else what is read is for all runs.)
        """
        return None if self.source.resident is None else self.selected

    def _batch(self, part: _Part) -> tuple[Tensor, Tensor, Tensor | None]:
        index = part.index.to(self.source.device)
        weights = part.weights
        if self.target is not None:
            source = self.source if self.selected is None else self.selected
            return source.take(index), self.target[index], weights
        rows = X = self.source.take(index)
        if self.selected is not None:
            # Rows that have been read are not read once more.
            by_run = self._by_run is not None
            X = self.selected.take(index) if by_run else self.selected.of(rows)
        return X, rows, weights

    def train(self, epoch: int):
        """Yield (X, target, weights) batches in an order that depends on the epoch.

        Batches differ by one row at most: a rest of one or two rows would be noise.
        """
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(self.training), generator=generator)
        own, n_batches = self._by_run, self.n_train_batches
        split = self.training.split if own is None else self.training.split_by_run
        parts = split(order, n_batches, self.source.device)
        if own is not None:
            own.keep()
        if own is not None and self._fits_by_epoch(own):  # faster than one by one
            yield from self._batches(list(parts))
        else:
            yield from map(self._batch, parts)

    def _fits_by_epoch(self, selected: _Selected) -> bool:
        """Whether the batches of an epoch, of selected columns, may be read at once."""
        if self.target is None or selected.kept is None:
            return False
        n_targets = self.target[:1].numel() * len(selected.columns)
        most = _SELECTED_BYTES[self.source.device.type]
        return 4 * n_targets * len(self.training) <= most

    def _batches(self, parts: list[_Part]) -> Iterator[tuple]:
        """The batches of all parts, which are read at once."""
        n_rows = [len(part) for part in parts]
        index = torch.cat([part.index for part in parts], -1)
        X, target, _ = self._batch(_Part(index, None))
        own = X.split(n_rows, 1), target.split(n_rows, index.dim() - 1)
        yield from zip(*own, (part.weights for part in parts), strict=True)

    def validation(self):
        """Yield (X, target, weights) batches of the held-out rows."""
        for places in torch.arange(len(self.held_out)).split(self._evaluation_rows()):
            yield self._batch(self.held_out.at(places))

    def sample(self):
        """One batch of held-out rows, else of training rows."""
        part = self.held_out if self.has_validation else self.training
        if len(part) > (most := self._evaluation_rows()):
            part = part.at(torch.linspace(0, len(part) - 1, most).long())
        return self._batch(part)

    def rows(self, index):
        """Yield (X, target, None) batches of the rows of given numbers, (n,) or (r, n).

        Fewer than of those that need no gradient: what decoders make of them is to fit
        a cache.
        """
        most = min(_ASKED_ROWS, self._evaluation_rows())
        for own in torch.as_tensor(index).split(most, dim=-1):
            yield self._batch(_Part(own, None))

    def _evaluation_rows(self) -> int:
        """Rows of a batch that needs no gradient, no larger than there is room for."""
        width = self.source.n_features
        if self.selected is not None:
            if self.target is not None:
                width = self.selected.columns.numel()
            elif self.held_out.index.dim() > 1:  # each run has targets of its own
                width *= len(self.selected.columns)
        affordable = _EVALUATION_BYTES // (4 * width)
        return min(_EVALUATION_ROWS, max(self.batch_size, affordable))


def _distinct(labels: np.ndarray, along: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Numbers of rows, class by class, the same for those of equal values.

    They do not depend on the order of the rows.
    """
    order = np.lexsort((values, along, labels))
    other = (np.diff(values[order]) != 0) | (np.diff(labels[order]) != 0)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(np.append(0, other))
    return numbers


def _of_rows(weights: Tensor | None, index: Tensor) -> Tensor | None:
    return None if weights is None else weights[:, index]


def split_rows(n: int, fraction: float, stratify, random_state):
    """Numbers of the training rows and of the held-out rows.

    With classes in ``stratify`` each is held out in its proportion, if there are
    enough rows for that; a class with a single row is trained on, if there are others
    enough to hold out.

    Raises
    ------
    ValueError
        When no row is left to train on.
    """
    everything = np.arange(n)
    if fraction == 0:
        return everything, everything[:0]
    n_validation = int(np.ceil(fraction * n))
    if n_validation >= n:
        raise ValueError(
            f"validation_fraction={fraction} of {n} rows leaves none to train on."
        )
    if stratify is None:
        return _sorted_split(everything, n_validation, None, random_state)
    _, code, count = np.unique(stratify, return_inverse=True, return_counts=True)
    single = count[code] == 1
    rest, n_classes = everything[~single], (count > 1).sum()
    if n_classes <= n_validation <= len(rest) - n_classes:
        train, held_out = _sorted_split(rest, n_validation, code[rest], random_state)
        return np.sort(np.append(train, everything[single])), held_out
    if n_validation < len(rest):
        train, held_out = _sorted_split(rest, n_validation, None, random_state)
        return np.sort(np.append(train, everything[single])), held_out
    return _sorted_split(everything, n_validation, None, random_state)


def _sorted_split(rows, n_validation, stratify, random_state):
    train, held_out = train_test_split(
        rows, test_size=n_validation, stratify=stratify, random_state=random_state
    )
    return np.sort(train), np.sort(held_out)


@dataclass(frozen=True)
class Target:
    """What the decoder is to predict, and how its outputs become predictions.

    ``loss`` names a function of ``_functional``; the other fields belong to some
    tasks only: ``classes`` to classification, ``center`` and ``scale`` to regression.
    """

    loss: str
    n_outputs: int
    tensor: Tensor | None = None  # None: the rows of X themselves
    classes: np.ndarray | None = None
    center: np.ndarray | None = None
    scale: np.ndarray | None = None


def check_labels(y) -> None:
    """Raise an error if objects in y are missing, or cannot be compared."""
    # Of a list of texts numpy would make a text of NaN, too.
    values = np.asarray(y, dtype=object if isinstance(y, (list, tuple)) else None)
    if values.dtype.kind != "O" or not values.size:
        return
    missing = np.array([_is_missing(value) for value in values.ravel()])
    if missing.any():
        rows = np.unique(np.flatnonzero(missing) // (values.size // len(values)))
        raise ValueError(
            f"y has no value in {len(rows)} of {len(values)} rows (the first: row "
            f"{rows[0]}). Leave these rows out."
        )
    texts = [isinstance(value, str) for value in values.ravel()]
    if any(texts) and not all(texts):
        raise ValueError(
            "y holds text and other values, which cannot be put in order. Turn all of "
            "them into text, for instance by y.astype(str)."
        )


def _is_missing(value) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN
    except TypeError:  # of pandas: NA
        return True


def resolve_task(task: str, y) -> str:
    """The task that "auto" stands for, where there is a target."""
    if task != "classification" and np.asarray(y).dtype.kind in "mM":
        raise ValueError(
            "y holds dates. If they are values to predict, pass numbers, such as days "
            "since the first of them; task='classification' says that they are classes."
        )
    if task != "auto":
        return task
    kind = type_of_target(y, input_name="y")
    if kind.startswith("continuous"):
        return "regression"
    if kind == "multiclass" and np.asarray(y).dtype.kind in "iuf":
        return _task_of_whole_numbers(np.asarray(y))
    return "classification"


def _task_of_whole_numbers(y: np.ndarray) -> str:
    """Classes, unless they are floats many of which come only once.

    Both are guesses if there are many values, some of them rare (classes are more
    even), and a warning says so.
    """
    _, counts = np.unique(y, return_counts=True)
    if len(counts) <= _MANY_CLASSES or counts.min() >= _FEW_ROWS:
        return "classification"
    task, other = "classification", "regression"
    taken_as, or_else = "classes", "values to predict"
    if y.dtype.kind == "f" and np.mean(counts == 1) >= _OF_VALUES:
        task, other, taken_as, or_else = other, task, or_else, taken_as
    warn(
        f"y holds {len(counts)} whole numbers ({y.dtype}), some of them in fewer than "
        f"{_FEW_ROWS} rows. They are taken as {taken_as}: task={task!r} says so "
        f"without this warning. If they are {or_else}, use task={other!r}."
    )
    return task


def encode_labels(y) -> Target:
    """Class indices, or a matrix of 0 and 1 for several labels."""
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y")
    if kind == "multiclass-multioutput":
        raise ValueError(
            "y has several columns of classes other than 0 and 1, which is not "
            "supported. Use task='regression' if they are values to predict; else fit "
            "one selector for each column, or pass 0/1 indicators."
        )
    if kind == "multilabel-indicator":
        labels = np.asarray(y)
        tensor = torch.from_numpy(labels.astype(np.float32))
        classes = np.arange(labels.shape[1])
        return Target("binary_cross_entropy", len(classes), tensor, classes)
    classes, code = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        only = classes.tolist()[0]
        raise ValueError(
            f"y has one class only ({only!r}): there is nothing to tell apart. Use "
            "task='reconstruction' to select without a target."
        )
    return Target("cross_entropy", len(classes), torch.from_numpy(code), classes)


def encode_values(y, weights=None) -> Target:
    """Standardised values of one or several targets."""
    values = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    statistics = column_statistics(values, weights)
    center, scale = statistics.mean, statistics.std
    # A constant target is predicted as it is: its scale is 0 on the way back.
    scaled = (values - center) / np.where(scale == 0, 1, scale)
    tensor = torch.from_numpy(scaled.astype(np.float32))
    n_outputs = values.shape[1]
    return Target("squared_error", n_outputs, tensor, center=center, scale=scale)
