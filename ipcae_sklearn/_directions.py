"""Few rows of many columns, reconstructed in the directions that the rows span."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ipcae_sklearn._data import Rows
from ipcae_sklearn._targets import Target

# At most so many rows, and columns: at least so many, and so many for each row.
_MOST_ROWS, _FEWEST_COLUMNS, _COLUMNS_FOR_EACH = 2048, 4096, 4
_VALUES_AT_ONCE = 2**22  # read, in float64
# A direction with less than this share of the squares in the longest is rounding.
_DEAD = 1e-10


def worthwhile(n_rows: int, n_columns: int) -> bool:
    """Whether there are so few rows that a decoder has less to do in their span."""
    fewest = max(_FEWEST_COLUMNS, _COLUMNS_FOR_EACH * n_rows)
    return n_rows <= _MOST_ROWS and n_columns >= fewest


class Directions:
    """An orthonormal basis B (m, p) of the span of some rows X (n, p), m <= n.

    A decoder of rows in this span need not leave it: what its output has beyond is an
    error for each of them. With T = c X Bᵀ for its target it has m outputs in place of
    p, and with c = √(m/p) the mean of their squared errors is the same. B holds the
    principal directions of the weighted rows, √w X = U S B with the singular values S.
    It is never stored, for it is as large as X.

    Parameters
    ----------
    rows : Rows
    index : int array of shape (n,)
        Numbers of the rows that are seen; others may have no weight anywhere.
    weights : array of shape (n,) or None
        Of these rows, positive; None for equal ones.

    Attributes
    ----------
    target : Target
        T, with a row for each row of X; zeros for those that are not seen.
    """

    def __init__(self, rows: Rows, index: np.ndarray, weights=None):
        self.index = index
        root = np.ones(len(index)) if weights is None else np.sqrt(weights)
        root = (root / np.linalg.norm(root))[:, None]
        gram, along = np.zeros((len(index), len(index))), np.zeros(len(index))
        # A direction has no sign of its own: the same that this vector has along it,
        # whatever the order of the rows.
        reference = np.random.default_rng(0).standard_normal(rows.n_features)
        for part, X in self._parts(rows):
            gram += X @ X.T
            along += X @ reference[part]
        squares, U = np.linalg.eigh(root * gram * root.T)
        live = squares > _DEAD * squares[-1]
        live[-1] = True  # also where all rows are zero
        U = U[:, live] * np.where(U[:, live].T @ (root[:, 0] * along) < 0, -1, 1)
        m, tiny = U.shape[1], np.finfo(gram.dtype).tiny
        longer = np.sqrt(np.maximum(squares[live], tiny) * m / rows.n_features)  # c S
        self._back = root * U / longer  # Xᵀ times this is Bᵀ / c
        T = np.zeros((rows.X.shape[0], m), dtype=np.float32)
        T[index] = U / root * longer
        self.target = Target("squared_error", m, torch.from_numpy(T))

    def _parts(self, rows: Rows) -> Iterator[tuple[slice, np.ndarray]]:
        """Some columns at a time of the rows seen, in float64."""
        width = max(1, _VALUES_AT_ONCE // len(self.index))
        index = torch.from_numpy(self.index).to(rows.device)
        for columns in torch.arange(rows.n_features, device=rows.device).split(width):
            part = slice(int(columns[0]), int(columns[-1]) + 1)
            yield part, rows.take(index, columns).cpu().numpy().astype(np.float64)

    def of_all_columns(self, state, rows: Rows) -> dict[str, Tensor]:
        """The state of a decoder of T as one that has the columns for its outputs."""
        *_, weight, bias = state  # those of the last layer come last
        W, b = (state[name].cpu().double().numpy() for name in (weight, bias))
        W, b = self._back @ W, b @ self._back.T  # of the rows: (n, h), (1, n)
        # Filled in place: they may be several times as large as all else.
        weights = torch.empty(rows.n_features, W.shape[1], dtype=torch.float32)
        biases = torch.empty(1, rows.n_features, dtype=torch.float32)
        for part, X in self._parts(rows):
            weights[part] = torch.from_numpy(X.T @ W)
            biases[:, part] = torch.from_numpy(b @ X)
        return state | {weight: weights, bias: biases}
