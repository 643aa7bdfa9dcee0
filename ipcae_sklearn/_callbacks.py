"""What a user sees while ``fit`` runs: verbose lines and scikit-learn's callbacks.

The callbacks came with scikit-learn 1.9; with an older version the mixin is empty and
only ``verbose`` is left.
"""

from __future__ import annotations

import time
from math import isnan

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

    CALLBACKS_AVAILABLE = True
except ImportError:
    CALLBACKS_AVAILABLE = False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's mixin, which this version does not have."""

    def with_callbacks(method):
        return method


class EpochReporter:
    """Reports each epoch and the trials of a fit; called by the training loop.

    Parameters
    ----------
    estimator : estimator being fitted
    n_epochs : int
        The most epochs there can be of search and tuning.
    X, y : the training data
        Handed on to the callbacks.
    """

    def __init__(self, estimator, n_epochs, X, y):
        self.estimator = estimator
        self.n_epochs = n_epochs
        self.data = {"X": X, "y": y}
        self.started = time.perf_counter()
        self.n_reported = 0
        self.asked_to_stop = False
        self.context = None
        if CALLBACKS_AVAILABLE:
            self.context = estimator._init_callback_context(max_subtasks=n_epochs)
            self.context.call_on_fit_task_begin(estimator=estimator, **self.data)

    def __call__(self, epoch, values) -> bool:
        """Report an epoch; true if a callback asks to stop."""
        if self.estimator.verbose:
            self._tell(self._line(epoch, values))
        self.n_reported += 1
        # Runs that are trained anew, in parts, have more epochs than were announced.
        if self.context is None or self.n_reported > self.n_epochs:
            return self.asked_to_stop
        task = self.context.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        stop = task.call_on_fit_task_end(estimator=self.estimator, **self.data)
        self.asked_to_stop = bool(stop)
        return self.asked_to_stop

    def report_trials(self, n_tried: int, losses) -> None:
        """Report how far the local search is, and the lowest losses (r,) so far."""
        sets = "set" if n_tried == 1 else "sets"
        loss = f"loss on rows not trained on {losses.min():.5g}"
        self._tell(f"local search, {n_tried} {sets} tried  {loss}")

    def report_repetition(self, n_folds: int) -> None:
        """Report that the search begins anew in some folds."""
        self._tell(f"the search is repeated without the rows of each fold ({n_folds})")

    def report_all_rows(self, n_epochs: int) -> None:
        """Report that the tuning is repeated, the held-out rows among its own."""
        self._tell(f"the tuning is repeated on all rows, {n_epochs} epochs")

    def _tell(self, what: str) -> None:
        if self.estimator.verbose:
            seconds = time.perf_counter() - self.started
            print(f"[{type(self.estimator).__name__}] {what}  {seconds:.1f} s")

    def finish(self) -> None:
        if self.context is not None:
            self.context.call_on_fit_task_end(estimator=self.estimator, **self.data)

    def _line(self, epoch, values) -> str:
        best = values["train_loss"].argmin()
        told = [f"epoch {epoch + 1}/{self.n_epochs}"]
        for word, name, form in (
            ("train", "train_loss", ".5g"),
            ("validation", "validation_loss", ".5g"),
            ("unique", "unique_fraction", ".0%"),
            ("temperature", "temperature", ".3g"),
        ):
            if not isnan(value := values[name][best]):  # there is none
                told.append(f"{word} {value:{form}}")
        return "  ".join(told)
