"""Warnings name the line of the caller."""

import warnings

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ipcae_sklearn import CAESelector, IPCAESelector, IPCAESelectorCV

X = np.random.default_rng(0).normal(size=(60, 5))
QUICK = {"max_iter": 2, "tuning_iter": 2, "random_state": 0, "device": "cpu"}


def fit_the_selector():
    return CAESelector(9, **QUICK).fit(X)


def fit_with_classes():
    return CAESelector(2, **QUICK).fit(X, np.arange(60) // 2 + 5)


def fit_a_pipeline():
    return make_pipeline(StandardScaler(), CAESelector(9, **QUICK)).fit_transform(X)


def fit_a_search():
    return IPCAESelectorCV((2, 9), cv=2, estimator=IPCAESelector(**QUICK)).fit(X)


def score_one_row():
    return CAESelector(5, **QUICK).fit(X).score(X[:1])


@pytest.mark.parametrize(
    "call, match",
    [
        (fit_the_selector, "k=9 is greater than n_features=5"),
        (fit_with_classes, "not sure of their column"),
        (fit_with_classes, "30 whole numbers"),
        (fit_a_pipeline, "k=9 is greater than n_features=5"),
        (fit_a_search, "are greater than n_features=5"),
        (fit_a_search, "not sure of their column"),
        (score_one_row, "fewer than two rows"),
    ],
)
def test_warnings_point_to_the_line_that_called(call, match):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    found = [w for w in caught if match in str(w.message)]
    assert found
    for warning in found:
        assert warning.filename == __file__
        assert warning.lineno == call.__code__.co_firstlineno + 1
