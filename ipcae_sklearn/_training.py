"""The only training loop and the only optimizer of the package.

:func:`train` trains the r runs of a model side by side, first *searching* (relaxed
selection, falling temperature), then *tuning* the decoder alone on the columns found.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ipcae_sklearn._functional import (
    distinct_argmax,
    generalized_jsd,
    gumbel_,
    sample_gumbel,
    select,
    temperature_at,
)

HISTORY = (
    "train_loss",
    "validation_loss",
    "unique_fraction",
    "temperature",
    "mean_max_probability",
    "gjsd",
)


# X (b, p), target (b, ...) and weights (r, b), None for equal weights
Batch = tuple[Tensor, Tensor, Tensor | None]


class Batches(Protocol):
    """Where the rows come from; all runs see the same ones."""

    n_train_batches: int
    has_validation: bool
    seed: int  # of what all runs share

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield the training rows, in an order that depends on the epoch alone."""
        ...

    def validation(self) -> Iterator[Batch]:
        """Yield the held-out rows."""
        ...

    def sample(self) -> Batch:
        """Held-out rows, else training rows, as many as one batch can hold."""
        ...


@dataclass(frozen=True)
class TrainingOptions:
    """What :func:`train` is told; checked by the estimators."""

    max_iter: int
    tuning_iter: int
    learning_rate: float
    selector_learning_rate: float
    weight_decay: float
    temperature: tuple[float, float]
    temperature_schedule: str
    noise: str
    gradient: str
    n_gradient_samples: int
    diversity: float
    early_stopping: bool
    n_iter_no_change: int
    tol: float


@dataclass(frozen=True)
class Selection:
    """The columns that a run would return."""

    columns: np.ndarray  # (k,) distinct, in the order of the selector's rows
    n_unique: int  # distinct columns among the rows' argmaxes, before repair


@dataclass
class RunResult:
    """What one run found."""

    selection: Selection
    loss: float  # of the kept model on the held-out rows, else on the training rows
    state: dict[str, dict[str, Tensor]]
    converged: bool = False  # every row was sure of its column when the search ended
    probabilities: np.ndarray = field(default_factory=lambda: np.empty(0))  # (k, p)
    # (k,) loss added when a column is replaced by its mean
    importances: np.ndarray = field(default_factory=lambda: np.empty(0))
    history: dict[str, np.ndarray] = field(default_factory=dict)  # see HISTORY


class NonFiniteLossError(ValueError):
    """The loss became infinite or NaN."""


# Surplus rows are dropped in this many rounds. Before each the decoder is tuned for
# this share of the tuning's epochs.
_ROUNDS = 3
_SHARE_OF_TUNING = 0.25

# A row is sure of a column that is this probable: a second draw would very likely pick
# the same one. The rows of a run are sure when all of them but one in 20 are.
SURE_PROBABILITY = 0.9
_UNSURE_SHARE = 0.05


class _Noise:
    """Gumbel noise of r runs, each from a generator of its own."""

    def __init__(self, k, options, seeds, device):
        self.k = k
        self.options = options
        self.device = device
        self.generators = [torch.Generator(device).manual_seed(s) for s in seeds]

    def _uniform(self, n_features: int, *leading: int) -> Tensor:
        """(r, *leading, k, p) uniform values; the spare rows hold zeros."""
        shape = (len(self.k), *leading, max(self.k), n_features)
        uniform = torch.zeros(shape, device=self.device, dtype=torch.float32)
        for row, k, generator in zip(uniform, self.k, self.generators, strict=True):
            own = row[..., :k, :]
            if own.is_contiguous():
                own.uniform_(generator=generator)
            else:
                own.copy_(torch.empty_like(own).uniform_(generator=generator))
        return uniform

    def draw(self, n_rows: int, n_features: int) -> tuple[Tensor, Tensor | None]:
        """Gumbel values and, for Gumbel-Rao, the uniform values of its draws."""
        leading = (n_rows,) if self.options.noise == "sample" else ()
        gumbel = gumbel_(self._uniform(n_features, *leading))
        if self.options.gradient != "gumbel_rao":
            return gumbel, None
        uniform = self._uniform(n_features, self.options.n_gradient_samples)
        return gumbel, uniform.transpose(0, 1)  # (s, r, k, p)


