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
# Share of the columns that a perturbation drops.
_DROPPED = 0.2
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
    n_perturbations: int = 0,
    seeds: Sequence[int] = (),
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
        Columns to begin with. Before swaps those make room that are a linear
        combination of the ones before them, where a column is left that is not.
    column_weight : Tensor of shape (r, p), optional
        Weights of the columns among what is to be explained.
    alpha : float, default=0.0
        Penalty on the squared coefficients, in shares of the columns' squares.
    n_swap_passes : int, default=0
        Passes in which each column in turn is replaced by the best one given the
        others.
    n_perturbations : int, default=0
        So many times a fifth of the columns, drawn at random, makes room for others,
        from which the passes begin anew; kept is what explains more.
    seeds : sequence of r ints, optional
        Of these draws, if there are any.

    Returns
    -------
    list of r int arrays of shape (k,)
        As :func:`ipcae_sklearn.greedy_columns` returns them.
    """
    new_residual = partial(_Residual, gram, products, column_weight, alpha)
    residual = new_residual()
    steps = torch.arange(max(k), device=gram.device)
    in_use = steps < torch.tensor(k, device=gram.device).unsqueeze(-1)
    columns, live = _forward(residual, in_use, start)
    if n_swap_passes:
        given = zip(start, live.cpu().numpy(), strict=True)
        kept = [np.compress(own[: len(first)], first) for first, own in given]
        if sum(map(len, kept)) < sum(map(len, start)):
            del residual  # there may be no room for two
            residual = new_residual()
            others, others_live = _forward(residual, in_use, kept)
            more = others_live.sum(-1, keepdim=True) > live.sum(-1, keepdim=True)
            columns = torch.where(more, others, columns)
            live = torch.where(more, others_live, live)
    # Where dead ones are left the others span all columns, and no swap explains more.
    swaps = _Swaps(residual, columns, in_use & (live | ~in_use).all(-1, keepdim=True))
    swaps.settle(n_swap_passes)
    draws = []
    if n_perturbations:
        own = zip(k, seeds, strict=True)
        draws = [_places(n, gram.shape[2], seed) for n, seed in own]
    for _ in range(n_perturbations):
        dropped = torch.zeros_like(in_use)
        for own, places in zip(dropped, draws, strict=True):
            own[next(places)] = True
        swaps.perturb(dropped, n_swap_passes)
    found = swaps.columns.cpu().numpy()
    return [own[:n] for own, n in zip(found, k, strict=True)]


def _places(k: int, p: int, seed: int) -> Iterator[np.ndarray]:
    """Places among k of p columns to drop, drawn anew each time."""
    rng = np.random.default_rng(seed)
    n = min(max(1, round(_DROPPED * k)), p - k)
    while True:
        yield rng.permutation(k)[:n]


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
        explained, left = self.explained.unsqueeze(1), self.squares_left.unsqueeze(1)
        return self._gains(explained, left).squeeze(1)

    def gains_without(self, own) -> tuple[Tensor, Tensor]:
        """The same, had one of b directions not been explained: (r, b, p); and what
        each of them explains (r, b). ``own`` (r, p + m, b) are their products with all.
        """
        along, own = self._along(own), own.transpose(1, 2)
        weighted = self.weight * own
        square = (weighted * own).sum(-1)
        more = 2 * (weighted @ self.left) + square.unsqueeze(-1) * along
        explained = self.explained.unsqueeze(1) + along * more
        squares_left = self.squares_left.unsqueeze(1) + along.square()
        return self._gains(explained, squares_left), square

    def _gains(self, explained, squares_left):
        """Gains (r, b, p), from what columns would explain and their squares left."""
        square = self.square.unsqueeze(1)
        norms = squares_left + self.penalty.unsqueeze(1)
        dead = square / square.amax(-1, keepdim=True).clamp(min=_TINY)
        live = norms > _DEAD * square
        return torch.where(live, explained.clamp(min=0) / norms, dead - 2)

    def add(self, j, active) -> Tensor:
        """Explain by the columns j (r,), in the runs (r,) that are active; where these
        were not dead.
        """
        own, live = self._direction(_columns(self.left, j.unsqueeze(-1)), j, active)
        self._move(own, -self._along(own))
        return live

    def replace(self, own, j, active) -> None:
        """Explain by the columns j (r,) in place of directions, whose products with all
        are ``own`` (r, p + m, 1), in the runs (r,) that are active.
        """
        old = own * active[:, None, None]
        j_old = old.gather(1, j[:, None, None])
        left = _columns(self.left, j.unsqueeze(-1)) + old * j_old
        new, _ = self._direction(left, j, active)
        along = torch.cat([self._along(old), -self._along(new)], 1)
        self._move(torch.cat([old, new], 2), along)

    def _direction(self, left, j, active) -> tuple[Tensor, Tensor]:
        """That of what is left of columns j (r,), by its products (r, p + m, 1) with
        all: zeros where they are dead, or a run is not active; and which are not dead.
        """
        j = j.unsqueeze(-1)
        norm = left.gather(1, j.unsqueeze(-1)).squeeze(-1) + self.penalty.gather(1, j)
        live = norm > _DEAD * self.square.gather(1, j)
        scale = torch.where(
            live & active.unsqueeze(-1), norm.clamp(min=_TINY).rsqrt(), 0
        )
        return left * scale.unsqueeze(-1), live.squeeze(-1)

    def _along(self, own) -> Tensor:
        """Of products with all (r, p + m, b) those with the columns (r, b, p)."""
        return own[:, : self.square.shape[1]].transpose(1, 2)

    def _move(self, own, along) -> None:
        self.left.baddbmm_(own, along)
        self.explained.copy_(self._explained())

    def explain_by(self, basis) -> None:
        """Explain by the columns of a basis and by nothing else, without the rounding
        of many steps.
        """
        torch.baddbmm(self.all, basis, self._along(basis), alpha=-1, out=self.left)
        self.explained.copy_(self._explained())

    def basis(self, columns, in_use) -> tuple[Tensor, Tensor]:
        """Directions that span the columns (r, k), by their products (r, p + m, k) with
        all, and how they make, in column i of matrices (r, k, k), the direction, of
        length 1, in which the i-th column differs from the others.

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
        parts = solve(unit) * both
        length = parts.square().sum(1, keepdim=True).clamp(min=_TINY).sqrt()
        return basis, parts / length


