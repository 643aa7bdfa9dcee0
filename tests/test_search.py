"""IPCAESelectorCV: the same as a grid search, in one program."""

import contextlib

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn import config_context, get_config
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from ipcae_sklearn import (
    CAESelector,
    CAESelectorCV,
    IPCAESelector,
    IPCAESelectorCV,
    _search,
)
from ipcae_sklearn._data import is_memory_mapped
from ipcae_sklearn._search import _GROUP_BYTES, _group_cases, _Search
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
    tuned = selector(tuning_iter=20)  # long enough for decoders to be compared
    ours = IPCAESelectorCV((3, 6), estimator=tuned, cv=cv).fit(X, y)
    grid = GridSearchCV(tuned, {"k": [3, 6]}, cv=cv).fit(X, y)
    assert set(ours.cv_results_) - set(grid.cv_results_) == {"n_features"}
    for name, values in grid.cv_results_.items():
        assert len(values) == len(ours.cv_results_[name]), name
    assert ours.cv_results_["params"] == grid.cv_results_["params"]
    np.testing.assert_array_equal(
        ours.cv_results_["rank_test_score"], grid.cv_results_["rank_test_score"]
    )
    # Not the same numbers: the folds' scales come from all rows, batches are drawn
    # from all rows. The scores have to agree as two seeds of one search do.
    difference = (
        ours.cv_results_["mean_test_score"] - grid.cv_results_["mean_test_score"]
    )
    assert np.abs(difference).max() < 0.1


def test_other_values_of_k_in_the_program_change_nothing():
    X, _ = make_blocks(n_samples=120, n_features=20, n_blocks=4, random_state=0)
    prototype = selector(max_iter=30)
    data = prototype._check(X, None, None)
    folds = [train for train, _ in KFold(3).split(X)]
    alone = prototype._fit_cases(data, [(4, train) for train in folds])
    company = prototype._fit_cases(
        data, [(k, train) for train in folds for k in (4, 7)]
    )
    # Rounding grows from step to step, so the first epochs have to tell.
    for one, same in zip(alone, company[::2], strict=True):
        for name in ("train_loss", "mean_max_probability"):
            np.testing.assert_allclose(
                one.history_[name][:4], same.history_[name][:4], rtol=1e-4
            )


@pytest.mark.filterwarnings("ignore:.* side by side do not fit:RuntimeWarning")
def test_folds_that_are_trained_in_parts_keep_their_rows(only_room_for, digits):
    X, y = digits
    # Rounding grows from step to step, the faster the higher the rate.
    options = {"validation_fraction": 0.2, "learning_rate_selector": 0.02}
    prototype = selector(class_weight="balanced", **options)
    data = prototype._check(X, y, np.linspace(1, 2, len(X)))
    cases = [(4, train) for train, _ in KFold(3).split(X)]
    together = prototype._fit_cases(data, cases)
    only_room_for(1)
    in_parts = prototype._fit_cases(data, cases)
    for one, same in zip(in_parts, together, strict=True):
        for name in ("train_loss", "validation_loss"):
            np.testing.assert_allclose(
                one.history_[name][:2], same.history_[name][:2], rtol=1e-4
            )


@pytest.mark.parametrize("task", ["reconstruction", "classification", "regression"])
def test_rows_of_other_folds_are_not_learned_from(task):
    """Other values of the same mean and scale, for the other run, change nothing."""
    X, y, _ = make_linear(n_samples=90, n_features=12, random_state=0)
    y = {"reconstruction": None, "classification": y > 0}.get(task, y)
    prototype = selector(task=task, n_trials=4)
    rows, others = np.arange(30, 90), np.arange(60)

    def fit(X, y):
        data = prototype._check(X, y, None)
        return prototype._fit_cases(data, [(3, rows), (3, others)])

    before = fit(X.copy(), None if y is None else y.copy())
    rng = np.random.default_rng(0)
    for values in X.T if y is None else [*X.T, y]:
        rng.shuffle(values[:30])
    after = fit(X, y)
    for own, same in (
        (before[0].history_["train_loss"], after[0].history_["train_loss"]),
        (before[0].selected_indices_, after[0].selected_indices_),
    ):
        np.testing.assert_allclose(own, same, rtol=1e-5)
    first = [fits[1].history_["train_loss"][:3] for fits in (before, after)]
    assert np.abs(np.subtract(*first)).max() > 1e-3  # which the other run does see


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
    scores = []
    for n_jobs in (1, 2):
        search = IPCAESelectorCV(
            (2, 4), estimator=selector(), cv=2, refit=False, n_jobs=n_jobs
        )
        with parallel_config("loky", inner_max_num_threads=1), one_thread():
            results = search.fit(X).cv_results_
        scores.append([results[f"split{j}_test_score"] for j in range(2)])
    np.testing.assert_array_equal(*scores)


