"""From the user's arrays to rows on a device.

Rows of any array (dense, memory-mapped, sparse) become float32 tensors, centred and
scaled.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ipcae_sklearn._warnings import warn

_CHUNK_BYTES = 2**20  # of float64 values worked on at once; they fit a cache
# Rows of a memory-mapped file that are read before its pages are let go: the system may
# map 2 MB for each.
MAPPED_ROWS = 32
_RESIDENT_BYTES = 2**28  # of the largest float32 copy of X that is kept on the CPU


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
        # In rows, however X lies: products of other layouts differ in the last digit.
        values = block.astype(np.float64, order="C")
        mean += share[rows] @ values
        np.maximum(largest, np.abs(values, out=values).max(0), out=largest)
    largest[largest == 0] = 1
    variance, fourth = np.zeros(p), np.zeros(p)
    for rows, block in _blocks(X):
        values = block.astype(np.float64, order="C")
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
        most = MAPPED_ROWS if is_memory_mapped(self.X) else None
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
