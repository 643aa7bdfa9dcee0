"""What a fit has to solve: columns, scales, target, and the rows that each run sees."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch

from ipcae_sklearn._data import Rows, Target, TrainingBatches, split_rows
from ipcae_sklearn._greedy import greedy_columns

# Greedy columns are found in as many rows as hold this many values, and in no fewer
# rows than this, if there are as many.
_MOST_VALUES, _FEWEST_ROWS = 10_000_000, 1000
# ... among as many columns as make matrices of this size, of which there are five in
# float64.
_GREEDY_VALUES = 2_000_000
_VALUES_AT_ONCE = 2**20  # float32, while the columns are screened
# Standard deviations from the mean.
_FURTHEST = 3.0


@dataclass
class Problem:
    """The data of a fit, ready for training."""

    X: np.ndarray  # or a CSR/CSC matrix, (n, n_features)
    columns: np.ndarray  # (p,) numbers of the columns in use
    center: np.ndarray  # (n_features,)
    scale: np.ndarray  # (n_features,)
    target: Target

    def rows(self, device) -> Rows:
        """The columns in use, centred and scaled, on a device."""
        center, scale = self.center[self.columns], self.scale[self.columns]
        return Rows(self.X, self.columns, center, scale, device)


@dataclass
class Runs:
    """The runs to train side by side, an entry or a row of weights each."""

    k: list[int]
    seeds: list[int]
    order_seed: int
    train_rows: np.ndarray  # those that any run trains on
    validation_rows: np.ndarray  # those held out from any run
    weights: np.ndarray | None = None  # (r, n) in training; None: equal weights
    validation_weights: np.ndarray | None = None  # (r, n) when held out

    def batches(self, rows: Rows, target: Target, batch_size: int) -> TrainingBatches:
        device = rows.device
        return TrainingBatches(
            rows,
            None if target.tensor is None else target.tensor.to(device),
            torch.from_numpy(self.train_rows),
            torch.from_numpy(self.validation_rows),
            weights=_to_device(self.weights, device),
            validation_weights=_to_device(self.validation_weights, device),
            batch_size=batch_size,
            seed=self.order_seed,
        )


def _to_device(weights, device):
    if weights is None:
        return None
    return torch.from_numpy(weights.astype(np.float32)).to(device)


def plan_runs(ks, rows_of_cases, weights, n_init, fraction, stratify, seed) -> Runs:
    """Runs for some cases, each k with the rows it may see, ``n_init`` of each.

    Parameters
    ----------
    ks : sequence of int
    rows_of_cases : sequence of int arrays
        Numbers of the rows that each case may see.
    weights : sequence of float arrays, or None
        Weights of each case's rows; None where all are equal.
    n_init : int
    fraction : callable
        Share to hold out of a number of rows.
    stratify : array of shape (n,) or None
    seed : int
        Every case has the seeds drawn from it, and so the rows and the noise that it
        would have by itself.
    """
    # The runs' own seeds come last: more runs leave the rest as it is.
    order_seed, split_seed, *seeds = (
        np.random.RandomState(seed).randint(2**31 - 1, size=2 + n_init).tolist()
    )
    parts = []  # places in a case's rows
    for rows in rows_of_cases:
        labels = None if stratify is None else stratify[rows]
        parts.append(split_rows(len(rows), fraction(len(rows)), labels, split_seed))
    train, held_out = zip(*parts, strict=True)
    runs = Runs(
        k=[k for k in ks for _ in range(n_init)],
        seeds=seeds * len(ks),
        order_seed=order_seed,
        train_rows=_union(rows_of_cases, train),
        validation_rows=_union(rows_of_cases, held_out),
    )
    if len(parts) > 1 or weights is not None:
        weights = weights or [np.ones(len(rows)) for rows in rows_of_cases]
        runs.weights = _spread(rows_of_cases, train, weights, n_init)
        # Batches are drawn from the rows of all cases: 1 in the mean over these.
        runs.weights /= runs.weights[:, runs.train_rows].mean(axis=1, keepdims=True)
        runs.validation_weights = _spread(rows_of_cases, held_out, weights, n_init)
    return runs


def _union(rows_of_cases, parts) -> np.ndarray:
    """The rows that are in the part of any case."""
    own = [rows[part] for rows, part in zip(rows_of_cases, parts, strict=True)]
    return np.unique(np.concatenate(own))


def _spread(rows_of_cases, parts, weights, n_init) -> np.ndarray:
    """The weights of the rows in each case's part, 0 elsewhere: (r, n)."""
    n = 1 + max(rows.max() for rows in rows_of_cases)
    matrix = np.zeros((len(parts), n))
    for i, (rows, part) in enumerate(zip(rows_of_cases, parts, strict=True)):
        matrix[i, rows[part]] = weights[i][part]
    return np.repeat(matrix, n_init, axis=0)


def columns_in_use(std, k: int) -> np.ndarray:
    """The columns that vary, made up to k by the first of those that do not."""
    varying, constant = np.flatnonzero(std), np.flatnonzero(std == 0)
    return np.sort(np.append(varying, constant[: max(0, k - len(varying))]))


