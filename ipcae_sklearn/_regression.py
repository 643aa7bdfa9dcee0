"""Greedy columns from scalar products alone, for several runs at once, on any device.

They are those of :func:`ipcae_sklearn.greedy_columns` to half of its digits, found
sooner where rows are many.

Letters: r runs, n rows, p columns, m columns of a target, k chosen columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ipcae_sklearn._graphs import replayed

# A column with less than this share of its square left is a combination of the chosen
# ones up to rounding, and is called dead.
_DEAD = 1e-11
# Closer than this, the lowest index wins.
_TIE = 1e-10
# A swap has to explain this share of all more than the column it takes out.
_PROGRESS = 1e-10
_TINY = 1e-300  # for what may be 0 and has to be divided by
_ROWS_AT_ONCE = 1024


def gram_matrix(X: Tensor, share: Tensor) -> Tensor:
    """Weighted scalar products (r, p, p) of the centred columns of X (r, n, p).

    ``share`` (r, n, 1) are weights with a sum of 1, that of the first row not 0;
    computed in float64. Columns that are constant make exact zeros.
    """
    gram = X.new_zeros(len(X), X.shape[2], X.shape[2], dtype=torch.float64)
    mean = sum(share[:, part].transpose(1, 2) @ values for part, values in _blocks(X))
    for part, values in _blocks(X):
        own = share[:, part].sqrt() * (values - mean)
        gram.baddbmm_(own.transpose(1, 2), own)
    return gram


def products_with(X: Tensor, Y: Tensor, share: Tensor) -> Tensor:
    """Weighted scalar products (r, m, p) of the centred columns of Y and of X.

    Those of Y are scaled by one factor, for their squares to have a sum of 1.
    """
    Y = Y - Y[:, :1]  # exact zeros, where it is constant
    Y = Y - share.transpose(1, 2) @ Y
    total = (share * Y.square()).sum((1, 2), keepdim=True)
    Y = (share * Y / total.clamp(min=_TINY).sqrt()).transpose(1, 2)
    products = Y.new_zeros(*Y.shape[:2], X.shape[2])
    for part, values in _blocks(X):
        products.baddbmm_(Y[..., part], values)  # whose means cancel
    return products


def _blocks(X) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows and their values in float64, measured from the first row.

    Rounding of the mean of a constant column would look like a column of its own.
    """
    for first in range(0, X.shape[1], _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        yield part, X[:, part].double() - X[:, :1]


def greedy_from_products(
    gram: Tensor,
    products: Tensor,
    k: Sequence[int],
    start: Sequence[np.ndarray],
    *,
    column_weight: Tensor | None = None,
    alpha: float = 0.0,
    n_swap_passes: int = 0,
) -> list[np.ndarray]:
    """Choose the columns of each run that explain all columns and a target best.

    Parameters
    ----------
    gram : Tensor of shape (r, p, p)
        Of :func:`gram_matrix`.
    products : Tensor of shape (r, m, p)
        Of :func:`products_with`; the target counts as much as all columns together.
    k : sequence of r ints
    start : sequence of r int arrays
        Columns to begin with.
    column_weight : Tensor of shape (r, p), optional
        Weights of the columns among what is to be explained.
    alpha : float, default=0.0
        Penalty on the squared coefficients, in shares of the columns' squares.
    n_swap_passes : int, default=0
        Passes in which each column in turn is replaced by the best one given the
        others.

    Returns
    -------
    list of r int arrays of shape (k,)
        As :func:`ipcae_sklearn.greedy_columns` returns them.
    """
    residual = _Residual(gram, products, column_weight, alpha)
    steps = torch.arange(max(k), device=gram.device)
    in_use = steps < torch.tensor(k, device=gram.device).unsqueeze(-1)
    columns, independent = _forward(residual, in_use, start)
    # Dependent columns among them say that the others span all columns.
    in_use = in_use & independent.unsqueeze(-1)
    for _ in range(n_swap_passes):
        before = columns.clone()
        _swap_pass(residual, columns, in_use)
        if torch.equal(columns, before):
            break
    found = columns.cpu().numpy()
    return [own[:n] for own, n in zip(found, k, strict=True)]


class _Residual:
    """What the chosen columns leave of all scalar products.

    ``all`` (r, p + m, p) are those of the columns and, below, of the target with the
    columns, ``left`` the same with the parts of the columns that are unexplained.
    ``weight`` (r, 1, p + m) tells how much a row of them counts.
    """

    def __init__(self, gram, products, column_weight, alpha):
        self.square = torch.diagonal(gram, dim1=1, dim2=2)  # (r, p)
        self.penalty = alpha * self.square
        if column_weight is None:
            column_weight = torch.ones_like(self.square)
        total = (column_weight * self.square).sum(-1, keepdim=True)
        own = column_weight / total.clamp(min=_TINY)
        weight = torch.cat([own, torch.ones_like(products[:, :, 0])], 1)
        self.weight = weight.unsqueeze(1)
        self.all = torch.cat([gram, products], 1)
        self.left = self.all.clone()
        self.squares_left = torch.diagonal(self.left, dim1=1, dim2=2)  # a view
        self.explained = self._explained()

    def _explained(self):
        # Not followed from step to step: a column that is almost explained would be
        # worth what rounding has left of its beginning.
        return (self.weight @ self.left.square()).squeeze(1)

    def gains(self) -> Tensor:
        """What each column would explain by itself of what is left (r, p).

        Dead columns come after all others, those of the largest square first.
        """
        return self._gains(self.explained, self.squares_left)

    def gains_without(self, own) -> Tensor:
        """The same, had one direction not been explained; ``own`` (r, p + m, 1) are
        its products with all.
        """
        weighted = self.weight * own.transpose(1, 2)
        cross, square = weighted @ self.left, weighted @ own
        along = own[:, : self.square.shape[1]].transpose(1, 2)
        more = (along * (2 * cross + square * along)).squeeze(1)
        squares_left = self.squares_left + along.squeeze(1) ** 2
        return self._gains(self.explained + more, squares_left)

    def _gains(self, explained, squares_left):
        norms = squares_left + self.penalty
        dead = self.square / self.square.max(-1, keepdim=True).values.clamp(min=_TINY)
        live = norms > _DEAD * self.square
        return torch.where(live, explained.clamp(min=0) / norms, dead - 2)

    def _move(self, own, sign):
        along = own[:, : self.square.shape[1]].transpose(1, 2)
        self.left.baddbmm_(own, along, alpha=sign)
        self.explained.copy_(self._explained())

    def add(self, j, active) -> Tensor:
        """Explain by the columns j (r,), in the runs (r,) that are active; where these
        were not dead.
        """
        own = _columns(self.left, j.unsqueeze(-1))
        norm = own.gather(1, j[:, None, None])
        norm = norm + self.penalty.gather(1, j.unsqueeze(-1)).unsqueeze(-1)
        live = norm > _DEAD * self.square.gather(1, j.unsqueeze(-1)).unsqueeze(-1)
        added = live & active[:, None, None]
        self._move(own * torch.where(added, norm.clamp(min=_TINY).rsqrt(), 0), -1)
        return live[:, 0, 0]

    def remove(self, own, active) -> None:
        """Do not explain by a direction with these products with all (r, p + m, 1)."""
        self._move(own * active[:, None, None], 1)

    def explain_by(self, basis) -> None:
        """Explain by the columns of a basis and by nothing else, without the rounding
        of many steps.
        """
        along = basis[:, : self.square.shape[1]].transpose(1, 2)
        torch.baddbmm(self.all, basis, along, alpha=-1, out=self.left)
        self.explained.copy_(self._explained())

    def basis(self, columns, in_use) -> tuple[Tensor, Tensor]:
        """Directions that span the columns (r, k), by their products (r, p + m, k) with
        all, and how they make, in column i of matrices (r, k, k), the direction in
        which the i-th column differs from the others.

        For those not in use there are zeros.
        """
        own, k = _columns(self.all, columns), columns.shape[1]
        inner = own.gather(1, columns.unsqueeze(-1).expand(-1, -1, k))
        inner += torch.diag_embed(self.penalty.gather(1, columns))
        both = in_use.unsqueeze(-1) & in_use.unsqueeze(-2)
        unit = torch.eye(k, dtype=inner.dtype, device=inner.device).expand_as(inner)
        triangle = torch.linalg.cholesky_ex(torch.where(both, inner, unit)).L
        solve = partial(torch.linalg.solve_triangular, triangle, upper=False)
        basis = solve((own * in_use.unsqueeze(1)).transpose(1, 2)).transpose(1, 2)
        return basis, solve(unit) * both


def _columns(A: Tensor, columns: Tensor) -> Tensor:
    """Of matrices (r, n, p) the columns (r, k): (r, n, k)."""
    return A.gather(2, columns.unsqueeze(1).expand(-1, A.shape[1], -1))


def _forward(residual, in_use, start) -> tuple[Tensor, Tensor]:
    """The columns (r, k) in the order chosen, and of which runs they are linearly
    independent.
    """
    table = np.full(in_use.shape, -1)
    for row, own in zip(table, start, strict=True):
        row[: len(own)] = own
    given = torch.from_numpy(table).to(in_use.device)
    columns = torch.zeros_like(given)
    taken = torch.zeros_like(residual.square, dtype=torch.bool)
    independent = torch.ones_like(in_use[:, 0])

    def take(given, active):
        best = _first_best(residual.gains().masked_fill(taken, -torch.inf))
        j = torch.where(given >= 0, given, best)
        taken.scatter_(1, j.unsqueeze(-1), True)
        independent.logical_and_(residual.add(j, active) | ~active)
        return j

    take = replayed(take, in_use.device, recordable=True)
    for i in range(columns.shape[1]):
        columns[:, i] = take(given[:, i], in_use[:, i])
    return columns, independent


def _swap_pass(residual, columns, in_use) -> None:
    """Replace each column by the best one given the others, in place."""
    basis, parts = residual.basis(columns, in_use)
    residual.explain_by(basis)
    own = torch.empty_like(residual.all[..., :1])

    def judge(basis, part, active):
        """The best column in place of one, and whether it is better (2, r)."""
        # Along the direction in which the one differs from all others chosen.
        length = part.square().sum(1, keepdim=True).clamp(min=_TINY).sqrt()
        own.copy_(basis @ (part / length))
        gains = residual.gains_without(own)
        gains.scatter_(1, torch.where(in_use, columns, columns[:, :1]), -torch.inf)
        j = _first_best(gains)
        explained = (residual.weight @ own.square())[:, 0, 0]
        gain = gains.gather(1, j.unsqueeze(-1)).squeeze(-1)
        return torch.stack([j, active & (gain > explained + _PROGRESS)])

    judge = replayed(judge, in_use.device, recordable=True)
    for i in range(columns.shape[1]):
        j, better = judge(basis, parts[:, :, i : i + 1], in_use[:, i])
        if better.any():
            better = better > 0
            columns[:, i] = torch.where(better, j, columns[:, i])
            residual.remove(own, better)
            residual.add(j, better)
            basis, parts = residual.basis(columns, in_use)


def _first_best(values: Tensor) -> Tensor:
    """Indices (r,) of the largest values (r, p), the lowest that rounding may part."""
    largest = values.max(-1, keepdim=True).values
    return (values >= largest - _TIE * largest.abs()).to(torch.uint8).argmax(-1)
