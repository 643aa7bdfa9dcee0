"""Search over k by cross-validation, with many fits side by side in one program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import scipy.stats
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectorMixin
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import get_tags, indexable
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from ipcae_sklearn import _parameters
from ipcae_sklearn._data import (
    as_in_memory,
    column_statistics,
    is_memory_mapped,
    resolve_device,
)
from ipcae_sklearn._problem import columns_in_use
from ipcae_sklearn._selectors import (
    CAESelector,
    Data,
    IPCAESelector,
    _BaseConcreteSelector,
)
from ipcae_sklearn._warnings import warn

# The arrays of (k, p) float32 values that a run needs, about, and how many bytes of
# them are worked on at once, by type of device: a bound of memory.
_ARRAYS = 8
_GROUP_BYTES = {"cpu": 2**25, "cuda": 2**30}


class _OfTheRefitted:
    """An attribute of the refitted selector that the search has, too."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, search, owner=None):
        if search is None:
            return self
        if "best_estimator_" not in vars(search):
            message = f"{type(search).__name__} has no {self.name} before a refit."
            raise AttributeError(message)
        return getattr(search.best_estimator_, self.name)


def _refitted_has(method):
    """A check for ``available_if``: whether the refitted selector has a method, or the
    one to fit, as far as its parameters tell.
    """

    def check(search) -> bool:
        if hasattr(search, "best_k_"):
            search._check_refitted()
        # Or the error that tells why it has not.
        getattr(getattr(search, "best_estimator_", search._selector()), method)
        return True

    return check


