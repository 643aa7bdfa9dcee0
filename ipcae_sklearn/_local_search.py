"""The local search: other columns in place of some, judged on rows not trained on.

The annealing of the selector ends near a good set of columns. From there, columns that
the decoder misses least are given up, a half of them at first and fewer where that does
not help, for columns that the decoder asks for. A new decoder is trained on each set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ipcae_sklearn._decoding import (
    NonFiniteLossError,
    Setup,
    TuningLength,
    folds_of,
    importances,
    padded,
    train_decoder,
    tuning_lengths,
    unmet_needs,
    validate,
)
from ipcae_sklearn._noise import InputMasks

# How columns meet needs; see :meth:`Adviser.meet`.
By = Literal["company", "kinship", "share", "curve"]

# Steps of a new decoder that is to be judged, and of one that is only asked what it
# needs; half and a quarter of the tuning at most.
_TRIAL_STEPS, _ASKING_STEPS = 500, 250
# Inputs of the decoder that is asked are left out at random, at these rates. With few
# left out it asks for what goes with the columns it has, in a line or a curve; with
# most left out it asks for columns that can stand in for these, which is better than
# noise in their place.
_KINDS = _COMPANY, _STAND_IN, _CURVE = 0, 1, 2
_RATES = (0.2, 0.8, 0.2)
_BY: tuple[By, ...] = ("company", "kinship", "curve")
# Where none are held out rows are few, and kinship of few rows is mostly chance.
_BY_UNTRIED: By = "share"
# Standard errors by which curves have to be better in folds: of many columns some are
# curves of few rows by chance, and folds that choose among more sets are luckier.
_ERRORS_OF_CURVES = 2.0
# Logits of searches that go on side by side in folds. One after the other they would
# take two to three times as long.
_VALUES_SIDE_BY_SIDE = 2**24
# Values of decoders that are judged side by side in folds: as many as are, with what
# their optimizer remembers of them, in a processor's cache.
_VALUES_OF_DECODERS = 2**19
_MASKS = 8  # draws of what is left out, where the decoder is asked


class Adviser(Protocol):
    """Whom to ask for columns; answers depend on the run's own training rows alone."""

    asks_decoder: bool  # whether columns that the decoder asks for are worth a trial
    with_curves: bool  # whether the last of the alternatives are curves
    seeds: list[int]  # of the runs

    def in_folds(self, n_folds: int, folds) -> Adviser:
        """An adviser for all runs in each fold, who knows the rows trained on there."""
        ...

    def of(self, runs: slice) -> Adviser:
        """An adviser for some of the runs, which have weights."""
        ...

    def complete(self, columns: Sequence[np.ndarray], k: Sequence[int]) -> list:
        """Columns of each run made up to k."""
        ...

    def distinct(self, columns: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each run True for the columns that are no copies of one before them."""
        ...

    def alternatives(self, columns: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Sets to try in place of the columns, each with columns for every run."""
        ...

    def rows(self) -> np.ndarray:
        """Numbers (r, n) of the rows to look at for :meth:`meet`."""
        ...

    def meet(self, columns, k, needs: Tensor, *, by: By) -> list[np.ndarray]:
        """Columns of each run made up to k by those that meet needs (r, n, h).

        By *company*: those that explain much of the needs together with each other and
        with ``columns``. By *share*: each of them explains much of the needs alone. By
        *kinship*: the needs explain much of each of them. By *curve*: each of them
        explains much of the needs alone, not only in a line.
        """
        ...


@dataclass
class _Best:
    """The best columns of a run so far, and how many to give up next."""

    columns: np.ndarray
    loss: float = np.inf
    state: dict = field(default_factory=dict)  # of the decoder trained on them
    # (k,) how much it would miss each of them, once that is asked for.
    missed: np.ndarray = field(default_factory=lambda: np.empty(0))
    # For each kind of columns; below 1: that helps no more.
    n_given_up: list[float] = field(default_factory=list)
    n_left: int = 0  # sets that may yet be tried

    def kinds(self) -> list[int]:
        """The kinds of columns to ask for next."""
        return [kind for kind in _KINDS if self.n_given_up[kind] >= 1][: self.n_left]

    def kept(self, kind: int) -> np.ndarray:
        """True for the columns (k,) that stay; those go that the decoder misses least.

        None goes for a kind that is not to be asked for.
        """
        kept = np.ones(len(self.columns), dtype=bool)
        n = int(self.n_given_up[kind]) if kind in self.kinds() else 0
        kept[np.argsort(self.missed, kind="stable")[:n]] = False
        return kept


def local_search(setup: Setup, columns, adviser, seeds, on_trial=None):
    """Better columns of each run, where there are any.

    Parameters
    ----------
    setup : Setup
        As for :func:`ipcae_sklearn._training.train`; its model is left as it is, and
        ``options.n_trials`` is the most sets of columns to try.
    columns : sequence of r int arrays of shape (k,)
        The columns to begin with.
    adviser : Adviser
    seeds : sequence of r ints
    on_trial : callable, optional
        Called after each round of trials with the number of sets tried so far and the
        lowest losses (r,).

    Returns
    -------
    list of r int arrays of shape (k,)
    """
    n_trials = setup.options.n_trials
    if not n_trials:
        return columns
    others = adviser.alternatives(columns)[:n_trials]
    n_left = n_trials - len(others) if adviser.asks_decoder else 0
    if not n_left and not any(_differ(own, columns).any() for own in others):
        return columns
    best = [
        _Best(own, n_given_up=[max(1, len(own) / 2)] * len(_KINDS), n_left=n_left)
        for own in columns
    ]
    trials = _Trials(setup, seeds)
    queue = [columns, *others]

    def report(n_tried):
        if on_trial is not None:
            on_trial(n_tried, np.array([own.loss for own in best]))

    try:
        for first in range(0, len(queue), 2):
            pair = queue[first : first + 2]
            _take_better(best, trials.judge(*pair))
            report(min(first + 1, len(others)))  # the columns to begin with are none
        while kinds := sorted({kind for own in best for kind in own.kinds()}):
            judged = trials.judge(*_ask(trials, best, adviser, kinds))
            _count(best, judged, kinds)
            _take_better(best, judged)
            del judged  # whose decoders may be large, before the next
            report(n_trials - min(own.n_left for own in best))
    except NonFiniteLossError:
        # What was found until then is good; the tuning will tell if it is not.
        pass
    return [own.columns for own in best]


def local_search_in_folds(
    setup: Setup, columns, adviser, search_anew=None, on_trial=None
) -> tuple[list[np.ndarray], TuningLength | None]:
    """Better columns of each run, where few rows are trained on and none held out.

    Tried are the adviser's alternatives. They are judged as the length of the tuning is
    found, by a decoder for each fold of the rows, trained on the others, from which the
    adviser has drawn what is tried there. The columns to begin with were chosen by
    decoders that had seen all rows, so that the folds flatter them: others are taken
    that are not clearly worse. Unless the search is repeated in each fold: then its
    columns there stand for these, and the set of the lowest loss is taken.

    The parameters are those of :func:`local_search`, and

    search_anew : callable, optional
        ``search_anew(times, batches, adviser)`` returns the columns that the runs find
        in some folds, side by side.
    on_trial : callable, optional
        Called with the number of sets tried so far and the losses (r,) of the columns
        taken, whenever some have been judged side by side.

    A set with which the loss of any run becomes non-finite is taken by none.

    Returns
    -------
    list of r int arrays of shape (k,)
    TuningLength or None
        How long to tune for these columns; None where there are no folds.
    """
    n_trials, best = setup.options.n_trials, list(columns)
    found = folds_of(setup)
    if found is None:
        return best, None
    folds, n_folds = found
    in_folds = [*columns] * n_folds
    if not n_trials:
        (lengths,) = _lengths(setup, folds, n_folds, [in_folds])
        return best, lengths[0]
    own_adviser = adviser.in_folds(n_folds, folds)
    # Whether what is best so far was judged by rows that had a part in choosing it.
    flattered = np.full(setup.n_runs, True)
    if search_anew is not None:
        # One that diverges says nothing of the columns.
        with contextlib.suppress(NonFiniteLossError):
            own = replace(setup, batches=folds)
            in_folds = _columns_in_folds(search_anew, own, n_folds, own_adviser)
            flattered[:] = False
    others = adviser.alternatives(columns)
    to_try = []
    if any(_differ(tried, columns).any() for tried in others):
        margins = [0.0] * len(others)
        if adviser.with_curves:
            margins[-1] = _ERRORS_OF_CURVES
        others_in_folds = own_adviser.alternatives(in_folds)
        to_try = _worth_trying(columns, others, others_in_folds, margins)[:n_trials]
    sets = [in_folds, *(tried_in_folds for _, tried_in_folds, _ in to_try)]
    groups = _lengths(setup, folds, n_folds, sets)
    group = next(groups)
    first = best_length = group.pop(0)
    for lengths in chain([group], groups):
        for number, length in lengths.items():
            tried, _, margin = to_try[number - 1]
            is_better = _is_clearly_worse(best_length.losses, length.losses, margin)
            is_worse = _is_clearly_worse(length.losses, first.losses)
            is_as_good = flattered & ~is_worse & (margin == 0)
            taken = _differ(tried, columns) & (is_better | is_as_good)
            pairs = zip(best, tried, taken, strict=True)
            best = [new if is_taken else old for old, new, is_taken in pairs]
            best_length = length.where(taken, best_length)
            flattered &= ~taken
        if on_trial is not None:
            on_trial(max(lengths, default=0), best_length.loss)
    return best, best_length


def _lengths(setup, folds, n_folds, sets) -> Iterator[dict[int, TuningLength]]:
    """How long to tune for sets of columns of all runs in the folds, by their numbers.

    Yields those that are found side by side. A set that diverges is left out, but for
    the first, which raises the error.
    """
    tables = [padded(columns, setup.model, n_folds) for columns in sets]
    state = setup.model.decoder.state_dict()
    n_values = n_folds * sum(tensor.numel() for tensor in state.values())
    at_once = max(1, _VALUES_OF_DECODERS // max(1, n_values))
    first = 0
    while first < len(tables):
        some = tables[first : first + at_once]
        try:
            lengths = tuning_lengths(setup, folds, n_folds, some)
        except (NonFiniteLossError, torch.cuda.OutOfMemoryError) as error:
            if len(some) > 1:
                at_once = 1  # there may be room for one, and one may be to blame
                continue
            if first == 0 or not isinstance(error, NonFiniteLossError):
                raise
        else:
            yield dict(enumerate(lengths, first))
        first += len(some)


def _worth_trying(columns, others, others_in_folds, margins) -> list:
    """Others than the columns, with those in folds, each pair once, and the number of
    standard errors by which they have to be better.
    """
    found: list = []
    for tried, in_folds, margin in zip(others, others_in_folds, margins, strict=True):
        both = [*tried, *in_folds]
        known = any(not _differ(both, [*a, *b]).any() for a, b, _ in found)
        if not known and _differ(tried, columns).any():
            found.append((tried, in_folds, margin))
    return found


def _columns_in_folds(search_anew, setup, n_folds, adviser) -> list[np.ndarray]:
    """What the search finds without each of the folds, of all runs for one after the
    other; as many folds side by side as there is room for.
    """
    folds = setup.batches
    n_runs, k = setup.model.row_mask.shape
    p = setup.model.n_searched(folds.n_features)
    room = _VALUES_SIDE_BY_SIDE // (n_runs * k * p)
    at_once = min(max(1, room), n_folds)
    found: list[np.ndarray] = []
    while (n_left := n_folds - len(found) // n_runs) > 0:
        times = min(at_once, n_left)
        runs = slice(len(found), len(found) + times * n_runs)
        try:
            found += search_anew(times, folds.training_of(runs), adviser.of(runs))
        except torch.cuda.OutOfMemoryError:
            if times == 1:
                raise
            at_once = times // 2
    return found


def _is_clearly_worse(losses, reference, n_errors=1.0) -> np.ndarray:
    """Whether losses (n_folds, r) are higher by more than some standard errors."""
    more = losses - reference
    return more.mean(0) > n_errors * more.std(0, ddof=1) / np.sqrt(len(more))


def stand_ins(setup: Setup, columns, kept, adviser, seeds):
    """Columns of each run with stand-ins for the others in place of some.

    Parameters
    ----------
    setup : Setup
    columns : sequence of r int arrays of shape (k,)
    kept : sequence of r bool arrays of shape (k,)
        False for the columns to replace.

    The other parameters and the result are those of :func:`local_search`.
    """
    if all(own.all() for own in kept):
        return list(columns)
    trials = _Trials(setup, seeds)
    (needs,) = trials.ask(columns, [kept], adviser.rows(), [_STAND_IN])
    meet = partial(adviser.meet, needs=needs, by=_BY_UNTRIED)
    return with_replaced(columns, kept, meet)


def with_replaced(columns, kept, complete) -> list[np.ndarray]:
    """Columns of all runs, those kept in their places, with others for the rest.

    ``complete(columns, k)`` returns columns of each run made up to k.
    """
    own = [c[stays] for c, stays in zip(columns, kept, strict=True)]
    found = [c.copy() for c in columns]
    answers = complete(own, [len(c) for c in columns])
    for new, stays, answer in zip(found, kept, answers, strict=True):
        new[~stays] = answer[stays.sum() :]
    return found


def without_copies(columns, adviser: Adviser) -> list[np.ndarray]:
    """Columns of all runs, with others in place of copies of columns that they have,
    where there are any that are none.
    """
    kept = adviser.distinct(columns)
    if all(own.all() for own in kept):
        return columns
    found = with_replaced(columns, kept, adviser.complete)
    tuples = zip(columns, found, kept, adviser.distinct(found), strict=True)
    return [new if b.sum() > a.sum() else old for old, new, a, b in tuples]


def _differ(a, b) -> np.ndarray:
    """Of which runs (r,) the columns are others."""
    return np.array([set(x) != set(y) for x, y in zip(a, b, strict=True)])


def _take_better(best: Sequence[_Best], judged) -> None:
    """Take the best of the sets of columns that were tried for each run."""
    columns, losses, decoder = judged
    will_be_asked = any(own.n_left for own in best)  # then all are measured
    for i, own in enumerate(best):
        better = int(losses[:, i].argmin())
        if _is_better(own, columns[better][i], losses[better, i]):
            own.columns, own.loss = columns[better][i], losses[better, i]
            own.missed = np.empty(0)
            if will_be_asked:
                own.state = decoder.run_state(better * len(best) + i)


def _is_better(own: _Best, columns, loss) -> bool:
    # The same columns in another order are no better, whatever the loss.
    same = own.loss < np.inf and set(columns) == set(own.columns)
    return loss < own.loss and not same


def _count(best: Sequence[_Best], judged, kinds) -> None:
    """Count what each run has tried; give up fewer for a kind that did not help it."""
    columns, losses, _ = judged
    for i, own in enumerate(best):
        asked = own.kinds()
        own.n_left -= len(asked)
        for kind, tried, loss in zip(kinds, columns, losses, strict=True):
            if kind in asked and not _is_better(own, tried[i], loss[i]):
                own.n_given_up[kind] = _fewer(kind, own.n_given_up[kind])


def _fewer(kind: int, n: float) -> float:
    """How many to give up next for columns of a kind that did not help."""
    if kind != _CURVE:
        return n / 2
    # Most data have no curves to find; but of two columns one may be found first.
    return max(1, n / 4) if n > 1 else 0


def _ask(trials, best, adviser, kinds) -> list[list[np.ndarray]]:
    """For each run, its columns with some replaced by those that its decoder asks for:
    a set for each kind.
    """
    if not all(len(own.missed) for own in best):
        trials.measure(best)
    kept = [[own.kept(kind) for own in best] for kind in kinds]
    columns = [own.columns for own in best]
    asked = trials.ask(columns, kept, adviser.rows(), kinds)
    return [
        with_replaced(columns, stays, partial(adviser.meet, needs=needs, by=_BY[kind]))
        for kind, stays, needs in zip(kinds, kept, asked, strict=True)
    ]


class _Trials:
    """New decoders for each run, trained side by side on sets of columns to be tried.

    The first r decoders are for the first set of each run, and so on.
    """

    def __init__(self, setup, seeds):
        self.setup = setup
        k, n_runs = setup.model.k, setup.n_runs
        self.masks = [
            InputMasks(k, [rate] * n_runs, seeds, setup.device) for rate in _RATES
        ]
        n_tuning = setup.options.tuning_iter * setup.batches.n_train_batches
        self.n_trial = min(_TRIAL_STEPS, -(-n_tuning // 2))
        self.n_asking = min(_ASKING_STEPS, -(-n_tuning // 4))

    def judge(self, *sets):
        """Train new decoders on s sets of columns for each run.

        Returns the sets, the losses (s, r) on the held-out rows, and the decoders of
        all runs, set after set.
        """
        several = self._several(len(sets))
        table = padded([own for columns in sets for own in columns], several.model)
        several = several.of(table)
        train_decoder(several, self.n_trial)
        losses = validate(several).reshape(len(sets), -1)
        return sets, losses, several.model.decoder

    def measure(self, best: Sequence[_Best]) -> None:
        """Find out how much each run's decoder would miss its columns."""
        alone = self._several(1)
        for i, own in enumerate(best):
            alone.model.decoder.load_run_state(i, own.state)
        missed = importances(alone, [own.columns for own in best])
        for own, values in zip(best, missed, strict=True):
            own.missed = values[: len(own.columns)]

    def ask(self, columns, kept, rows, kinds) -> Sequence[Tensor]:
        """What decoders on the columns kept want to know of each run's rows (r, n):
        for each kind (r, n, h).
        """
        several = self._several(len(kinds))
        table = padded([*columns] * len(kinds), several.model)
        stays = torch.zeros(table.shape, device=table.device, dtype=torch.float32)
        for row, own in zip(stays, chain.from_iterable(kept), strict=True):
            row[: len(own)] = torch.from_numpy(own)

        def mask():
            drawn = torch.cat([self.masks[kind]() for kind in kinds])
            return stays.unsqueeze(1) * drawn

        several = several.of(table)
        train_decoder(several, self.n_asking, mask)
        masks = [mask() for _ in range(_MASKS)]
        index = np.tile(rows, (len(kinds), 1))
        return unmet_needs(several, index, masks).chunk(len(kinds))

    def _several(self, n_sets) -> Setup:
        """New decoders for so many sets: a trained one knows its own columns."""
        decoders = self.setup.model.decoders_alone(n_sets)
        decoders.forget(range(len(decoders.k)))
        batches = self.setup.batches.repeated(n_sets)
        return replace(self.setup, model=decoders, batches=batches)
