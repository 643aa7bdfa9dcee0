"""The training of the runs, from the search to what is found.

:func:`train` trains the r runs of a model side by side, first *searching* (relaxed
selection, falling temperature), then *tuning* the decoder alone on the columns found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipcae_sklearn._decoding import (
    AdamW,
    Batches,
    NonFiniteLossError,
    Setup,
    folds_of,
    importances,
    loss_with_pullback,
    padded,
    take_steps,
    train_decoder,
    tuning_epochs,
    tuning_lengths,
    validate,
)
from ipcae_sklearn._functional import (
    by_autograd,
    distinct_argmax,
    generalized_jsd,
    select,
    summary,
    temperature_at,
    workspace,
)
from ipcae_sklearn._graphs import replayed
from ipcae_sklearn._local_search import (
    Adviser,
    local_search,
    local_search_in_folds,
    stand_ins,
    with_replaced,
    without_copies,
)
from ipcae_sklearn._noise import SearchDraws

HISTORY = (
    "train_loss",
    "validation_loss",
    "unique_fraction",
    "temperature",
    "mean_max_probability",
    "gjsd",
)


@dataclass(frozen=True)
class Selection:
    """The columns that a run would return."""

    columns: np.ndarray  # (k,) distinct, in the order of the selector's rows
    n_unique: int  # distinct columns among the rows' argmaxes, before repair


@dataclass
class RunResult:
    """What one run found."""

    selection: Selection
    # Of the kept model on held-out rows, before they are learned from, or by folds,
    # else in training.
    loss: float
    state: dict[str, dict[str, Tensor]]
    converged: bool = False  # the rows were sure of their columns as the search ended
    probabilities: np.ndarray = field(default_factory=lambda: np.empty(0))  # (k, p)
    # (k,) loss added when a column is replaced by its mean
    importances: np.ndarray = field(default_factory=lambda: np.empty(0))
    history: dict[str, np.ndarray] = field(default_factory=dict)  # see HISTORY


# Surplus rows are dropped in this many rounds. Before each the decoder is tuned for
# this many steps, a quarter of the tuning at most.
_ROUNDS = 3
_ROUND_STEPS = 250

# A row is sure of a column that is this probable: a second draw would very likely pick
# the same one. The rows of a run are sure when all of them but one in 20 are.
SURE_PROBABILITY = 0.9
_UNSURE_SHARE = 0.05
# Rows that are sure of the same column may yet part, so sure rows end the search only
# when they are distinct or have kept their columns for this share of the schedule.
_SHARE_OF_PATIENCE = 0.2
# A look at the rows takes as long as several steps.
_STEPS_BETWEEN_LOOKS = 40


class _Stall:
    """Tells of which runs the loss has not fallen by ``tol`` in ``n_iter_no_change``
    epochs.
    """

    def __init__(self, n_runs: int, options):
        self.options = options
        self.reference = np.full(n_runs, np.inf)
        self.n_epochs = np.zeros(n_runs, dtype=int)

    def after(self, loss: np.ndarray) -> np.ndarray:
        """Whether it has (r,), after an epoch that ended with losses (r,)."""
        better = loss < self.reference - self.options.tol
        self.reference = np.where(better, loss, self.reference)
        self.n_epochs = np.where(better, 0, self.n_epochs + 1)
        return self.n_epochs >= self.options.n_iter_no_change


class _Settling:
    """Tells which selectors are done: rows that are sure of their columns, if these
    are distinct or have been the same for as many looks as ``patience``.
    """

    def __init__(self, n_runs: int, patience: int):
        self.patience = patience
        self.preferred = np.full((n_runs, 1), -2)  # at the last look
        self.n_same = np.zeros(n_runs, dtype=int)

    def after(self, preferred: np.ndarray, sure, distinct) -> np.ndarray:
        """Whether they are (r,), with the columns (r, k) that their rows prefer."""
        same = (preferred == self.preferred).all(-1)
        self.n_same = np.where(same, self.n_same + 1, 0)
        self.preferred = preferred
        return sure & (distinct | (self.n_same >= self.patience))


class _Keeper:
    """Of each run: the best model so far, its history, and whether it has stopped."""

    def __init__(self, setup: Setup):
        self.model = setup.model
        self.options = setup.options
        self.validates = setup.batches.has_validation
        self.kept: list[RunResult] = []
        self.histories: list[dict[str, list[float]]] = [
            {name: [] for name in HISTORY} for _ in setup.model.k
        ]
        self.converged = np.ones(setup.n_runs, dtype=bool)

    def begin_phase(self, *, keep_best: bool, selector_moves: bool) -> None:
        """Start anew to look for a stall; keep the best model or the last one."""
        n_runs = len(self.histories)
        self.keep_best = keep_best
        self.selector_moves = selector_moves
        self.stall = _Stall(n_runs, self.options)
        self.stopped = np.zeros(n_runs, dtype=bool)

    def start_with(self, columns: Sequence[np.ndarray] | None) -> None:
        """Keep the model as it stands with given columns, else nothing so far."""
        if columns is None:  # whatever an epoch ends with is better
            nothing = Selection(np.empty(0, dtype=np.int64), 0)
            self.kept = [RunResult(nothing, np.inf, {}) for _ in self.model.k]
            return
        self.kept = [
            RunResult(Selection(own, len(own)), np.inf, self.model.run_state(i))
            for i, own in enumerate(columns)
        ]

    def end_epoch(self, values, selection, *, done, may_stop) -> None:
        """Record the values (r,) of an epoch and keep what is better.

        Runs stop that are ``done``, and those that have stalled if they ``may_stop``.
        """
        monitored = values["validation_loss" if self.validates else "train_loss"]
        ending = self.stall.after(monitored) & may_stop | done
        taken = ending
        if self.keep_best:
            taken = monitored < [kept.loss for kept in self.kept]
        for i in np.flatnonzero(~self.stopped).tolist():
            for name in HISTORY:
                self.histories[i][name].append(float(values[name][i]))
            if taken[i]:
                self.kept[i] = RunResult(
                    selection(i), float(monitored[i]), self._state(i)
                )
        self.stopped |= ending

    def pass_by(self, train_loss) -> None:
        """Count an epoch that nobody looks at, after which no run may stop."""
        self.stall.after(train_loss)

    def _state(self, i: int) -> dict[str, dict[str, Tensor]]:
        if self.selector_moves:
            return self.model.run_state(i)
        return self.kept[i].state | {"decoder": self.model.decoder.run_state(i)}

    def change(self, columns: Sequence[np.ndarray]) -> None:
        """Give the runs other columns, which their decoders have yet to learn."""
        for kept, others in zip(self.kept, columns, strict=True):
            kept.selection = replace(kept.selection, columns=others)
            kept.loss = np.inf

    def of_each_two(self, setup: Setup) -> _Keeper:
        """A keeper of two decoders for each run, first one of all, then the other."""
        both = _Keeper(setup)
        for kept in self.kept * 2:
            both.kept.append(RunResult(kept.selection, np.inf, {}))
        return both

    def better(self) -> np.ndarray:
        """The number of the better decoder of each pair so far, (r,)."""
        losses = np.reshape([kept.loss for kept in self.kept], (2, -1))
        numbers = np.arange(losses.size).reshape(losses.shape)
        return np.where(losses[1] < losses[0], numbers[1], numbers[0])

    def take_better_of(self, both: _Keeper) -> None:
        """Keep of each two decoders the better, and its history."""
        for i, better in enumerate(both.better().tolist()):
            self.kept[i].state |= both.kept[better].state
            self.kept[i].loss = both.kept[better].loss
            for name in HISTORY:
                self.histories[i][name] += both.histories[better][name]

    def columns(self) -> Tensor:
        """The columns of all runs as one tensor (r, k)."""
        return padded([kept.selection.columns for kept in self.kept], self.model)

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
    setup: Setup,
    *,
    seeds: Sequence[int],
    k: Sequence[int] | None = None,
    columns: Sequence[np.ndarray] | None = None,
    adviser: Adviser | None = None,
    make_model: Callable[[Adviser], Any] | None = None,
    all_rows: Callable[[int], Batches] | None = None,
    on_epoch: Callable[[int, dict[str, np.ndarray]], Any] | None = None,
    on_trial: Callable[[int, np.ndarray], Any] | None = None,
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
    setup : Setup
        Its model is on the device of the batches, and is left in the state of the
        results.
    seeds : sequence of r ints
        Seeds of the runs' noise.
    k : sequence of r ints, optional
        Columns that each run ends with. The rows that the model has beyond them take
        part in the search; before the tuning those are dropped whose columns the
        decoder misses least. Needs a tuning and an adviser.
    columns : sequence of r int arrays of shape (k,), optional
        Columns to take as they are, in place of a search, if there is a tuning.
    adviser : Adviser, optional
        Tells columns for rows that prefer a column another row prefers, too (else
        they get the most probable distinct ones), and those that the local search
        tries. It needs a tuning, and held-out rows or folds.
    make_model : callable, optional
        ``make_model(adviser)`` returns a model of an adviser's runs as it is before the
        search, for folds to repeat it; where it is None they do not.
    all_rows : callable, optional
        ``all_rows(n_epochs)`` returns batches of all rows, those held out among them,
        for the tuning to be repeated on them, for as many epochs as were best at most.
        What is told of the decoders, but for their state, is from before. Where it is
        None they stay as the held-out rows judged them.
    on_epoch : callable, optional
        Called after each epoch with its number and its values, a dict of (r,)
        arrays. A true result ends the phase, and there is no local search; in the
        tuning, no repetition of it. Of that it is not told.
    on_trial : callable, optional
        As for the local search of :mod:`ipcae_sklearn._local_search`.

    Returns
    -------
    list of r RunResult

    Raises
    ------
    NonFiniteLossError
    """
    setup.model.train()
    keeper = _Keeper(setup)
    if not _tunes(setup):
        columns = None  # nothing but a search would train or judge the decoder
    on_epoch = on_epoch or (lambda epoch, values: False)
    asked_to_stop, length, judged = False, None, None
    keeper.start_with(columns)
    if columns is None:
        asked_to_stop = _search(setup, seeds, keeper, on_epoch)
    if _tunes(setup):
        if columns is None and adviser is not None:
            found = _settle(setup, keeper, k, adviser, seeds)
            if not asked_to_stop and setup.batches.has_validation:
                found = local_search(setup, found, adviser, seeds, on_trial)
            elif not asked_to_stop:
                search_anew = None
                if make_model is not None:
                    search_anew = partial(_search_anew, setup, make_model, k)
                found, length = local_search_in_folds(
                    setup, found, adviser, search_anew, on_trial
                )
            keeper.change(without_copies(found, adviser))
        keeper.restore()
        judged = _tune(setup, keeper, length, on_epoch)
    keeper.restore()
    results = _with_findings(setup, keeper.results())
    if judged is not None and all_rows is not None:
        everything = replace(setup, batches=all_rows(max(judged.n_epochs)))
        _tune_on_all_rows(everything, keeper, judged)
        keeper.restore()
    return results