class _BaseSelectorCV(SelectorMixin, MetaEstimatorMixin, BaseEstimator):
    """Cross-validation over k; subclasses name the selector used by default."""

    _default: type[_BaseConcreteSelector]

    def __init__(
        self,
        ks=(5, 10, 20, 50),
        *,
        estimator=None,
        cv=None,
        scoring=None,
        rule="best",
        refit=True,
        n_jobs=None,
    ):
        self.ks = ks
        self.estimator = estimator
        self.cv = cv
        self.scoring = scoring
        self.rule = rule
        self.refit = refit
        self.n_jobs = n_jobs

    def fit(self, X, y=None, *, groups=None, sample_weight=None):
        """Choose k by cross-validation, then select k features using all rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
        groups : array-like of shape (n_samples,), optional
            Handed to the splitter.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, in training and in the selector's own scores;
            ``scoring`` does not get them.

        Returns
        -------
        self : object

        Raises
        ------
        TypeError, ValueError
            For data or parameters that cannot be used; the message names them. An
            earlier fit is then left as it was.
        """
        _parameters.check_option("rule", self.rule, ("best", "1se"))
        _parameters.check_option("refit", self.refit, (True, False))
        selector = clone(self._check_estimator())
        # One seed for all groups of runs, whatever process they are trained in.
        selector.set_params(random_state=selector._integer_seed())
        ks, scorer = self._check_ks(), self._scorer(selector, y)
        data = selector._check(X, y, sample_weight)
        sizes = _sizes(ks, data.X)
        folds = self._split(selector, data, y, groups)
        search = _Search(
            selector,
            data,
            *indexable(X, y),
            scorer,
            own=self.scoring is None,
            in_memory=not is_memory_mapped(data.X),
        )
        scores, *seconds = self._cross_validate(search, sizes, folds)
        results = _as_results(sizes, ks, scores, *seconds)
        best = self._choose(sizes, scores)
        started = time.perf_counter()
        if self.refit:
            selector.set_params(k=ks[best]).fit(X, y, sample_weight=sample_weight)
        # Attributes are set when nothing can fail any more.
        for name in ("best_estimator_", "refit_time_"):
            self.__dict__.pop(name, None)
        if self.refit:
            self.best_estimator_ = selector
            self.refit_time_ = time.perf_counter() - started
        self.scorer_, self._scored_by = scorer, self.scoring
        self.n_splits_ = len(folds)
        self.cv_results_ = results
        self.best_index_ = best
        self.best_k_ = ks[best]
        self.best_params_ = {"k": self.best_k_}
        self.best_score_ = results["mean_test_score"][best]
        return self

    def _selector(self):
        return self._default() if self.estimator is None else self.estimator

    def _check_estimator(self):
        selector = self._selector()
        if not isinstance(selector, self._default):
            raise TypeError(
                f"estimator must be None or an instance of {self._default.__name__}, "
                f"got {selector!r}. Each class of selectors has a search of its own; "
                "for k of a selector in a Pipeline there is GridSearchCV."
            )
        return selector

    def _check_ks(self) -> list:
        if isinstance(self.ks, str) or not isinstance(self.ks, Iterable):
            raise TypeError(f"ks must be a sequence of k, got {self.ks!r}.")
        ks = list(self.ks)
        if not ks:
            raise ValueError("ks must name at least one k.")
        return ks

    def _scorer(self, selector, y):
        """``scoring`` as a callable (estimator, X, y)."""
        _check_target(y, self.scoring)
        if isinstance(self.scoring, (list, tuple, set, dict)):
            raise ValueError(
                "scoring must be one metric, a name or a callable: k is chosen by a "
                f"single score. Got {self.scoring!r}."
            )
        return check_scoring(selector, scoring=self.scoring)

    def _split(self, selector, data, y, groups) -> list[_Fold]:
        """The folds, every one of them fit to be trained on and tested."""
        weights = data.sample_weight
        classes = data.task == "classification"
        cv = check_cv(self.cv, data.y, classifier=classes)
        labels = y if data.y is None else data.y
        rows = np.arange(data.X.shape[0])
        splits = [
            (rows[np.asarray(train)], rows[np.asarray(test)])
            for train, test in cv.split(data.X, labels, groups)
        ]
        if not splits:
            raise ValueError("cv has no folds.")
        for j, (train, test) in enumerate(splits):
            judged, least = test, 1
            ((train,), _) = selector._rows_that_count([train], data.y, weights)
            if weights is not None and self.scoring is None:  # which takes the weights
                judged, least = test[weights[test] > 0], 2
            _check_fold(j, train, judged, least, data.y if classes else None)
        return [_Fold(j, *split) for j, split in enumerate(splits)]

    def _cross_validate(self, search, sizes, folds) -> np.ndarray:
        """Scores, seconds to fit and to score: (3, n_ks, n_folds)."""
        groups = _group_cases(sizes, [fold.train for fold in folds], search)
        # One group needs no process of its own, which may have to set up a GPU first.
        n_jobs = self.n_jobs if len(groups) > 1 else 1
        done = Parallel(n_jobs=n_jobs)(
            delayed(_fit_and_score)(
                search, [(k, folds[j]) for k, j in group.cases], group.columns
            )
            for group in groups
        )
        found: dict[tuple, tuple] = {}
        for group, values in zip(groups, done, strict=True):
            found |= dict(zip(group.cases, values, strict=True))
        order = [[found[k, j] for j in range(len(folds))] for k in sizes]
        return np.moveaxis(np.array(order), -1, 0)

    def _choose(self, sizes, scores) -> int:
        mean = scores.mean(axis=1)
        if np.isnan(mean).all():
            raise ValueError("The score is NaN for every k; look at scoring and cv.")
        best = int(np.nanargmax(mean))
        if self.rule == "best" or scores.shape[1] < 2:
            return best
        error = scores[best].std(ddof=1) / np.sqrt(scores.shape[1])
        good = np.flatnonzero(mean >= mean[best] - error)
        return int(min(good, key=lambda i: sizes[i]))

    def __sklearn_is_fitted__(self):
        return hasattr(self, "best_estimator_")

    def _check_refitted(self) -> None:
        if hasattr(self, "best_k_") and not self.__sklearn_is_fitted__():
            raise NotFittedError(
                f"This {type(self).__name__} was fitted with refit=False: there is no "
                f"selector. Use refit=True, or fit one with k={self.best_k_}."
            )
        check_is_fitted(self)

    def _get_support_mask(self):
        self._check_refitted()
        return self.best_estimator_.get_support()

    n_features_in_ = _OfTheRefitted()
    feature_names_in_ = _OfTheRefitted()
    classes_ = _OfTheRefitted()
    task_ = _OfTheRefitted()
    selected_indices_ = _OfTheRefitted()
    scores_ = _OfTheRefitted()
    ranking_ = _OfTheRefitted()
    importances_ = _OfTheRefitted()
    probabilities_ = _OfTheRefitted()
    n_unique_ = _OfTheRefitted()
    converged_ = _OfTheRefitted()
    history_ = _OfTheRefitted()

    @available_if(_refitted_has("predict"))
    def predict(self, X):
        """Predict the target with the refitted selector's decoder."""
        self._check_refitted()
        return self.best_estimator_.predict(X)

    @available_if(_refitted_has("predict_proba"))
    def predict_proba(self, X):
        """Predict class probabilities with the refitted selector's decoder."""
        self._check_refitted()
        return self.best_estimator_.predict_proba(X)

    @available_if(_refitted_has("decision_function"))
    def decision_function(self, X):
        """Confidence in the classes of the refitted selector's decoder."""
        self._check_refitted()
        return self.best_estimator_.decision_function(X)

    @available_if(_refitted_has("reconstruct"))
    def reconstruct(self, X):
        """Estimate all features from the selected ones."""
        self._check_refitted()
        return self.best_estimator_.reconstruct(X)

    def score(self, X, y=None, sample_weight=None):
        """Score of the refitted selector, by ``scoring`` or its own ``score``."""
        self._check_refitted()
        _check_target(y, self._scored_by)
        options = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self.scorer_(self.best_estimator_, X, y, **options)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        own = get_tags(getattr(self, "best_estimator_", self._selector()))
        tags.input_tags = own.input_tags
        tags.target_tags = own.target_tags
        tags.classifier_tags = own.classifier_tags
        tags.regressor_tags = own.regressor_tags
        tags.estimator_type = own.estimator_type
        return tags


