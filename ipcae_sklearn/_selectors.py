"""The scikit-learn estimators. Start reading at ``_BaseConcreteSelector.fit``."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.special
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, UndefinedMetricWarning
from sklearn.feature_selection import SelectorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import (
    ClassifierTags,
    RegressorTags,
    check_array,
    check_consistent_length,
)
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ipcae_sklearn import _functional, _parameters
from ipcae_sklearn._advice import GreedyAdviser
from ipcae_sklearn._callbacks import (
    CallbackSupportMixin,
    EpochReporter,
    with_callbacks,
)
from ipcae_sklearn._context import training_context
from ipcae_sklearn._data import (
    check_finite,
    column_statistics,
    resolve_device,
    row_blocks,
)
from ipcae_sklearn._decoding import Setup
from ipcae_sklearn._modules import (
    MAPS,
    ConcreteAutoencoder,
    DirectLogits,
    IndirectLogits,
    make_decoder,
)
from ipcae_sklearn._numbers import naming_columns_without_numbers, of_numbers
from ipcae_sklearn._predictor import Predictor, to_arrays, to_tensors
from ipcae_sklearn._problem import (
    Problem,
    Runs,
    columns_in_use,
    l4_scale,
    one_scale,
    plan_runs,
    warn_if_constant,
    warn_if_few_dominate,
)
from ipcae_sklearn._settings import SelectorSettings
from ipcae_sklearn._targets import (
    Target,
    check_labels,
    encode_labels,
    encode_values,
    resolve_task,
)
from ipcae_sklearn._training import RunResult, train
from ipcae_sklearn._warnings import warn

# How scikit-learn checks X; that values are finite is checked here, by column.
_VALIDATION = {"accept_sparse": "csr", "ensure_all_finite": False}
# How far a row that starts at a greedy column is ahead of all others together.
_START_LEAD = 3.0


def _after(*tasks: str):
    """A check for ``available_if``: whether the last fit had one of these tasks, or the
    first one is to have it, by the parameter ``task``.
    """

    def check(estimator) -> bool:
        task = getattr(estimator, "task_", estimator.task)
        if task not in tasks:
            found = f"it was one of {task}"
            if not hasattr(estimator, "task_"):
                found = f"there was none, and task={task!r} does not announce one"
            raise AttributeError(
                f"This needs a fit of {' or '.join(tasks)}; {found}. With a target y "
                "the decoder predicts, without one it reconstructs."
            )
        return True

    return check


class Data(NamedTuple):
    """What is to be fitted, checked."""

    X: Any
    y: np.ndarray | None
    task: str  # never "auto"
    sample_weight: np.ndarray | None


class _BaseConcreteSelector(CallbackSupportMixin, SelectorMixin, SelectorSettings):
    """Everything but the logits, in which :class:`CAESelector` and
    :class:`IPCAESelector` differ.
    """

    def fit(self, X, y=None, sample_weight=None):
        """Select features.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Numeric data without missing values. Memory-mapped, sparse and very large
            data are read batch by batch.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
            Classes, 0/1 indicators of several labels, or values to predict. Not used
            when the task is reconstruction.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, not negative. A row of weight zero is not seen.

        Returns
        -------
        self : object
            The fitted selector.

        Raises
        ------
        TypeError, ValueError
            For data or parameters that cannot be used, and when the loss becomes
            non-finite. An earlier fit is then left as it was.
        """
        before = self._fitted_attributes()
        try:
            data = self._check(X, y, sample_weight)
            self._fit_side_by_side(data, [(self, np.arange(data.X.shape[0]))])
        except BaseException:
            for name in self._fitted_attributes():
                del self.__dict__[name]
            self.__dict__.update(before)
            raise
        return self

    @with_callbacks
    def _fit_side_by_side(self, data: Data, cases, columns=None) -> None:
        """Fit estimators that differ in k and in the rows they may see.

        Parameters
        ----------
        data : Data
        cases : sequence of (estimator, int array)
            The estimators to fit and the numbers of the rows that each may see. Means
            and scales of the columns and of a regression's targets, and the directions
            of a reconstruction, come from all rows.
        columns : int array, optional
            Numbers of the columns to use; those that vary, if not told.
        """
        device = resolve_device(self.device)
        ks = [estimator._resolve_k(data.X.shape[1]) for estimator, _ in cases]
        problem = self._describe_problem(data, ks, columns)
        runs = self._plan_runs(data, problem, ks, cases)
        options = self._training_options(round(runs.n_own), data.task)
        n_epochs = options.max_iter + options.tuning_iter
        reporter = EpochReporter(self, n_epochs, data.X, data.y)
        results = self._train(
            problem, runs, options, device, self._batch_sizes(runs), reporter
        )
        for i, (estimator, _) in enumerate(cases):
            own = results[i * self.n_init : (i + 1) * self.n_init]
            estimator._store(problem, options, device, own)
        reporter.finish()

    def _fit_cases(self, data: Data, cases, columns=None) -> list:
        """Clones fitted for each case (k, numbers of the rows to fit on).

        ``columns`` are the numbers of those to use.
        """
        pairs = [(clone(self).set_params(k=k), rows) for k, rows in cases]
        self._fit_side_by_side(data, pairs, columns)
        names = ("n_features_in_", "feature_names_in_")
        seen = {name: value for name, value in vars(self).items() if name in names}
        for estimator, _ in pairs:
            vars(estimator).update(seen)
        return [estimator for estimator, _ in pairs]

    def _fitted_attributes(self) -> dict:
        return {
            name: value
            for name, value in vars(self).items()
            if name == "_fitted" or (name.endswith("_") and not name.startswith("_"))
        }

    def _check(self, X, y, sample_weight) -> Data:
        """What is to be fitted; raises for parameters or data that cannot be used."""
        self._check_parameters()
        if self.task in ("classification", "regression") and y is None:
            raise ValueError(
                f"task={self.task!r} requires y to be passed, but the target y is None."
            )
        if getattr(getattr(y, "dtype", None), "names", None):
            raise ValueError(
                f"y is a structured array with the fields {list(y.dtype.names)}. Pass "
                "one of them, or a 2-D array of their values."
            )
        if scipy.sparse.issparse(y):
            y = y.toarray()
        options = _VALIDATION | {"ensure_min_samples": 2}
        task = "reconstruction" if y is None else self.task
        if task != "reconstruction":
            check_labels(y)
        with naming_columns_without_numbers(X):
            if task == "reconstruction":
                X, y = validate_data(self, X, **options), None
            else:
                options |= {"multi_output": True, "y_numeric": task == "regression"}
                kind = getattr(getattr(y, "dtype", None), "kind", None)
                X, y = validate_data(self, X, y, **options)
                if kind in ("i", "u"):  # of pandas, which may become floats
                    y = y.astype(np.int64, copy=False)
            X = of_numbers(X)
        if y is not None:
            if y.ndim == 2 and y.shape[1] == 1:
                y = column_or_1d(y, warn=True)
            task = resolve_task(task, y)
        check_finite(X, getattr(self, "feature_names_in_", None))
        _parameters.check_class_weight(self.class_weight, task)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        return Data(X, y, task, sample_weight)

    def _describe_problem(self, data: Data, ks, columns) -> Problem:
        """Scale the columns and encode the target."""
        X, y, task, sample_weight = data
        statistics = column_statistics(X, sample_weight)
        if columns is None:
            columns = columns_in_use(statistics.std, max(ks))
            warn_if_constant(int(np.count_nonzero(statistics.std)), max(ks))
        if task == "classification":
            target = encode_labels(y)
        elif task == "regression":
            target = encode_values(y, sample_weight)
        else:
            target = Target("squared_error", len(columns))
        scale = self._scale_of_columns(statistics, task, min(ks))
        problem = Problem(X, columns, statistics.mean, scale, task, target)
        if self._learns_directions(task):
            problem.learn_directions(sample_weight)
        return problem

    def _plan_runs(self, data: Data, problem, ks, cases) -> Runs:
        y = data.y
        rows_of_cases, weights = self._rows_that_count(
            [rows for _, rows in cases], y, data.sample_weight
        )
        stratify = y if problem.target.loss == "cross_entropy" else None
        for rows in rows_of_cases:
            if len(rows) < 2:
                raise ValueError(
                    "sample_weight and class_weight leave fewer than two rows that "
                    "count."
                )
            _check_several_classes(None if stratify is None else stratify[rows])
        return plan_runs(
            ks,
            rows_of_cases,
            weights,
            self.n_init,
            partial(self._resolve_fraction, data.task),
            stratify,
            self._integer_seed(),
        )

    def _batch_sizes(self, runs) -> tuple[int, int | None]:
        """Rows of the batches that the runs draw from the rows of all, so that a run
        has as many of its own as alone; and of those with the rows held out among them,
        None where the tuning is not repeated on these.
        """
        n_own = round(runs.n_own)
        size = self._resolve_batch_size(n_own)

        def of_all(runs):
            of_run = runs.n_own if size == n_own else size  # all rows stay one batch
            return round(of_run * len(runs.train_rows) / runs.n_own)

        refits = self._refits(runs.n_train, runs.holds_out)
        return of_all(runs), of_all(runs.with_held_out()) if refits else None

    def _scale_of_columns(self, statistics, task, k) -> np.ndarray:
        """Divisor of each column: its own deviation, of either kind, or one for all."""
        std, standardize = statistics.std, self._resolve_standardize(task)
        if standardize == "l4":
            return l4_scale(statistics)
        if standardize:
            return np.where(std == 0, 1, std)
        if task == "reconstruction":
            warn_if_few_dominate(std, k, getattr(self, "feature_names_in_", None))
        return one_scale(std)

    def _rows_that_count(self, rows_of_cases, y, sample_weight) -> tuple:
        """The rows of each case whose weight is not 0, and their weights; None where
        all are equal.
        """
        if self.class_weight is None and sample_weight is None:
            return rows_of_cases, None
        found = []
        for rows in rows_of_cases:
            if sample_weight is not None:  # "balanced" are classes among what is left
                rows = rows[sample_weight[rows] > 0]
            weights = (
                np.ones(len(rows)) if sample_weight is None else sample_weight[rows]
            )
            if self.class_weight is not None:
                weights = weights * self._weights_by_class(y, rows)
            counts = weights > 0
            scale = weights[counts].mean() if counts.any() else 1
            found.append((rows[counts], weights[counts] / scale))
        return tuple(zip(*found, strict=True))

    def _weights_by_class(self, y, rows) -> np.ndarray:
        """Weights of some rows, "balanced" among these."""
        balanced = isinstance(self.class_weight, str)
        try:
            weights = compute_sample_weight(
                self.class_weight, y, indices=rows if balanced else None
            )[rows]
        except (TypeError, ValueError) as error:
            raise ValueError(f"class_weight cannot be used: {error}") from error
        if not (np.isfinite(weights).all() and weights.min() >= 0 < weights.max()):
            raise ValueError(
                "class_weight must give finite weights >= 0, not all of them 0, got "
                f"{self.class_weight!r}."
            )
        return weights

    def _train(self, problem, runs, options, device, batch_sizes, reporter):
        """Train runs side by side, in parts if they do not fit on a GPU; a list of
        their results.
        """
        rest = options, device, batch_sizes, reporter
        try:
            return self._train_together(problem, runs, *rest)
        except torch.cuda.OutOfMemoryError:
            pass
        # Here the error no longer holds what did not fit, nor do cycles of torch's.
        gc.collect()
        if len(runs.k) == 1:
            raise MemoryError(
                f"A run does not fit on {device}. Lower batch_size or k, or use "
                "device='cpu'."
            )
        warn(
            f"{len(runs.k)} runs side by side do not fit on {device}; they are trained "
            "in two parts.",
            RuntimeWarning,
        )
        parts = [self._train(problem, half, *rest) for half in runs.halves()]
        return [result for part in parts for result in part]

    def _train_together(self, problem, runs, options, device, sizes, reporter):
        """Train runs side by side; a list of their results."""
        task, target, everything = problem.task, problem.target, None
        if min(runs.k) == len(problem.columns):  # nothing to search for
            everything = [np.arange(k) for k in runs.k]
        with training_context(device, runs.seeds[0], self.decoder is not None):
            rows = problem.rows(device)
            advice = self._resolve_advice(task, runs.n_train, runs.holds_out)
            adviser = GreedyAdviser(rows, target, runs, **advice)
            if self.init == "greedy" and everything is None:
                adviser.begin_greedily()
            model = self._untrained(problem, adviser, everything is not None)
            dropout = tuple(
                self._resolve_dropout(n, task, runs.holds_out) for n in model.k
            )

            def make_model(adviser):
                reporter.report_repetition(len(adviser.seeds) // len(runs.seeds))
                return self._untrained(problem, adviser).to(device)

            def all_rows(n_epochs):
                reporter.report_all_rows(n_epochs)
                joined = runs.with_held_out()
                return joined.batches(rows, problem.decoder_target, sizes[1])

            repeats = self._repeats_search(task, runs.holds_out)
            n_searched = model.n_searched(len(problem.columns))
            n_decoder_steps = self._resolve_decoder_steps(
                model.decoder, runs.n_train, n_searched
            )
            setup = Setup(
                model.to(device),
                runs.batches(rows, problem.decoder_target, sizes[0]),
                getattr(_functional, target.loss),
                replace(options, dropout=dropout, n_decoder_steps=n_decoder_steps),
            )
            return train(
                setup,
                seeds=runs.seeds,
                k=runs.k,
                columns=everything,
                adviser=adviser,
                make_model=make_model if repeats and options.n_folds else None,
                all_rows=None if sizes[1] is None else all_rows,
                on_epoch=reporter,
                on_trial=reporter.report_trials,
            )

    def _untrained(self, problem, adviser, takes_all: bool = False):
        """A model of the adviser's runs as it is before the search, if there is one."""
        runs, task, p = adviser.runs, problem.task, len(problem.columns)
        n_nodes = runs.k if takes_all else [self._n_nodes(k, p, task) for k in runs.k]
        start: list = [None] * len(runs.k)
        if adviser.greedy is not None:
            start = adviser.complete(adviser.greedy, n_nodes)
        n = self._resolve_candidates(
            max(n_nodes), p, task, runs.n_train, runs.holds_out
        )
        candidates = None
        if n < p:
            greedy = adviser.greedy is not None
            found = adviser.candidates(n, start if greedy else None)
            if greedy:
                start = list(map(np.searchsorted, found, start))
            candidates = torch.from_numpy(np.stack(found))
        return self._make_model(problem, runs, n_nodes, start, candidates)

    def _make_logits(self, n_nodes, n_features, generators, start):
        """The module of the logits (r, k, p), in which the selectors differ.

        For each run its number of nodes, a generator of initial values, and the columns
        at which the nodes start, or None.
        """
        raise NotImplementedError

    def _make_model(
        self, problem, runs, n_nodes, start, candidates
    ) -> ConcreteAutoencoder:
        generators = [torch.Generator().manual_seed(seed) for seed in runs.seeds]
        p = len(problem.columns) if candidates is None else candidates.shape[1]
        logits = self._make_logits(n_nodes, p, generators, start)
        decoder = make_decoder(
            self.decoder,
            n_nodes,
            self._hidden_layer_sizes(),
            problem.decoder_target.n_outputs,
            generators,
        )
        model = ConcreteAutoencoder(logits, decoder, n_nodes, candidates)
        if self.warm_start and self.__sklearn_is_fitted__() and runs.first == 0:
            self._load_state(model, problem)
        return model

    def _load_state(self, model, problem) -> None:
        """Start run 0 of a warm fit where the last fit ended."""
        last = self._fitted
        try:
            if not last.selector_state:
                raise ValueError("the last one had warm_start=False")
            if not np.array_equal(last.columns, problem.columns):
                raise ValueError("other columns vary")
            target = problem.target
            regression = target.center is not None
            if (last.loss, last.target_center is not None) != (target.loss, regression):
                raise ValueError("the target is of another kind")
            if target.classes is not None:
                if not np.array_equal(self.classes_, target.classes):
                    raise ValueError("y has other classes")
            state = {
                "selector": to_tensors(last.selector_state),
                "decoder": to_tensors(last.decoder_state),
            }
            with torch.no_grad():
                model.load_run_state(0, state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                "warm_start=True needs a last fit with warm_start=True and with the "
                f"same features, targets, k and layer sizes ({error}). Use "
                "warm_start=False to begin anew."
            ) from error

    def _store(self, problem, options, device, results: list[RunResult]):
        """Set the fitted attributes, numpy and plain Python only."""
        task = problem.task
        best = min(results, key=lambda result: result.loss)
        columns = problem.columns[best.selection.columns]
        order = np.argsort(columns)
        standardized = self._resolve_standardize(task)
        in_units_of_X = task == "reconstruction" and not standardized
        unit = problem.scale[0] ** 2 if in_units_of_X else 1.0
        self.task_ = task
        self.device_ = str(device)
        self.selected_indices_ = columns[order]
        self.n_unique_ = best.selection.n_unique
        self.converged_ = best.converged
        self.history_ = {
            name: values * unit if name.endswith("loss") else values
            for name, values in best.history.items()
        }
        self.n_iter_ = len(best.history["train_loss"])
        self.restart_losses_ = np.array([result.loss for result in results]) * unit
        self.__dict__.pop("classes_", None)
        if task == "classification":
            self.classes_ = problem.target.classes
        shape = (len(columns), len(problem.scale))
        self.probabilities_ = np.zeros(shape, dtype=np.float32)
        self.probabilities_[:, problem.columns] = best.probabilities[order]
        self.scores_ = self.probabilities_.max(axis=0)
        self.ranking_ = _ranking(self.scores_, self.selected_indices_)
        self.importances_ = best.importances[order] * unit
        self._fitted = Predictor(
            selected=self.selected_indices_,
            inputs=np.argsort(order),
            columns=problem.columns,
            center=problem.center,
            scale=problem.scale,
            factory=self.decoder,
            hidden_layer_sizes=self._hidden_layer_sizes(),
            n_outputs=problem.target.n_outputs,
            loss=problem.target.loss,
            target_center=problem.target.center,
            target_scale=problem.target.scale,
            decoder_state=to_arrays(problem.of_all_columns(best.state["decoder"])),
            selector_state=to_arrays(best.state["selector"] if self.warm_start else {}),
        )
        self._warn_if_unsure(best, options)

    def _warn_if_unsure(self, best: RunResult, options) -> None:
        judged = ""
        if options.n_trials and options.tuning_iter:
            judged = " The local search may have made up for it: compare scores."
        # Which it mostly has, and a longer search than by default seldom helps.
        if best.converged or (judged and self.max_iter == "auto"):
            return
        n_epochs = np.isfinite(best.history["temperature"]).sum()
        longer = ""
        if n_epochs == options.max_iter:
            longer = f"max_iter (to {2 * options.max_iter}, say) or "
        elif self.early_stopping:
            longer = "n_iter_no_change or "
        warn(
            f"Some of the {len(best.selection.columns)} selector nodes were not sure "
            f"of their column when the search ended after {n_epochs} epochs. Increase "
            f"{longer}learning_rate_selector.{judged}",
            ConvergenceWarning,
        )

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_fitted")

    def _get_support_mask(self):
        check_is_fitted(self)
        mask = np.zeros(self.n_features_in_, dtype=bool)
        mask[self.selected_indices_] = True
        return mask

    @available_if(_after("reconstruction"))
    def reconstruct(self, X):
        """Estimate all features from the selected ones, those among them.

        Parameters
        ----------
        X : array-like of shape (n_samples, k)
            The selected features, as :meth:`transform` returns them.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            In the units of the training data, the selected features as the decoder
            gives them.
        """
        check_is_fitted(self)
        X = check_array(X, accept_sparse="csr")
        k = len(self.selected_indices_)
        if X.shape[1] != k:
            raise ValueError(
                f"X has {X.shape[1]} features, but reconstruct takes the {k} selected "
                "ones, as transform returns them."
            )
        fitted = self._fitted
        full = np.tile(fitted.center, (X.shape[0], 1))
        full[:, fitted.columns] += fitted.decode(X) * fitted.scale[fitted.columns]
        return full

    @available_if(_after("classification", "regression"))
    def predict(self, X):
        """Predict the target with the jointly trained decoder.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            All features, as in :meth:`fit`.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Classes, 0/1 indicators of several labels, or values in the units of the
            training target.
        """
        outputs = self._decode_selected(X)
        if self.task_ == "regression":
            values = outputs * self._fitted.target_scale + self._fitted.target_center
            return values[:, 0] if values.shape[1] == 1 else values
        if self._fitted.loss == "binary_cross_entropy":
            return (outputs > 0).astype(int)
        return self.classes_[outputs.argmax(axis=1)]

    @available_if(_after("classification"))
    def predict_proba(self, X):
        """Predict the probabilities of the classes with the joint decoder.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            All features, as in :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows sum to 1. With several labels,
            the probability of each.
        """
        outputs = self._decode_selected(X)
        if self._fitted.loss == "binary_cross_entropy":
            return scipy.special.expit(outputs)
        return scipy.special.softmax(outputs, axis=1)

    @available_if(_after("classification"))
    def decision_function(self, X):
        """Confidence of the joint decoder in the classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            All features, as in :meth:`fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Of two classes the log-odds of the second, above 0 where it is predicted;
            of more their log-probabilities up to a number for each row. With several
            labels, the log-odds of each.
        """
        outputs = self._decode_selected(X)
        if self._fitted.loss == "cross_entropy" and outputs.shape[1] == 2:
            return outputs[:, 1] - outputs[:, 0]
        return outputs

    def score(self, X, y=None, sample_weight=None):
        """Score of the jointly trained decoder; larger is better.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
            Not used when the task is reconstruction.
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        score : float
            R² of the reconstruction of all features, columns weighted by their
            variance in the units of the fit; accuracy; or R² of the prediction.
        """
        check_is_fitted(self)
        if self.task_ == "reconstruction":
            X = self._check_features(X)
            return self._reconstruction_score(X, sample_weight)
        if y is None:
            raise ValueError(f"score requires y when the task is {self.task_}.")
        metric = r2_score if self.task_ == "regression" else accuracy_score
        return metric(y, self.predict(X), sample_weight=sample_weight)

    def _reconstruction_score(self, X, sample_weight) -> float:
        """``r2_score`` with "variance_weighted" outputs, a block of rows at a time."""
        fitted = self._fitted
        if X.shape[0] < 2:
            message = "R² is not defined with fewer than two rows."
            warn(message, UndefinedMetricWarning)
            return float("nan")
        weights = np.ones(X.shape[0])
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X)
        weights = weights / weights.sum()
        std = column_statistics(X, weights).std / fitted.scale
        error = np.zeros(X.shape[1])
        decoder = fitted.decoder()
        for rows in row_blocks(X.shape):
            left = fitted.scaled(X[rows])
            # Columns that were constant in training stay as they were.
            decoded = fitted.decode(X[rows][:, fitted.selected], decoder)
            left[:, fitted.columns] -= decoded
            error += weights[rows] @ np.square(left, out=left)
        varies = std > 0
        if not varies.any():
            return float(np.mean(error == 0))
        return float(1 - error[varies].sum() / np.square(std).sum())

    def _check_features(self, X):
        with naming_columns_without_numbers(X):
            X = of_numbers(validate_data(self, X, reset=False, **_VALIDATION))
        check_finite(X, getattr(self, "feature_names_in_", None))
        return X

    def _decode_selected(self, X):
        check_is_fitted(self)
        return self._fitted.decode(self._check_features(X)[:, self._fitted.selected])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = self.task in ("classification", "regression")
        tags.target_tags.multi_output = True
        tags.classifier_tags = ClassifierTags()
        tags.regressor_tags = RegressorTags()
        # Splitters, and scorers such as "roc_auc", have to know what the decoder
        # predicts; for "auto" that is known after a fit.
        kinds = {"classification": "classifier", "regression": "regressor"}
        task = getattr(self, "task_", self.task)
        tags.estimator_type = kinds.get(task) if isinstance(task, str) else None
        return tags


