"""Columns that linear regression recommends to the runs of a fit.

Letters: r runs, n rows looked at, p columns, k chosen columns, m columns of a target, h
units of a decoder's first layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from ipcae_sklearn._greedy import greedy_columns
from ipcae_sklearn._regression import gram_matrix, greedy_from_products, products_with

# Rows are looked at as many as hold this many values, and no fewer than the second, if
# there are as many.
_MOST_VALUES, _FEWEST_ROWS = 10_000_000, 1000
# The same, and the most rows, where columns are to meet the decoder's needs.
_VALUES_FOR_NEEDS, _ROWS_FOR_NEEDS = 4_000_000, 5000
_DIRECTIONS = 50  # of the needs that are told apart
# Where they count alike, they explain this fraction of any column by chance.
_ROWS_A_DIRECTION = 12
_DEAD = 1e-6  # share of the squares in the longest direction that is rounding
# Two columns of which a regression on the other leaves a smaller share are copies.
_UNLIKE = 1e-4
_TINY = 1e-300
_TINY_SHARE = 1e-6  # of a row, in float32
_CONSTANT = 1e-5  # share of a column's squares about 0 that is rounding, in float32
# Greedy columns are found among as many columns as make matrices of this size, of which
# there are five in float64.
_GREEDY_VALUES = 2_000_000
# With several penalties, rows are few: among as many columns as hold this many values.
_PENALIZED_VALUES = 500_000
# Perturbations of swaps are as many as have so many values (k, p, p) together: with
# hundreds of columns in the selection each of them takes a second.
_PERTURBED_VALUES = 500_000_000
# Bytes that the regressions of several runs at once may need on a GPU.
_BYTES_AT_ONCE = 2**30
# Read at once while the columns are screened, in float32; and rows at least.
_VALUES_AT_ONCE, _ROWS_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}, 32
_PARTS = 8  # of a column's range, where curves are looked for
_ROUNDING = 1e-9  # of a share of the weights
# Standard deviations from the mean. Columns that seldom differ from their mean reach
# further, and a few of their values would count for the whole column.
_FURTHEST = 3.0
# Penalties of the regression where the target decides, to be tried in turn. With
# the first, columns are chosen for what others leave; with the last, nearly each for
# what it explains alone.
_PENALTIES_OF_A_TARGET = (0.0, 1.0, 10.0)


@dataclass
class _Seen:
    """Rows that some runs look at, those that count first.

    Attributes
    ----------
    runs : list of r ints
    index : int array of shape (r, n)
    weights : Tensor of shape (r, n)
        float64; 0 where a run with fewer rows than others repeats some.
    n_own : list of r ints
        Rows that are not.
    n_shared : int
        Rows that all runs look at, but for those that they may not see.
    """

    runs: list[int]
    index: np.ndarray
    weights: Tensor
    n_own: list[int]
    n_shared: int

    @cached_property
    def share(self) -> Tensor:
        """The weights (r, n, 1), with a sum of 1."""
        return (self.weights / self.weights.sum(-1, keepdim=True)).unsqueeze(-1)

    @cached_property
    def weigh_alike(self) -> bool:
        """Whether all rows of a run have one weight, but for those without any."""
        weights = self.weights
        return bool(((weights == 0) | (weights == weights[:, :1])).all())

    def centred(self, Y: Tensor) -> Tensor:
        """Y (r, n, m) less its weighted means."""
        return Y - (self.share * Y).sum(1, keepdim=True)


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
    n_perturbations : int
        So many times, at most, these begin anew from columns of which some are others.
        Not where rows are fewer than columns.
    with_curves : bool
        Whether the columns of which the target is a function, each by itself, in a line
        or a curve, are an alternative.
    by_target : bool
        Whether columns count as far as the target explains them, and no further, with
        several penalties. (With many rows a decoder can use what goes with the rest as
        well.)
    """

    def __init__(
        self,
        rows,
        target,
        runs,
        *,
        n_swap_passes=0,
        n_perturbations=0,
        by_target=False,
        with_curves=False,
    ):
        self._data = rows
        self.target = target
        self.runs = runs
        self.n_swap_passes = n_swap_passes
        self.n_perturbations = n_perturbations
        self.by_target = by_target
        self.with_curves = with_curves
        # Columns of each run that are always an alternative, if it has begun with any.
        self.greedy: list[np.ndarray] | None = None
        # A GPU takes as long for one run as for several.
        self.together = rows.device.type == "cuda" and rows.resident is not None
        # Without a target the decoder asks for what regression has found already.
        self.asks_decoder = target.tensor is not None
        self.penalties = _PENALTIES_OF_A_TARGET if by_target else (0.0,)
        self._first_alike = self._find_alike()
        self._grams: dict[tuple[int, int], Tensor] = {}

    def complete(self, columns, k, n_swap_passes=0, alpha=0.0) -> list[np.ndarray]:
        """Columns of each run made up to k by greedy ones, then swapped for better
        ones.

        They explain all columns and the target, if there is one, in equal parts.
        """
        runs = range(len(k)) if n_swap_passes else _incomplete(columns, k)
        options = {"n_swap_passes": n_swap_passes, "alpha": alpha}
        look, target_of = self._look_for_target, self._target_of
        return self._greedy(runs, columns, k, look, target_of, **options)

    def candidates(self, n: int, columns=None) -> list[np.ndarray]:
        """For each run those n columns, in order, that tell most of the target by
        themselves; given ones are among them.
        """
        k, look = [n] * len(self.runs.k), self._look_for_target
        columns = columns or _nothing(k)
        found = self._best_alone(columns, k, look, _scores, self._target_of)
        return [np.sort(own) for own in found]

    def begin_greedily(self) -> None:
        """Find greedy columns for each run, from then on one of the alternatives."""
        k = self.runs.k
        self.greedy = self.complete(_nothing(k), k, self.n_swap_passes)

    def distinct(self, columns) -> list[np.ndarray]:
        """For each run True for the columns that are no copies of one before them."""
        found = []
        for i, own in enumerate(columns):
            seen = self._look_for_target([i])
            X = seen.centred(_read_columns(self._data, seen, own).double())
            X = (seen.share.sqrt() * X)[0]
            X = X / X.norm(dim=0).clamp(min=_TINY)
            copies = ((X.T @ X).square() > 1 - _UNLIKE).cpu().numpy()
            kept = np.full(len(own), True)
            for j in range(len(own)):
                kept[j] = not copies[j, :j][kept[:j]].any()
            found.append(kept)
        return found

    def alternatives(self, columns) -> list[list[np.ndarray]]:
        """Sets to try in place of the columns of all runs."""
        found = [] if self.greedy is None else [self.greedy]
        k = [len(own) for own in columns]
        if self.n_swap_passes:
            for alpha in self.penalties:
                found.append(self.complete(columns, k, self.n_swap_passes, alpha))
        if self.with_curves:
            look, target_of = self._look_for_target, self._target_of
            found.append(
                self._best_alone(_nothing(k), k, look, _curve_scores, target_of)
            )
        return found

    def in_folds(self, n_folds: int, folds) -> GreedyAdviser:
        """One for all runs in each of some folds, who looks at what is trained on."""
        weights = folds.train_weights(self._data.X.shape[0])
        k, seeds = self.runs.k * n_folds, self.runs.seeds * n_folds
        other = self._with(replace(self.runs, k=k, seeds=seeds, weights=weights))
        if self.greedy is not None:
            other.begin_greedily()
        return other

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs."""
        return self.runs.seeds

    def of(self, runs: slice) -> GreedyAdviser:
        """One for some of the runs, which have weights."""
        k, seeds, weights = self.runs.k, self.runs.seeds, self.runs.weights
        several = {"k": k[runs], "seeds": seeds[runs], "weights": weights[runs]}
        other = self._with(replace(self.runs, **several))
        if self.greedy is not None:
            other.greedy = self.greedy[runs]
        return other

    def _with(self, runs) -> GreedyAdviser:
        """One with the same options for other runs."""
        other = copy.copy(self)
        other.runs, other.greedy, other._grams = runs, None, {}
        other._first_alike = other._find_alike()
        return other

    def rows(self) -> np.ndarray:
        """Numbers (r, n) of the rows to look at for :meth:`meet`."""
        return self._look_for_needs(range(len(self.runs.k))).index

    def meet(self, columns, k, needs: Tensor, *, by: str) -> list[np.ndarray]:
        """Columns of each run made up to k by those that meet needs (r, n, h).

        By company, each is to explain what ``columns`` and those before it do not, of
        the needs and of all columns in equal parts; by share, each is worth what it
        explains of the needs by itself; by kinship, each is worth what a regression
        on the needs explains of it; by curve, each is worth what the means of the needs
        over parts of its range explain.
        """

        def directions(seen):
            asked = needs[seen.runs, : seen.index.shape[1]].double()
            asked = asked * (seen.weights > 0).unsqueeze(-1)
            if by != "kinship":
                return _main_directions(asked, _DIRECTIONS)
            most = [
                min(_DIRECTIONS, max(1, n // _ROWS_A_DIRECTION)) for n in seen.n_own
            ]
            return _alike_directions(asked, seen.weights, most)

        if by == "company":
            runs = _incomplete(columns, k)
            return self._greedy(runs, columns, k, self._look_for_needs, directions)
        scores = _curve_scores if by == "curve" else _scores
        return self._best_alone(columns, k, self._look_for_needs, scores, directions)

    def _best_alone(self, columns, k, look, scores_of, target_of) -> list[np.ndarray]:
        """Columns of each run made up to k by those of the best scores for a target."""
        found = list(columns)
        for seen in self._side_by_side(_incomplete(columns, k), k, look):
            scores = scores_of(self._data, seen, target_of(seen))
            for i, score in zip(seen.runs, scores.cpu().numpy(), strict=True):
                score[columns[i]] = -1
                best = np.argsort(-score, kind="stable")[: k[i] - len(columns[i])]
                found[i] = np.append(columns[i], best)
        return found

    def _greedy(self, runs, columns, k, look, target_of, **options):
        """The columns, of some runs with others, explained in target_of(seen)."""
        found = list(columns)
        for seen in self._side_by_side(runs, k, look):
            start = [np.asarray(columns[i], dtype=np.intp) for i in seen.runs]
            n = [k[i] for i in seen.runs]
            chosen = self._greedy_in(seen, start, n, target_of(seen), options)
            for i, answer in zip(seen.runs, chosen, strict=True):
                found[i] = answer
        return found

    def _greedy_in(self, seen, start, k, Y, options) -> list[np.ndarray]:
        alone, candidates = len(k) == 1, None
        most = self._most_candidates(k[0], seen.n_own[0])
        if alone and most < self._data.n_features:
            candidates = _screen(self._data, seen, Y, start[0], most)
            start = [np.searchsorted(candidates, start[0])]
        X = _read_columns(self._data, seen, candidates)
        weight = None
        if Y is not None:
            X = _clipped(X, seen)
            if self.by_target:
                weight = _explained(X, Y, seen.weights)
        options = options | {"column_weight": weight}
        if alone and _has_few_rows(seen.n_own[0], X.shape[-1]):
            found = _greedy_of_few(X, Y, k[0], start[0], seen.weights, **options)
            chosen = [found]
        else:
            gram = self._gram(seen, X, of_all=candidates is None)
            Y = X[..., :0].double() if Y is None else Y
            products = products_with(X, Y, seen.share)
            if options.get("n_swap_passes"):
                affordable = _PERTURBED_VALUES // (max(k) * X.shape[-1] ** 2)
                options["n_perturbations"] = min(self.n_perturbations, affordable)
                options["seeds"] = [self.seeds[i] for i in seen.runs]
            chosen = greedy_from_products(gram, products, k, start, **options)
        return chosen if candidates is None else [candidates[own] for own in chosen]

    def _most_candidates(self, k, n_rows) -> int:
        values = _PENALIZED_VALUES if self.by_target else _GREEDY_VALUES
        return max(2 * k, isqrt(_GREEDY_VALUES), values // n_rows)

    def _gram(self, seen, X, *, of_all) -> Tensor:
        """The Gram matrices of the columns.

        Those of all columns are kept, unless they are large, one for all runs that
        look at the same rows: they are the same whatever is asked for.
        """
        if not of_all or X.shape[2] ** 2 > _GREEDY_VALUES:
            return gram_matrix(X, seen.share)
        keys = [(self._first_alike[i], seen.n_shared) for i in seen.runs]
        for j, key in enumerate(keys):
            if key not in self._grams:
                own = slice(j, j + 1)
                self._grams[key] = gram_matrix(X[own], seen.share[own])[0]
        return torch.stack([self._grams[key] for key in keys])

    def _find_alike(self) -> list[int]:
        """For each run the first one whose rows have the same weights."""
        weights = self.runs.weights
        if weights is None:
            return [0] * len(self.runs.k)
        first: dict[bytes, int] = {}
        return [first.setdefault(own.tobytes(), i) for i, own in enumerate(weights)]

    def _target_of(self, seen) -> Tensor | None:
        if self.target.tensor is None:
            return None
        y = self.target.tensor[torch.from_numpy(seen.index)].to(self._data.device)
        if self.target.loss == "cross_entropy":
            y = torch.nn.functional.one_hot(y, self.target.n_outputs)
        return y.double()

    def _look_for_target(self, runs) -> _Seen:
        return self._look(runs, _MOST_VALUES)

    def _look_for_needs(self, runs) -> _Seen:
        return self._look(runs, _VALUES_FOR_NEEDS, _ROWS_FOR_NEEDS)

    def _look(self, runs, most_values, most_rows=None) -> _Seen:
        """Training rows that some runs look at, in order.

        They are taken from those that all runs share, so that runs look at the same
        rows, but for those that they may not see.
        """
        index, weights = self.runs.train_rows, self.runs.weights
        most = max(_FEWEST_ROWS, most_values // self._data.n_features)
        most = min(most, most_rows or most)
        if len(index) > most:
            index = index[np.linspace(0, len(index) - 1, most).astype(int)]
        own = [index if weights is None else index[weights[i][index] > 0] for i in runs]
        n_own = [len(rows) for rows in own]
        table = np.stack([np.resize(rows, max(n_own)) for rows in own])
        counts = np.arange(table.shape[1]) < np.array(n_own)[:, np.newaxis]
        if weights is not None:
            counts = counts * np.take_along_axis(weights[list(runs)], table, axis=1)
        on_device = torch.as_tensor(counts, dtype=torch.float64).to(self._data.device)
        return _Seen(list(runs), table, on_device, n_own, len(index))

    def _side_by_side(self, runs, k, look) -> Iterator[_Seen]:
        """What some runs look at, one after the other or, where that is as fast and
        products of all columns are at hand, together.
        """
        runs, step = list(runs), 1
        if self.together and runs:
            n, p = look(runs[:1]).index.shape[1], self._data.n_features
            if not _has_few_rows(n, p) and self._most_candidates(min(k), n) >= p:
                n_values = p * (2 * n + 4 * p + 6 * max(k))
                step = max(1, _BYTES_AT_ONCE // (8 * n_values))
        for first in range(0, len(runs), step):
            yield look(runs[first : first + step])


def _has_few_rows(n_rows, n_columns) -> bool:
    """Whether scalar products of all columns are more than the columns themselves."""
    return n_rows < n_columns


def _nothing(k) -> list[np.ndarray]:
    """No columns of each run."""
    return [np.empty(0, dtype=np.intp)] * len(k)


def _incomplete(columns, k) -> list[int]:
    return [i for i, own in enumerate(columns) if len(own) < k[i]]


def _greedy_of_few(X, Y, k, start, weights, *, column_weight, **options) -> np.ndarray:
    """Greedy columns of one run, without a Gram matrix of many columns."""
    X, Y, weights, column_weight = (
        None if of_run is None else of_run[0].cpu().numpy()
        for of_run in (X, Y, weights, column_weight)
    )
    return greedy_columns(
        X,
        k,
        target=Y,
        sample_weight=weights,
        column_weight=column_weight,
        start=start,
        **options,
    )


def _main_directions(needs: Tensor, n_directions: int) -> Tensor:
    """The matrices (r, n, h) turned to their main directions, and the longest of
    these.
    """
    return needs @ _longest(needs, n_directions)[1]


def _alike_directions(needs: Tensor, weights: Tensor, n_directions) -> Tensor:
    """An orthonormal basis of the main directions of the weighted rows (r, n, h), as
    many for each run; zeros in place of those that it lacks.

    As they are, one may be longer than all others together, as with two classes: what
    the decoder gets wrong, the same in every hidden unit but for a factor. How the
    units differ tells which columns matter.
    """
    root = weights.sqrt().unsqueeze(-1)
    squares, directions = _longest(root * needs, max(n_directions))
    rank = torch.arange(squares.shape[-1], 0, -1, device=squares.device)
    wanted = rank <= torch.tensor(n_directions, device=squares.device).unsqueeze(-1)
    live = wanted & (squares > _DEAD * squares[:, -1:])
    scale = torch.where(live, squares.clamp(min=_TINY).rsqrt(), 0)
    return needs @ (directions * scale.unsqueeze(1))


def _explained(X: Tensor, Y: Tensor, weights: Tensor) -> Tensor:
    """Share of the variance of each column of X (r, n, p) that Y explains: R² (r, p).

    1 for all of them, where it explains nothing.
    """
    total, weights = weights.sum(-1)[:, None, None], weights.unsqueeze(-1)
    X, Y = (
        weights.sqrt() * (A - (weights * A).sum(1, keepdim=True) / total)
        for A in (X.double(), Y.double())
    )
    n_directions = [Y.shape[-1]] * len(Y)
    basis = _alike_directions(Y, torch.ones_like(Y[..., 0]), n_directions)
    explained, norms = (A.square().sum(1) for A in (basis.transpose(1, 2) @ X, X))
    shares = explained / torch.where(norms > 0, norms, 1)
    return torch.where(explained.any(-1, keepdim=True), shares, 1)


def _longest(needs: Tensor, n_directions: int) -> tuple[Tensor, Tensor]:
    """The squares in the main directions, the longest last, and these as columns."""
    squares, directions = torch.linalg.eigh(needs.transpose(1, 2) @ needs)
    return squares[:, -n_directions:], directions[..., -n_directions:]


def _clipped(X: Tensor, seen: _Seen) -> Tensor:
    """X (r, n, p) without what is far from the mean in its column."""
    counted = (seen.weights > 0).to(X.dtype).unsqueeze(1)  # (r, 1, n)
    n = counted.sum(-1, keepdim=True)
    mean = counted @ X / n
    furthest = _FURTHEST * (counted @ (X - mean).square_() / n).sqrt()
    return X.clamp(mean - furthest, mean + furthest)


def _screen(rows, seen, Y, start, most: int) -> np.ndarray:
    """About ``most`` columns of one run in order, those of ``start`` among them.

    Half are the best for the target, each by itself. They may all say the same, so
    the others, and all if there is no target, are evenly spread.
    """
    best, n_spread = start, most
    if Y is not None:
        n_spread = most // 2
        score = _scores(rows, seen, Y, start)[0].cpu().numpy()
        best = np.argpartition(-score, n_spread)[:n_spread]
    spread = np.linspace(0, rows.n_features - 1, n_spread).astype(int)
    return np.unique(np.concatenate([start, best, spread]))


def _scores(rows, seen, Y: Tensor, start=()) -> Tensor:
    """Of each column, what it explains of the part of Y (r, n, m) that ``start``
    leaves (r, p).
    """
    root = seen.weights.sqrt().unsqueeze(-1)
    left = root * seen.centred(Y)
    if len(start):
        left = _left_by(_read_columns(rows, seen, start), seen, left)
    left = left.transpose(1, 2).float()
    products = left.new_zeros(*left.shape[:2], rows.n_features)
    sums, squares = torch.zeros_like(products[:, 0]), torch.zeros_like(products[:, 0])
    for part, X in _parts(rows, seen):
        root_of_part = root[:, part].float()
        X = root_of_part * X
        products += left[..., part] @ X
        sums += (root_of_part.transpose(1, 2) @ X).squeeze(1)
        squares += X.square_().sum(1)
    # About the mean of the rows seen: 0 is that of all rows. What is left of a column
    # that is constant there is rounding.
    about_mean = squares - sums.square() / seen.weights.sum(-1, keepdim=True).float()
    varies = about_mean > _CONSTANT * squares
    return products.square_().sum(1) / about_mean.where(varies, torch.inf)


def _curve_scores(rows, seen, Y: Tensor) -> Tensor:
    """Of each column, what the means of Y (r, n, m) over parts of its range, of equal
    weight, explain (r, p).
    """
    left = seen.centred(Y)
    left = torch.cat([left, torch.ones_like(left[..., :1])], -1)
    left = (seen.weights.unsqueeze(-1) * left).float()  # the last: sums of weights
    p, device = rows.n_features, rows.device
    index = torch.from_numpy(seen.index).to(device)
    n_columns = max(1, _VALUES_AT_ONCE[device.type] // (_PARTS * index.numel()))
    # One place for all: memory kept between blocks that come and go parts the heap.
    scores = left.new_empty(len(index), p)
    for first in range(0, p, n_columns):
        columns = torch.arange(first, min(first + n_columns, p), device=device)
        X = torch.stack([rows.take(own, columns).T for own in index])  # (r, c, n)
        edges = _edges(X, seen).unsqueeze(-1)
        above = X.new_ones(*X.shape[:2], _PARTS, X.shape[2])  # (r, c, parts, n)
        torch.ge(X.unsqueeze(-2), edges, out=above[:, :, 1:])
        sums = (above.flatten(1, 2) @ left).unflatten(1, (len(columns), _PARTS))
        sums[:, :, :-1] -= sums[:, :, 1:].clone()  # of a part, not of all above an edge
        squares = sums[..., :-1].square().sum(-1)
        shares = squares / sums[..., -1].clamp(min=_TINY_SHARE)
        scores[:, first : first + n_columns] = shares.sum(-1)
    return scores


def _edges(X: Tensor, seen) -> Tensor:
    """Values (r, c, parts - 1) that other parts of the columns (r, c, n) begin with."""
    weights = seen.weights
    levels = torch.arange(1, _PARTS, device=X.device, dtype=weights.dtype) / _PARTS
    if seen.weigh_alike:
        # Rows that do not count are last.
        X = X.masked_fill((weights == 0).unsqueeze(1), torch.inf)
        n_rows = (weights > 0).sum(-1, keepdim=True)
        places = (n_rows * levels + _ROUNDING).long().unsqueeze(1)
        if X.device.type == "cpu":  # numpy takes a tenth of torch's time
            ordered = torch.from_numpy(np.sort(X.numpy(), axis=-1))
        else:
            ordered = X.sort(dim=-1)[0]
        return ordered.gather(2, places.expand(-1, X.shape[1], -1))
    ordered, order = X.sort(dim=-1)
    share = seen.share.transpose(1, 2).expand(X.shape).gather(2, order)
    # Rows of a weight of two are two rows: rounding is not to part them.
    up_to = share.cumsum(-1) - _ROUNDING
    places = torch.searchsorted(up_to, levels.expand(*X.shape[:2], -1).contiguous())
    return ordered.gather(2, places.clamp(max=X.shape[2] - 1))


def _left_by(X: Tensor, seen, left: Tensor) -> Tensor:
    """What a regression on X (1, n, k) leaves of weighted rows (1, n, m)."""
    root = seen.weights.sqrt().unsqueeze(-1)
    known = torch.cat([root, root * X.double()], -1)[0].cpu().numpy()
    values = left[0].cpu().numpy()
    values = values - known @ np.linalg.lstsq(known, values, rcond=None)[0]
    return torch.from_numpy(values).to(left.device).unsqueeze(0)


def _read_columns(rows, seen, columns=None) -> Tensor:
    """All or some columns of the rows seen, in float32."""
    index = torch.from_numpy(seen.index).to(rows.device)
    if len(index) > 1:
        return rows.take(index)
    own = None if columns is None else torch.as_tensor(columns).to(rows.device)
    return rows.take(index[0], own).unsqueeze(0)


def _parts(rows, seen) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows seen, and all their columns (r, b, p)."""
    values = len(seen.index) * rows.n_features
    step = max(_ROWS_AT_ONCE, _VALUES_AT_ONCE[rows.device.type] // values)
    for first in range(0, seen.index.shape[1], step):
        part = slice(first, first + step)
        yield part, _read_columns(rows, replace(seen, index=seen.index[:, part]))
