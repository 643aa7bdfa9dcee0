"""IPCAESelectorCV: the same as a grid search, in one program."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from ipcae_sklearn import CAESelector, CAESelectorCV, IPCAESelector, IPCAESelectorCV
from ipcae_sklearn._search import _group_cases
from ipcae_sklearn.datasets import make_blocks, make_linear

SHORT = {"max_iter": 12, "tuning_iter": 3, "learning_rate_selector": 0.2}
SEARCHES = {IPCAESelectorCV: IPCAESelector, CAESelectorCV: CAESelector}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def selector(cls=IPCAESelector, **options):
    return cls(**{**SHORT, "random_state": 0, **options})


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:700], y[:700]


@parametrize_with_checks(
    [
        cls(ks=(1, 2), estimator=one(max_iter=5, tuning_iter=1, random_state=0), cv=2)
        for cls, one in SEARCHES.items()
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("search", SEARCHES)
def test_the_search_becomes_the_selector(search, digits):
    X, y = digits
    fitted = search((3, 6), estimator=selector(SEARCHES[search]), cv=2).fit(X, y)
    assert fitted.best_k_ == 6
    alone = selector(SEARCHES[search], k=6).fit(X, y)
    np.testing.assert_array_equal(fitted.get_support(), alone.get_support())
    np.testing.assert_array_equal(fitted.predict(X), alone.predict(X))
    np.testing.assert_allclose(fitted.predict_proba(X), alone.predict_proba(X))
    assert fitted.score(X, y) == alone.score(X, y)
    assert fitted.transform(X).shape == (700, 6)


def test_results_are_laid_out_as_by_grid_search(digits):
    X, y = digits
    cv = StratifiedKFold(3)
    ours = IPCAESelectorCV((3, 6), estimator=selector(), cv=cv).fit(X, y)
    grid = GridSearchCV(selector(), {"k": [3, 6]}, cv=cv).fit(X, y)
    missing = set(grid.cv_results_) - set(ours.cv_results_)
    assert missing == {"mean_score_time", "std_score_time"}
    for name, values in ours.cv_results_.items():
        assert len(values) == len(grid.cv_results_[name]), name
    assert ours.cv_results_["params"] == grid.cv_results_["params"]
    np.testing.assert_array_equal(
        ours.cv_results_["rank_test_score"], grid.cv_results_["rank_test_score"]
    )
    # Not the same numbers: the folds' scales come from all rows, batches are drawn
    # from all rows. The scores have to agree as two seeds of one search do.
    difference = (
        ours.cv_results_["mean_test_score"] - grid.cv_results_["mean_test_score"]
    )
    assert np.abs(difference).max() < 0.08


def test_other_values_of_k_in_the_program_change_nothing():
    X, _ = make_blocks(n_samples=120, n_features=20, n_blocks=4, random_state=0)
    prototype = selector(max_iter=30)
    data = prototype._check_search(X, None, None)
    folds = [train for train, _ in KFold(3).split(X)]
    alone = prototype._fit_cases(data, [(4, train) for train in folds])
    company = prototype._fit_cases(
        data, [(k, train) for train in folds for k in (4, 7)]
    )
    for one, same in zip(alone, company[::2], strict=True):
        np.testing.assert_array_equal(one.selected_indices_, same.selected_indices_)


def test_held_out_rows_are_not_learned_from():
    """Rows of the test fold, made absurd, change no score on other folds' models."""
    X, y, _ = make_linear(n_samples=90, n_features=12, random_state=0)
    y_other = y.copy()
    y_other[:30] = y_other[:30][::-1]  # same mean and scale, other values
    prototype = selector(task="regression")
    train = np.arange(30, 90)
    fits = [
        prototype._fit_cases(
            prototype._check_search(X, target, None), [(3, train), (2, train)]
        )[0]
        for target in (y, y_other)
    ]
    np.testing.assert_array_equal(*(f.history_["train_loss"] for f in fits))


def test_one_standard_error_rule_takes_the_smallest_good_k():
    search = IPCAESelectorCV((20, 5, 10), rule="1se")
    scores = np.array([[0.9, 0.8], [0.5, 0.6], [0.84, 0.82]])
    assert search._choose([20, 5, 10], scores) == 2
    assert search.set_params(rule="best")._choose([20, 5, 10], scores) == 0


def test_groups_reach_the_splitter(digits):
    X, y = digits
    groups = np.arange(len(X)) % 4
    search = IPCAESelectorCV((3,), estimator=selector(), cv=GroupKFold(4))
    assert search.fit(X, y, groups=groups).n_splits_ == 4
    with pytest.raises(ValueError, match="groups"):
        clone(search).fit(X, y)


def test_scoring_of_the_user_is_used(digits):
    X, y = digits
    seen = []

    def scoring(estimator, X_test, y_test):
        seen.append((estimator.k, len(X_test)))
        return -estimator.k

    search = IPCAESelectorCV((3, 6), estimator=selector(), cv=2, scoring=scoring)
    assert search.fit(X, y).best_k_ == 3
    assert sorted(k for k, _ in seen) == [3, 3, 6, 6]
    assert search.score(X, y) == -3


def test_jobs_change_nothing(digits):
    X, _ = digits
    scores = [
        IPCAESelectorCV((2, 4), estimator=selector(), cv=2, refit=False, n_jobs=n)
        .fit(X)
        .cv_results_["mean_test_score"]
        for n in (1, 2)
    ]
    # Other groups of runs: the same up to rounding, which short fits do not amplify.
    np.testing.assert_allclose(*scores, atol=0.05)


def test_without_refit_there_is_no_selector(digits):
    X, _ = digits
    search = IPCAESelectorCV((2,), estimator=selector(), cv=2, refit=False).fit(X)
    assert search.best_k_ == 2
    with pytest.raises(Exception, match="not fitted"):
        search.transform(X)


def test_data_frames_are_taken(digits):
    pandas = pytest.importorskip("pandas")
    X, y = digits
    frame = pandas.DataFrame(X, columns=[f"pixel {j}" for j in range(64)])
    search = IPCAESelectorCV((3,), estimator=selector(), cv=2).fit(frame, y)
    assert list(search.feature_names_in_) == list(frame.columns)
    assert all(name.startswith("pixel") for name in search.get_feature_names_out())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"ks": ()}, "ks"),
        ({"ks": 5}, "ks"),
        ({"ks": (0,)}, "k must"),
        ({"rule": "worst"}, "rule"),
        ({"refit": "yes"}, "refit"),
        ({"estimator": selector(tol=-1)}, "tol"),
    ],
)
def test_bad_parameter_is_named(options, name, digits):
    with pytest.raises((TypeError, ValueError), match=name):
        IPCAESelectorCV(**options).fit(*digits)


def test_groups_of_runs_are_bounded():
    cases = [(i, j) for i in range(3) for j in range(5)]
    ks = (10, 20, "all")
    groups = _group_cases(cases, ks, 10_000, IPCAESelector(), 1)
    assert sorted(case for group in groups for case in group) == sorted(cases)
    assert max(len(group) for group in groups) < 15
    small = _group_cases(cases, ks, 50, IPCAESelector(), 1)
    assert len(small) == 1
    assert len(_group_cases(cases, ks, 50, IPCAESelector(), 2)) >= 2
