"""Few rows of many columns, reconstructed in the directions that the rows span."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from ipcae_sklearn._data import Rows, Target

# At most so many rows, of at least so many columns for each.
_MOST_ROWS, _COLUMNS_FOR_EACH = 2048, 16
_VALUES_AT_ONCE = 2**22  # read, in float64
# A direction with less than this share of the squares in the longest is rounding.
_DEAD = 1e-10


def worthwhile(n_rows: int, n_columns: int) -> bool:
    """Whether there are so few rows that a decoder has less to do in their span."""
    return n_rows <= _MOST_ROWS and n_columns >= _COLUMNS_FOR_EACH * n_rows


class Directions:
    """An orthonormal basis B (m, p) of the span of some rows X (n, p), m <= n.

    A decoder of rows in this span need not leave it: what its output has beyond is an
    error for each of them. With T = c X Bᵀ for its target it has m outputs in place of
    p, and the mean of their squared errors is the same for c = √(m/p). The basis are
    the principal directions: with the singular values S, X = U S B, which is never
    stored, as it is as large as X.

    Parameters
    ----------
    rows : Rows
    index : int array of shape (n,)
        Numbers of the rows that are seen; others may have no weight anywhere.

    Attributes
    ----------
    target : Target
        T, with a row for each row of X; zeros for those that are not seen.
    """

    def __init__(self, rows: Rows, index: np.ndarray):
        self.index = torch.from_numpy(index)
        n, p = len(index), rows.n_features
        gram = torch.zeros(n, n, dtype=torch.float64)
        for X in self._parts(rows):
            gram.addmm_(X, X.T)
        squares, U = torch.linalg.eigh(gram)
        live = squares > _DEAD * squares[-1]
        live[-1] = True  # also where all rows are zero
        root, U = (
            squares[live].clamp(min=torch.finfo(gram.dtype).tiny).sqrt(),
            U[:, live],
        )
        m = len(root)
        c = sqrt(m / p)
        self._back = U / (c * root)  # Xᵀ times this is Bᵀ / c
        T = torch.zeros(rows.X.shape[0], m, dtype=torch.float32)
        T[self.index] = (U * (c * root)).float()
        self.target = Target("squared_error", m, T)

    def _parts(self, rows: Rows) -> Iterator[Tensor]:
        """Some columns at a time of the rows seen, in float64."""
        width = max(1, _VALUES_AT_ONCE // len(self.index))
        index = self.index.to(rows.device)
        for columns in torch.arange(rows.n_features, device=rows.device).split(width):
            yield rows.take(index, columns).cpu().double()

    def of_all_columns(self, state: dict[str, Tensor], rows: Rows) -> dict[str, Tensor]:
        """The state of a decoder of T as one that has the columns for its outputs."""
        *_, weight, bias = state  # those of the last layer come last
        weight_of_rows = self._back @ state[weight].cpu().double()  # (n, h)
        bias_of_rows = state[bias].cpu().double() @ self._back.T  # (1, n)
        weights, biases = [], []
        for X in self._parts(rows):
            weights.append((X.T @ weight_of_rows).float())
            biases.append((bias_of_rows @ X).float())
        return state | {weight: torch.cat(weights), bias: torch.cat(biases, -1)}