def _check_sample_weight(sample_weight, X) -> np.ndarray:
    weights = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.ndim != 1:
        raise ValueError("sample_weight must be 1D: one weight for each row.")
    check_consistent_length(X, weights)
    if (weights < 0).any():
        raise ValueError("sample_weight must not be negative.")
    if np.count_nonzero(weights) < 2:
        raise ValueError(
            "sample_weight is zero for all rows but at most one; two at least have to "
            "count."
        )
    return weights / weights.max()  # whose sum does not overflow


def _check_several_classes(y) -> None:
    if y is not None and len(np.unique(y)) < 2:
        raise ValueError(
            "The rows of one class only are left where sample_weight or class_weight "
            "is zero for the others: there is nothing to tell apart."
        )


def _ranking(scores, selected) -> np.ndarray:
    """1 for the selected columns, then 2, 3, ... in order of falling score."""
    rest = np.setdiff1d(np.arange(len(scores)), selected)
    ranking = np.ones(len(scores), dtype=int)
    ranking[rest[np.argsort(-scores[rest], kind="stable")]] += np.arange(len(rest)) + 1
    return ranking


class CAESelector(_BaseConcreteSelector):
    """Feature selection with a concrete autoencoder.

    The selector has k nodes. Each holds a logit for every feature, a parameter that is
    learned directly, and comes to pick one feature; a decoder, trained with them, works
    with what the nodes pick. Gumbel noise and a falling temperature turn the nodes from
    soft mixtures of features into definite choices [1]_.

    Parameters
    ----------
    k : int, float or "all", default=10
        Number of features to keep: a count, a fraction in (0, 1) of the features
        (rounded down), or all. More than there are keeps all, with a warning.
    task : {"auto", "reconstruction", "classification", "regression"}, default="auto"
        What the selected features have to be good for: to reconstruct all features, or
        to predict ``y``. "auto" reconstructs when ``y`` is None. Else it is a
        regression if ``y`` holds floats that are not whole numbers, or whole ones of
        which there are more than 20, many of them only once; and else a classification.
    init : {"random", "greedy"}, default="random"
        Where the nodes begin: anywhere, or at the columns of :func:`greedy_columns`,
        which are then the result if the local search finds nothing better (see
        ``n_trials``). Lower the start temperature to about 1 with "greedy", or the
        search forgets them.
    hidden_layer_sizes : int or sequence of int, default=(200,)
        Widths of the decoder's hidden layers, each with LayerNorm and LeakyReLU(0.2).
        () for a linear decoder.
    decoder : callable, default=None
        ``decoder(n_inputs, n_outputs)`` returns a new ``torch.nn.Module`` to use in
        place of the built-in decoder. It maps scaled columns (batch, n_inputs) to
        (batch, n_outputs): one logit for each class, without a softmax; the
        standardised target; or the scaled columns. All that it learns has to be in its
        ``state_dict``; to pickle the selector it must be importable. Such a fit takes
        longer, has no surplus nodes and by default hides no features.
    temperature : (float, float), default=(10.0, 0.01)
        Temperature of the relaxation at the first and the last step of the search.
    temperature_schedule : {"exponential", "linear"}, default="exponential"
        How the temperature falls from step to step.
    noise : {"pool", "batch", "sample"}, default="pool"
        Where the Gumbel noise of a step comes from. "pool" reads it at random places of
        a pool of values that is renewed now and then. "batch" draws it anew for each
        step. "sample", as published, draws it for each row of a batch, at many times
        the cost.
    gradient : {"relaxed", "straight_through", "gumbel_rao"}, default="relaxed"
        Gradient estimator: that of the relaxed selection; a hard selection forward and
        the relaxed one backward; or the latter, averaged over several relaxations.
    n_gradient_samples : int, default=10
        Relaxations that "gumbel_rao" averages over.
    diversity : float, default=0.0
        Weight λ of the generalized Jensen-Shannon divergence of the nodes, which is
        added to the objective to keep them apart.
    max_iter : int or "auto", default="auto"
        Epochs over which the temperature of the search falls. The search ends sooner
        once its nodes have settled on their columns, unless ``tuning_iter=0``. "auto"
        takes as many as make 2,000 steps of the decoder, at least 5.
    n_surplus : int or "auto", default="auto"
        Extra nodes in the search. Before the tuning the nodes whose columns the decoder
        misses least are dropped, in three rounds. Extra nodes help where several
        columns have to be found together before any of them is useful. "auto": with a
        target, enough for 16 nodes in all, but no more nodes than half the features;
        else 0. Custom decoders, ``warm_start`` and ``tuning_iter=0`` have none.
    n_candidates : int, "auto" or "all", default="auto"
        With a target (without one all are searched), how many features the search
        chooses from: those that explain most of it by themselves, in a linear
        regression. The local search considers all features. Features that matter only
        in combination, or through a symmetric curve, may be left out. "auto": 1,000
        with fewer than 500 rows and none held out; 8,192 of more than 32,768 features
        with fewer than 2,000 training rows; else all. All are searched, too, where
        there are more than half as many nodes as there would be candidates, and where
        ``n_surplus="auto"`` adds no nodes for lack of support.
        ``probabilities_.any(axis=0)`` shows which were searched.
    feature_dropout : float or "auto", default="auto"
        Share of the selected features, 0.99 at most, that are hidden from the decoder
        at random in each step of the selector. Others have to stand in for the hidden
        ones, so features are preferred that are informative beside any others. "auto"
        is 0; but with a target and no rows held out it leaves 10 features, and hides
        0.8 at most (0 where ``n_surplus="auto"`` is not supported).
    n_trials : int, default=14
        The most sets of features that the local search tries in place of the one found
        (see Notes); 0 for no local search. It needs a tuning, and rows held out or
        folds. With fewer than 500 rows and none held out, five folds compare what
        linear regressions propose (not with ``warm_start``); with a target the search
        is repeated in each fold, which takes as long as the rest or longer.
    tuning_iter : int or "auto", default="auto"
        Epochs after the search in which the decoder alone is trained on the columns
        found, at a rate that falls to zero; 0 for none, as published. "auto" takes as
        many as make 2,000 steps, at least 30. With fewer than 500 rows and none held
        out this is the most: five folds show after how many epochs the decoder is best
        for other rows (not with ``warm_start``). Where rows are held out, the tuning is
        repeated on all rows in the end (see ``validation_fraction``).
    batch_size : int or "auto", default="auto"
        Rows of a batch. "auto" takes all of up to 64 rows, else the power of two
        nearest to the square root of their number, between 32 and 256.
    n_decoder_steps : int or "auto", default="auto"
        Steps of the decoder, on a batch each, for each step of the selector in the
        search. The selector draws its noise once for all of them and follows the mean
        of their gradients, so its arithmetic, most of which does not depend on the
        number of rows, is needed that much less often. "auto" is 4; fewer where the
        rows of so many batches take more than 64 MiB; and 1 with ``noise="sample"``,
        with ``tuning_iter=0`` and with a decoder that has nothing to learn.
    learning_rate_init : float or "auto", default="auto"
        Learning rate of the decoder (Adam). "auto" is 3e-3 for a reconstruction, which
        seldom overfits, and 1e-3 for a target; but 3e-3 for a tuning that tries noise
        on the inputs (see Notes).
    learning_rate_selector : float or "auto", default="auto"
        Learning rate of the selector's parameters; "auto" is 0.05.
    weight_decay : float, default=0.0
        Decoupled weight decay of the decoder.
    validation_fraction : float or "auto", default="auto"
        Share of the rows held out, stratified by class. Their loss decides between sets
        of columns (see Notes), when the tuning (without a tuning: the search) was best,
        and between restarts. "auto" is 0.15; with a target it is more where that would
        be fewer than 500 rows, up to 0.3. With fewer than 500 rows in all it is 0, and
        folds take the place of held-out rows. In the end the tuning is repeated on all
        rows, from where the search ended, for as many epochs as were best. (Not with
        ``warm_start``, with more than 100,000 training rows, or if a callback stops the
        tuning.)
    early_stopping : bool, default=False
        Whether to end the search, and the tuning, as soon as the loss has stalled, even
        if nodes are not yet sure of their columns.
    n_iter_no_change : int, default=10
        Epochs without an improvement by ``tol`` after which the loss has stalled. Where
        a tuning follows, this also ends a search whose nodes are sure of their columns.
    tol : float, default=1e-4
        Smallest improvement of the loss that counts, in units of the scaled data.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn. A class of weight 0 is not trained
        on.
    standardize : bool, "l4" or "auto", default="auto"
        Whether each column is divided by its standard deviation, so that its unit does
        not matter. "l4" divides by the fourth root of the mean fourth power of the
        deviations from the mean, then all by one number so that the mean variance is 1:
        columns that rarely leave one value then vary less than the others. False keeps
        the units of X, up to one divisor for all. "auto" is "l4" with a target and
        False for a reconstruction. Outliers far beyond the rest shrink a column under
        any of these: clip it or rank it (``QuantileTransformer``).
    n_init : int, default=1
        Runs trained side by side from different initial values. The one of the lowest
        loss is kept (see ``restart_losses_``).
    device : str, torch.device or "auto", default="auto"
        Where to train; "auto" is CUDA if there is any, else the CPU. Predictions are
        made on the CPU.
    warm_start : bool, default=False
        Whether a fit begins with the parameters that the last one ended with. Such fits
        have no surplus nodes, and their decoder never learns from held-out rows.
    random_state : int, RandomState instance or None, default=None
        Seed of initial values, noise, order of the rows and rows held out.
    verbose : bool, default=False
        Whether to print a line an epoch, one for each two or three trials of the local
        search, and one as the tuning is repeated on all rows. Losses are of scaled
        data.

    Attributes
    ----------
    selected_indices_ : ndarray of shape (k,)
        The selected columns, in increasing order.
    scores_ : ndarray of shape (n_features,)
        Largest probability that a node gives to each feature, 0 for features that took
        no part in the search (``n_candidates``). They describe the search alone: a
        feature that came in afterwards, in place of a duplicate or by a swap, may score
        less than one that was left out.
    ranking_ : ndarray of shape (n_features,)
        1 for the selected features, 2 and on for the others by falling score, in their
        order in X where scores are equal.
    importances_ : ndarray of shape (k,)
        By how much the loss rises when a selected column is replaced by its mean, on
        (up to 1,024 of) the held-out rows and before the tuning is repeated on all
        rows; on training rows if none are held out. In the order of
        ``selected_indices_``.
    probabilities_ : ndarray of shape (k, n_features)
        Probabilities of the nodes at temperature 1, 0 for features that took no part in
        the search. Node i ended with ``selected_indices_[i]``, its most probable
        feature unless that was replaced.
    n_unique_ : int
        Selected features that a node came to by itself, before duplicates were replaced
        and features swapped.
    history_ : dict of ndarray of shape (n_epochs,)
        Of each epoch: "train_loss", "validation_loss" (NaN without held-out rows),
        "unique_fraction", "temperature" (NaN in the tuning), "mean_max_probability" and
        "gjsd". Losses are mean squared errors in the units of X for a reconstruction
        (of scaled columns, if ``standardize`` scales each), of standardised targets for
        a regression, and cross-entropies in nats for classes. Training losses include
        the noise of training, and those of the search are with ``n_surplus`` more
        columns.
    n_iter_ : int
        Epochs of search and tuning in ``history_``, without those that are repeated on
        all rows.
    converged_ : bool
        Whether all nodes but one in 20 gave their columns a probability of at least 0.9
        when the search ended.
    restart_losses_ : ndarray of shape (n_init,)
        Loss of each run: on the held-out rows, before the tuning is repeated on all
        rows; by folds with fewer than 500 rows (not with ``warm_start`` or
        ``tuning_iter=0``); else on the training rows. The selector is the run of the
        smallest. Compare it with the loss of a constant prediction: the entropy of the
        classes (log 2 for two equal ones); 1 for a regression; for a reconstruction,
        which is in squared units of X, the mean variance of the columns (1, if
        ``standardize`` scales each). Rows that had a part in choosing columns make it
        too low: by about a tenth where rows are held out (600 rows and 200 columns of
        noise), by more in folds without a target or with ``n_trials=0``.
    task_ : str
        The task that "auto" stood for.
    classes_ : ndarray of shape (n_classes,)
        Classification only.
    device_ : str
        Where the fit ran.
    n_features_in_ : int
        Number of features seen in :meth:`fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, when all are strings.

    See Also
    --------
    IPCAESelector : Computes the logits from an embedding, which trains at the learning
        rate of the papers, too.
    sklearn.feature_selection.SelectKBest : Scores each feature by itself.

    Notes
    -----
    A fit has four parts. The *search* trains nodes and decoder while the temperature
    falls, and ends with exactly k distinct columns: where several nodes prefer the same
    column, the surest of them keeps it, and the others get columns that go well with
    those taken. Then a *local search* tries other columns in place of some: those that
    a linear regression would swap and, with a target, those that the decoder asks for
    by the gradient of its loss. They are taken if a new decoder has a lower loss with
    them on the held-out rows. (Of fewer than 500 rows none are held out. Then five
    folds compare what the regression proposes and, with a target, what the search finds
    without each fold.) The *tuning* trains the decoder on the columns chosen; one for
    classes is trained with and without noise on its inputs, and the held-out rows
    choose between the two. Last, the tuning is repeated on all rows.

    Where rows are few and columns many, the search chooses among those that explain
    most of the target by themselves (see ``n_candidates``). The local search considers
    all.

    The original protocol is ``noise="batch", temperature=(10, 0.1), tuning_iter=0,
    learning_rate_init=1e-3, learning_rate_selector=1e-3, standardize=False``; at that
    rate nodes hardly ever become sure of a column.

    References
    ----------
    .. [1] M. F. Balın, A. Abid, J. Zou, "Concrete Autoencoders: Differentiable
       Feature Selection and Reconstruction", ICML 2019. arXiv:1901.09346

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ipcae_sklearn import CAESelector
    >>> X, _ = load_digits(return_X_y=True)
    >>> selector = CAESelector(k=10, max_iter=100, random_state=0).fit(X)
    >>> selector.transform(X).shape
    (1797, 10)
    >>> selector.reconstruct(selector.transform(X)).shape
    (1797, 64)
    """

    _selector_rate = 0.05

    def _make_logits(self, n_nodes, n_features, generators, start):
        return DirectLogits(
            n_nodes,
            n_features,
            generators,
            start=start,
            start_logit=_START_LEAD + np.log(n_features),
        )


