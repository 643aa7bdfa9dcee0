"""Batches of rows: shuffled, of some columns, of each run's own rows, in folds."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from ipcae_sklearn._data import MAPPED_ROWS, Rows

_EVALUATION_ROWS = 1024  # at most, in a batch that needs no gradient
_ASKED_ROWS = 256  # at most, in a batch of which decoders are asked
_EVALUATION_BYTES = 2**25  # of its float32 values, if a training batch is smaller
# Of the selected columns that are kept side by side, by type of device.
_SELECTED_BYTES = {"cpu": 2**26, "cuda": 2**30}
_READ_ROWS = 4096  # of them that are read at once


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
        share = most / size.clamp(min=1).to(weights) * n_rows[:, None] / len(self)
        share = (within < size[..., None]) * share[..., None]
        own_weights = weights.gather(1, at).view_as(share) * share
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
        for some in index.split(MAPPED_ROWS):
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
        parts = self._parts(epoch)
        if self._by_run is not None and self._fits_by_epoch(self._by_run):
            every = list(parts)  # faster than one by one
            X, of_batches = self._together(every)
            Xs = X.split([len(part) for part in every], 1)
            yield from ((X, *own) for X, own in zip(Xs, of_batches, strict=True))
        else:
            yield from map(self._batch, parts)

    def train_together(self, epoch: int, n_groups: int):
        """The same batches in so many groups of about one size, read together.

        Yields X (B, p) or (r, B, k) of a group and, of each of its batches, target and
        weights.
        """
        parts = self._parts(epoch)
        size, n_larger = divmod(self.n_train_batches, n_groups)
        for i in range(n_groups):
            yield self._together(list(islice(parts, size + (i < n_larger))))

    def _parts(self, epoch: int) -> Iterator[_Part]:
        """The batches of an epoch."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(self.training), generator=generator)
        own = self._by_run
        if own is not None:
            own.keep()
        split = self.training.split if own is None else self.training.split_by_run
        return split(order, self.n_train_batches, self.source.device)

    def _fits_by_epoch(self, selected: _Selected) -> bool:
        """Whether the batches of an epoch, of selected columns, may be read at once."""
        if self.target is None or selected.kept is None:
            return False
        n_values = self.target[:1].numel() * len(selected.columns)
        n_values += selected.columns.numel()
        most = _SELECTED_BYTES[self.source.device.type]
        return 4 * n_values * len(self.training) <= most

    def _together(self, parts: list[_Part]) -> tuple[Tensor, list[tuple]]:
        """X of some batches at once and, of each of them, target and weights."""
        index = torch.cat([part.index for part in parts], -1)
        X, target, _ = self._batch(_Part(index, None))
        targets = target.split([len(part) for part in parts], index.dim() - 1)
        weights = (part.weights for part in parts)
        return X, list(zip(targets, weights, strict=True))

    def validation(self):
        """Yield (X, target, weights) batches of the held-out rows."""
        for places in torch.arange(len(self.held_out)).split(self._evaluation_rows()):
            yield self._batch(self.held_out.at(places))

    def sample(self):
        """One batch of held-out rows, else of training rows."""
        part = self.held_out if self.has_validation else self.training
        if len(part) > (most := self._evaluation_rows()):
            places = torch.linspace(0, len(part) - 1, most, dtype=torch.float64)
            part = part.at(places.long())
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
    # Rounded, as 500 / n * n may exceed 500.
    n_validation = max(1, math.ceil(round(fraction * n, 6)))
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