def one_scale(std) -> np.ndarray:
    """One divisor for all columns: the root of their mean variance."""
    largest = std.max() or 1.0
    return np.full_like(std, largest * np.sqrt(np.mean((std / largest) ** 2)) or 1.0)


def warn_if_few_dominate(std, k: int) -> None:
    """Warn if fewer than k columns hold nearly all of the variance."""
    variance = np.sort((std / (std.max() or 1)) ** 2)[::-1]
    n_dominant = 1 + np.searchsorted(np.cumsum(variance), 0.9 * variance.sum())
    if n_dominant < min(k, 0.1 * len(std)):
        warnings.warn(
            f"{n_dominant} of {len(std)} columns hold 90 % of the variance of X and "
            "will dominate its reconstruction, which is measured in the units of X. "
            "If the units differ, use standardize=True.",
            UserWarning,
            stacklevel=5,
        )


def go_with(rows, target, runs, i: int, columns, k: int, n_swap_passes=0):
    """Columns of run i made up to k by greedy ones, then swapped for better ones.

    Judged by linear regression on rows that the run trains on; of many rows and columns
    some are looked at.
    """
    index, weights = _rows_to_look_at(runs, i, rows.n_features)
    start = np.asarray(columns, dtype=np.intp)
    Y = _target_matrix(target, index)
    most = max(2 * k, isqrt(_GREEDY_VALUES), _GREEDY_VALUES // len(index))
    candidates = np.arange(rows.n_features)
    if most < rows.n_features:
        candidates = _screen(rows, index, Y, weights, start, most)
    X = _read_columns(rows, index, candidates)
    if Y is not None:
        # Standardised, columns that seldom differ from their mean reach far out and
        # would be worth explaining as much as any other.
        furthest = _FURTHEST * X.std(axis=0)
        np.clip(X, -furthest, furthest, out=X)
    chosen = greedy_columns(
        X,
        k,
        target=Y,
        sample_weight=weights,
        start=np.searchsorted(candidates, start),
        n_swap_passes=n_swap_passes,
    )
    return candidates[chosen]


def _rows_to_look_at(runs, i, n_features):
    """Numbers of some training rows of run i, in order, and their weights."""
    index = runs.train_rows
    if runs.weights is not None:
        index = index[runs.weights[i][index] > 0]
    most = max(_FEWEST_ROWS, _MOST_VALUES // n_features)
    if len(index) > most:
        index = index[np.linspace(0, len(index) - 1, most).astype(int)]
    return index, None if runs.weights is None else runs.weights[i][index]


def _target_matrix(target, index) -> np.ndarray | None:
    if target.tensor is None:
        return None
    y = target.tensor[torch.from_numpy(index)].numpy()
    return np.eye(target.n_outputs)[y] if target.loss == "cross_entropy" else y


def _screen(rows, index, Y, weights, start, most: int) -> np.ndarray:
    """About ``most`` columns in order, those of ``start`` among them.

    Half are the best for the target, each by itself. They may all say the same, so
    the others, and all if there is no target, are evenly spread.
    """
    best, n_spread = start, most
    if Y is not None:
        n_spread = most // 2
        score = _scores(rows, index, Y, weights, start)
        best = np.argpartition(-score, n_spread)[:n_spread]
    spread = np.linspace(0, rows.n_features - 1, n_spread).astype(int)
    return np.unique(np.concatenate([start, best, spread]))


def _scores(rows, index, Y, weights, start) -> np.ndarray:
    """Of each column, what it explains of the part of Y that ``start`` leaves (p,)."""
    Y = Y.reshape(len(index), -1)
    root = np.ones((len(index), 1)) if weights is None else np.sqrt(weights)[:, None]
    known = np.column_stack([np.ones(len(index)), _read_columns(rows, index, start)])
    left = root * (Y - known @ np.linalg.lstsq(root * known, root * Y, rcond=None)[0])
    products = np.zeros((Y.shape[1], rows.n_features), dtype=np.float32)
    norms = np.zeros(rows.n_features, dtype=np.float32)
    for part, X in _parts(rows, index):
        X = root[part].astype(np.float32) * X
        products += left[part].T.astype(np.float32) @ X
        norms += np.einsum("ij,ij->j", X, X)
    return np.einsum("ij,ij->j", products, products) / np.maximum(norms, 1e-30)


def _read_columns(rows, index, columns) -> np.ndarray:
    """Some columns of some rows, in float32."""
    values = np.empty((len(index), len(columns)), dtype=np.float32)
    for part, X in _parts(rows, index):
        values[part] = X[:, columns]
    return values


def _parts(rows, index):
    """Slices of the index, and their rows as arrays (b, p)."""
    step = max(1, _VALUES_AT_ONCE // rows.n_features)
    for first in range(0, len(index), step):
        part = slice(first, first + step)
        taken = rows.take(torch.from_numpy(index[part]).to(rows.device))
        yield part, taken.cpu().numpy()