class IPCAESelector(_BaseConcreteSelector):
    """Feature selection with an indirectly parameterized concrete autoencoder.

    The selector has k nodes. Each holds a logit for every feature and comes to pick one
    feature; a decoder, trained with them, works with what the nodes pick. Gumbel noise
    and a falling temperature turn the nodes from soft mixtures of features into
    definite choices. The logits are computed from an embedding by a learned linear map,
    ``log α = Ψ Wᵀ + b``, which at the papers' learning rate of 1e-3 trains stably and
    seldom picks a feature twice [1]_.

    Parameters
    ----------
    k : int, float or "all", default=10
        Number of features to keep: a count, a fraction in (0, 1) of the features
        (rounded down), or all. More than there are keeps all, with a warning.
    task : {"auto", "reconstruction", "classification", "regression"}, default="auto"
        What the selected features have to be good for: to reconstruct all features, or
        to predict ``y``. "auto" reconstructs when ``y`` is None. Else it is a
        regression if ``y`` holds floats that are not whole numbers, or whole ones of
        which there are more than 20, many of them only once; and else a classification.
    embedding_dim : int or "n_features", default=32
        Dimension d of the embedding Ψ (k, d). "n_features" (of those searched) is the
        setting of the paper's tables; memory and time grow as (k + n_features) d.
    embedding_init : {"normal", "identity"}, default="normal"
        Ψ begins with standard normal values, or with rows of the identity.
    map : {"shared", "per_row", "full", "diagonal", "scalar"}, default="shared"
        The map from embedding to logits: one linear map for all nodes (the method of
        the paper), one for each node, one from all nodes to all nodes, an elementwise
        factor, or a scalar. The last two have d = n_features.
    map_bias : bool, default=True
        Whether the map has a bias.
    map_hidden_layer_sizes : int or sequence of int, default=()
        Widths of hidden layers (LayerNorm, ReLU) in front of a shared map.
    init : {"random", "greedy"}, default="random"
        Where the nodes begin: anywhere, or at the columns of :func:`greedy_columns`,
        which are then the result if the local search finds nothing better (see
        ``n_trials``). Lower the start temperature to about 1 with "greedy", or the
        search forgets them.
    hidden_layer_sizes : int or sequence of int, default=(200,)
        Widths of the decoder's hidden layers, each with LayerNorm and LeakyReLU(0.2).
        () for a linear decoder.
    decoder : callable, default=None
        ``decoder(n_inputs, n_outputs)`` returns a new ``torch.nn.Module`` to use in
        place of the built-in decoder. It maps scaled columns (batch, n_inputs) to
        (batch, n_outputs): one logit for each class, without a softmax; the
        standardised target; or the scaled columns. All that it learns has to be in its
        ``state_dict``; to pickle the selector it must be importable. Such a fit takes
        longer, has no surplus nodes and by default hides no features.
    temperature : (float, float), default=(10.0, 0.01)
        Temperature of the relaxation at the first and the last step of the search.
    temperature_schedule : {"exponential", "linear"}, default="exponential"
        How the temperature falls from step to step.
    noise : {"pool", "batch", "sample"}, default="pool"
        Where the Gumbel noise of a step comes from. "pool" reads it at random places of
        a pool of values that is renewed now and then. "batch" draws it anew for each
        step. "sample", as published, draws it for each row of a batch, at many times
        the cost.
    gradient : {"relaxed", "straight_through", "gumbel_rao"}, default="relaxed"
        Gradient estimator: that of the relaxed selection; a hard selection forward and
        the relaxed one backward; or the latter, averaged over several relaxations.
    n_gradient_samples : int, default=10
        Relaxations that "gumbel_rao" averages over.
    diversity : float, default=0.0
        Weight λ of the generalized Jensen-Shannon divergence of the nodes, which is
        added to the objective to keep them apart.
    max_iter : int or "auto", default="auto"
        Epochs over which the temperature of the search falls. The search ends sooner
        once its nodes have settled on their columns, unless ``tuning_iter=0``. "auto"
        takes as many as make 2,000 steps of the decoder, at least 5.
    n_surplus : int or "auto", default="auto"
        Extra nodes in the search. Before the tuning the nodes whose columns the decoder
        misses least are dropped, in three rounds. Extra nodes help where several
        columns have to be found together before any of them is useful. "auto": with a
        target, enough for 16 nodes in all, but no more nodes than half the features;
        else 0. Custom decoders, ``warm_start``, ``tuning_iter=0`` and ``map="full"``
        have none.
    n_candidates : int, "auto" or "all", default="auto"
        With a target (without one all are searched), how many features the search
        chooses from: those that explain most of it by themselves, in a linear
        regression. The local search considers all features. Features that matter only
        in combination, or through a symmetric curve, may be left out. "auto": 1,000
        with fewer than 500 rows and none held out; 8,192 of more than 32,768 features
        with fewer than 2,000 training rows; else all. All are searched, too, where
        there are more than half as many nodes as there would be candidates, and where
        ``n_surplus="auto"`` adds no nodes for lack of support.
        ``probabilities_.any(axis=0)`` shows which were searched.
    feature_dropout : float or "auto", default="auto"
        Share of the selected features, 0.99 at most, that are hidden from the decoder
        at random in each step of the selector. Others have to stand in for the hidden
        ones, so features are preferred that are informative beside any others. "auto"
        is 0; but with a target and no rows held out it leaves 10 features, and hides
        0.8 at most (0 where ``n_surplus="auto"`` is not supported).
    n_trials : int, default=14
        The most sets of features that the local search tries in place of the one found
        (see Notes); 0 for no local search. It needs a tuning, and rows held out or
        folds. With fewer than 500 rows and none held out, five folds compare what
        linear regressions propose (not with ``warm_start``); with a target the search
        is repeated in each fold, which takes as long as the rest or longer.
    tuning_iter : int or "auto", default="auto"
        Epochs after the search in which the decoder alone is trained on the columns
        found, at a rate that falls to zero; 0 for none, as published. "auto" takes as
        many as make 2,000 steps, at least 30. With fewer than 500 rows and none held
        out this is the most: five folds show after how many epochs the decoder is best
        for other rows (not with ``warm_start``). Where rows are held out, the tuning is
        repeated on all rows in the end (see ``validation_fraction``).
    batch_size : int or "auto", default="auto"
        Rows of a batch. "auto" takes all of up to 64 rows, else the power of two
        nearest to the square root of their number, between 32 and 256.
    n_decoder_steps : int or "auto", default="auto"
        Steps of the decoder, on a batch each, for each step of the selector in the
        search. The selector draws its noise once for all of them and follows the mean
        of their gradients, so its arithmetic, most of which does not depend on the
        number of rows, is needed that much less often. "auto" is 4; fewer where the
        rows of so many batches take more than 64 MiB; and 1 with ``noise="sample"``,
        with ``tuning_iter=0`` and with a decoder that has nothing to learn.
    learning_rate_init : float or "auto", default="auto"
        Learning rate of the decoder (Adam). "auto" is 3e-3 for a reconstruction, which
        seldom overfits, and 1e-3 for a target; but 3e-3 for a tuning that tries noise
        on the inputs (see Notes).
    learning_rate_selector : float or "auto", default="auto"
        Learning rate of the selector's parameters; "auto" is 0.003.
    weight_decay : float, default=0.0
        Decoupled weight decay of the decoder.
    validation_fraction : float or "auto", default="auto"
        Share of the rows held out, stratified by class. Their loss decides between sets
        of columns (see Notes), when the tuning (without a tuning: the search) was best,
        and between restarts. "auto" is 0.15; with a target it is more where that would
        be fewer than 500 rows, up to 0.3. With fewer than 500 rows in all it is 0, and
        folds take the place of held-out rows. In the end the tuning is repeated on all
        rows, from where the search ended, for as many epochs as were best. (Not with
        ``warm_start``, with more than 100,000 training rows, or if a callback stops the
        tuning.)
    early_stopping : bool, default=False
        Whether to end the search, and the tuning, as soon as the loss has stalled, even
        if nodes are not yet sure of their columns.
    n_iter_no_change : int, default=10
        Epochs without an improvement by ``tol`` after which the loss has stalled. Where
        a tuning follows, this also ends a search whose nodes are sure of their columns.
    tol : float, default=1e-4
        Smallest improvement of the loss that counts, in units of the scaled data.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn. A class of weight 0 is not trained
        on.
    standardize : bool, "l4" or "auto", default="auto"
        Whether each column is divided by its standard deviation, so that its unit does
        not matter. "l4" divides by the fourth root of the mean fourth power of the
        deviations from the mean, then all by one number so that the mean variance is 1:
        columns that rarely leave one value then vary less than the others. False keeps
        the units of X, up to one divisor for all. "auto" is "l4" with a target and
        False for a reconstruction. Outliers far beyond the rest shrink a column under
        any of these: clip it or rank it (``QuantileTransformer``).
    n_init : int, default=1
        Runs trained side by side from different initial values. The one of the lowest
        loss is kept (see ``restart_losses_``).
    device : str, torch.device or "auto", default="auto"
        Where to train; "auto" is CUDA if there is any, else the CPU. Predictions are
        made on the CPU.
    warm_start : bool, default=False
        Whether a fit begins with the parameters that the last one ended with. Such fits
        have no surplus nodes, and their decoder never learns from held-out rows.
    random_state : int, RandomState instance or None, default=None
        Seed of initial values, noise, order of the rows and rows held out.
    verbose : bool, default=False
        Whether to print a line an epoch, one for each two or three trials of the local
        search, and one as the tuning is repeated on all rows. Losses are of scaled
        data.

    Attributes
    ----------
    selected_indices_ : ndarray of shape (k,)
        The selected columns, in increasing order.
    scores_ : ndarray of shape (n_features,)
        Largest probability that a node gives to each feature, 0 for features that took
        no part in the search (``n_candidates``). They describe the search alone: a
        feature that came in afterwards, in place of a duplicate or by a swap, may score
        less than one that was left out.
    ranking_ : ndarray of shape (n_features,)
        1 for the selected features, 2 and on for the others by falling score, in their
        order in X where scores are equal.
    importances_ : ndarray of shape (k,)
        By how much the loss rises when a selected column is replaced by its mean, on
        (up to 1,024 of) the held-out rows and before the tuning is repeated on all
        rows; on training rows if none are held out. In the order of
        ``selected_indices_``.
    probabilities_ : ndarray of shape (k, n_features)
        Probabilities of the nodes at temperature 1, 0 for features that took no part in
        the search. Node i ended with ``selected_indices_[i]``, its most probable
        feature unless that was replaced.
    n_unique_ : int
        Selected features that a node came to by itself, before duplicates were replaced
        and features swapped.
    history_ : dict of ndarray of shape (n_epochs,)
        Of each epoch: "train_loss", "validation_loss" (NaN without held-out rows),
        "unique_fraction", "temperature" (NaN in the tuning), "mean_max_probability" and
        "gjsd". Losses are mean squared errors in the units of X for a reconstruction
        (of scaled columns, if ``standardize`` scales each), of standardised targets for
        a regression, and cross-entropies in nats for classes. Training losses include
        the noise of training, and those of the search are with ``n_surplus`` more
        columns.
    n_iter_ : int
        Epochs of search and tuning in ``history_``, without those that are repeated on
        all rows.
    converged_ : bool
        Whether all nodes but one in 20 gave their columns a probability of at least 0.9
        when the search ended.
    restart_losses_ : ndarray of shape (n_init,)
        Loss of each run: on the held-out rows, before the tuning is repeated on all
        rows; by folds with fewer than 500 rows (not with ``warm_start`` or
        ``tuning_iter=0``); else on the training rows. The selector is the run of the
        smallest. Compare it with the loss of a constant prediction: the entropy of the
        classes (log 2 for two equal ones); 1 for a regression; for a reconstruction,
        which is in squared units of X, the mean variance of the columns (1, if
        ``standardize`` scales each). Rows that had a part in choosing columns make it
        too low: by about a tenth where rows are held out (600 rows and 200 columns of
        noise), by more in folds without a target or with ``n_trials=0``.
    task_ : str
        The task that "auto" stood for.
    classes_ : ndarray of shape (n_classes,)
        Classification only.
    device_ : str
        Where the fit ran.
    n_features_in_ : int
        Number of features seen in :meth:`fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, when all are strings.

    See Also
    --------
    CAESelector : Learns the logits directly.
    sklearn.feature_selection.SelectKBest : Scores each feature by itself.

    Notes
    -----
    A fit has four parts. The *search* trains nodes and decoder while the temperature
    falls, and ends with exactly k distinct columns: where several nodes prefer the same
    column, the surest of them keeps it, and the others get columns that go well with
    those taken. Then a *local search* tries other columns in place of some: those that
    a linear regression would swap and, with a target, those that the decoder asks for
    by the gradient of its loss. They are taken if a new decoder has a lower loss with
    them on the held-out rows. (Of fewer than 500 rows none are held out. Then five
    folds compare what the regression proposes and, with a target, what the search finds
    without each fold.) The *tuning* trains the decoder on the columns chosen; one for
    classes is trained with and without noise on its inputs, and the held-out rows
    choose between the two. Last, the tuning is repeated on all rows.

    Where rows are few and columns many, the search chooses among those that explain
    most of the target by themselves (see ``n_candidates``). The local search considers
    all.

    The protocol of the paper is ``embedding_dim="n_features", noise="sample",
    max_iter=200, tuning_iter=0, batch_size=128, learning_rate_init=1e-3,
    learning_rate_selector=1e-3, standardize=False, validation_fraction=0.2`` (a batch
    size of 16 and a validation fraction of 0.25 for small data sets).

    References
    ----------
    .. [1] A. Nilsson, K. Wijk, S. B. C. Gutha, E. Englesson, A. Hotti, C. Saccardi,
       O. Kviman, J. Lagergren, R. Vinuesa, H. Azizpour, "Indirectly Parameterized
       Concrete Autoencoders", ICML 2024. arXiv:2403.00563

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> from ipcae_sklearn import IPCAESelector
    >>> X, y = load_digits(return_X_y=True)
    >>> selector = IPCAESelector(k=10, random_state=0)
    >>> pipeline = make_pipeline(selector, SVC()).fit(X, y)
    >>> selector.get_support(indices=True).shape
    (10,)
    """

    _selector_rate = 0.003

    def __init__(
        self,
        k=10,
        *,
        task="auto",
        embedding_dim=32,
        embedding_init="normal",
        map="shared",
        map_bias=True,
        map_hidden_layer_sizes=(),
        init="random",
        hidden_layer_sizes=(200,),
        decoder=None,
        temperature=(10.0, 0.01),
        temperature_schedule="exponential",
        noise="pool",
        gradient="relaxed",
        n_gradient_samples=10,
        diversity=0.0,
        max_iter="auto",
        n_surplus="auto",
        n_candidates="auto",
        feature_dropout="auto",
        n_trials=14,
        tuning_iter="auto",
        batch_size="auto",
        n_decoder_steps="auto",
        learning_rate_init="auto",
        learning_rate_selector="auto",
        weight_decay=0.0,
        validation_fraction="auto",
        early_stopping=False,
        n_iter_no_change=10,
        tol=1e-4,
        class_weight=None,
        standardize="auto",
        n_init=1,
        device="auto",
        warm_start=False,
        random_state=None,
        verbose=False,
    ):
        super().__init__(
            k,
            task=task,
            init=init,
            hidden_layer_sizes=hidden_layer_sizes,
            decoder=decoder,
            temperature=temperature,
            temperature_schedule=temperature_schedule,
            noise=noise,
            gradient=gradient,
            n_gradient_samples=n_gradient_samples,
            diversity=diversity,
            max_iter=max_iter,
            n_surplus=n_surplus,
            n_candidates=n_candidates,
            feature_dropout=feature_dropout,
            n_trials=n_trials,
            tuning_iter=tuning_iter,
            batch_size=batch_size,
            n_decoder_steps=n_decoder_steps,
            learning_rate_init=learning_rate_init,
            learning_rate_selector=learning_rate_selector,
            weight_decay=weight_decay,
            validation_fraction=validation_fraction,
            early_stopping=early_stopping,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            class_weight=class_weight,
            standardize=standardize,
            n_init=n_init,
            device=device,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.embedding_dim = embedding_dim
        self.embedding_init = embedding_init
        self.map = map
        self.map_bias = map_bias
        self.map_hidden_layer_sizes = map_hidden_layer_sizes

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _parameters.check_option("map", self.map, MAPS)
        _parameters.check_option("map_bias", self.map_bias, (True, False))
        options = ("normal", "identity")
        _parameters.check_option("embedding_init", self.embedding_init, options)
        _parameters.check_number_or(
            "embedding_dim", self.embedding_dim, ("n_features",), low=1, integer=True
        )
        name = "map_hidden_layer_sizes"
        hidden = _parameters.check_sizes(name, self.map_hidden_layer_sizes)
        if hidden and self.map != "shared":
            raise ValueError(f"{name} needs map='shared', got map={self.map!r}.")
        if self.init == "greedy" and (hidden or self.map != "shared"):
            raise ValueError(
                "init='greedy' needs map='shared' and no map_hidden_layer_sizes."
            )

    def _make_logits(self, n_nodes, n_features, generators, start):
        d = self.embedding_dim
        if d == "n_features" or self.map in ("diagonal", "scalar"):
            d = n_features
        if self.embedding_init == "identity" and d < max(n_nodes):
            raise ValueError(
                f"embedding_init='identity' needs embedding_dim >= {max(n_nodes)}, "
                f"the number of the selector's nodes, got {d}."
            )
        name = "map_hidden_layer_sizes"
        return IndirectLogits(
            n_nodes,
            n_features,
            generators,
            embedding_dim=int(d),
            embedding_init=self.embedding_init,
            map=self.map,
            bias=self.map_bias,
            hidden_layer_sizes=_parameters.check_sizes(
                name, self.map_hidden_layer_sizes
            ),
            start=start,
            start_logit=_START_LEAD + np.log(n_features),
        )

    def _no_surplus(self) -> str:
        return super()._no_surplus() or ("map" if self.map == "full" else "")