def _check_target(y, scoring) -> None:
    if y is None and isinstance(scoring, str):
        raise ValueError(
            f"scoring={scoring!r} compares with y, which is missing. Leave "
            "scoring=None for R² of the reconstruction, or pass a callable."
        )


def _check_fold(j, train, test, least, y) -> None:
    """Raise an error that names the fold unless it can be trained on and tested.

    ``least`` is the fewest rows to test on.
    """
    if len(train) < 2 or len(test) < least:
        raise ValueError(
            f"cv leaves {len(train)} rows of positive weight to train on and "
            f"{len(test)} to test on in fold {j}."
        )
    if y is not None and y.ndim == 1 and len(np.unique(y[train])) < 2:
        only = y[train][0].tolist()
        raise ValueError(
            f"cv leaves rows of one class only ({only!r}) to train on in fold {j}. Use "
            "cv=StratifiedKFold(...), or a splitter that shuffles."
        )


@dataclass
class _Fold:
    """Numbers of the rows to train on and to test on."""

    number: int
    train: np.ndarray
    test: np.ndarray


@dataclass
class _Search:
    """What all fits of a search share."""

    selector: _BaseConcreteSelector
    data: Data
    X: object  # as the user passed them
    y: object
    scorer: Callable
    own: bool  # whether the scorer is the selector's own score
    in_memory: bool  # and not a file that is read batch by batch


def _take(data, rows):
    """Some rows of a frame, an array, a matrix or a list, as one of the same kind."""
    if hasattr(data, "iloc"):
        return data.iloc[rows]
    if isinstance(data, (list, tuple)):
        return [data[i] for i in rows]
    try:
        return data[rows]
    except TypeError:  # a table of pyarrow
        return data.take(rows)


@dataclass
class _Group:
    """Cases (k, number of fold) to train side by side."""

    cases: list[tuple[int, int]]
    columns: np.ndarray  # numbers of those in use


def _sizes(ks, X) -> list[int]:
    """Numbers of features that the ks stand for."""
    p = X.shape[1]
    sizes = [_parameters.resolve_k(k, p) for k in ks]
    if max(sizes) > p:
        warn(
            f"Some of ks={ks} are greater than n_features={p}. All the features are "
            "kept for these.",
        )
    return [min(size, p) for size in sizes]


