"""Columns that linear regression recommends to the runs of a fit."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from math import isqrt

import numpy as np
import torch

from ipcae_sklearn._greedy import greedy_columns, roughly_greedy_columns

# Rows are looked at as many as hold this many values, and no fewer than the second, if
# there are as many.
_MOST_VALUES, _FEWEST_ROWS = 10_000_000, 1000
# The same, and the most rows, where columns are to meet the decoder's needs.
_VALUES_FOR_NEEDS, _ROWS_FOR_NEEDS = 4_000_000, 5000
_DIRECTIONS = 50  # of the needs that are told apart
# Where they count alike, they explain this fraction of any column by chance.
_ROWS_A_DIRECTION = 12
_DEAD = 1e-6  # share of the squares in the longest direction that is rounding
# Greedy columns are found among as many columns as make matrices of this size, of which
# there are five in float64.
_GREEDY_VALUES = 2_000_000
# Read at once while the columns are screened, in float32; and rows at least.
_VALUES_AT_ONCE, _ROWS_AT_ONCE = 2**20, 32
# Standard deviations from the mean. Columns that seldom differ from their mean reach
# further, and a few of their values would count for the whole column.
_FURTHEST = 3.0


class GreedyAdviser:
    """Recommends columns by linear regression on rows that a run trains on.

    Of many rows and columns some are looked at.

    Parameters
    ----------
    rows : Rows
    target : Target
    runs : Runs
    n_swap_passes : int
        Passes of swaps that make an alternative to a run's columns; 0 for none.
    few_rows : bool
        Whether columns count as far as the target explains them, and no further. (With
        many rows a decoder can use what goes with the rest as well.)
    """

    def __init__(self, rows, target, runs, *, n_swap_passes=0, few_rows=False):
        self._data = rows
        self.target = target
        self.runs = runs
        self.n_swap_passes = n_swap_passes
        self.few_rows = few_rows
        # r int arrays (k,), or none: columns that are always an alternative.
        self.fallbacks = []
        # Without a target the decoder asks for what regression has found already.
        self.asks_decoder = target.tensor is not None

    def complete(self, i: int, columns, k: int, n_swap_passes: int = 0) -> np.ndarray:
        """Columns of run i made up to k by greedy ones, then swapped for better ones.

        They explain all columns and the target, if there is one, in equal parts.
        """
        index = self._look(i, _MOST_VALUES)
        Y = _target_matrix(self.target, index)
        choose = partial(greedy_columns, n_swap_passes=n_swap_passes)
        return self._greedy(i, columns, k, index, Y, choose)

    def find_fallbacks(self) -> None:
        """Find columns from the beginning, an alternative from then on."""
        passes = self.n_swap_passes
        self.fallbacks = [
            self.complete(i, (), k, passes) for i, k in enumerate(self.runs.k)
        ]

    def alternatives(self, i: int, columns) -> list[np.ndarray]:
        """Whole sets to try in place of the columns of run i."""
        found = [self.fallbacks[i]] if self.fallbacks else []
        if self.n_swap_passes:
            swapped = self.complete(i, columns, len(columns), self.n_swap_passes)
            found.append(swapped)
        return found

    def in_folds(self, n_folds: int, folds) -> GreedyAdviser:
        """One for all runs in each of some folds, who looks at what is trained on."""
        runs, n_rows = self.runs, self._data.X.shape[0]
        weights = folds.train_weights(n_rows)
        several = {"k": runs.k * n_folds, "seeds": runs.seeds * n_folds}
        own = copy.copy(self)
        own.runs = replace(runs, weights=weights, **several)
        if self.fallbacks:
            own.find_fallbacks()
        return own

    def rows(self, i: int) -> np.ndarray:
        """Numbers of the rows to look at for :meth:`meet`, in order."""
        return self._look(i, _VALUES_FOR_NEEDS, _ROWS_FOR_NEEDS)

    def meet(self, i, columns, k, needs, *, by: str) -> np.ndarray:
        """Columns made up to k by those that meet needs (n_rows, h).

        By company, each is to explain what ``columns`` and those before it do not, of
        the needs and of all columns in equal parts; by share, each is worth what it
        explains of the needs by itself; by kinship, each is worth what a regression
        on the needs explains of it.
        """
        index = self.rows(i)
        weights, needs = self._weights(i, index), needs.astype(np.float64)
        if by == "kinship":
            most = min(_DIRECTIONS, max(1, len(index) // _ROWS_A_DIRECTION))
            needs = _alike_directions(needs, weights, most)
        else:
            needs = _main_directions(needs, _DIRECTIONS)
        if by == "company":
            return self._greedy(i, columns, k, index, needs, roughly_greedy_columns)
        nothing = np.empty(0, dtype=np.intp)
        scores = _scores(self._data, index, needs, weights, nothing)
        scores[columns] = -1
        best = np.argsort(-scores, kind="stable")[: k - len(columns)]
        return np.append(columns, best)

    def _greedy(self, i, columns, k, index, Y, choose):
        data, weights = self._data, self._weights(i, index)
        start = np.asarray(columns, dtype=np.intp)
        most = max(2 * k, isqrt(_GREEDY_VALUES), _GREEDY_VALUES // len(index))
        candidates = np.arange(data.n_features)
        if most < data.n_features:
            candidates = _screen(data, index, Y, weights, start, most)
        X = _read_columns(data, index, candidates)
        if Y is not None:
            furthest = _FURTHEST * X.std(axis=0)
            np.clip(X, -furthest, furthest, out=X)
        own = None
        if Y is not None and self.few_rows:
            own = _explained(X, Y, weights)
        start = np.searchsorted(candidates, start)
        chosen = choose(
            X, k, target=Y, sample_weight=weights, column_weight=own, start=start
        )
        return candidates[chosen]

    def _look(self, i, most_values, most_rows=None) -> np.ndarray:
        """Numbers of some training rows of run i, in order.

        They are taken from those that all runs share, so that runs look at the same
        rows, but for those that they may not see.
        """
        index = self.runs.train_rows
        most = max(_FEWEST_ROWS, most_values // self._data.n_features)
        most = min(most, most_rows or most)
        if len(index) > most:
            index = index[np.linspace(0, len(index) - 1, most).astype(int)]
        if self.runs.weights is None:
            return index
        return index[self.runs.weights[i][index] > 0]

    def _weights(self, i, index) -> np.ndarray | None:
        return None if self.runs.weights is None else self.runs.weights[i][index]


def _main_directions(needs, n_directions: int) -> np.ndarray:
    """The matrix (n, h) turned to its main directions, and the longest of these."""
    return needs @ _longest(needs, n_directions)[1]


def _alike_directions(needs, weights, n_directions: int) -> np.ndarray:
    """An orthonormal basis of the main directions of the weighted rows (n, h).

    As they are, one may be longer than all others together, as with two classes: what
    the decoder gets wrong, the same in every hidden unit but for a factor. How the
    units differ tells which columns matter.
    """
    squares, directions = _longest(_roots(weights, len(needs)) * needs, n_directions)
    live = squares > _DEAD * squares[-1]
    return needs @ (directions[:, live] / np.sqrt(squares[live]))


def _explained(X, Y, weights) -> np.ndarray:
    """Share of the variance of each column of X (n, p) that Y explains: R² (p,).

    1 for all of them, where it explains nothing.
    """
    root = _roots(weights, len(X))
    X, Y = (root * (A - np.average(A, axis=0, weights=weights)) for A in (X, Y))
    along = _alike_directions(Y, None, Y.shape[1]).T @ X
    explained, norms = (np.einsum("ij,ij->j", A, A) for A in (along, X))
    if not explained.any():
        return np.ones(len(norms))
    return explained / np.where(norms > 0, norms, 1)


def _longest(needs, n_directions: int) -> tuple[np.ndarray, np.ndarray]:
    """The squares in the main directions, the longest last, and these as columns."""
    squares, directions = np.linalg.eigh(needs.T @ needs)
    return squares[-n_directions:], directions[:, -n_directions:]


def _roots(weights, n: int) -> np.ndarray:
    return np.ones((n, 1)) if weights is None else np.sqrt(weights)[:, None]


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
    root = _roots(weights, len(index))
    known = np.column_stack([np.ones(len(index)), _read_columns(rows, index, start)])
    left = root * (Y - known @ np.linalg.lstsq(root * known, root * Y, rcond=None)[0])
    products = np.zeros((Y.shape[1], rows.n_features), dtype=np.float32)
    norms = np.zeros(rows.n_features, dtype=np.float32)
    for part, X in _parts(rows, index):
        if weights is not None:
            X = root[part].astype(np.float32) * X
        products += left[part].T.astype(np.float32) @ X
        norms += np.einsum("ij,ij->j", X, X)
    return np.einsum("ij,ij->j", products, products) / np.maximum(norms, 1e-30)


def _read_columns(rows, index, columns) -> np.ndarray:
    """Some columns of some rows, in float32."""
    own = torch.as_tensor(columns).to(rows.device)
    return rows.take(torch.from_numpy(index).to(rows.device), own).cpu().numpy()


def _parts(rows, index):
    """Slices of the index, and their rows as arrays (b, p)."""
    step = max(_ROWS_AT_ONCE, _VALUES_AT_ONCE // rows.n_features)
    for first in range(0, len(index), step):
        part = slice(first, first + step)
        taken = rows.take(torch.from_numpy(index[part]).to(rows.device))
        yield part, taken.cpu().numpy()
