"""What a fit has to solve: columns, scales, target, and the rows that each run sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from ipcae_sklearn._batches import TrainingBatches, split_rows
from ipcae_sklearn._data import Rows
from ipcae_sklearn._directions import Directions, worthwhile
from ipcae_sklearn._targets import Target
from ipcae_sklearn._warnings import warn

_CPU = torch.device("cpu")


@dataclass
class Problem:
    """The data of a fit, ready for training."""

    X: np.ndarray  # or a CSR matrix, (n, n_features)
    columns: np.ndarray  # (p,) numbers of the columns in use
    center: np.ndarray  # (n_features,)
    scale: np.ndarray  # (n_features,)
    task: str  # never "auto"
    target: Target
    directions: Directions | None = None  # in which a reconstruction is learned

    @property
    def decoder_target(self) -> Target:
        """What the decoder learns to predict."""
        return self.target if self.directions is None else self.directions.target

    def rows(self, device) -> Rows:
        """The columns in use, centred and scaled, on a device."""
        center, scale = self.center[self.columns], self.scale[self.columns]
        return Rows(self.X, self.columns, center, scale, device)

    def learn_directions(self, weights=None) -> None:
        """Reconstruct in the directions that the rows of positive weight span, if these
        are few.
        """
        seen = (
            np.arange(self.X.shape[0]) if weights is None else np.flatnonzero(weights)
        )
        if worthwhile(len(seen), len(self.columns)):
            own = None if weights is None else weights[seen]
            self.directions = Directions(self.rows(_CPU), seen, own)

    def of_all_columns(self, decoder_state):
        """The state of a trained decoder as one with the columns for its outputs."""
        if self.directions is None:
            return decoder_state
        return self.directions.of_all_columns(decoder_state, self._rows_in_the_end)

    @cached_property
    def _rows_in_the_end(self) -> Rows:
        # Not those of the directions: no copy of X is held while there is training.
        return self.rows(_CPU)


@dataclass
class Runs:
    """The runs to train side by side, an entry or a row of weights each."""

    k: list[int]
    seeds: list[int]
    order_seed: int
    train_rows: np.ndarray  # those that any run trains on
    validation_rows: np.ndarray  # those held out from any run
    weights: np.ndarray | None = None  # (r, n) in training; None: equal weights
    validation_weights: np.ndarray | None = None  # (r, n) when held out, to that scale
    first: int = 0  # number of the first run, where these are a part of all

    @property
    def n_train(self) -> int:
        """The most rows that a run trains on."""
        return int(self._rows_of_runs().max())

    @property
    def n_own(self) -> float:
        """The rows that a run trains on, in the mean over the runs."""
        return float(self._rows_of_runs().mean())

    def _rows_of_runs(self) -> np.ndarray:
        if self.weights is None:
            return np.full(len(self.k), len(self.train_rows))
        return np.count_nonzero(self.weights, axis=1)

    @property
    def holds_out(self) -> bool:
        """Whether rows are held out from any run."""
        return len(self.validation_rows) > 0

    def with_held_out(self) -> Runs:
        """The same runs, which train on the rows held out from them, too."""
        rows, none = np.union1d(self.train_rows, self.validation_rows), np.empty(0, int)
        joined = replace(
            self, train_rows=rows, validation_rows=none, validation_weights=None
        )
        if self.weights is not None and self.validation_weights is not None:
            joined._weigh(self.weights + self.validation_weights)
        return joined

    def _weigh(self, weights, validation_weights=None) -> None:
        """Set the weights, to the scale that batches need."""
        # Batches are drawn from the rows of all runs: 1 in the mean over these.
        scale = weights[:, self.train_rows].mean(axis=1, keepdims=True)
        self.weights = weights / scale
        if validation_weights is not None:
            self.validation_weights = validation_weights / scale

    def halves(self) -> Iterator[Runs]:
        """The first half of the runs, and the others; each run stays as it is.

        But for a user's decoders, which draw from one generator as they are made.
        """
        middle = len(self.k) // 2
        for part in (slice(0, middle), slice(middle, None)):
            weights = None if self.weights is None else self.weights[part]
            held_out = self.validation_weights
            yield replace(
                self,
                k=self.k[part],
                seeds=self.seeds[part],
                weights=weights,
                validation_weights=None if held_out is None else held_out[part],
                first=self.first + part.start,
            )

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
        trained = _spread(rows_of_cases, train, weights, n_init)
        judging = _spread(rows_of_cases, held_out, weights, n_init)
        runs.train_rows = np.flatnonzero(trained.any(axis=0))
        runs.validation_rows = np.flatnonzero(judging.any(axis=0))
        runs._weigh(trained, judging)
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


def l4_scale(statistics) -> np.ndarray:
    """The columns' L4 deviations, times what makes their mean variance 1."""
    varies = statistics.std > 0
    scale = np.where(varies, statistics.l4, 1)
    share = (statistics.std / scale)[varies]
    return scale * (np.sqrt(np.mean(share**2)) if len(share) else 1)


def warn_if_constant(n_varying: int, k: int) -> None:
    """Warn if constant columns have to make up k."""
    if n_varying < k:
        warn(
            f"Only {n_varying} of the columns of X vary, fewer than k={k}: the others "
            "that are kept are constant."
        )


def warn_if_few_dominate(std, k: int, names=None) -> None:
    """Warn if fewer than k columns hold nearly all of the variance."""
    largest = int(np.argmax(std))
    name = largest if names is None else repr(str(names[largest]))
    std = std[std > 0]
    if len(std) <= k:  # all are kept
        return
    variance = np.sort((std / std.max()) ** 2)[::-1]
    n_dominant = 1 + np.searchsorted(np.cumsum(variance), 0.9 * variance.sum())
    if n_dominant < min(k, max(2, 0.1 * len(std))):
        warn(
            f"{n_dominant} of {len(std)} columns that vary hold 90 % of the variance "
            f"of X, column {name} most of it, and will dominate its reconstruction, "
            "which is measured in the units of X. If the units differ, use "
            "standardize=True.",
        )