def _group_cases(sizes, trains, search) -> list[_Group]:
    """Groups of cases alike in whether rows are held out, the largest k first.

    They depend on the data, ``ks``, the folds and the type of device alone, and so do
    the results, however many groups are trained at once. Different k are mixed on a GPU
    only: elsewhere the spare rows of the smaller would cost more than is gained.
    Columns that are constant in the training rows of any fold are used in none.
    """
    X, y, task, weights = search.data
    selector = search.selector
    device = resolve_device(selector.device).type
    counting, _ = selector._rows_that_count(trains, y, weights)
    owns = [_weights_in(rows, X.shape[0], weights) for rows in counting]
    std = np.min([column_statistics(X, own).std for own in owns], axis=0)
    alike: dict[tuple, _Group] = {}
    for j, own in enumerate(owns):
        holds_out = selector._resolve_fraction(task, np.count_nonzero(own)) > 0
        for k in dict.fromkeys(sizes):
            group = _Group([], columns_in_use(std, k))
            mixed = device == "cuda" and k < len(group.columns)
            key = -1 if mixed else k, holds_out
            alike.setdefault(key, group).cases.append((k, j))
    # For two processors to have work.
    fewest = 2 if len(alike) == 1 and device == "cpu" else 1
    groups = []
    for (_, holds_out), group in alike.items():
        largest, n_columns = max(k for k, _ in group.cases), len(group.columns)
        n_nodes = selector.n_init * selector._n_nodes(largest, n_columns, task)
        if selector._repeats_search(task, holds_out):  # in folds, side by side
            n_own = min(np.count_nonzero(owns[j]) for _, j in group.cases)
            n_nodes *= max(1, selector._resolve_folds(n_own))
        n_bytes = len(group.cases) * _ARRAYS * 4 * n_nodes * n_columns
        n_parts = max(fewest, -(-n_bytes // _GROUP_BYTES[device]))
        parts = [group.cases[start::n_parts] for start in range(n_parts)]
        groups += [_Group(part, group.columns) for part in parts if part]
    return sorted(groups, key=lambda group: max(group.cases), reverse=True)


def _weights_in(rows, n, weights) -> np.ndarray:
    """Weights of n rows that are 0 for all but some."""
    own = np.zeros(n)
    own[rows] = 1 if weights is None else weights[rows]
    return own


def _fit_and_score(search, cases, columns) -> list[tuple]:
    """Test score, seconds to fit and seconds to score of each case (k, fold)."""
    started = time.perf_counter()
    data = search.data
    if search.in_memory:  # joblib may have mapped them, on the way to a worker
        data = data._replace(X=as_in_memory(data.X))
    trains = [(k, fold.train) for k, fold in cases]
    fitted = search.selector._fit_cases(data, trains, columns)
    seconds = (time.perf_counter() - started) / len(cases)
    values = []
    for estimator, (_, fold) in zip(fitted, cases, strict=True):
        started = time.perf_counter()
        score = _score(search, estimator, fold)
        values.append((score, seconds, time.perf_counter() - started))
    return values


def _score(search, estimator, fold) -> float:
    """Score on the test rows, with their weights if it is the selector's own.

    NaN, as in ``GridSearchCV``, if the scorer fails.
    """
    test = fold.test
    target = [] if search.y is None else [_take(search.y, test)]
    weights = search.data.sample_weight
    options = {}
    if search.own:
        options["sample_weight"] = None if weights is None else weights[test]
    try:
        score = search.scorer(estimator, _take(search.X, test), *target, **options)
    except Exception as error:
        warn(
            f"scoring failed for k={estimator.k} in fold {fold.number}, whose score "
            f"is NaN: {error!r}"
        )
        return float("nan")
    try:
        return float(score)
    except (TypeError, ValueError):
        message = f"scoring must return a number, got {score!r}."
        raise ValueError(message) from None


def _as_results(sizes, ks, scores, fit_seconds, score_seconds) -> dict:
    """``cv_results_`` in the layout of GridSearchCV, with the numbers of features."""
    mean = scores.mean(axis=1)
    if not np.isfinite(mean).all():
        warn(
            f"One or more of the test scores are non-finite: {mean}",
        )
    results = {
        "mean_fit_time": fit_seconds.mean(axis=1),
        "std_fit_time": fit_seconds.std(axis=1),
        "mean_score_time": score_seconds.mean(axis=1),
        "std_score_time": score_seconds.std(axis=1),
        "n_features": np.array(sizes),
        "param_k": np.ma.array(ks, dtype=None if _all_integers(ks) else object),
        "params": [{"k": k} for k in ks],
    }
    results |= {f"split{j}_test_score": s for j, s in enumerate(scores.T)}
    results |= {
        "mean_test_score": mean,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": _ranks(mean),
    }
    return results


def _all_integers(ks) -> bool:
    return all(isinstance(k, Integral) for k in ks)


def _ranks(mean) -> np.ndarray:
    """1 for the best; ties share the better rank, and NaN is the worst of all."""
    if np.isnan(mean).all():
        return np.ones(len(mean), dtype=np.int32)
    mean = np.where(np.isnan(mean), np.nanmin(mean) - 1, mean)
    return scipy.stats.rankdata(-mean, method="min").astype(np.int32)


class CAESelectorCV(_BaseSelectorCV):
    """:class:`CAESelector` with k chosen by cross-validation.

    See :class:`IPCAESelectorCV` for the parameters; ``estimator`` is a
    :class:`CAESelector` by default.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ipcae_sklearn import CAESelector, CAESelectorCV
    >>> X, _ = load_digits(return_X_y=True)
    >>> short = CAESelector(max_iter=100, random_state=0)
    >>> search = CAESelectorCV(ks=(2, 8), estimator=short, cv=2).fit(X)
    >>> search.best_k_
    8
    """

    _default = CAESelector


class IPCAESelectorCV(_BaseSelectorCV):
    """:class:`IPCAESelector` with k chosen by cross-validation.

    The fits of a k to all folds are trained side by side, as runs of one program, in
    groups whose arrays of (k, p) values take about 32 MB together (on a GPU, where all
    k are in one group, 1 GB). Then the selector is fitted to all rows with the k
    chosen, and this object is that selector.

    Parameters
    ----------
    ks : sequence of int, float or "all", default=(5, 10, 20, 50)
        The values of k to try.
    estimator : IPCAESelector or None, default=None
        The selector to fit, with its parameters; its own k is not used. None for the
        default parameters.
    cv : int, splitter, iterable or None, default=None
        How to split the rows, as in ``GridSearchCV``: None for 5 folds, stratified
        where there are classes.
    scoring : str, callable or None, default=None
        Score of a fitted selector on held-out rows. None for its own ``score``:
        accuracy, R², or R² of the reconstruction, by the jointly trained decoder.
    rule : {"best", "1se"}, default="best"
        Choose the k of the best mean score, or the smallest whose mean is within one
        standard error of it.
    refit : bool, default=True
        Whether to fit the selector to all rows with the k chosen.
    n_jobs : int or None, default=None
        Processes that train groups of runs at once, as in joblib. There are not many
        more groups than values of k, and on a GPU most often one. Scores do not depend
        on ``n_jobs``, but for rounding where workers use another number of threads.

    Attributes
    ----------
    cv_results_ : dict of ndarray
        In the layout of ``GridSearchCV``, and the number of features that each k
        stands for as "n_features". Fit times are shares of the time of the runs
        trained together.
    best_k_, best_score_, best_index_, best_params_
        The k chosen, its mean score, its place in ``ks``, and ``{"k": best_k_}``.
    best_estimator_ : IPCAESelector
        The refitted selector, if ``refit``; its methods and attributes, such as
        ``selected_indices_``, ``importances_`` and ``history_``, are at hand here,
        too.
    n_splits_ : int
        Number of folds.
    scorer_ : callable
        ``scoring`` as a callable (estimator, X, y).
    refit_time_ : float
        Seconds of the refit, if ``refit``.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : Searches over any parameters, one fit after
        the other.
    KPathDisplay : Draws the scores over k.

    Notes
    -----
    What describes the data comes from all rows, those of the test folds included: means
    and scales of the columns and of a regression's targets, the directions of a
    reconstruction of few rows of many columns, and the list of classes. Batches are
    drawn from the rows of all folds trained together; rows that a run must not see have
    weight 0 in it. So scores differ from those of single fits as those of two seeds do;
    with a few dozen rows, those of a reconstruction are higher by a few hundredths.
    ``GridSearchCV`` keeps folds strictly apart, and takes longer.

    Columns that are constant in the training rows of any fold are left out in all. The
    weights of "balanced" classes come from the training rows of each fold. A
    ``decoder`` with batch normalisation does see the rows of the test fold.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ipcae_sklearn import IPCAESelector, IPCAESelectorCV
    >>> X, y = load_digits(return_X_y=True)
    >>> short = IPCAESelector(max_iter=20, learning_rate_selector=0.1, random_state=0)
    >>> search = IPCAESelectorCV(ks=(2, 8), estimator=short, cv=2).fit(X, y)
    >>> search.best_k_
    8
    >>> search.transform(X).shape
    (1797, 8)
    """

    _default = IPCAESelector