def _settle(setup: Setup, keeper, k, adviser, seeds) -> list[np.ndarray]:
    """The distinct columns of the runs after a search, k of each; the keeper has them,
    and the model rows for no others.
    """
    keeper.restore()
    keeper.change(_distinct(setup, adviser, seeds))
    if k is not None and list(k) != setup.model.k:
        _drop_surplus(setup, keeper, k)
    return [kept.selection.columns for kept in keeper.kept]


def _search_anew(setup: Setup, make_model, k, times, batches, adviser):
    """The columns that an adviser's runs, each several times, find on its rows."""
    model = make_model(adviser).train()
    # A user's draw from one generator as they are made: others in other company.
    model.initial_decoders = setup.model.initial_decoders * times
    model.forget(range(len(model.k)))
    options = replace(setup.options, dropout=setup.options.dropout * times)
    k = None if k is None else [*k] * times
    anew = Setup(model, batches, setup.loss, options)
    keeper = _Keeper(anew)
    keeper.start_with(None)
    _search(anew, adviser.seeds, keeper)
    return _settle(anew, keeper, k, adviser, adviser.seeds)


def _tunes(setup: Setup) -> bool:
    has_parameters = next(setup.model.decoder.parameters(), None) is not None
    return setup.options.tuning_iter > 0 and has_parameters