class _NoisePool:
    """Gumbel noise of r runs, read at random places of a pool.

    Drawing fresh noise costs as much as all the rest of the selector. Here a row of
    the selector reads p successive values; where it begins, and how far from the row
    before, is drawn anew for each run and step. The pool itself is drawn anew after
    some hundred steps. It depends on ``seed`` alone and the places on a run's own
    seed, so that a run reads the same noise alone and in company.
    """

    SIZE = 2**20
    STEPS = 500

    def __init__(self, k, seeds, seed, device):
        self.k = k
        self.places = [random.Random(s) for s in seeds]
        self.generator = torch.Generator(device).manual_seed(seed)
        self.n_drawn = 0

    def draw(self, n_rows: int, n_features: int) -> tuple[Tensor, None]:
        """Gumbel values (r, k, p)."""
        if self.n_drawn % self.STEPS == 0:
            size = self.SIZE + n_features
            device = self.generator.device
            self.pool = sample_gumbel(size, generator=self.generator, device=device)
        self.n_drawn += 1
        rows = [
            self._view(k, n_features, place)
            for k, place in zip(self.k, self.places, strict=True)
        ]
        if len(rows) == 1:
            return rows[0].unsqueeze(0), None
        gumbel = self.pool.new_zeros(len(rows), max(self.k), n_features)
        for own, row, k in zip(gumbel, rows, self.k, strict=True):
            own[:k] = row
        return gumbel, None

    def _view(self, k: int, n_features: int, place: random.Random) -> Tensor:
        furthest = self.SIZE // (2 * k)
        stride = place.randint(furthest // 2, furthest)
        start = place.randint(0, self.SIZE - k * stride)
        return self.pool.as_strided((k, n_features), (stride, 1), start)


def _make_noise(model, options, seeds, pool_seed):
    device = model.row_mask.device
    if options.noise == "pool" and options.gradient != "gumbel_rao":
        return _NoisePool(model.k, seeds, pool_seed, device)
    return _Noise(model.k, options, seeds, device)


class _Keeper:
    """Of each run: the best model so far, its history, and whether it has stopped."""

    def __init__(self, model, options: TrainingOptions, validates: bool):
        self.model = model
        self.options = options
        self.validates = validates
        self.kept: list[RunResult] = []
        self.histories: list[dict[str, list[float]]] = [
            {name: [] for name in HISTORY} for _ in model.k
        ]
        self.converged = np.ones(len(model.k), dtype=bool)

    def begin_phase(self, *, keep_best: bool, selector_moves: bool) -> None:
        """Start anew to look for a stall; keep the best model or the last one."""
        n_runs = len(self.histories)
        self.keep_best = keep_best
        self.selector_moves = selector_moves
        self.reference = np.full(n_runs, np.inf)
        self.n_stalled = np.zeros(n_runs, dtype=int)
        self.stopped = np.zeros(n_runs, dtype=bool)

    def start_with(self, selections: Sequence[Selection]) -> None:
        """Keep the model as it stands, whatever its loss."""
        self.kept = [
            RunResult(selection, np.inf, self.model.run_state(i))
            for i, selection in enumerate(selections)
        ]

    def end_epoch(self, values, selection, *, done, may_stop) -> None:
        """Record the values (r,) of an epoch and keep what is better.

        Runs stop that are ``done``, and those that have stalled if they ``may_stop``.
        """
        monitored = values["validation_loss" if self.validates else "train_loss"]
        ending = self._stalled(monitored) & may_stop | done
        for i in np.flatnonzero(~self.stopped).tolist():
            for name in HISTORY:
                self.histories[i][name].append(float(values[name][i]))
            if monitored[i] < self.kept[i].loss if self.keep_best else ending[i]:
                self.kept[i] = RunResult(
                    selection(i), float(monitored[i]), self._state(i)
                )
        self.stopped |= ending

    def _state(self, i: int) -> dict[str, dict[str, Tensor]]:
        if self.selector_moves:
            return self.model.run_state(i)
        return self.kept[i].state | {"decoder": self.model.decoder.run_state(i)}

    def _stalled(self, loss: np.ndarray) -> np.ndarray:
        """Runs whose loss has not fallen by ``tol`` in ``n_iter_no_change`` epochs."""
        better = loss < self.reference - self.options.tol
        self.reference = np.where(better, loss, self.reference)
        self.n_stalled = np.where(better, 0, self.n_stalled + 1)
        return self.n_stalled >= self.options.n_iter_no_change

    @torch.no_grad()
    def repair(self, complete) -> None:
        """Give rows that share their column another one, chosen by ``complete``."""
        logits = self.model.logits()
        for i, (kept, k) in enumerate(zip(self.kept, self.model.k, strict=True)):
            if kept.selection.n_unique == k:
                continue
            columns = _complete_rows(logits[i, :k], partial(complete, i))
            self.change(i, columns)

    def change(self, i: int, columns: np.ndarray) -> None:
        """Give run i other columns, which its decoder has yet to learn."""
        kept = self.kept[i]
        kept.selection = replace(kept.selection, columns=columns)
        kept.loss = np.inf

    def restore(self) -> None:
        """Put the kept states back into the model."""
        for i, kept in enumerate(self.kept):
            self.model.load_run_state(i, kept.state)

    def results(self) -> list[RunResult]:
        for i, kept in enumerate(self.kept):
            kept.converged = bool(self.converged[i])
            kept.history = {n: np.array(v) for n, v in self.histories[i].items()}
        return self.kept


def train(
    model,
    batches: Batches,
    loss: Callable[[Tensor, Tensor], Tensor],
    options: TrainingOptions,
    *,
    seeds: Sequence[int],
    k: Sequence[int] | None = None,
    columns: Sequence[np.ndarray] | None = None,
    complete: Callable[[int, np.ndarray, int], np.ndarray] | None = None,
    propose: Callable[[int, np.ndarray], Sequence[np.ndarray]] | None = None,
    on_epoch: Callable[[int, dict[str, np.ndarray]], Any] | None = None,
) -> list[RunResult]:
    """Train the r runs of a model side by side.

    The search trains selector and decoder with relaxed selections at a falling
    temperature, until the rows have settled on their columns. Then the tuning trains
    the decoder alone, at a rate that falls to zero, on the distinct columns that the
    search ended with. A run that stops before the others waits for them; its result is
    the one it would have without them.

    Without a tuning the search goes on to its end, and the model of the lowest loss on
    the held-out rows is kept.

    Parameters
    ----------
    model : ConcreteAutoencoder
        On the device of the batches. Left in the state of the results.
    batches : Batches
    loss : callable
        ``loss(output (r, b, m), target (b, ...))`` returns the loss of each row,
        (r, b).
    options : TrainingOptions
    seeds : sequence of r ints
        Seeds of the runs' noise.
    k : sequence of r ints, optional
        Columns that each run ends with. The rows that the model has beyond them take
        part in the search; before the tuning those are dropped whose columns the
        decoder misses least. Needs a tuning and ``complete``.
    columns : sequence of r int arrays of shape (k,), optional
        Columns to take as they are, in place of a search.
    complete : callable, optional
        ``complete(i, columns, k)`` adds columns to those that run i has, until there
        are k. Used before the tuning, in place of the most probable distinct columns,
        for rows that prefer a column another row prefers, too.
    propose : callable, optional
        ``propose(i, columns)`` returns others to take in place of the columns that run
        i has found, as many proposals for each run. The held-out rows decide; without
        such rows, or without a tuning, nothing is proposed.
    on_epoch : callable, optional
        Called after each epoch with its number and its values, a dict of (r,)
        arrays. A true result ends the phase.

    Returns
    -------
    list of r RunResult

    Raises
    ------
    NonFiniteLossError
    """
    model.train()
    keeper = _Keeper(model, options, batches.has_validation)
    on_epoch = on_epoch or (lambda epoch, values: False)
    untrained = [model.decoder.run_state(i) for i in range(len(model.k))]
    if columns is None:
        keeper.start_with([Selection(np.arange(k), 0) for k in model.k])
        _search(model, batches, loss, options, seeds, keeper, on_epoch)
    else:
        keeper.start_with([Selection(c, len(c)) for c in columns])
    if _tunes(model, options):
        if columns is None and complete is not None:
            keeper.restore()
            keeper.repair(complete)
            if k is not None and list(k) != model.k:
                _drop_surplus(model, batches, loss, options, keeper, k)
        if columns is None and propose is not None and batches.has_validation:
            _consider(model, batches, loss, options, keeper, untrained, propose)
        keeper.restore()
        _tune(model, batches, loss, options, keeper, on_epoch)
    keeper.restore()
    return _with_findings(keeper.results(), model, batches, loss)


def _tunes(model, options) -> bool:
    has_parameters = next(model.decoder.parameters(), None) is not None
    return options.tuning_iter > 0 and has_parameters


def _search(model, batches, loss, options, seeds, keeper, on_epoch) -> None:
    """Train selector and decoder with relaxed selections."""
    noise = _make_noise(model, options, seeds, batches.seed)
    optimizer = _optimizer(model, options)
    n_steps = options.max_iter * batches.n_train_batches
    tunes = _tunes(model, options)
    keep_best = batches.has_validation and not tunes
    keeper.begin_phase(keep_best=keep_best, selector_moves=True)

    def temperature(step):
        schedule = options.temperature_schedule
        return temperature_at(step, n_steps, *options.temperature, schedule)

    for epoch in range(options.max_iter):
        first = epoch * batches.n_train_batches
        losses = (
            _relaxed_loss(model, batch, loss, options, noise, temperature(first + i))
            for i, batch in enumerate(batches.train(epoch))
        )
        values = {"train_loss": _descend(losses, optimizer, epoch)}
        with torch.no_grad():
            logits = model.logits().detach()
        description, sure = _describe(logits, model.row_mask)
        keeper.converged = np.where(keeper.stopped, keeper.converged, sure)
        # Rows that are sure of the same column may yet part.
        settled = sure & (description["unique_fraction"] == 1)
        selection = cache(partial(_selection, logits, model.k))
        columns = None
        if batches.has_validation:
            every = range(len(model.k))
            columns = _padded([selection(i).columns for i in every], model)
        values["validation_loss"] = _validate(model, batches, loss, columns)
        tau = temperature(first + batches.n_train_batches - 1)
        values |= description | {"temperature": np.full(len(model.k), tau)}
        last = bool(on_epoch(epoch, values)) or epoch == options.max_iter - 1
        keeper.end_epoch(
            values,
            selection,
            done=settled & tunes | last,
            may_stop=sure | options.early_stopping,
        )
        if keeper.stopped.all():
            break


def _tune(model, batches, loss, options, keeper, on_epoch) -> None:
    """Train the decoder alone, on columns that stay as they are."""
    keeper.begin_phase(keep_best=batches.has_validation, selector_moves=False)
    selection = [kept.selection for kept in keeper.kept].__getitem__
    with torch.no_grad():
        description, _ = _describe(model.logits(), model.row_mask)
    description["temperature"] = np.full(len(model.k), np.nan)
    columns = _padded([selection(i).columns for i in range(len(model.k))], model)
    epochs = _tuning_epochs(model, batches, loss, options, columns)
    for epoch, train_loss in enumerate(epochs, options.max_iter):
        values = {"train_loss": train_loss}
        values["validation_loss"] = _validate(model, batches, loss, columns)
        values |= description
        last = epoch == options.max_iter + options.tuning_iter - 1
        last = bool(on_epoch(epoch, values)) or last
        keeper.end_epoch(values, selection, done=last, may_stop=options.early_stopping)
        if keeper.stopped.all():
            break


def _drop_surplus(model, batches, loss, options, keeper, k) -> None:
    """Leave each run the k rows whose columns its decoder needs most."""
    keeper.restore()
    with torch.no_grad():
        preferred = model.logits().argmax(-1).cpu().numpy()
    preferred = [own[:n] for own, n in zip(preferred, model.k, strict=True)]
    columns = [kept.selection.columns for kept in keeper.kept]
    sizes = [np.geomspace(*ends, _ROUNDS + 1) for ends in zip(model.k, k, strict=True)]
    n_epochs = math.ceil(_SHARE_OF_TUNING * options.tuning_iter)
    for j in range(_ROUNDS):
        short = replace(options, tuning_iter=n_epochs)
        for _ in _tuning_epochs(model, batches, loss, short, _padded(columns, model)):
            pass
        added = _importances(model, batches, loss, columns)
        rows = []
        for i, size in enumerate(sizes):
            most = np.argsort(-added[i, : model.k[i]], kind="stable")
            rows.append(np.sort(most[: round(size[j + 1])]))
        columns = [own[kept] for own, kept in zip(columns, rows, strict=True)]
        model.keep_rows([torch.from_numpy(kept) for kept in rows])
    with torch.no_grad():
        keeper.converged = _describe(model.logits(), model.row_mask)[1]
    for i, own in enumerate(columns):
        n_unique = len(np.intersect1d(own, preferred[i]))
        selection = Selection(own, n_unique)
        keeper.kept[i] = RunResult(selection, np.inf, model.run_state(i))


def _consider(model, batches, loss, options, keeper, untrained, propose) -> None:
    """Change the columns of runs to proposed ones, where these are better.

    The trained decoder knows the columns that were searched for. So all have to prove
    themselves with a new one.
    """
    best = [kept.selection.columns for kept in keeper.kept]
    proposals = [propose(i, columns) for i, columns in enumerate(best)]
    lowest = None
    for others in zip(*proposals, strict=True):
        if all(set(a) == set(b) for a, b in zip(best, others, strict=True)):
            continue
        if lowest is None:
            lowest = _trial(model, batches, loss, options, untrained, best)
        value = _trial(model, batches, loss, options, untrained, others)
        for i in np.flatnonzero(value < lowest):
            best[i], lowest[i] = others[i], value[i]
            keeper.change(i, others[i])


def _trial(model, batches, loss, options, decoders, columns) -> np.ndarray:
    """Loss (r,) on the held-out rows of new decoders trained on the columns."""
    for i, state in enumerate(decoders):
        model.decoder.load_run_state(i, state)
    columns = _padded(columns, model)
    short = replace(options, tuning_iter=-(-options.tuning_iter // 2))
    for _ in _tuning_epochs(model, batches, loss, short, columns):
        pass
    return _validate(model, batches, loss, columns)


def _tuning_epochs(model, batches, loss, options, columns) -> Iterator[np.ndarray]:
    """Train the decoder on columns (r, k); yield the loss (r,) of each epoch."""
    optimizer = _optimizer(model, options)
    n_steps = options.tuning_iter * batches.n_train_batches

    def losses(epoch):
        first = epoch * batches.n_train_batches
        for i, batch in enumerate(batches.train(options.max_iter + epoch)):
            fraction = (first + i) / n_steps
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * math.cos(fraction * math.pi / 2)
            yield _hard_loss(model, batch, loss, columns)

    for epoch in range(options.tuning_iter):
        yield _descend(losses(epoch), optimizer, options.max_iter + epoch)


@torch.no_grad()
def _with_findings(results, model, batches, loss) -> list[RunResult]:
    """Add to each result what its probabilities and its columns' importances are."""
    columns = [result.selection.columns for result in results]
    added = _importances(model, batches, loss, columns)
    probabilities = torch.softmax(model.logits(), -1).cpu().numpy()
    for i, (result, k) in enumerate(zip(results, model.k, strict=True)):
        result.importances = added[i, :k]
        result.probabilities = probabilities[i, :k]
    return results


@torch.no_grad()
def _importances(model, batches, loss, columns) -> np.ndarray:
    """Loss (r, k) added when a selected column is replaced by its mean, which is 0."""
    columns = _padded(columns, model)
    X, target, weights = batches.sample()
    model.eval()
    selected = X[:, columns].transpose(0, 1)  # (b, r, k) -> (r, b, k)
    losses = []
    for j in range(columns.shape[1]):
        without = selected.clone()
        without[..., j] = 0
        losses.append(_mean(loss(model(without), target), weights))
    reference = _mean(loss(model(selected), target), weights)
    model.train()
    return (torch.stack(losses, -1) - reference.unsqueeze(-1)).cpu().numpy()


def _optimizer(model, options) -> torch.optim.Optimizer:
    groups = [
        {
            "params": list(model.logits.parameters()),
            "lr": options.selector_learning_rate,
            "weight_decay": 0.0,
        },
        {
            "params": list(model.decoder.parameters()),
            "lr": options.learning_rate,
            "weight_decay": options.weight_decay,
        },
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], fused=True)


def _relaxed_loss(model, batch, loss, options, noise, temperature):
    """Objective (r,) and loss (r,) of a batch with relaxed selections."""
    X, target, weights = batch
    logits = model.logits()
    gumbel, uniform = noise.draw(*X.shape)
    hard = options.gradient == "straight_through"
    selected = select(X, logits, gumbel, temperature, hard=hard, uniform=uniform)
    value = _training_mean(loss(model(selected), target), weights)
    if not options.diversity:
        return value, value
    return value - options.diversity * generalized_jsd(logits, model.row_mask), value


def _hard_loss(model, batch, loss, columns: Tensor):
    """Objective (r,) and loss (r,), the same here, of a batch with columns (r, k)."""
    value = _training_mean(_hard_losses(model, batch, loss, columns), batch[2])
    return value, value


def _hard_losses(model, batch, loss, columns: Tensor) -> Tensor:
    """Loss of each row with the columns (r, k): (r, b)."""
    X, target, _ = batch
    selected = X[:, columns].transpose(0, 1)  # (b, r, k) -> (r, b, k)
    return loss(model(selected), target)


def _training_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over the rows, (r, b) -> (r,), unbiased over the batches.

    The weights are 1 in the mean over all rows. Divided by their sum in the batch
    instead, rare rows of a large weight would count for too little.
    """
    return (losses if weights is None else losses * weights).mean(-1)


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over the rows: (r, b) -> (r,)."""
    if weights is None:
        return losses.mean(-1)
    total = weights.sum(-1).clamp(min=torch.finfo(weights.dtype).tiny)
    return (losses * weights).sum(-1) / total


def _descend(losses, optimizer, epoch: int) -> np.ndarray:
    """Take a step for each objective (r,); return the mean loss (r,) of the epoch."""
    values = []
    for objective, value in losses:
        optimizer.zero_grad()
        objective.sum().backward()  # runs share no parameter: the sum keeps them apart
        optimizer.step()
        values.append(value.detach())
    mean = torch.stack(values).mean(0).cpu().numpy()  # waits for the device
    if not np.isfinite(mean).all():
        raise NonFiniteLossError(
            f"The training loss became non-finite in epoch {epoch + 1}. Lower "
            "learning_rate_init or learning_rate_selector, raise the stop "
            "temperature, or look for extreme values in X and y."
        )
    return mean


@torch.no_grad()
def _validate(model, batches, loss, columns) -> np.ndarray:
    """Loss (r,) on the held-out rows with columns (r, k); NaN without such rows."""
    n_runs = len(model.k)
    if not batches.has_validation:
        return np.full(n_runs, np.nan)
    total = torch.zeros(n_runs, dtype=torch.float64, device=columns.device)
    weight = torch.zeros_like(total)
    model.eval()
    for X, target, weights in batches.validation():
        batch_weight = len(X) if weights is None else weights.sum(-1)
        losses = _hard_losses(model, (X, target, weights), loss, columns)
        total += batch_weight * _mean(losses, weights)
        weight += batch_weight
    model.train()
    values = (total / weight).cpu().numpy()
    if not np.isfinite(values).all():
        raise NonFiniteLossError(
            "The loss on the held-out rows became non-finite. Look for extreme values "
            "in X and y, and for weights that leave no held-out row."
        )
    return values


def _describe(logits: Tensor, row_mask: Tensor):
    """What the history tells of the selectors, and which of them are sure."""
    largest, argmax = logits.max(-1)  # (r, k)
    probability = (largest - logits.logsumexp(-1)).exp()
    k = row_mask.sum(-1)
    columns = torch.where(row_mask, argmax, -1).cpu().numpy()
    n_unique = np.array([len(set(row) - {-1}) for row in columns.tolist()])
    n_unsure = ((probability < SURE_PROBABILITY) & row_mask).sum(-1)
    sure = (n_unsure <= _UNSURE_SHARE * k).cpu().numpy()
    description = {
        "unique_fraction": n_unique / k.cpu().numpy(),
        "mean_max_probability": ((probability * row_mask).sum(-1) / k).cpu().numpy(),
        "gjsd": generalized_jsd(logits, row_mask).cpu().numpy(),
    }
    return description, sure


def _selection(logits: Tensor, k: Sequence[int], i: int) -> Selection:
    """The distinct columns of run i."""
    log_probability = torch.log_softmax(logits[i, : k[i]], -1)
    n_unique = len(log_probability.argmax(-1).unique())
    return Selection(distinct_argmax(log_probability), n_unique)


def _complete_rows(logits: Tensor, complete) -> np.ndarray:
    """Columns (k,) of the rows of (k, p) logits, each column given to one row.

    The row that is surest of a column keeps it; the others take what ``complete``
    adds to the columns that are taken.
    """
    probability, argmax = torch.softmax(logits, -1).max(-1)
    columns = argmax.cpu().numpy().copy()
    surest_first = np.argsort(-probability.cpu().numpy(), kind="stable")
    _, first = np.unique(columns[surest_first], return_index=True)
    keeps = np.zeros(len(columns), dtype=bool)
    keeps[surest_first[first]] = True
    columns[~keeps] = complete(columns[keeps], len(columns))[keeps.sum() :]
    return columns


def _padded(columns: Sequence[np.ndarray], model) -> Tensor:
    """Columns of all runs as one integer tensor (r, k); spare rows hold 0."""
    padded = np.zeros(model.row_mask.shape, dtype=np.int64)
    for row, own in zip(padded, columns, strict=True):
        row[: len(own)] = own
    return torch.as_tensor(padded, device=model.row_mask.device)
