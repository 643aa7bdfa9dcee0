"""Search over k by cross-validation, with many fits side by side in one program."""

from __future__ import annotations

import time

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.feature_selection import SelectorMixin
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ipcae_sklearn import _parameters
from ipcae_sklearn._selectors import CAESelector, IPCAESelector

# The arrays of (k, p) float32 values that a run needs, about, and how many bytes of
# them are worked on at once: more would not fit the caches of a processor.
_ARRAYS = 8
_GROUP_BYTES = 2**25


def _refitted_has(method):
    """Whether the refitted selector has a method; for ``available_if``."""

    def check(search):
        return hasattr(getattr(search, "best_estimator_", None), method)

    return check


class _BaseSelectorCV(SelectorMixin, MetaEstimatorMixin, BaseEstimator):
    """Cross-validation over k; subclasses name the selector used by default."""

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
        ValueError
            For data or parameters that cannot be used; the message names them.
        """
        _parameters.check_option("rule", self.rule, ("best", "1se"))
        _parameters.check_option("refit", self.refit, (True, False))
        selector = clone(self._selector())
        # One seed for all groups of runs, whatever process they are trained in.
        selector.set_params(random_state=selector._integer_seed())
        ks = self._check_ks()
        data = selector._check_search(X, y, sample_weight)
        classes = data[2] == "classification"
        cv = check_cv(self.cv, data[1], classifier=classes)
        rows = np.arange(data[0].shape[0])
        labels = y if data[1] is None else data[1]
        splits = [
            (rows[np.asarray(train)], rows[np.asarray(test)])
            for train, test in cv.split(data[0], labels, groups)
        ]
        scores, seconds = self._cross_validate(selector, data, ks, splits)
        self.n_splits_ = len(splits)
        self.cv_results_ = _as_results(ks, scores, seconds)
        self.best_index_ = self._choose(ks, scores)
        self.best_k_ = ks[self.best_index_]
        self.best_params_ = {"k": self.best_k_}
        self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
        self.__dict__.pop("best_estimator_", None)
        if self.refit:
            self.best_estimator_ = selector.set_params(k=self.best_k_)
            self.best_estimator_.fit(X, y, sample_weight=sample_weight)
        return self

    def _selector(self):
        return self._default() if self.estimator is None else self.estimator

    def _check_ks(self) -> list:
        try:
            ks = list(self.ks)
        except TypeError:
            raise TypeError(f"ks must be a sequence of k, got {self.ks!r}.") from None
        if not ks:
            raise ValueError("ks must name at least one k.")
        return ks

    def _cross_validate(self, selector, data, ks, splits):
        """Scores and seconds of each k and fold, (n_ks, n_splits) each."""
        cases = [(i, j) for i in range(len(ks)) for j in range(len(splits))]
        groups = _group_cases(cases, ks, data[0].shape[1], selector, self.n_jobs)
        scoring = None
        if self.scoring is not None:
            scoring = check_scoring(selector, scoring=self.scoring)
        done = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_and_score)(
                selector, data, [(ks[i], *splits[j]) for i, j in group], scoring
            )
            for group in groups
        )
        scores, seconds = np.empty((2, len(ks), len(splits)))
        for group, (group_scores, group_seconds) in zip(groups, done, strict=True):
            for (i, j), score in zip(group, group_scores, strict=True):
                scores[i, j] = score
                seconds[i, j] = group_seconds / len(group)
        return scores, seconds

    def _choose(self, ks, scores) -> int:
        mean = scores.mean(axis=1)
        if np.isnan(mean).all():
            raise ValueError("The score is NaN for every k; look at scoring and cv.")
        best = int(np.nanargmax(mean))
        if self.rule == "best" or scores.shape[1] < 2:
            return best
        error = scores[best].std(ddof=1) / np.sqrt(scores.shape[1])
        good = np.flatnonzero(mean >= mean[best] - error)
        sizes = [_parameters.resolve_k(k, 10**9) for k in ks]  # to order them by
        return int(min(good, key=lambda i: sizes[i]))

    def __sklearn_is_fitted__(self):
        return hasattr(self, "best_estimator_")

    def _get_support_mask(self):
        check_is_fitted(self)
        return self.best_estimator_.get_support()

    @property
    def n_features_in_(self):
        """Number of features seen in :meth:`fit`."""
        return self._fitted_attribute("n_features_in_")

    @property
    def feature_names_in_(self):
        """Names of the features, when all are strings."""
        return self._fitted_attribute("feature_names_in_")

    @property
    def selected_indices_(self):
        """The selected columns, (best_k_,), in increasing order."""
        return self._fitted_attribute("selected_indices_")

    @property
    def classes_(self):
        """The classes, where there are any."""
        return self._fitted_attribute("classes_")

    def _fitted_attribute(self, name):
        if "best_estimator_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name} before a refit.")
        return getattr(self.best_estimator_, name)

    @available_if(_refitted_has("predict"))
    def predict(self, X):
        """Predict the target with the refitted selector's decoder."""
        return self.best_estimator_.predict(X)

    @available_if(_refitted_has("predict_proba"))
    def predict_proba(self, X):
        """Predict class probabilities with the refitted selector's decoder."""
        return self.best_estimator_.predict_proba(X)

    @available_if(_refitted_has("reconstruct"))
    def reconstruct(self, X):
        """Estimate all features from the selected ones."""
        return self.best_estimator_.reconstruct(X)

    def score(self, X, y=None):
        """Score of the refitted selector, by ``scoring`` or its own ``score``."""
        check_is_fitted(self)
        if self.scoring is None:
            return self.best_estimator_.score(X, y)
        return check_scoring(self.best_estimator_, scoring=self.scoring)(
            self.best_estimator_, X, y
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        own = get_tags(self._selector())
        tags.input_tags = own.input_tags
        tags.target_tags = own.target_tags
        tags.classifier_tags = own.classifier_tags
        return tags


def _group_cases(cases, ks, n_features, selector, n_jobs) -> list[list]:
    """Cases to train side by side: alike in k, bounded in memory, some for each job."""
    sizes = [min(_parameters.resolve_k(k, n_features), n_features) for k in ks]
    most = -(-len(cases) // effective_n_jobs(n_jobs))
    groups: list[list] = []
    room = 0
    for case in sorted(cases, key=lambda case: sizes[case[0]]):
        need = _ARRAYS * 4 * sizes[case[0]] * n_features * selector.n_init
        if not groups or need > room or len(groups[-1]) >= most:
            groups.append([])
            room = _GROUP_BYTES
        groups[-1].append(case)
        room -= need
    return groups


def _fit_and_score(selector, data, cases, scoring):
    """Test score of each case (k, training rows, test rows), and the seconds of all."""
    started = time.perf_counter()
    fitted = selector._fit_cases(data, [(k, train) for k, train, _ in cases])
    X, y, _, weights = data
    scores = []
    for estimator, (_, _, test) in zip(fitted, cases, strict=True):
        arguments = [X[test], None if y is None else y[test]]
        if scoring is None:
            own = None if weights is None else weights[test]
            scores.append(estimator.score(*arguments, sample_weight=own))
        else:
            scores.append(scoring(estimator, *arguments))
    return scores, time.perf_counter() - started


def _as_results(ks, scores, seconds) -> dict:
    """``cv_results_`` in the layout of GridSearchCV."""
    mean = scores.mean(axis=1)
    results = {
        "mean_fit_time": seconds.mean(axis=1),
        "std_fit_time": seconds.std(axis=1),
        "param_k": np.ma.array(ks, dtype=object),
        "params": [{"k": k} for k in ks],
    }
    results |= {f"split{j}_test_score": s for j, s in enumerate(scores.T)}
    results |= {
        "mean_test_score": mean,
        "std_test_score": scores.std(axis=1),
        "rank_test_score": (mean[:, None] < mean).sum(axis=1) + 1,
    }
    return results


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

    Fits for all k and folds are trained side by side, as runs of one program: many
    small models cost little more than a few. Then the selector is fitted to all rows
    with the k chosen, and this object is that selector.

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
        Processes that train groups of runs at once, as in joblib.

    Attributes
    ----------
    cv_results_ : dict of ndarray
        In the layout of ``GridSearchCV``. Fit times are shares of the time of the
        runs trained together.
    best_k_, best_score_, best_index_, best_params_
        The k chosen, its mean score, its place in ``ks``, and ``{"k": best_k_}``.
    best_estimator_ : IPCAESelector
        The refitted selector, if ``refit``; its methods and the attributes
        ``selected_indices_``, ``classes_``, ``n_features_in_`` and
        ``feature_names_in_`` are at hand here, too.
    n_splits_ : int
        Number of folds.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : Searches over any parameters, one fit after
        the other.

    Notes
    -----
    In the search the scales of the columns and of a regression's targets, the weights
    of "balanced" classes and which columns vary come from all rows, those of the test
    fold included, and batches are drawn from the rows of all folds trained together
    (rows that a run must not see have no weight in it). So scores differ from those of
    single fits as two seeds do, and a little with ``n_jobs``, which decides on the
    groups. A ``decoder`` with batch normalisation does see the rows of the test fold.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ipcae_sklearn import IPCAESelector, IPCAESelectorCV
    >>> X, y = load_digits(return_X_y=True)
    >>> short = IPCAESelector(max_iter=10, learning_rate_selector=0.1, random_state=0)
    >>> search = IPCAESelectorCV(ks=(2, 8), estimator=short, cv=2).fit(X, y)
    >>> search.best_k_
    8
    >>> search.transform(X).shape
    (1797, 8)
    """

    _default = IPCAESelector