def _columns(A: Tensor, columns: Tensor) -> Tensor:
    """Of matrices (r, n, p) the columns (r, k): (r, n, k)."""
    return A.gather(2, columns.unsqueeze(1).expand(-1, A.shape[1], -1))


def _forward(residual, in_use, start) -> tuple[Tensor, Tensor]:
    """The columns (r, k) in the order chosen, and which of those in use were not dead
    then.
    """
    table = np.full(in_use.shape, -1)
    for row, own in zip(table, start, strict=True):
        row[: len(own)] = own
    given = torch.from_numpy(table).to(in_use.device)
    columns = torch.zeros_like(given)
    live = torch.zeros_like(in_use)
    taken = torch.zeros_like(residual.square, dtype=torch.bool)

    def take(given, active):
        best = _first_best(residual.gains().masked_fill(taken, -torch.inf))
        j = torch.where(given >= 0, given, best)
        taken.scatter_(1, j.unsqueeze(-1), True)
        return torch.stack([j, residual.add(j, active)])

    take = replayed(take, in_use.device, recordable=True)
    for i in range(columns.shape[1]):
        columns[:, i], live[:, i] = take(given[:, i], in_use[:, i])
    return columns, live & in_use


class _Swaps:
    """Swaps of chosen columns (r, k), of those in use, for better ones, in place."""

    def __init__(self, residual, columns, in_use):
        self.residual, self.columns, self.in_use = residual, columns, in_use
        # Not a method: a recording that is part of a cycle would outlive the fit.
        judge = partial(_judge_swaps, residual, columns, in_use)
        self.judge = replayed(judge, in_use.device, recordable=True)

    def settle(self, n_passes: int) -> None:
        """Replace each column in turn, so many times or until there is none better."""
        for _ in range(n_passes):
            before = self.columns.clone()
            self._go_through()
            if torch.equal(self.columns, before):
                break

    def _go_through(self) -> None:
        """Replace each column by the best one given the others.

        Several in a row are tried at once, up to the first that there is a better one
        for.
        """
        residual, columns, in_use = self.residual, self.columns, self.in_use
        basis, parts = residual.basis(columns, in_use)
        residual.explain_by(basis)
        n_runs, k = columns.shape
        on_gpu = columns.is_cuda  # which takes as long for all as for one
        n_tried = k if on_gpu else 1
        first = torch.zeros(n_runs, 1, dtype=torch.int64, device=columns.device)
        while bool((first < k).any()):
            place = first + torch.arange(n_tried, device=columns.device)
            inside, place = place < k, place.clamp(max=k - 1)
            own = basis @ _columns(parts, place)
            j, better = self.judge(own, inside & in_use.gather(1, place))
            swaps, at = better.max(-1, keepdim=True)  # (r, 1), the first if it does
            swaps, i = swaps > 0, place.gather(1, at)
            first = torch.where(swaps, i + 1, first + n_tried)
            if not swaps.any():
                n_tried = min(2 * n_tried, k)
                continue
            new = torch.where(swaps, j.gather(1, at), columns.gather(1, i))
            columns.scatter_(1, i, new)
            residual.replace(_columns(own, at), new.squeeze(-1), swaps.squeeze(-1))
            basis, parts = residual.basis(columns, in_use)
            n_tried = k if on_gpu else max(1, n_tried // 2)

    def perturb(self, dropped, n_passes: int) -> None:
        """Drop columns (r, k) for others and settle; undo it where that is no gain."""
        before = self.columns.clone(), self._explained()
        self._replace_all(dropped & self.in_use)
        self.settle(n_passes)
        better = self._explained() > before[1] + _PROGRESS
        self.columns.copy_(torch.where(better, self.columns, before[0]))

    def _replace_all(self, dropped) -> None:
        """Put greedy columns in the place of some, none of which comes back."""
        residual, columns = self.residual, self.columns
        basis, _ = residual.basis(columns, self.in_use & ~dropped)
        residual.explain_by(basis)
        taken = torch.zeros_like(residual.square, dtype=torch.bool)
        taken.scatter_(1, _chosen(columns, self.in_use), True)
        places = dropped.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        for i in places[:, : int(dropped.sum(-1).max())].unbind(1):
            i = i.unsqueeze(-1)
            gains = residual.gains().masked_fill(taken, -torch.inf)
            j = _first_best(gains).unsqueeze(-1)
            # A dead column would be as good as none.
            active = dropped.gather(1, i) & (gains.gather(1, j) > 0)
            taken.scatter_(1, j, True)
            columns.scatter_(1, i, torch.where(active, j, columns.gather(1, i)))
            residual.add(columns.gather(1, i).squeeze(-1), active.squeeze(-1))

    def _explained(self) -> Tensor:
        """What the columns explain of all (r, 1)."""
        basis, _ = self.residual.basis(self.columns, self.in_use)
        return (self.residual.weight @ basis.square()).sum(-1)


def _judge_swaps(residual, columns, in_use, own, active) -> Tensor:
    """The best columns in place of some (r, b), and whether they are better.

    ``own`` are the products of the directions of these, of which some are active.
    """
    gains, explained = residual.gains_without(own)
    chosen = _chosen(columns, in_use).unsqueeze(1).expand(-1, own.shape[2], -1)
    j = _first_best(gains.scatter_(2, chosen, -torch.inf))
    gain = gains.gather(2, j.unsqueeze(-1)).squeeze(-1)
    return torch.stack([j, active & (gain > explained + _PROGRESS)])


def _chosen(columns, in_use) -> Tensor:
    """The columns (r, k), the first in place of what is not in use."""
    return torch.where(in_use, columns, columns[:, :1])


def _first_best(values: Tensor) -> Tensor:
    """Indices (r,) of the largest values (r, p), the lowest that rounding may part."""
    largest = values.max(-1, keepdim=True).values
    return (values >= largest - _TIE * largest.abs()).to(torch.uint8).argmax(-1)