@contextlib.contextmanager
def one_thread():
    """Torch with one thread: how sums are split over threads shows in last digits."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def test_without_refit_there_is_no_selector(digits):
    X, _ = digits
    search = IPCAESelectorCV((2,), estimator=selector(), cv=2, refit=False).fit(X)
    assert search.best_k_ == 2
    for use in (search.transform, search.get_support, search.score):
        with pytest.raises(NotFittedError, match="refit=True, or fit one with k=2"):
            use(X)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        IPCAESelectorCV((2,)).transform(X)


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
        ({"estimator": LinearRegression()}, "estimator must"),
        ({"estimator": IPCAESelector}, "estimator must"),
        ({"scoring": ["accuracy"]}, "scoring must"),
        ({"scoring": {"a": "accuracy"}}, "scoring must"),
        ({"scoring": "unknown"}, "scoring"),
        ({"scoring": lambda *args: {"a": 1}}, "scoring must return"),
    ],
)
def test_bad_parameter_is_named(options, name, digits):
    short = selector(max_iter=1, tuning_iter=0)
    options = {"ks": (2,), "estimator": short, "cv": 2, **options}
    with pytest.raises((TypeError, ValueError), match=name):
        IPCAESelectorCV(**options).fit(*digits)


def test_a_score_that_needs_y_is_refused_without_it(digits):
    search = IPCAESelectorCV((2,), estimator=selector(), scoring="r2")
    with pytest.raises(ValueError, match="scoring='r2' compares with y"):
        search.fit(digits[0])


def groups_of(ks, X, trains, weights=None, **parameters):
    data = X, None, "reconstruction", weights
    search = _Search(selector(**parameters), data, X, None, None, True, True)
    return _group_cases(ks, trains, search)


def test_groups_hold_every_case_once_and_are_bounded():
    X = np.random.default_rng(0).normal(size=(20, 10_000))
    trains = [train for train, _ in KFold(5).split(X)]
    groups = groups_of((10, 20, 10_000), X, trains)
    cases = [case for group in groups for case in group.cases]
    assert sorted(cases) == [(k, j) for k in (10, 20, 10_000) for j in range(5)]
    for group in groups:
        assert len({k for k, _ in group.cases}) == 1
    of_20 = [len(g.cases) for g in groups if g.cases[0][0] == 20]
    assert 8 * 4 * 10_000 * 20 * max(of_20) <= _GROUP_BYTES["cpu"]
    assert [len(g.cases) for g in groups if g.cases[0][0] == 10_000] == [1] * 5
    restarts = groups_of((10, 20, 10_000), X, trains, n_init=3)
    assert max(len(g.cases) for g in restarts) < max(len(g.cases) for g in groups)


def test_two_processors_have_work_where_there_are_two_cases():
    X = np.random.default_rng(0).normal(size=(20, 5))
    trains = [train for train, _ in KFold(5).split(X)]
    assert len(groups_of((2,), X, trains)) == 2
    assert len(groups_of((2, 3), X, trains)) == 2
    assert len(groups_of((2,), X, trains[:1])) == 1


def test_on_a_gpu_runs_of_all_k_are_trained_together(monkeypatch):
    monkeypatch.setattr(_search, "resolve_device", lambda device: torch.device("cuda"))
    X = np.random.default_rng(0).normal(size=(20, 6))
    trains = [train for train, _ in KFold(5).split(X)]
    everything, others = groups_of((2, 4, 6), X, trains)
    assert {k for k, _ in everything.cases} == {6}  # there is nothing to search for
    assert sorted(others.cases) == [(k, j) for k in (2, 4) for j in range(5)]
    wide = np.random.default_rng(0).normal(size=(20, 200_000))
    groups = groups_of((2, 40), wide, trains)
    n_largest = max(len(group.cases) for group in groups)
    assert 1 < len(groups) < 10
    assert 8 * 4 * 200_000 * 40 * n_largest <= _GROUP_BYTES["cuda"]


def test_a_column_that_is_constant_in_a_fold_is_used_in_none():
    X = np.random.default_rng(0).normal(size=(20, 5))
    trains = [train for train, _ in KFold(5).split(X)]
    for group in groups_of((2,), X, trains):
        assert group.columns.tolist() == [0, 1, 2, 3, 4]
    X[4:, 2] = 1.0  # varies in the first test fold only
    groups = groups_of((2,), X, trains)
    assert {j for group in groups for _, j in group.cases} == set(range(5))
    assert max(len(group.cases) for group in groups) > 1
    for group in groups:
        assert group.columns.tolist() == [0, 1, 3, 4]
    weights = np.ones(20)
    weights[:4] = 0
    (columns,) = {tuple(g.columns) for g in groups_of((2,), X, trains, weights)}
    assert columns == (0, 1, 3, 4)


def test_another_k_changes_no_score():
    """Not even one for which there is nothing to search."""
    X, _ = make_blocks(n_samples=120, n_features=8, n_blocks=4, random_state=0)
    scores = []
    for ks in ((2, 3), (2, 3, "all")):
        search = IPCAESelectorCV(ks, estimator=selector(), cv=3, refit=False).fit(X)
        scores.append(search.cv_results_["mean_test_score"][:2])
    np.testing.assert_array_equal(*scores)


def test_balanced_weights_are_those_of_the_training_rows():
    """Labels of the test fold have no say in the weights of the other rows."""
    X, y = load_digits(n_class=2, return_X_y=True)
    train = np.arange(150)
    fits = []
    for y_test in (y[150:], np.zeros_like(y[150:])):
        labels = np.append(y[:150], y_test)
        prototype = selector(class_weight="balanced")
        data = prototype._check(X, labels, None)
        cases = [(3, train), (3, np.arange(100))]
        fits.append(prototype._fit_cases(data, cases)[0])
    np.testing.assert_array_equal(*(f.history_["train_loss"] for f in fits))


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_scoring_gets_what_the_user_passed(library, digits):
    module = pytest.importorskip(library)
    X, y = digits
    make = module.table if library == "pyarrow" else module.DataFrame
    frame = make({f"pixel {j}": X[:, j] for j in range(64)})
    seen = []

    def scoring(estimator, X_test, y_test):
        seen.append((type(X_test), X_test.shape, list(estimator.feature_names_in_)))
        return estimator.score(X_test, y_test)

    options = {"estimator": selector(), "cv": 2, "refit": False}
    search = IPCAESelectorCV((3,), scoring=scoring, **options).fit(frame, y)
    names = [f"pixel {j}" for j in range(64)]
    assert seen == [(type(frame), (350, 64), names)] * 2
    same = IPCAESelectorCV((3,), **options).fit(frame, y)
    assert same.best_score_ == search.best_score_


def test_lists_are_taken(digits):
    X, y = digits
    options = {"estimator": selector(), "cv": 2, "refit": False}
    lists = IPCAESelectorCV((3,), **options).fit(X.tolist(), y.tolist())
    arrays = IPCAESelectorCV((3,), **options).fit(X, y)
    assert lists.best_score_ == arrays.best_score_


def test_scoring_without_a_target_is_called_as_by_grid_search(digits):
    X, _ = digits
    options = {"cv": 2, "scoring": lambda estimator, X_test: -estimator.k}
    search = IPCAESelectorCV((3, 6), estimator=selector(), **options).fit(X)
    grid = GridSearchCV(selector(), {"k": [3, 6]}, **options).fit(X)
    assert search.best_k_ == grid.best_params_["k"] == 3


def test_a_class_of_weight_zero_counts_in_no_fold():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 6))
    y = 1 + (X[:, 0] > 0)
    y[:50], y[600:800] = 0, 0  # 550 and 400 rows are left to train on
    own = selector(class_weight={0: 0, 1: 1, 2: 1})
    search = IPCAESelectorCV((2, 3), estimator=own, cv=KFold(2)).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_what_a_score_needs_is_that_of_the_fit(digits):
    X, _ = digits
    search = IPCAESelectorCV((3,), estimator=selector(), cv=2).fit(X)
    expected = search.score(X)
    assert search.set_params(scoring="accuracy").score(X) == expected


def test_scores_are_those_of_the_fit(digits):
    X, y = digits
    scoring = lambda estimator, X, y: 7.0  # noqa: E731
    search = IPCAESelectorCV((3,), estimator=selector(), cv=2, scoring=scoring)
    search.fit(X, y).set_params(scoring=None)
    assert search.score(X, y) == 7


@pytest.mark.parametrize("broken", ["refit", "scoring", "data"])
def test_a_failing_fit_leaves_the_last_one_as_it_was(broken, digits, monkeypatch):
    X, y = digits
    search = IPCAESelectorCV((3,), estimator=selector(), cv=2).fit(X, y)
    before = dict(vars(search))
    if broken == "refit":
        monkeypatch.setattr(IPCAESelector, "fit", lambda *args, **options: 1 / 0)
    if broken == "scoring":
        search.set_params(scoring=lambda *args: "no number")
    if broken == "data":
        y = y[:-1]
    with pytest.raises((ZeroDivisionError, ValueError)):
        search.fit(X, y)
    assert search.set_params(scoring=None).predict(X).shape == (700,)
    assert {**vars(search)} == before


def test_a_fold_of_one_class_is_named():
    X, y = load_digits(n_class=2, return_X_y=True)
    one, other = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    rows = np.append(one[:100], other[:100])
    search = IPCAESelectorCV((3,), estimator=selector(), cv=KFold(2))
    with pytest.raises(ValueError, match=r"cv .*one class .*fold 0.*StratifiedKFold"):
        search.fit(X[rows], y[rows])


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([], "cv has no folds"),
        (KFold(2), "cv leaves 0 rows .* fold 0"),
        (
            [(np.arange(9), np.arange(9, 20)), (np.arange(9), np.arange(0))],
            "0 to test on",
        ),
    ],
)
def test_a_fold_that_is_empty_is_named(cv, message, digits):
    X, _ = digits
    weights = np.arange(700) < 350
    with pytest.raises(ValueError, match=message):
        search = IPCAESelectorCV((3,), estimator=selector(), cv=cv)
        search.fit(X, sample_weight=weights)


def test_nan_scores_rank_last_and_are_warned_of(digits):
    X, y = digits

    def scoring(estimator, X_test, y_test):
        return {2: 0.5, 3: np.nan, 4: 0.7, 5: 0.5}[estimator.k]

    options = {"cv": 2, "scoring": scoring}
    short = selector(max_iter=1, tuning_iter=0)
    ks = (2, 3, 4, 5)
    with pytest.warns(UserWarning, match="non-finite"):
        search = IPCAESelectorCV(ks, estimator=short, **options).fit(X, y)
    with pytest.warns(UserWarning, match="non-finite"):
        grid = GridSearchCV(short, {"k": ks}, refit=False, **options).fit(X, y)
    ranks = search.cv_results_["rank_test_score"]
    np.testing.assert_array_equal(ranks, [2, 4, 1, 2])
    np.testing.assert_array_equal(ranks, grid.cv_results_["rank_test_score"])
    assert ranks.dtype == grid.cv_results_["rank_test_score"].dtype
    assert search.best_k_ == 4


def test_a_score_that_fails_is_nan_and_named(digits):
    X, y = digits

    def scoring(estimator, X_test, y_test):
        if estimator.k == 3:
            raise ValueError("no such score")
        return 0.5

    short = selector(max_iter=1, tuning_iter=0)
    search = IPCAESelectorCV((2, 3), estimator=short, cv=2, scoring=scoring)
    match = r"failed for k=3 in fold 0, whose score is NaN: .*no such score"
    with (
        pytest.warns(UserWarning, match=match),
        pytest.warns(UserWarning, match="in fold 1"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(X, y)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert search.best_k_ == 2


def test_nothing_but_nan_is_an_error(digits):
    search = IPCAESelectorCV(
        (2,), estimator=selector(max_iter=1), cv=2, scoring=lambda *args: np.nan
    )
    with (
        pytest.warns(UserWarning, match="non-finite"),
        pytest.raises(ValueError, match="NaN for every k"),
    ):
        search.fit(*digits)


def test_attributes_of_the_selector_are_at_hand(digits):
    search = IPCAESelectorCV((3,), estimator=selector(), cv=2)
    names = {name for name in vars(selector(k=3).fit(*digits)) if name.endswith("_")}
    here = {name for name in names if hasattr(type(search), name)}
    assert names - here == {"device_", "n_iter_", "restart_losses_"}
    for name in here:
        assert not hasattr(search, name)
    search.fit(*digits)
    for name in here:
        assert getattr(search, name) is getattr(search.best_estimator_, name)
    with pytest.raises(AttributeError, match="feature_names_in_"):
        _ = search.feature_names_in_


@pytest.mark.parametrize("n", [624, 640])
def test_folds_on_both_sides_of_where_rows_are_held_out(n):
    """Some folds train on fewer than 500 rows, without held-out ones."""
    X = np.random.default_rng(0).normal(size=(n, 6))
    cv = [(np.arange(n - m), np.arange(n - m, n)) for m in (120, 125, 145)]
    search = IPCAESelectorCV((2,), estimator=selector(max_iter=2), cv=cv, refit=False)
    search.fit(X, X[:, 0])
    for j, (train, _) in enumerate(cv):
        alone = IPCAESelectorCV((2,), estimator=selector(max_iter=2), cv=[cv[j]])
        alone.fit(X, X[:, 0])
        assert np.isfinite(search.cv_results_[f"split{j}_test_score"]).all(), len(train)


def test_the_smallest_k_is_that_of_fewest_features():
    X = np.random.default_rng(0).normal(size=(60, 40))
    options = {
        "cv": 3,
        "rule": "1se",
        "refit": False,
        "estimator": selector(max_iter=2),
    }
    for ks, smallest in (((0.05, 20), 0.05), ((20, 0.05), 0.05), ((0.5, 3), 3)):
        search = IPCAESelectorCV(ks, scoring=lambda *args: 0.0, **options).fit(X)
        assert search.best_k_ == smallest


def test_ks_beyond_the_features_are_one_fit_and_one_warning():
    X = np.random.default_rng(0).normal(size=(60, 4))
    search = IPCAESelectorCV((2, 5, 10), estimator=selector(max_iter=2), refit=False)
    with pytest.warns(UserWarning, match="greater than n_features=4") as warned:
        search.fit(X)
    assert len([w for w in warned if "n_features" in str(w.message)]) == 1
    np.testing.assert_array_equal(search.cv_results_["n_features"], [2, 4, 4])
    scores = search.cv_results_["mean_test_score"]
    assert scores[1] == scores[2]


@pytest.mark.parametrize("search", SEARCHES)
def test_the_estimator_is_of_the_class_of_the_search(search):
    (other,) = (one for cls, one in SEARCHES.items() if cls is not search)
    with pytest.raises(
        TypeError, match=f"estimator must be.*{SEARCHES[search].__name__}"
    ):
        search(estimator=other()).fit(np.eye(4))


def test_scorers_of_two_classes_know_the_refitted(digits):
    X, y = digits
    y = y > 4
    fitted = IPCAESelectorCV((3, 6), estimator=selector(), cv=2).fit(X, y)
    assert is_classifier(fitted)
    expected = roc_auc_score(y, fitted.predict_proba(X)[:, 1])
    assert get_scorer("roc_auc")(fitted, X, y) == pytest.approx(expected)
    assert fitted.refit_time_ > 0


def test_settings_of_scikit_learn_reach_the_workers():
    def assumes_finite(estimator, X, y=None):
        return float(get_config()["assume_finite"])

    X = np.random.default_rng(0).normal(size=(40, 4))
    search = IPCAESelectorCV((1, 2), estimator=selector(max_iter=2), cv=2, n_jobs=2)
    search.set_params(scoring=assumes_finite, refit=False)
    with config_context(assume_finite=True):
        search.fit(X)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], 1.0)


class _WantsMemory(IPCAESelector):
    def _fit_cases(self, data, cases, columns=None):
        assert not is_memory_mapped(data[0])
        return super()._fit_cases(data, cases, columns)


def test_data_in_memory_are_so_in_the_workers():
    # joblib hands large arrays to workers as memory-mapped files, which would be read
    # batch by batch.
    X = np.random.default_rng(0).normal(size=(60, 4))
    estimator = _WantsMemory(max_iter=2, tuning_iter=1, random_state=0)
    search = IPCAESelectorCV((1, 2), estimator=estimator, cv=2, n_jobs=2)
    with parallel_config("loky", max_nbytes=100):
        search.fit(X)
    assert search.best_k_ in (1, 2)


def test_a_fold_whose_test_rows_have_no_weight_is_named():
    X = np.random.default_rng(0).normal(size=(40, 4))
    search = IPCAESelectorCV((1, 2), estimator=selector(max_iter=2), cv=4)
    weights = np.repeat([0.0, 1.0], [20, 20])
    for n in (0, 1):
        weights[:n] = 1
        with pytest.raises(ValueError, match=f"and {n} to test on in fold 0"):
            search.fit(X, sample_weight=weights)


def test_score_takes_weights(digits):
    X, y = digits
    search = IPCAESelectorCV((4,), estimator=selector(max_iter=2), cv=2).fit(X, y)
    weights = np.linspace(0, 1, len(X))
    expected = search.best_estimator_.score(X, y, sample_weight=weights)
    assert search.score(X, y, sample_weight=weights) == expected != search.score(X, y)