def _search(setup: Setup, seeds, keeper, on_epoch=None) -> bool:
    """Train selector and decoder with relaxed selections; whether on_epoch ended it.

    If nobody is told of every epoch, only some are looked at.
    """
    model, batches, options = setup.model, setup.batches, setup.options
    device = setup.device
    if model.candidates is not None:
        batches = batches.select(model.candidates)
    draws = SearchDraws(model.k, options, seeds, batches.seed, device)
    steps_an_epoch = -(-batches.n_train_batches // options.n_decoder_steps)
    n_steps = options.max_iter * steps_an_epoch
    tunes = _tunes(setup)
    keep_best = batches.has_validation and not tunes
    keeper.begin_phase(keep_best=keep_best, selector_moves=True)
    epochs_a_look = 1
    # Where every epoch may be the last, every one is looked at.
    may_end = on_epoch is not None or batches.has_validation or options.early_stopping
    if not may_end:
        epochs_a_look = math.ceil(_STEPS_BETWEEN_LOOKS / batches.n_train_batches)
    patience = math.ceil(_SHARE_OF_PATIENCE * options.max_iter / epochs_a_look)
    settling = _Settling(setup.n_runs, patience)

    def temperature(step):
        schedule = options.temperature_schedule
        return temperature_at(step, n_steps, *options.temperature, schedule)

    one_step = partial(_search_step, setup, *_optimizers(model, options))
    one_step = replayed(one_step, device, model.decoder.recordable)

    def steps(first, epoch):
        space = None
        groups = batches.train_together(epoch, steps_an_epoch)
        for i, (X, of_batches) in enumerate(groups):
            if i == 0:  # of this epoch: in between, others need as much
                space = workspace(*model.row_mask.shape, X.shape[-1], device)
            drawn = draws(*X.shape[-2:])
            tau = temperature(first + i)
            yield from one_step(X, *drawn, tau, space, *chain(*of_batches))
            del X, of_batches  # which may be large, before the next

    for epoch in range(options.max_iter):
        first = epoch * steps_an_epoch
        values = {"train_loss": take_steps(steps(first, epoch), epoch)}
        if (epoch + 1) % epochs_a_look and epoch < options.max_iter - 1:
            keeper.pass_by(values["train_loss"])
            continue
        with torch.no_grad():
            logits = model.logits().detach()
        description, sure, preferred = _describe(logits, model.row_mask)
        if not np.isfinite(description["mean_max_probability"]).all():
            raise NonFiniteLossError(
                f"The selector became non-finite in epoch {epoch + 1}. Lower "
                "learning_rate_selector, or look for extreme values in X and y."
            )
        keeper.converged = np.where(keeper.stopped, keeper.converged, sure)
        distinct = description["unique_fraction"] == 1
        settled = settling.after(preferred, sure, distinct)
        selection = cache(partial(_selection, model, logits, preferred))
        chosen = setup
        if batches.has_validation:
            columns = [selection(i).columns for i in range(len(model.k))]
            chosen = setup.of(padded(columns, model))
        values["validation_loss"] = validate(chosen)
        tau = temperature(first + steps_an_epoch - 1)
        values |= description | {"temperature": np.full(len(model.k), tau)}
        asked_to_stop = on_epoch is not None and bool(on_epoch(epoch, values))
        last = asked_to_stop or epoch == options.max_iter - 1
        keeper.end_epoch(
            values,
            selection,
            done=settled & tunes | last,
            may_stop=sure & tunes | options.early_stopping,
        )
        del logits, selection  # which may be large, before the next epoch
        if keeper.stopped.all():
            break
    return asked_to_stop


@dataclass(frozen=True)
class _Judged:
    """Tunings of which held-out rows have told how long they are best."""

    before: list[dict[str, Tensor]]  # the decoders' states in the beginning
    n_epochs: list[int]
    jitter: np.ndarray | None  # as tuning_epochs takes it


def _tune(setup: Setup, keeper, length, on_epoch) -> _Judged | None:
    """Train the decoder alone, on columns that stay as they are, for as long as is best
    if that is known. Returns what held-out rows have told, unless on_epoch ended it.
    """
    if setup.batches.has_validation:
        return _tune_and_judge(setup, keeper, on_epoch)
    model, options = setup.model, setup.options
    n_epochs = np.full(setup.n_runs, options.tuning_iter)
    folds = folds_of(setup) if length is None else None
    if folds is not None:
        table = keeper.columns().repeat(folds[1], 1)
        (length,) = tuning_lengths(setup, *folds, [table])
    if length is not None:
        n_epochs = length.n_epochs
        # Found for decoders that begin anew. One that needs all of the tuning, or more,
        # had better go on from what it has learned in the search.
        model.forget(np.flatnonzero(n_epochs < options.tuning_iter))
    _tune_for(n_epochs, setup, keeper, _description_of_tuning(model), on_epoch)
    if length is not None:
        for kept, expected in zip(keeper.kept, length.loss, strict=True):
            kept.loss = float(expected)
    return None


def _tune_and_judge(setup: Setup, keeper, on_epoch) -> _Judged | None:
    """Tune for the whole schedule, of which each run keeps its best epoch by the loss
    on held-out rows. Returns what these have told, unless on_epoch ended it.
    """
    model, options = setup.model, setup.options
    before = [kept.state["decoder"] for kept in keeper.kept]
    first = [len(history["validation_loss"]) for history in keeper.histories]
    description = _description_of_tuning(model)
    jitter, n = None, options.tuning_iter
    if options.jitter:
        asked_to_stop, jitter = _tune_in_two_ways(setup, keeper, description, on_epoch)
    else:
        asked_to_stop = _tune_for(n, setup, keeper, description, on_epoch)
    if asked_to_stop:
        return None
    losses = [history["validation_loss"] for history in keeper.histories]
    n_epochs = [1 + int(np.argmin(x[n:])) for x, n in zip(losses, first, strict=True)]
    return _Judged(before, n_epochs, jitter)


def _tune_in_two_ways(
    setup: Setup, keeper, description, on_epoch
) -> tuple[bool, np.ndarray]:
    """Tune two decoders for each run, without noise on the inputs and with it, and keep
    the better.

    Noise helps most often, but where a small difference between inputs tells it ruins
    the decoder; so the held-out rows decide. Returns whether on_epoch ended it, and the
    noise of the better ones.
    """
    decoders, batches = setup.model.decoders_alone(2), setup.batches.repeated(2)
    pairs = replace(setup, model=decoders, batches=batches)
    both = keeper.of_each_two(pairs)
    jitter = np.repeat([0, setup.options.jitter], setup.n_runs)
    description = {name: np.tile(value, 2) for name, value in description.items()}

    def on_epoch_of_both(epoch, values):
        better = both.better()
        return on_epoch(epoch, {name: own[better] for name, own in values.items()})

    n, told = setup.options.tuning_iter, on_epoch_of_both
    asked_to_stop = _tune_for(n, pairs, both, description, told, jitter)
    keeper.take_better_of(both)
    return asked_to_stop, jitter[both.better()]


def _tune_for(
    n_epochs, setup: Setup, keeper, description, on_epoch, jitter=None
) -> bool:
    """Tune for so many epochs, for all runs or (r,), and keep what is best; whether
    on_epoch ended it.
    """
    options, chosen = setup.options, setup.of(keeper.columns())
    keeper.begin_phase(keep_best=setup.batches.has_validation, selector_moves=False)
    selection = [kept.selection for kept in keeper.kept].__getitem__
    asked_to_stop, n_done = False, 0
    for n_done, train_loss in enumerate(tuning_epochs(chosen, jitter), 1):
        values = description | {"train_loss": train_loss}
        values["validation_loss"] = validate(chosen)
        asked_to_stop = bool(on_epoch(options.max_iter + n_done - 1, values))
        done = np.full(setup.n_runs, asked_to_stop) | (n_done >= n_epochs)
        keeper.end_epoch(values, selection, done=done, may_stop=options.early_stopping)
        if keeper.stopped.all():
            break
    return asked_to_stop and n_done < np.max(n_epochs)


def _tune_on_all_rows(setup: Setup, keeper, judged: _Judged) -> None:
    """Repeat the tuning on more rows, which tell no more how long, and keep that."""
    decoder = setup.model.decoder
    for i, state in enumerate(judged.before):
        decoder.load_run_state(i, state)
    epochs = tuning_epochs(setup.of(keeper.columns()), judged.jitter)
    for n_done, _ in enumerate(islice(epochs, max(judged.n_epochs)), 1):
        for i, n_epochs in enumerate(judged.n_epochs):
            if n_done == n_epochs:
                keeper.kept[i].state["decoder"] = decoder.run_state(i)


@torch.no_grad()
def _description_of_tuning(model) -> dict[str, np.ndarray]:
    """What the history tells of selectors that stay as they are."""
    description = _describe(model.logits(), model.row_mask)[0]
    return description | {"temperature": np.full(len(model.k), np.nan)}


def _distinct(setup: Setup, adviser, seeds):
    """The columns that the rows prefer and, for rows that share one, others."""
    model = setup.model
    logits = model.logits().detach()
    claims = [_claims(logits[i, :k]) for i, k in enumerate(model.k)]
    places, kept = zip(*claims, strict=True)
    columns = [_columns_at(model, i, own) for i, own in enumerate(places)]
    if adviser.asks_decoder and not setup.batches.has_validation:
        return stand_ins(setup, columns, kept, adviser, seeds)
    return with_replaced(columns, kept, adviser.complete)


def _claims(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Columns that the rows of (k, p) logits prefer, and which rows keep theirs.

    Of several rows that prefer a column, the one that is surest of it keeps it.
    """
    probability, argmax = torch.softmax(logits, -1).max(-1)
    columns = argmax.cpu().numpy().copy()
    surest_first = np.argsort(-probability.cpu().numpy(), kind="stable")
    _, first = np.unique(columns[surest_first], return_index=True)
    kept = np.zeros(len(columns), dtype=bool)
    kept[surest_first[first]] = True
    return columns, kept


def _drop_surplus(setup: Setup, keeper, k) -> None:
    """Leave each run the k rows whose columns its decoder needs most."""
    model = setup.model
    keeper.restore()
    with torch.no_grad():
        preferred = model.logits().argmax(-1).cpu().numpy()
    preferred = [
        _columns_at(model, i, own[:n])
        for i, (own, n) in enumerate(zip(preferred, model.k, strict=True))
    ]
    columns = [kept.selection.columns for kept in keeper.kept]
    sizes = [np.geomspace(*ends, _ROUNDS + 1) for ends in zip(model.k, k, strict=True)]
    n_tuning = setup.options.tuning_iter * setup.batches.n_train_batches
    n_steps = min(_ROUND_STEPS, math.ceil(n_tuning / 4))
    for j in range(_ROUNDS):
        train_decoder(setup.of(padded(columns, model)), n_steps)
        added = importances(setup, columns)
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


@torch.no_grad()
def _with_findings(setup: Setup, results) -> list[RunResult]:
    """Add to each result what its probabilities and its columns' importances are."""
    model = setup.model
    columns = [result.selection.columns for result in results]
    added = importances(setup, columns)
    probabilities = torch.softmax(model.logits(), -1).cpu().numpy()
    p = setup.batches.n_features
    for i, (result, k) in enumerate(zip(results, model.k, strict=True)):
        result.importances = added[i, :k]
        result.probabilities = _of_all_columns(model, i, probabilities[i, :k], p)
    return results


def _optimizers(model, options) -> tuple[AdamW, AdamW]:
    """The optimizers of selector and decoder in a search."""
    return (
        AdamW(model.logits, options.selector_learning_rate),
        AdamW(model.decoder, options.learning_rate, options.weight_decay),
    )


def _search_step(
    setup: Setup,
    of_selector: AdamW,
    of_decoder: AdamW,
    X,
    gumbel,
    uniform,
    mask,
    rows,
    temperature,
    space,
    *of_batches,
):
    """Take a step of the selector and, with what it selects by one draw of noise, one
    of the decoder on each batch; return the losses (n, r) that these begin with.

    ``mask`` are factors of the selected features, and ``rows`` (r, m) the rows of the
    selector that they are of, if not all take part. ``X`` are the rows of all batches,
    ``of_batches`` the target and the weights of each.
    """
    selected, pullback = _relaxed(setup, X, gumbel, uniform, temperature, space, rows)
    if mask is not None:
        selected = selected * mask
    if rows is not None:
        index = rows.unsqueeze(1).expand_as(selected)
        every = selected.new_zeros(*selected.shape[:2], setup.model.row_mask.shape[1])
        selected = every.scatter_(2, index, selected)
    losses, grads = [], []
    targets, weights = of_batches[::2], of_batches[1::2]
    parts = selected.split([_n_rows(target) for target in targets], 1)
    for batch in zip(parts, targets, weights, strict=True):
        value, pullback_of_decoder = loss_with_pullback(setup, *batch)
        grad, own = pullback_of_decoder()
        of_decoder.step(own)
        losses.append(value)
        grads.append(grad)
        del pullback_of_decoder, own  # which may be large, before the next
    grad = torch.cat(grads, 1) / len(grads)
    if rows is not None:
        grad = grad.gather(2, index)
    if mask is not None:
        grad = grad * mask
    of_selector.step(pullback(grad))
    return torch.stack(losses)


def _n_rows(target: Tensor) -> int:
    """The number of rows of a batch's target; classes have no axis of outputs."""
    return target.shape[-2 if target.is_floating_point() else -1]


def _relaxed(setup: Setup, X, gumbel, uniform, temperature, space, rows):
    """Relaxed selections (r, b, k) of a batch, and their pullback to the parameters of
    the logits, with the gradient of the diversity term.
    """
    model, options = setup.model, setup.options
    if space is not None and rows is not None:
        size = *rows.shape, X.shape[-1]
        space = space.flatten()[: math.prod(size)].view(size)
    logits, pullback_of_logits = model.logits.with_pullback(space, rows)
    hard = options.gradient == "straight_through"
    selected, pullback_of_selected = select(
        X,
        logits,
        gumbel,
        temperature,
        hard=hard,
        uniform=uniform,
        out=None if options.diversity else space,
    )
    # The logits are held on to for the diversity alone: they may be large.
    of_diversity = None
    if options.diversity:
        of_diversity = partial(_diversity_gradient, logits, model.row_mask)

    def pullback(grad):
        grad = pullback_of_selected(grad)
        if of_diversity is not None:
            grad = grad.add_(of_diversity(), alpha=-options.diversity)
        return pullback_of_logits(grad)[1]

    return selected, pullback


def _diversity_gradient(logits, row_mask):
    gjsd = partial(generalized_jsd, row_mask=row_mask)
    value, pullback = by_autograd(gjsd, [logits])
    return pullback(torch.ones_like(value))[0]


def _describe(logits: Tensor, row_mask: Tensor):
    """What the history tells of the selectors, which of them are sure, and the column
    (r, k) that each row prefers, -1 for spare ones.
    """
    preferred, probability, gjsd = summary(logits, row_mask)
    k = row_mask.sum(-1)
    columns = np.where(row_mask.cpu().numpy(), preferred, -1)
    n_unique = np.array([len(set(row) - {-1}) for row in columns.tolist()])
    n_unsure = ((probability < SURE_PROBABILITY) & row_mask).sum(-1)
    sure = (n_unsure <= _UNSURE_SHARE * k).cpu().numpy()
    description = {
        "unique_fraction": n_unique / k.cpu().numpy(),
        "mean_max_probability": ((probability * row_mask).sum(-1) / k).cpu().numpy(),
        "gjsd": gjsd.cpu().numpy(),
    }
    return description, sure, columns


def _columns_at(model, i: int, places: np.ndarray) -> np.ndarray:
    """Numbers of the columns at some places of the logits of run i."""
    if model.candidates is None:
        return places
    return model.candidates[i].cpu().numpy()[places]


def _of_all_columns(model, i: int, values: np.ndarray, p: int) -> np.ndarray:
    """Values (k, m) at the places of the logits of run i as (k, p), 0 elsewhere."""
    if model.candidates is None:
        return values
    every = np.zeros((len(values), p), dtype=values.dtype)
    every[:, model.candidates[i].cpu().numpy()] = values
    return every


def _selection(model, logits: Tensor, preferred, i: int) -> Selection:
    """The distinct columns of run i."""
    own = preferred[i, : model.k[i]]
    n_unique = len(np.unique(own))
    if n_unique < len(own):
        own = distinct_argmax(torch.log_softmax(logits[i, : model.k[i]], -1))
    return Selection(_columns_at(model, i, own), n_unique)
