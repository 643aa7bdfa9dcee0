"""What the estimators promise: k distinct columns, parameters that matter, units."""

import copy
import dataclasses
import functools
import inspect
import pickle
import re
import warnings
from unittest.mock import patch

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold
from torch import nn

from ipcae_sklearn import (
    CAESelector,
    IPCAESelector,
    IPCAESelectorCV,
    _batches,
    _data,
    _local_search,
    _predictor,
    _problem,
    _selectors,
    _settings,
    _training,
    greedy_columns,
)
from ipcae_sklearn._advice import GreedyAdviser
from ipcae_sklearn._training import RunResult, Selection
from ipcae_sklearn.datasets import make_blocks, make_linear, make_xor

# Short searches seldom converge, and what is tested here does not depend on it.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

both = pytest.mark.parametrize("Selector", [CAESelector, IPCAESelector])
TASKS = ["reconstruction", "classification", "regression"]
HISTORY = {
    "train_loss",
    "validation_loss",
    "unique_fraction",
    "temperature",
    "mean_max_probability",
    "gjsd",
}


def quick(Selector, k=3, **parameters):
    """A selector that is fitted in a tenth of a second."""
    defaults = {
        "max_iter": 8,
        "tuning_iter": 4,
        "hidden_layer_sizes": (16,),
        "device": "cpu",
        "random_state": 0,
    }
    return Selector(k, **defaults | parameters)


def longer(Selector, k=3, **parameters):
    """A selector that learns something, in about half a second."""
    return quick(Selector, k, **{"max_iter": 60, "tuning_iter": 20} | parameters)


def make_X(n=120, p=10, seed=0):
    return np.random.default_rng(seed).normal(size=(n, p))


def make_data(task, n=120, p=10, seed=0):
    """X and a target that columns 0 to 2 determine."""
    X = make_X(n, p, seed)
    if task == "reconstruction":
        return X, None
    values = X[:, 0] + 2 * X[:, 1] - X[:, 2]
    return X, values if task == "regression" else (values > 0).astype(int)


def assert_same_findings(a, b):
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    assert_array_equal(a.probabilities_, b.probabilities_)
    assert_array_equal(a.restart_losses_, b.restart_losses_)
    for name in HISTORY:
        assert_array_equal(a.history_[name], b.history_[name])


def findings(selector):
    """All that was found, as bytes that differ if anything differs."""
    arrays = [*selector.history_.values(), selector.restart_losses_]
    arrays += [selector.probabilities_, selector.importances_]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def plain_state(selector):
    """Copies of all attributes, to be compared with assert_equal."""
    state = copy.deepcopy(vars(selector))
    return {
        name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
        for name, value in state.items()
    }


def mlp(n_inputs, n_outputs):
    return nn.Sequential(nn.Linear(n_inputs, 12), nn.ReLU(), nn.Linear(12, n_outputs))


def mlp_with_state(n_inputs, n_outputs):
    """Has buffers (running means) and behaves differently in training."""
    return nn.Sequential(
        nn.Linear(n_inputs, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(12, n_outputs),
    )


# Exactly k distinct columns


def _identical_columns():
    return np.repeat(make_X(p=1), 8, axis=1)


def _identical_blocks():
    return np.repeat(make_X(p=2), 5, axis=1)


def _some_constant():
    X = make_X()
    X[:, [0, 3, 4, 5, 6, 8, 9]] = 7.5
    return X


def _more_constant_than_needed():
    X = make_X()
    X[:, 1:] = -3
    return X


AWKWARD = {
    "identical columns": _identical_columns,
    "identical blocks": _identical_blocks,
    "only k columns vary": _some_constant,
    "fewer than k columns vary": _more_constant_than_needed,
    "all constant": lambda: np.full((50, 6), 2.0),
    "all zero": lambda: np.zeros((50, 6)),
    "two rows": lambda: make_X(2),
    "three rows": lambda: make_X(3),
    "five rows": lambda: make_X(5),
    "huge": lambda: make_X() * 1e30,
    "tiny": lambda: make_X() * 1e-30,
    "huge and tiny": lambda: make_X() * 10.0 ** np.repeat([30, -30], 5),
    "beyond float32": lambda: make_X() * 1e150,
    "far from zero": lambda: make_X() + 1e9,
    "one outlier": lambda: np.vstack([make_X(), np.full((1, 10), 1e8)]),
    "more columns than rows": lambda: make_X(10, 60),
    "sparse ones": lambda: np.eye(40, 12),
}


@both
@pytest.mark.filterwarnings("ignore:.*columns that vary hold 90 %.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*of the columns of X vary.*:UserWarning")
@pytest.mark.parametrize("task", ["reconstruction", "classification"])
@pytest.mark.parametrize("name", AWKWARD)
def test_exactly_k_distinct_columns(Selector, name, task):
    X = AWKWARD[name]()
    y = None
    if task != "reconstruction":
        y = np.arange(len(X)) % 2
    selector = quick(Selector, task=task).fit(X, y)
    indices = selector.selected_indices_
    assert len(indices) == 3
    assert (np.diff(indices) > 0).all()
    assert selector.get_support().sum() == 3
    assert selector.transform(X).shape == (len(X), 3)
    assert np.isfinite(selector.restart_losses_).all()
    assert np.isfinite(selector.history_["train_loss"]).all()
    assert np.isfinite(selector.importances_).all()
    if y is not None:
        assert len(selector.predict(X)) == len(X)


@both
def test_constant_columns_are_taken_last(Selector):
    selector = quick(Selector).fit(_some_constant())
    assert_array_equal(selector.selected_indices_, [1, 2, 7])


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("k", [5, "all"])
def test_all_columns(Selector, task, k):
    X, y = make_data(task, p=5)
    selector = quick(Selector, k).fit(X, y)
    assert_array_equal(selector.selected_indices_, np.arange(5))
    assert_array_equal(selector.transform(X), X)
    assert_array_equal(selector.ranking_, np.ones(5))
    assert np.isfinite(selector.score(X, y))


@both
def test_k_above_the_number_of_columns_keeps_all(Selector):
    X, y = make_data("regression", p=5)
    with pytest.warns(UserWarning, match="k=6 is greater than n_features=5"):
        selector = quick(Selector, 6).fit(X, y)
    assert_array_equal(selector.selected_indices_, np.arange(5))


@both
@pytest.mark.parametrize(
    "k, expected", [(0.3, 3), (0.39, 3), (0.99, 9), (0.1, 1), (np.float32(0.5), 5)]
)
def test_k_as_a_fraction_is_rounded_down(Selector, k, expected):
    selector = quick(Selector, k, max_iter=1, tuning_iter=0).fit(make_X())
    assert len(selector.selected_indices_) == expected


@both
@pytest.mark.parametrize("task", TASKS)
def test_one_column(Selector, task):
    X, y = make_data(task, p=3)
    selector = quick(Selector, 1).fit(X[:, :1], y)
    assert_array_equal(selector.selected_indices_, [0])


@both
def test_numpy_integers_as_parameters(Selector):
    parameters = {"max_iter": np.int32(3), "batch_size": np.int64(32)}
    selector = quick(Selector, np.int64(2), **parameters).fit(make_X())
    assert len(selector.selected_indices_) == 2


# A selector like any other


@both
@pytest.mark.parametrize("task", TASKS)
def test_views_of_the_selection_agree(Selector, task):
    X, y = make_data(task)
    selector = quick(Selector)
    Z = selector.fit_transform(X, y)
    indices = selector.selected_indices_
    assert_array_equal(selector.get_support(indices=True), indices)
    assert_array_equal(np.flatnonzero(selector.get_support()), indices)
    assert selector.get_support().dtype == bool
    assert_array_equal(Z, X[:, indices])
    assert_array_equal(selector.transform(X), Z)
    back = np.zeros_like(X)
    back[:, indices] = Z
    assert_array_equal(selector.inverse_transform(Z), back)
    names = [f"x{j}" for j in indices]
    assert_array_equal(selector.get_feature_names_out(), names)
    given = np.array([f"c{j}" for j in range(10)], dtype=object)
    assert_array_equal(selector.get_feature_names_out(given), given[indices])


@both
@pytest.mark.parametrize("task", TASKS)
def test_attributes(Selector, task):
    X, y = make_data(task, n=600)
    selector = quick(Selector, n_init=2).fit(X, y)
    assert selector.n_features_in_ == 10
    assert not hasattr(selector, "feature_names_in_")
    assert selector.task_ == task
    assert selector.device_ == "cpu"
    assert selector.selected_indices_.shape == (3,)
    assert selector.probabilities_.shape == (3, 10)
    assert_allclose(selector.probabilities_.sum(axis=1), 1, rtol=1e-5)
    assert (selector.probabilities_ >= 0).all()
    assert_array_equal(selector.scores_, selector.probabilities_.max(axis=0))
    assert selector.importances_.shape == (3,)
    assert selector.restart_losses_.shape == (2,)
    assert isinstance(selector.n_unique_, int)
    assert 1 <= selector.n_unique_ <= 3
    assert isinstance(selector.converged_, bool)
    assert isinstance(selector.n_iter_, int)
    if task == "classification":
        assert_array_equal(selector.classes_, [0, 1])
    else:
        assert not hasattr(selector, "classes_")


@both
@pytest.mark.parametrize("n", [120, 600])  # without and with held-out rows
def test_history(Selector, n):
    selector = quick(Selector, temperature=(5, 0.1)).fit(make_X(n))
    history = selector.history_
    assert set(history) == HISTORY
    assert selector.n_iter_ == 12
    for values in history.values():
        assert isinstance(values, np.ndarray)
        assert values.shape == (12,)
    assert np.isfinite(history["train_loss"]).all()
    assert np.isfinite(history["validation_loss"]).all() == (n == 600)
    assert np.isnan(history["validation_loss"]).all() == (n == 120)
    temperature = history["temperature"]
    assert np.isnan(temperature[8:]).all()
    assert (np.diff(temperature[:8]) < 0).all()
    assert temperature[0] <= 5
    assert_allclose(temperature[7], 0.1)
    assert (history["unique_fraction"] <= 1).all()
    assert (history["unique_fraction"] >= 1 / 3).all()
    assert (history["mean_max_probability"] <= 1 + 1e-6).all()
    assert (history["mean_max_probability"] >= 1 / 10 - 1e-6).all()
    assert (history["gjsd"] <= np.log(3) + 1e-6).all()
    assert (history["gjsd"] >= -1e-6).all()


@both
def test_the_model_of_the_lowest_validation_loss_is_kept(Selector):
    X, y = make_data("regression", n=600)
    selector = quick(Selector, learning_rate_init=0.3, tuning_iter=10).fit(X, y)
    lowest = selector.history_["validation_loss"].min()
    assert_allclose(selector.restart_losses_, lowest, rtol=1e-6)


@both
def test_ranking(Selector):
    X, y = make_data("regression")
    selector = quick(Selector).fit(X, y)
    ranking, scores = selector.ranking_, selector.scores_
    assert_array_equal(np.flatnonzero(ranking == 1), selector.selected_indices_)
    assert_array_equal(np.sort(ranking), [1, 1, 1, 2, 3, 4, 5, 6, 7, 8])
    rest = np.argsort(ranking)[3:]
    assert (np.diff(scores[rest]) <= 0).all()


@both
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_essential_column_is_the_most_important(Selector, task):
    X = make_X(300, 6)
    y = 10 * X[:, 4] + X[:, 1]
    if task == "classification":
        y = y > 0
    selector = longer(Selector, 6).fit(X, y)
    assert selector.importances_.argmax() == 4
    assert selector.importances_[4] > 10 * abs(selector.importances_[0])
    selector = longer(Selector, 2, max_iter=100, n_init=3).fit(X, y)
    assert 4 in selector.selected_indices_
    assert selector.selected_indices_[selector.importances_.argmax()] == 4


@both
def test_probabilities_belong_to_the_selected_columns(Selector):
    X, y = make_data("regression", n=300)
    selector = longer(Selector, max_iter=200, n_init=3).fit(X, y)
    assert selector.converged_
    assert selector.n_unique_ == 3
    assert_array_equal(
        selector.probabilities_.argmax(axis=1), selector.selected_indices_
    )
    assert (selector.probabilities_.max(axis=1) >= 0.9).all()
    assert_array_equal(selector.selected_indices_, [0, 1, 2])


@both
def test_constant_columns_have_no_probability(Selector):
    X = make_X()
    X[:, 4] = 1
    selector = quick(Selector).fit(X)
    assert selector.scores_[4] == 0
    assert_array_equal(selector.probabilities_[:, 4], 0)
    assert selector.ranking_[4] == selector.ranking_.max()


def _check_plain(value, where):
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key, f"{where} key")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_plain(item, f"{where}[{i}]")
    elif dataclasses.is_dataclass(value):
        _check_plain(vars(value), where)
    else:
        plain = (str, int, float, bool, type(None), np.ndarray, np.generic)
        assert isinstance(value, plain), f"{where} is a {type(value)}"
        assert np.asarray(value).dtype.kind != "O" or value is None, where


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("warm_start", [False, True])
def test_fitted_state_is_numpy_and_plain_python(Selector, task, warm_start):
    selector = quick(Selector, warm_start=warm_start).fit(*make_data(task))
    parameters = selector.get_params()
    state = {k: v for k, v in vars(selector).items() if k not in parameters}
    assert "history_" in state
    _check_plain(state, "selector")


@both
@pytest.mark.parametrize("task", TASKS)
def test_fit_does_not_change_its_input(Selector, task):
    X, y = make_data(task)
    X_before, y_before = X.copy(), None if y is None else y.copy()
    weights = np.arange(len(X)) % 3.0
    selector = quick(Selector)
    parameters = selector.get_params()
    selector.fit(X, y, sample_weight=weights).score(X, y)
    assert selector.get_params() == parameters
    assert_array_equal(X, X_before)
    assert_array_equal(weights, np.arange(len(X)) % 3.0)
    if y is not None:
        assert_array_equal(y, y_before)


@pytest.mark.parametrize("parameter", ["k", "task", "random_state", "device"])
def test_defaults_are_those_of_the_signature(parameter):
    for Selector in (CAESelector, IPCAESelector):
        default = inspect.signature(Selector).parameters[parameter].default
        assert Selector().get_params()[parameter] == default


def test_all_parameters_but_k_are_keywords():
    for Selector in (CAESelector, IPCAESelector):
        name, *others = inspect.signature(Selector).parameters.values()
        assert name.name == "k"
        assert all(other.kind is other.KEYWORD_ONLY for other in others)


def test_both_selectors_share_parameters_and_defaults():
    cae = inspect.signature(CAESelector).parameters
    ipcae = inspect.signature(IPCAESelector).parameters
    assert {name: ipcae[name].default for name in cae} == {
        name: parameter.default for name, parameter in cae.items()
    }


# Parameters are honoured: (base, change) gives another result than base alone

STOPPING = {"early_stopping": True, "n_iter_no_change": 1, "tol": 100.0}
GUMBEL_RAO = {"gradient": "gumbel_rao"}
CHANGES = [
    ("k", {}, 4),
    ("task", {}, "reconstruction"),
    ("init", {}, "greedy"),
    ("hidden_layer_sizes", {}, ()),
    ("hidden_layer_sizes", {}, 16),  # an int is one layer
    ("hidden_layer_sizes", {}, (8, 8)),
    ("decoder", {}, mlp),
    ("temperature", {}, (2, 0.1)),
    ("temperature", {}, (10.0, 0.5)),
    ("temperature_schedule", {}, "linear"),
    ("noise", {"noise": "pool"}, "batch"),
    ("noise", {"noise": "pool"}, "sample"),
    ("gradient", {}, "straight_through"),
    ("gradient", {}, "gumbel_rao"),
    ("n_gradient_samples", GUMBEL_RAO, 3),
    ("diversity", {}, 0.5),
    ("max_iter", {}, 7),
    ("n_surplus", {}, 0),
    ("n_surplus", {}, 5),
    ("n_candidates", {"task": "regression", "n_surplus": 0}, 5),
    ("tuning_iter", {}, 0),
    ("tuning_iter", {}, 5),
    ("batch_size", {}, 20),
    ("n_decoder_steps", {}, 2),
    ("learning_rate_init", {}, 0.02),
    ("learning_rate_selector", {}, 0.2),
    ("weight_decay", {}, 10.0),
    ("validation_fraction", {}, 0.3),
    ("early_stopping", STOPPING | {"early_stopping": False}, True),
    ("n_iter_no_change", STOPPING, 3),
    ("tol", STOPPING, 0.0),
    ("class_weight", {"task": "classification"}, "balanced"),
    ("class_weight", {"task": "classification"}, {0: 1, 1: 5}),
    ("standardize", {}, False),
    ("standardize", {}, True),
    ("standardize", {"task": "reconstruction"}, True),
    ("n_init", {}, 2),
    ("random_state", {}, 1),
    ("feature_dropout", {}, 0.5),
]
CHANGES_IPCAE = [
    ("embedding_dim", {}, 7),
    ("embedding_dim", {}, "n_features"),
    ("embedding_init", {}, "identity"),
    ("map", {}, "per_row"),
    ("map", {}, "full"),
    ("map", {}, "diagonal"),
    ("map", {}, "scalar"),
    ("map_bias", {}, False),
    ("map_hidden_layer_sizes", {}, (5,)),
    ("map_hidden_layer_sizes", {}, 5),
]
# Tested by themselves, since they are no part of what is learned.
CHANGES_ELSEWHERE = {"device", "n_trials", "warm_start", "verbose"}


def _changes():
    for Selector, changes in [
        (CAESelector, CHANGES),
        (IPCAESelector, CHANGES + CHANGES_IPCAE),
    ]:
        for name, base, value in changes:
            label = f"{Selector.__name__}-{name}-{getattr(value, '__name__', value)}"
            yield pytest.param(Selector, name, base, value, id=label)


@functools.cache
def _findings_with(Selector, *changes):
    X = make_X(150, 12) * np.linspace(0.5, 2, 12)
    y = X[:, 0] + X[:, 1] ** 2
    if ("task", "classification") in changes:
        y = (y > 2).astype(int)
    selector = quick(Selector, max_iter=6, tuning_iter=3, hidden_layer_sizes=(8,))
    return findings(selector.set_params(**dict(changes)).fit(X, y))


@pytest.mark.parametrize("Selector, name, base, value", list(_changes()))
def test_parameter_is_honoured(Selector, name, base, value):
    reference = _findings_with(Selector, *base.items())
    changed = _findings_with.__wrapped__(Selector, *base.items(), (name, value))
    assert reference != changed


def test_every_parameter_is_tested():
    tested = CHANGES_ELSEWHERE | {name for name, _, _ in CHANGES}
    assert set(CAESelector().get_params()) == tested
    tested |= {name for name, _, _ in CHANGES_IPCAE}
    assert set(IPCAESelector().get_params()) == tested


@both
@pytest.mark.parametrize("n", [499, 500])  # fewer are tuned for as long as is best
def test_number_of_epochs(Selector, n):
    X, y = make_data("regression", n=n)
    selector = quick(Selector, max_iter=5, tuning_iter=0).fit(X, y)
    assert selector.n_iter_ == 5
    tuned = {"max_iter": 5, "tuning_iter": 60, "learning_rate_init": 0.1}
    selector = quick(Selector, **tuned).fit(X, np.random.default_rng(1).permutation(y))
    assert (5 < selector.n_iter_ < 65) == (n < 500)
    assert (selector.n_iter_ == 65) == (n >= 500)


def decoder_that_memorises(n_inputs, n_outputs):
    return nn.Sequential(nn.Linear(n_inputs, 500), nn.ReLU(), nn.Linear(500, n_outputs))


@both
@pytest.mark.parametrize("decoder", [None, decoder_that_memorises])
@pytest.mark.parametrize("task", TASKS)
def test_few_rows_are_not_learned_by_heart(Selector, task, decoder):
    X, y = make_data(task, n=60, p=20)
    X = X + 2 * np.random.default_rng(1).normal(size=(60, 1))  # what columns share
    if task == "classification":
        y = np.random.default_rng(2).permutation(y)
    elif task == "regression":
        y = y + 5 * np.random.default_rng(2).normal(size=60)
    options = {"decoder": decoder, "max_iter": 20, "learning_rate_init": 0.01}
    long = {"tuning_iter": 400, "n_trials": 0}  # both on the columns of the search
    selector = quick(Selector, **options, **long).fit(X, y)
    whole = quick(Selector, **options, **long, warm_start=True).fit(X, y)
    assert selector.n_iter_ < whole.n_iter_ == 420
    assert whole.restart_losses_ < 0.6 * selector.restart_losses_
    # It is an estimate for rows that are not trained on.
    train_loss = selector.history_["train_loss"][-1]
    assert 0.5 * train_loss < selector.restart_losses_ < 3 * train_loss


@both
@pytest.mark.parametrize("seed", range(2))
def test_noise_on_the_inputs_of_a_classifier_helps(Selector, seed, monkeypatch):
    X, y = load_digits(return_X_y=True)
    losses = []
    for scale in (0.0, _settings._JITTER):
        monkeypatch.setattr(_settings, "_JITTER", scale)
        selector = Selector(20, max_iter=10, n_trials=0, random_state=seed)
        losses.append(selector.fit(X, y).restart_losses_.min())
    assert losses[1] < 0.9 * losses[0]


def _near_copies(rng):
    X = rng.normal(size=(1500, 1)) + 0.1 * rng.normal(size=(1500, 2))
    return X, X[:, 0] > X[:, 1]


def _lognormal(rng):
    X = np.exp(1.5 * rng.normal(size=(1500, 2)))
    return X, np.log(X).sum(axis=1) > 0


def _small_beside_large(rng):
    X = rng.normal(size=(1500, 2)) * [100, 1]
    return X, X[:, 1] > 0


@both
@pytest.mark.parametrize("make", [_near_copies, _lognormal, _small_beside_large])
def test_noise_on_the_inputs_is_not_kept_where_small_differences_tell(Selector, make):
    X, y = make(np.random.default_rng(0))
    selector = Selector(2, random_state=0, standardize=False).fit(X[:1000], y[:1000])
    assert selector.score(X[1000:], y[1000:]) > 0.96


@both
def test_few_rows_keep_what_regression_cannot_see(Selector):
    X = np.random.default_rng(0).normal(size=(250, 12))
    y = X[:, 3] * X[:, 8] > 0
    selector = Selector(2, random_state=0).fit(X, y)
    assert selector.selected_indices_.tolist() == [3, 8]


@both
def test_early_stopping_ends_early(Selector):
    X, y = make_data("regression", n=600)
    stopping = {"early_stopping": True, "n_iter_no_change": 4, "tol": 1.0}
    selector = quick(Selector, max_iter=50, tuning_iter=0, **stopping)
    with pytest.warns(
        ConvergenceWarning, match="after 5 epochs. Increase n_iter_no_ch"
    ):
        selector.fit(X, y)
    assert selector.n_iter_ == 5  # the first epoch is an improvement
    assert not selector.converged_


@both
@pytest.mark.parametrize("task", TASKS)
def test_the_decoder_of_all_columns_is_trained_without_a_tuning(Selector, task):
    X, y = make_data(task, p=4)
    selector = quick(Selector, 4, tuning_iter=0).fit(X, y)
    assert selector.n_iter_ == selector.max_iter
    assert np.isfinite(selector.restart_losses_).all()
    assert selector.get_support().all()


@both
def test_the_decoder_is_built_once_for_a_score(Selector, monkeypatch):
    X = make_X(n=600)
    selector = quick(Selector).fit(X)
    expected = selector.score(X)
    built = []
    monkeypatch.setattr(_data, "_CHUNK_BYTES", 8 * X.shape[1] * 100)
    build = _predictor.make_decoder
    monkeypatch.setattr(
        _predictor, "make_decoder", lambda *args: built.append(args) or build(*args)
    )
    assert selector.score(X) == pytest.approx(expected)
    assert len(built) == 1


@both
@pytest.mark.parametrize("device", ["cpu", "auto", torch.device("cpu")])
def test_device(Selector, device):
    selector = quick(Selector, device=device, max_iter=1).fit(make_X())
    assert isinstance(selector.device_, str)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    assert selector.device_ == (auto if device == "auto" else "cpu")


@both
def test_published_protocols_can_be_asked_for(Selector):
    X, y = make_data("classification")
    protocol = {"noise": "sample", "temperature": (10, 0.1), "tuning_iter": 0}
    protocol |= {"learning_rate_init": 1e-3, "learning_rate_selector": 1e-3}
    if Selector is IPCAESelector:
        protocol |= {"embedding_dim": "n_features", "hidden_layer_sizes": (200,)}
    else:
        protocol |= {"noise": "batch", "hidden_layer_sizes": (20, 20)}
    protocol |= {"max_iter": 20, "n_iter_no_change": 1, "tol": 1e6}
    selector = quick(Selector, **protocol).fit(X, y)
    assert selector.n_iter_ == 20
    assert_allclose(selector.history_["temperature"][-1], 0.1)


@both
@pytest.mark.parametrize("noise", ["pool", "batch", "sample"])
@pytest.mark.parametrize("gradient", ["relaxed", "straight_through", "gumbel_rao"])
def test_noise_and_gradient_combine(Selector, noise, gradient):
    selector = quick(Selector, noise=noise, gradient=gradient, max_iter=2)
    if (noise, gradient) == ("sample", "gumbel_rao"):
        with pytest.raises(ValueError, match="gumbel_rao"):
            selector.fit(make_X())
    else:
        assert len(selector.fit(make_X()).selected_indices_) == 3


# Randomness


@both
@pytest.mark.parametrize("task", TASKS)
def test_same_random_state_same_result(Selector, task):
    X, y = make_data(task, n=600)
    a, b = quick(Selector).fit(X, y), quick(Selector).fit(X, y)
    assert_same_findings(a, b)
    c = quick(Selector, random_state=1).fit(X, y)
    assert findings(c) != findings(a)


@both
def test_random_state_instance_is_drawn_from(Selector):
    X = make_X()
    state = np.random.RandomState(5)
    first = quick(Selector, random_state=state).fit(X)
    second = quick(Selector, random_state=state).fit(X)
    assert findings(first) != findings(second)
    again = quick(Selector, random_state=np.random.RandomState(5)).fit(X)
    assert_same_findings(first, again)


@both
def test_no_random_state_differs_from_fit_to_fit(Selector):
    X = make_X()
    a = quick(Selector, random_state=None).fit(X)
    b = quick(Selector, random_state=None).fit(X)
    assert findings(a) != findings(b)


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n", [120, 600])  # without and with held-out rows
def test_best_of_several_runs(Selector, task, n):
    X, y = make_data(task, n=n)
    alone = quick(Selector).fit(X, y)
    several = quick(Selector, n_init=4).fit(X, y)
    assert several.restart_losses_.shape == (4,)
    assert len(set(several.restart_losses_)) == 4
    # A run is the same alone and in company.
    assert_allclose(several.restart_losses_[0], alone.restart_losses_[0], rtol=1e-3)
    if n == 600:
        best = several.restart_losses_.min()
        assert_allclose(best, several.history_["validation_loss"].min(), rtol=1e-5)


def observe_folds(monkeypatch):
    """A list that gets what the searches of each fit find without its folds."""
    found, original = [], _local_search._columns_in_folds

    def observed(*arguments):
        found.append(original(*arguments))
        return found[-1]

    monkeypatch.setattr(_local_search, "_columns_in_folds", observed)
    return found


def found_in_folds(monkeypatch, selector, X, y):
    with monkeypatch.context() as patch:
        found = observe_folds(patch)
        selector.fit(X, y)
    (columns,) = found
    return columns


@both
@pytest.mark.parametrize("n_candidates", ["all", 15])  # of 40 columns
@pytest.mark.parametrize("init", ["random", "greedy"])
def test_no_search_in_a_fold_sees_the_targets_that_judge_it(
    monkeypatch, Selector, init, n_candidates
):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 40)), rng.normal(size=60)
    selector = longer(Selector, init=init, n_candidates=n_candidates, n_surplus=2)
    before = found_in_folds(monkeypatch, selector, X, y)
    assert len(before) == 5
    weights, original = [], _batches.TrainingBatches.train_weights

    def observed(self, n_rows):
        weights.append(original(self, n_rows))
        return weights[-1]

    with monkeypatch.context() as patch:
        patch.setattr(_batches.TrainingBatches, "train_weights", observed)
        found_in_folds(monkeypatch, selector, X, y)
    held_out = np.flatnonzero(weights[0][0] == 0)
    assert len(held_out) == 12
    other = y.copy()
    other[held_out] = y[np.roll(held_out, 1)]
    after = found_in_folds(monkeypatch, selector, X, other)
    assert_array_equal(after[0], before[0])
    assert any(set(a) != set(b) for a, b in zip(after, before, strict=True))
    n_chosen_among = np.count_nonzero(selector.probabilities_.any(axis=0))
    assert n_chosen_among == (40 if n_candidates == "all" else n_candidates)


def test_folds_are_searched_again_with_a_target_and_few_rows_alone(monkeypatch):
    def repeats(n=120, task="classification", **parameters):
        asked = []

        def observed(search_anew, setup, n_folds, adviser):
            asked.append(n_folds)
            return [np.arange(3)] * n_folds

        monkeypatch.setattr(_local_search, "_columns_in_folds", observed)
        quick(IPCAESelector, **parameters).fit(*make_data(task, n=n))
        return asked

    assert repeats() == repeats(task="regression") == [5]
    assert repeats(task="reconstruction") == repeats(n=600) == []
    assert repeats(n_trials=0) == repeats(tuning_iter=0) == []
    assert repeats(warm_start=True) == repeats(validation_fraction=0.2) == []
    assert repeats(n=600, validation_fraction=0.0) == []


@both
@pytest.mark.parametrize("init", ["random", "greedy"])
@pytest.mark.parametrize("task", TASKS[1:])
def test_the_search_chooses_among_columns_that_tell_something_alone(
    Selector, task, init
):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 60))
    y = X[:, 7] - X[:, 33] + 0.1 * rng.normal(size=120)
    if task == "classification":
        y = y > 0
    # With few steps, so that the search has some of the selector.
    parameters = {"k": 2, "max_iter": 40, "tuning_iter": 5, "n_surplus": 2}
    parameters |= {"init": init, "n_candidates": 20, "n_decoder_steps": 1}
    selector = quick(Selector, **parameters).fit(X, y)
    told = np.abs(np.corrcoef(X.T, y)[-1, :-1])
    chosen_among = np.flatnonzero(selector.probabilities_.any(axis=0))
    assert len(chosen_among) == 20 and {7, 33} <= set(chosen_among)
    if init == "random":
        assert set(chosen_among) == set(np.argsort(-told)[:20])
    assert_array_equal(selector.selected_indices_, [7, 33])
    assert (selector.ranking_[chosen_among] <= 20).all()


def test_how_many_rows_are_held_out(monkeypatch):
    def held_out(n, task="regression", **parameters):
        counts, original = [], _selectors.train

        def observed(setup, **options):
            batches = setup.batches
            parts = batches.validation() if batches.has_validation else ()
            counts.append(sum(X.shape[-2] for X, _, _ in parts))
            return original(setup, **options)

        with monkeypatch.context() as patch:
            patch.setattr(_selectors, "train", observed)
            own = {"max_iter": 1, "tuning_iter": 1, "n_trials": 0} | parameters
            quick(CAESelector, **own).fit(*make_data(task, n=n))
        return counts

    assert held_out(499) == [0]
    assert held_out(500) == held_out(500, "classification") == [150]  # 0.3
    assert held_out(2000) == held_out(3000) == [500]
    assert held_out(4000) == [600]  # 0.15
    # Without a target there is less for them to tell.
    assert held_out(500, "reconstruction") == [75]
    assert held_out(2000, validation_fraction=0.1) == [200]


@both
@pytest.mark.parametrize("n", [120, 600])
@pytest.mark.parametrize("task", TASKS)
def test_of_copies_one_is_selected(Selector, task, n):
    """Also where the local search would take some, and in other units."""
    X, y = make_data(task, n=n, p=6)
    X = np.hstack([X, 2 - 3 * X, X])
    selector = quick(Selector, k=5, n_trials=4).fit(X, y)
    assert len(set(selector.selected_indices_ % 6)) == 5


def test_copies_of_one_run_leave_another_one_alone(monkeypatch):
    """The length of the tuning, and the loss that it is judged by, are its own."""
    rng = np.random.default_rng(21)
    X = rng.normal(size=(120, 11))
    y = X[:, 0] * X[:, 1] + X[:, 2] + 0.3 * rng.normal(size=120)
    X = np.column_stack([X, 2 - 3 * X[:, 0], X[:, 1]])
    changed, original = [], _training.without_copies

    def observed(columns, adviser):
        found = original(columns, adviser)
        pairs = zip(columns, found, strict=True)
        changed.append([set(own) != set(new) for own, new in pairs])
        return found

    monkeypatch.setattr(_training, "without_copies", observed)
    short = {"max_iter": 30, "tuning_iter": 60, "learning_rate_selector": 0.1}
    options = short | {"n_trials": 4, "n_surplus": 0, "random_state": 21}
    one, three = (
        CAESelector(4, n_init=n, **options).fit(X, y).restart_losses_ for n in (1, 3)
    )
    assert changed == [[False], [False, True, False]]
    assert three[0] == pytest.approx(one[0], rel=1e-3)


class Untrained(nn.Module):
    """A decoder that has nothing to learn."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.register_buffer("weight", torch.ones(n_inputs, n_outputs) / n_inputs)

    def forward(self, z):
        return z @ self.weight


def decoder_steps(monkeypatch, p=10, **parameters):
    """Batches that a step of the selector takes in, in turn, of 200 rows in 7."""
    taken, original = [], _training._search_step

    def observed(setup, of_selector, of_decoder, X, *inputs):
        taken.append(len(inputs[6:]) // 2)
        return original(setup, of_selector, of_decoder, X, *inputs)

    with monkeypatch.context() as patch:
        patch.setattr(_training, "_search_step", observed)
        quick(CAESelector, max_iter=1, batch_size=32, **parameters).fit(make_X(200, p))
    return taken


def test_how_many_batches_a_step_of_the_selector_takes_in(monkeypatch):
    assert decoder_steps(monkeypatch) == [4, 3]
    assert decoder_steps(monkeypatch, n_decoder_steps=3) == [3, 2, 2]
    assert decoder_steps(monkeypatch, n_decoder_steps=1000) == [7]
    assert decoder_steps(monkeypatch, n_decoder_steps=1) == [1] * 7
    assert decoder_steps(monkeypatch, tuning_iter=0) == [1] * 7  # as published
    assert decoder_steps(monkeypatch, noise="sample") == [1] * 7
    assert decoder_steps(monkeypatch, noise="sample", n_decoder_steps=3) == [3, 2, 2]
    assert decoder_steps(monkeypatch, decoder=Untrained) == [1] * 7
    own = {"decoder": Untrained, "n_decoder_steps": 4}
    assert decoder_steps(monkeypatch, **own) == [4, 3]
    # No more rows at once than there is room for.
    monkeypatch.setattr(_settings, "_DECODER_STEPS_BYTES", 2 * 4 * 32 * 10 + 4)
    assert decoder_steps(monkeypatch) == [2, 2, 2, 1]
    assert decoder_steps(monkeypatch, p=30) == [1] * 7
    assert decoder_steps(monkeypatch, p=30, n_decoder_steps=4) == [4, 3]


def test_when_all_columns_take_part_in_the_search(monkeypatch):
    monkeypatch.setattr(_settings, "_CANDIDATES_OF_FEW", 10)
    monkeypatch.setattr(_settings, "_CANDIDATES", 8)
    monkeypatch.setattr(_settings, "_COLUMNS_TO_SCREEN", 15)
    monkeypatch.setattr(_settings, "_ROWS_TO_EXPLAIN_ALL", 800)

    def take_part(n=120, task="classification", p=20, **parameters):
        own = {"max_iter": 2, "n_surplus": 0} | parameters
        selector = quick(IPCAESelector, **own).fit(*make_data(task, n=n, p=p))
        return np.count_nonzero(selector.probabilities_.any(axis=0))

    assert take_part() == take_part(task="regression") == take_part(k=5) == 10
    assert take_part(p=10) == 10
    assert take_part(n=600) == take_part(validation_fraction=0.2) == 8
    assert take_part(n=600, validation_fraction=0.0) == 8
    assert take_part(n=600, p=15) == 15
    assert take_part(n=1200) == 20  # of which 840 are trained on
    assert take_part(task="reconstruction") == 20
    assert take_part(k=6) == take_part(n_surplus=5) == 20  # rows need some to choose
    assert take_part(tuning_iter=0) == take_part(warm_start=True) == 20
    assert take_part(n_candidates="all") == take_part(n_candidates=30) == 20
    assert take_part(n_candidates=7) == take_part(n=1200, n_candidates=7) == 7
    assert take_part(n_candidates=7, tuning_iter=0) == 7


def test_columns_count_by_the_target_below_2000_rows_trained_on(monkeypatch):
    asked, original = [], _selectors.GreedyAdviser

    def observed(*arguments, by_target, **keywords):
        asked.append(by_target)
        return original(*arguments, by_target=by_target, **keywords)

    monkeypatch.setattr(_selectors, "GreedyAdviser", observed)
    own = {"max_iter": 1, "tuning_iter": 1, "n_trials": 1}
    for task, n in zip(TASKS, (100, 2000, 100), strict=True):
        quick(IPCAESelector, **own).fit(*make_data(task, n=n))
    assert asked == [False, True, True]  # 1,500 rows of the second are trained on
    quick(IPCAESelector, **own).fit(*make_data("regression", n=2600))
    assert asked[-1] is False


def test_few_rows_of_a_search_over_k_are_searched_again(monkeypatch):
    """As many as each fit sees, not as there are in all."""
    found = observe_folds(monkeypatch)
    X, y = make_data("classification", n=560)
    search = IPCAESelectorCV((3,), estimator=quick(IPCAESelector), cv=5, refit=False)
    search.fit(X, y)
    assert sum(map(len, found)) == 5 * 5


def test_a_users_decoder_is_made_no_more_often_than_it_is_needed():
    made = []

    def decoder(n_inputs, n_outputs):
        made.append((n_inputs, n_outputs))
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(n_inputs, n_outputs))

    X, y = make_data("classification", n=120)
    fits = []
    for n_trials in (0, 12):
        made.clear()
        own = {"decoder": decoder, "tuning_iter": 0, "n_trials": n_trials}
        fits.append(quick(IPCAESelector, **own).fit(X, y))
        assert made == [(3, 2)]
    assert_array_equal(fits[0].probabilities_, fits[1].probabilities_)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_few_looks_at_a_search_change_nothing(monkeypatch, early_stopping):
    """Those that are repeated are looked at after some steps only."""
    X, y = make_data("regression", n=60)
    own = {"early_stopping": early_stopping, "n_iter_no_change": 3, "max_iter": 120}
    found = []
    for steps in (1, 40):
        monkeypatch.setattr(_training, "_STEPS_BETWEEN_LOOKS", steps)
        selector = quick(IPCAESelector, **own)
        columns = found_in_folds(monkeypatch, selector, X, y)
        found.append([set(own) for own in columns])
    assert found[0] == found[1]


@both
@pytest.mark.parametrize("n", [120, 600])  # without and with held-out rows
def test_runs_that_do_not_fit_together_are_trained_in_parts(Selector, n, only_room_for):
    X, y = make_data("classification", n=n)
    weights = np.linspace(1, 2, n)
    together = quick(Selector, n_init=3).fit(X, y, weights)
    only_room_for(1)
    with pytest.warns(RuntimeWarning, match="[23] runs side by side do not fit"):
        in_parts = quick(Selector, n_init=3).fit(X, y, weights)
    # Runs are the same alone and in company, but for rounding.
    assert_allclose(in_parts.restart_losses_, together.restart_losses_, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.* side by side do not fit:RuntimeWarning")
def test_only_the_first_of_all_runs_starts_warm(only_room_for):
    X, y = make_data("regression", n=120)
    options = {"n_init": 4, "warm_start": True, "learning_rate_init": 0.01}
    selectors = [quick(IPCAESelector, **options).fit(X, y) for _ in range(2)]
    together = selectors[0].fit(X, y)
    only_room_for(2)
    in_parts = selectors[1].fit(X, y)
    assert_allclose(in_parts.restart_losses_, together.restart_losses_, rtol=1e-3)


def test_a_run_that_does_not_fit_is_an_error_that_says_what_to_do(only_room_for):
    X, y = make_data("regression", n=120)
    only_room_for(0)
    with pytest.raises(MemoryError, match=r"not fit on cpu\. Lower batch_size or k"):
        quick(IPCAESelector).fit(X, y)


@both
def test_global_state_is_untouched(Selector):
    X, y = make_data("regression")
    numpy_before = pickle.dumps(np.random.get_state())  # noqa: NPY002
    torch_before = torch.get_rng_state()
    settings = _torch_settings()
    for parameters in ({"random_state": 0}, {"decoder": mlp_with_state}):
        selector = quick(Selector, **parameters).fit(X, y)
        selector.predict(X)
    assert pickle.dumps(np.random.get_state()) == numpy_before  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert _torch_settings() == settings


def _torch_settings():
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    )


@both
def test_global_state_is_untouched_by_a_failure(Selector):
    X, y = make_data("regression")
    before, settings = torch.get_rng_state(), _torch_settings()
    with pytest.raises(ValueError, match="non-finite"):
        quick(Selector, learning_rate_init=1e38, decoder=mlp).fit(X, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert _torch_settings() == settings


@both
@pytest.mark.parametrize("decoder", [None, mlp_with_state])
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "float64", "meta"])
def test_fit_under_other_global_settings(Selector, mode, decoder):
    X, y = make_data("regression")
    reference = quick(Selector, decoder=decoder).fit(X, y)
    selector = quick(Selector, decoder=decoder)
    if mode == "float64":
        torch.set_default_dtype(torch.float64)
        try:
            prediction = selector.fit(X, y).predict(X)
            assert torch.get_default_dtype() == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)
    else:
        contexts = {
            "no_grad": torch.no_grad,
            "inference_mode": torch.inference_mode,
            "meta": lambda: torch.device("meta"),
        }
        with contexts[mode]():
            settings = _torch_settings()
            prediction = selector.fit(X, y).predict(X)
            assert _torch_settings() == settings
    assert_same_findings(selector, reference)
    assert_array_equal(prediction, reference.predict(X))


# Units


POWERS = 10.0 ** np.array([-6, -4, -2, -1, 0, 1, 2, 4, 6, 8])


@both
@pytest.mark.parametrize("standardize", ["l4", True])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_supervised_selection_does_not_depend_on_units(Selector, task, standardize):
    X, y = make_data(task, n=200)
    a = longer(Selector, standardize=standardize).fit(X, y)
    b = longer(Selector, standardize=standardize).fit(X * POWERS + POWERS, y)
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    # Rounding aside, everything is the same.
    assert_allclose(a.history_["train_loss"], b.history_["train_loss"], rtol=1e-3)
    assert_allclose(a.score(X, y), b.score(X * POWERS + POWERS, y), atol=1e-3)


@both
@pytest.mark.parametrize(
    "task, standardize", [("regression", "l4"), ("reconstruction", False)]
)
def test_standardize_auto_depends_on_the_task(Selector, task, standardize):
    X, y = make_data("regression", n=200)
    a = quick(Selector, task=task).fit(X, y)
    b = quick(Selector, task=task, standardize=standardize).fit(X, y)
    c = quick(Selector, task=task, standardize=True).fit(X, y)
    assert_array_equal(a.history_["train_loss"], b.history_["train_loss"])
    assert not np.allclose(a.history_["train_loss"], c.history_["train_loss"])


@both
def test_standardize_false_keeps_units_in_a_supervised_fit(Selector):
    X, y = make_data("regression", n=200)
    a = quick(Selector, standardize=False).fit(X, y)
    b = quick(Selector, standardize=False).fit(X * [10] + [0] * 10, y)
    c = quick(Selector, standardize=False).fit(X * ([10] + [1] * 9), y)
    assert_allclose(a.history_["train_loss"], b.history_["train_loss"], rtol=1e-3)
    assert not np.allclose(a.history_["train_loss"], c.history_["train_loss"])


@both
def test_targets_unit_is_that_of_the_predictions(Selector):
    X, y = make_data("regression", n=200)
    a = quick(Selector).fit(X, y)
    b = quick(Selector).fit(X, 1e6 * y - 3e7)
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    assert_allclose(b.predict(X), 1e6 * a.predict(X) - 3e7, rtol=1e-4)
    assert_allclose(a.history_["train_loss"], b.history_["train_loss"], rtol=1e-3)


@both
@pytest.mark.parametrize("factor", [1e-30, 1e-3, 8.0, 1e30])
def test_reconstruction_does_not_depend_on_one_unit_for_all(Selector, factor):
    X = make_X() * np.linspace(0.5, 2, 10)
    a, b = quick(Selector).fit(X), quick(Selector).fit(factor * X)
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    Z = a.transform(X)
    assert_allclose(
        b.reconstruct(factor * Z) / factor, a.reconstruct(Z), rtol=1e-3, atol=1e-4
    )
    assert_allclose(b.score(factor * X), a.score(X), atol=1e-4)


@both
@pytest.mark.parametrize("factor", [1e-3, 8.0])
def test_losses_are_in_the_units_of_X(Selector, factor):
    X = make_X() * np.linspace(0.5, 2, 10)
    a, b = quick(Selector).fit(X), quick(Selector).fit(factor * X)
    squared = factor**2
    for name in ("restart_losses_", "importances_"):
        ours, others = getattr(a, name), getattr(b, name)
        assert_allclose(others / squared, ours, rtol=1e-2, atol=1e-4)
    for name in ("train_loss", "validation_loss"):
        assert_allclose(b.history_[name] / squared, a.history_[name], rtol=1e-2)


@both
def test_loss_of_a_reconstruction_is_its_mean_squared_error(Selector):
    X = 5 * make_X(500) * np.linspace(0.5, 2, 10)
    selector = longer(Selector, tuning_iter=100, validation_fraction=0).fit(X)
    error = np.mean((X - selector.reconstruct(selector.transform(X))) ** 2)
    # The loss is the mean of an epoch's batches, before each of its steps.
    assert_allclose(selector.restart_losses_, error, rtol=0.05)


@both
def test_reconstruction_favours_columns_of_large_variance(Selector):
    X = make_X(300)
    X[:, [2, 5, 7]] *= 5
    selector = longer(Selector, n_init=3).fit(X)
    assert_array_equal(selector.selected_indices_, [2, 5, 7])


@both
def test_reconstruction_warns_when_few_columns_dominate(Selector):
    X = make_X(p=40)
    X[:, 7] *= 1e4
    with pytest.warns(
        UserWarning,
        match=r"1 of 40 columns that vary hold .*column 7 most .* standardize=True",
    ):
        quick(Selector, 5, max_iter=1).fit(X)
    with pytest.warns(UserWarning, match="1 of 5 columns that vary hold"):
        quick(Selector, 2, max_iter=1).fit(X[:, 5:10])
    # Nothing is wrong with these:
    quick(Selector, 5, max_iter=1, standardize=True).fit(X)
    quick(Selector, 5, max_iter=1).fit(X, X[:, 0])
    quick(Selector, 5, max_iter=1).fit(X[:, 5:10])  # all are kept
    X[:, [5, 8, 9]] = 1
    quick(Selector, 2, max_iter=1).fit(X[:, 5:10])  # all that vary


@both
@pytest.mark.parametrize("standardize", ["l4", True])
def test_standardized_reconstruction_does_not_depend_on_units(Selector, standardize):
    X = make_X() * np.linspace(0.5, 2, 10)
    a = quick(Selector, standardize=standardize).fit(X)
    b = quick(Selector, standardize=standardize).fit(X * POWERS)
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    assert_allclose(a.history_["train_loss"], b.history_["train_loss"], rtol=1e-3)
    assert_allclose(
        b.reconstruct(b.transform(X * POWERS)) / POWERS,
        a.reconstruct(a.transform(X)),
        rtol=1e-2,
        atol=1e-4,
    )


# The joint decoder


@both
@pytest.mark.parametrize("standardize", [True, False, "l4"])
def test_reconstruct(Selector, standardize):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 10)) + np.arange(10)
    X[:, 4] = 3.0
    selector = longer(Selector, standardize=standardize).fit(X)
    full = selector.reconstruct(selector.transform(X))
    assert full.shape == X.shape
    assert_allclose(full[:, 4], 3)
    weights = X.var(axis=0)
    if standardize == "l4":
        fourth = ((X - X.mean(axis=0)) ** 4).mean(axis=0)
        weights = weights / np.where(weights > 1e-20, np.sqrt(fourth), np.inf)
    elif standardize:
        weights = (weights > 1e-20).astype(float)
    r2 = r2_score(X, full, multioutput="raw_values")
    expected = np.average(r2, weights=weights)
    assert_allclose(selector.score(X), expected, rtol=1e-6)
    assert expected > 0.8
    new = rng.normal(size=(20, 10))
    assert np.isfinite(selector.score(new))


@both
@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes"],
        ["red", "green", "blue"],
        [-1, 1],
        [False, True],
        [3, 7, 9, 20],
        [0.0, 1.0],
        np.array(["a", "b"], dtype=object),
    ],
    ids=str,
)
def test_classes(Selector, labels):
    X = make_X(200, 6)
    code = np.digitize(X[:, 2], np.quantile(X[:, 2], np.linspace(0, 1, len(labels))))
    y = np.asarray(labels)[np.clip(code - 1, 0, len(labels) - 1)]
    selector = longer(Selector, 2, n_init=3, learning_rate_init=0.01).fit(X, y)
    assert selector.task_ == "classification"
    assert_array_equal(selector.classes_, np.unique(y))
    prediction, probabilities = selector.predict(X), selector.predict_proba(X)
    assert prediction.shape == (200,)
    assert prediction.dtype == np.asarray(y).dtype
    assert probabilities.shape == (200, len(labels))
    assert_allclose(probabilities.sum(axis=1), 1)
    assert_array_equal(selector.classes_[probabilities.argmax(axis=1)], prediction)
    scores = selector.decision_function(X)
    if len(labels) == 2:
        assert scores.shape == (200,)
        assert_allclose(expit(scores), probabilities[:, 1])
    else:
        assert_allclose(softmax(scores, axis=1), probabilities)
    assert_allclose(selector.score(X, y), accuracy_score(y, prediction))
    assert selector.score(X, y) > 0.8
    assert 2 in selector.selected_indices_


@both
def test_loss_of_a_classification_is_its_cross_entropy(Selector):
    X, y = make_data("classification", n=500)
    options = {"tuning_iter": 100, "validation_fraction": 0}
    selector = longer(Selector, **options).fit(X, y)
    own = selector.predict_proba(X)[np.arange(500), y]
    assert_allclose(selector.restart_losses_, -np.log(own).mean(), rtol=0.1)


@both
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_several_labels(Selector, class_weight):
    X = make_X(300, 8)
    Y = (X[:, [1, 4, 6]] > [0, 0.5, -0.5]).astype(int)
    selector = longer(
        Selector,
        "all",
        class_weight=class_weight,
        learning_rate_init=0.01,
        tuning_iter=80,
    ).fit(X, Y)
    assert selector.task_ == "classification"
    assert_array_equal(selector.classes_, [0, 1, 2])
    prediction, probabilities = selector.predict(X), selector.predict_proba(X)
    assert prediction.shape == probabilities.shape == (300, 3)
    assert_array_equal(prediction, probabilities > 0.5)
    assert_allclose(expit(selector.decision_function(X)), probabilities)
    assert_allclose(selector.score(X, Y), accuracy_score(Y, prediction))
    assert selector.score(X, Y) > 0.7


@both
def test_several_targets(Selector):
    X = make_X(300, 8)
    Y = X[:, [1, 4, 6]] * [1, 100, 1e-4] + [0, 1e4, 0]
    selector = longer(Selector, "all", learning_rate_init=0.01, tuning_iter=80).fit(
        X, Y
    )
    assert selector.task_ == "regression"
    prediction = selector.predict(X)
    assert prediction.shape == (300, 3)
    assert (r2_score(Y, prediction, multioutput="raw_values") > 0.8).all()
    assert_allclose(selector.score(X, Y), r2_score(Y, prediction))
    assert not hasattr(selector, "predict_proba")


@both
def test_constant_target_of_a_regression(Selector):
    X, selector = make_X(), quick(Selector, task="regression")
    with pytest.warns(UserWarning, match="y has one value only"):
        selector.fit(X, np.full(120, 4.5))
    assert_allclose(selector.predict(X), 4.5)


@both
def test_column_vector_as_target(Selector):
    X, y = make_data("regression")
    with pytest.warns(UserWarning, match="column-vector"):
        selector = quick(Selector).fit(X, y[:, np.newaxis])
    assert_array_equal(selector.predict(X), quick(Selector).fit(X, y).predict(X))


@both
def test_integer_target_is_a_regression_on_request(Selector):
    X = make_X()
    y = np.round(10 * X[:, 0]).astype(int)
    selector = quick(Selector, task="regression").fit(X, y)
    assert selector.task_ == "regression"
    assert selector.predict(X).dtype.kind == "f"


@both
def test_reconstruction_ignores_the_target_on_request(Selector):
    X, y = make_data("regression")
    a = quick(Selector, task="reconstruction").fit(X, y)
    assert a.task_ == "reconstruction"
    assert_same_findings(a, quick(Selector).fit(X))
    assert_allclose(a.score(X, y), a.score(X))


@both
@pytest.mark.parametrize("task", TASKS)
def test_rows_are_predicted_one_by_one_or_together(Selector, task):
    X, y = make_data(task)
    selector = quick(Selector).fit(X, y)
    if task == "reconstruction":
        Z = selector.transform(X)
        together = selector.reconstruct(Z)
        one_by_one = [selector.reconstruct(z)[0] for z in Z[:20, np.newaxis]]
    else:
        together = selector.predict(X)
        one_by_one = [selector.predict(x)[0] for x in X[:20, np.newaxis]]
    assert_allclose(together[:20], one_by_one, rtol=1e-9)


@both
def test_prediction_reads_the_selected_columns_only(Selector):
    X, y = make_data("regression")
    selector = quick(Selector).fit(X, y)
    other = make_X(seed=1)
    other[:, selector.selected_indices_] = selector.transform(X)
    assert_array_equal(selector.predict(other), selector.predict(X))


METHODS = {
    "predict": {"classification", "regression"},
    "predict_proba": {"classification"},
    "decision_function": {"classification"},
    "reconstruct": {"reconstruction"},
}


@both
@pytest.mark.parametrize("method", METHODS)
def test_methods_are_there_where_they_make_sense(Selector, method):
    selector = quick(Selector, max_iter=1, tuning_iter=0)
    assert not hasattr(selector, method)
    for task in [*TASKS, *TASKS]:  # twice: each also after every other
        selector.fit(*make_data(task))
        assert hasattr(selector, method) == (task in METHODS[method])
        assert hasattr(selector, "classes_") == (task == "classification")


@both
def test_score_without_a_target(Selector):
    X, y = make_data("regression")
    with pytest.raises(ValueError, match="requires y"):
        quick(Selector).fit(X, y).score(X)


@both
@pytest.mark.parametrize("task", TASKS)
def test_score_takes_weights(Selector, task):
    X, y = make_data(task)
    selector = quick(Selector).fit(X, y)
    weights = (np.arange(120) < 60).astype(float)
    half = selector.score(X[:60], None if y is None else y[:60])
    assert_allclose(selector.score(X, y, sample_weight=weights), half)


# Weights


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n", [120, 800])  # without and with held-out rows
def test_rows_of_weight_zero_are_not_seen(Selector, task, n):
    X, y = make_data(task, n=n)
    rng = np.random.default_rng(1)
    seen = rng.random(n) < 0.7
    X[~seen] = 1e3 * rng.normal(size=((~seen).sum(), 10))
    a = quick(Selector).fit(X, y, sample_weight=2.5 * seen)
    b = quick(Selector).fit(X[seen], None if y is None else y[seen])
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    for name in ("train_loss", "validation_loss"):
        assert_allclose(a.history_[name], b.history_[name], rtol=1e-3)


@both
@pytest.mark.parametrize("task", TASKS)
def test_equal_weights_are_no_weights(Selector, task):
    X, y = make_data(task, n=600)
    a = quick(Selector).fit(X, y, sample_weight=np.full(600, 0.1))
    b = quick(Selector).fit(X, y)
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    assert_allclose(a.history_["train_loss"], b.history_["train_loss"], rtol=1e-3)


@both
def test_weights_decide_what_is_selected(Selector):
    X = make_X(400, 6)
    first = np.arange(400) < 200
    y = np.where(first, X[:, 1], X[:, 4])
    for column, weights in [(1, np.where(first, 1, 0.01)), (4, ~first + 0.01)]:
        selector = longer(Selector, 1, max_iter=100, n_init=3)
        selector.fit(X, y, sample_weight=weights)
        assert_array_equal(selector.selected_indices_, [column])


def make_imbalanced():
    X = make_X(400, 5)
    y = (X[:, 0] + np.random.default_rng(1).normal(size=400) > 2.2).astype(int)
    assert 0.03 < y.mean() < 0.1
    return X, y


@both
def test_balanced_classes(Selector):
    X, y = make_imbalanced()
    share = [
        longer(Selector, 1, class_weight=weight).fit(X, y).predict(X).mean()
        for weight in (None, "balanced")
    ]
    assert share[0] < 0.1
    assert share[1] > 2 * max(share[0], y.mean())


@both
def test_class_weights(Selector):
    X, y = make_imbalanced()
    names = np.array(["usual", "rare"])[y]
    counts = {"usual": (y == 0).sum(), "rare": (y == 1).sum()}
    balanced = {name: 400 / (2 * count) for name, count in counts.items()}
    a = quick(Selector, class_weight="balanced").fit(X, names)
    b = quick(Selector, class_weight=balanced).fit(X, names)
    assert_allclose(a.history_["train_loss"], b.history_["train_loss"], rtol=1e-5)
    a = quick(Selector, class_weight={"usual": 1, "rare": 1}).fit(X, names)
    b = quick(Selector).fit(X, names)
    assert_allclose(a.history_["train_loss"], b.history_["train_loss"], rtol=1e-5)


@both
def test_a_class_of_weight_zero_is_not_seen(Selector):
    y, rows = np.arange(60) % 3, np.arange(3, 60)
    selector = quick(Selector, class_weight={0: 0, 1: 1, 2: 2})
    own = np.where(rows < 30, 0.0, 1.0)
    (kept,), (weights,) = selector._rows_that_count([rows], y, np.append([1] * 3, own))
    assert_array_equal(kept, rows[(rows >= 30) & (y[rows] > 0)])
    assert_allclose(weights, 2 * y[kept] / 3)


@both
def test_class_weights_and_weights_of_rows_multiply(Selector):
    X, y = make_imbalanced()
    own = np.where(y == 1, 12.0, 1.0)
    # Together they are equal weights.
    selector = quick(Selector, class_weight={0: 1, 1: 1 / 12})
    a = selector.fit(X, y, sample_weight=own)
    b = quick(Selector, class_weight={0: 5, 1: 5}).fit(X, y, sample_weight=own)
    c = quick(Selector).fit(X, y, sample_weight=own)
    assert_allclose(b.history_["train_loss"], c.history_["train_loss"], rtol=1e-5)
    assert (a.predict(X) == 1).mean() <= (c.predict(X) == 1).mean()
    assert not np.allclose(a.history_["train_loss"], c.history_["train_loss"])


# Warm starts


@both
@pytest.mark.parametrize("task", TASKS)
def test_warm_start_continues(Selector, task):
    X, y = make_data(task, n=200)
    parameters = {"warm_start": True, "temperature": (0.5, 0.1), "max_iter": 200}
    selector = longer(Selector, **parameters).fit(X, y)
    cold = selector.history_["train_loss"][0]
    selector.set_params(max_iter=3, tuning_iter=3).fit(X, y)
    assert 3 < selector.n_iter_ <= 6  # rows that have settled end the search at once
    assert selector.history_["train_loss"][0] < 0.8 * cold


@both
def test_without_warm_start_a_fit_begins_anew(Selector):
    X, y = make_data("regression")
    selector = quick(Selector).fit(X, y)
    again = pickle.loads(pickle.dumps(selector)).fit(X, y)
    assert_same_findings(selector, again)


@both
def test_warm_start_with_other_classes_is_refused(Selector):
    X, y = make_data("classification")
    selector = quick(Selector, warm_start=True).fit(X, np.array(["a", "b", "c"])[y])
    with pytest.raises(ValueError, match="y has other classes"):
        selector.fit(X, np.array(["x", "y", "z"])[y])


@both
@pytest.mark.parametrize(
    "order", [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 4)]
)
def test_warm_start_with_another_kind_of_target_is_refused(Selector, order):
    X, y = make_data("classification")
    values = np.random.default_rng(0).normal(size=(len(X), 3))
    # Two numbers of outputs that agree, and classes with the names of labels.
    y = np.arange(len(X)) % 3
    targets = [X[:, 0], y, values, (values > 0).astype(int), None, X.copy()]
    first, second = (targets[i] for i in order)
    selector = quick(Selector, warm_start=True).fit(X, first)
    with pytest.raises(ValueError, match="another kind"):
        selector.fit(X, second)


@both
def test_warm_start_of_several_runs(Selector):
    X, y = make_data("regression")
    selector = quick(Selector, warm_start=True, n_init=3).fit(X, y)
    selector.fit(X, y)
    assert selector.restart_losses_.shape == (3,)


@both
@pytest.mark.parametrize("decoder", [None, mlp_with_state])
def test_warm_start_after_pickle(Selector, decoder):
    X, y = make_data("regression")
    selector = quick(Selector, warm_start=True, decoder=decoder).fit(X, y)
    other = pickle.loads(pickle.dumps(selector))
    assert_same_findings(selector.fit(X, y), other.fit(X, y))


@both
@pytest.mark.parametrize(
    "change",
    ["k", "hidden_layer_sizes", "n_features", "columns", "n_outputs", "cold"],
)
def test_warm_start_of_another_shape(Selector, change):
    X, y = make_data("regression")
    selector = quick(Selector, warm_start=change != "cold").fit(X, y)
    support = selector.get_support()
    prediction = selector.predict(X)
    X_new, y_new = X, y
    if change == "k":
        selector.set_params(k=4)
    elif change == "hidden_layer_sizes":
        selector.set_params(hidden_layer_sizes=(16, 16))
    elif change == "n_features":
        X_new = X[:, :9]
    elif change == "columns":  # as many vary, but not the same ones
        X_new = X.copy()
        X_new[:, 3] = 0
    elif change == "n_outputs":
        y_new = np.column_stack([y, y])
    selector.set_params(warm_start=True)
    with pytest.raises(ValueError, match="warm_start=True needs a last fit"):
        selector.fit(X_new, y_new)
    # The earlier fit is as it was.
    selector.set_params(k=3)
    assert selector.n_features_in_ == 10
    assert_array_equal(selector.get_support(), support)
    assert_array_equal(selector.predict(X), prediction)


# Decoders of one's own


@both
@pytest.mark.parametrize(
    "before, after",
    [
        ({"k": 1}, {"k": 4}),
        ({"hidden_layer_sizes": (1,)}, {"hidden_layer_sizes": (5,)}),
        ({"hidden_layer_sizes": (10, 10)}, {"hidden_layer_sizes": (10,)}),
        ({"decoder": mlp}, {"decoder": mlp_with_state}),
        ({"decoder": mlp}, {"decoder": None}),
    ],
)
def test_warm_start_of_a_shape_that_would_broadcast(Selector, before, after):
    X = make_X()
    selector = quick(Selector, warm_start=True).set_params(**before).fit(X)
    with pytest.raises(ValueError, match="warm_start=True needs a last fit"):
        selector.set_params(**after).fit(X)


@both
@pytest.mark.parametrize("decoder", [mlp, mlp_with_state])
@pytest.mark.parametrize("task", TASKS)
def test_decoder_of_ones_own(Selector, decoder, task):
    X, y = make_data(task, n=600)
    selector = quick(Selector, decoder=decoder, n_init=2, max_iter=20).fit(X, y)
    before = torch.get_rng_state()
    again = pickle.loads(pickle.dumps(selector))
    results = []
    for each in (selector, again, again):
        if task == "reconstruction":
            results.append(each.reconstruct(each.transform(X)))
        else:
            results.append(each.predict(X))
    assert torch.equal(torch.get_rng_state(), before)
    assert_array_equal(results[0], results[1])
    assert_array_equal(results[1], results[2])
    assert selector.score(X, y) > 0


class _KnowsFloat32(torch.nn.Module):
    """A decoder that makes tensors of the type that it is trained in."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.linear = torch.nn.Linear(n_in, n_out)

    def forward(self, z):
        return self.linear(z.float() @ torch.eye(z.shape[1]))


def test_decoder_that_knows_float32_alone():
    X = make_X()
    fitted = quick(IPCAESelector, decoder=_KnowsFloat32).fit(X)
    score = fitted.score(X)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert fitted.score(X) == score
    finally:
        torch.set_default_dtype(before)


def test_decoder_that_begins_in_place():
    def make(n_in, n_out):
        relu = torch.nn.ReLU(inplace=True)
        return torch.nn.Sequential(relu, torch.nn.Linear(n_in, n_out))

    X = make_X()
    for n_init in (1, 2):
        fitted = quick(IPCAESelector, decoder=make, n_init=n_init).fit(X)
        assert np.isfinite(fitted.score(X))
    with pytest.raises(TypeError, match="without lazy layers"):
        lazy = quick(
            IPCAESelector, decoder=lambda n_in, n_out: torch.nn.LazyLinear(n_out)
        )
        lazy.fit(X)


@both
@pytest.mark.parametrize("parameters", [{}, {"n_init": 2, "n_trials": 0}])
def test_a_decoder_that_is_the_same_each_time_is_refused(Selector, parameters):
    X, y = make_data("regression", n=600)
    shared = nn.Linear(3, 1)
    for decoder in (lambda *sizes: shared, lambda *sizes: nn.Sequential(shared)):
        with pytest.raises(ValueError, match="decoder must return a new module"):
            quick(Selector, decoder=decoder, **parameters).fit(X, y)


@both
def test_decoders_may_share_what_they_do_not_learn(Selector):
    X, y = make_data("regression", n=600)
    frozen = nn.Linear(8, 1).requires_grad_(False)
    make = lambda n_in, n_out: nn.Sequential(nn.Linear(n_in, 8), frozen)  # noqa: E731
    fitted = quick(Selector, decoder=make, n_init=2).fit(X, y)
    assert np.isfinite(fitted.restart_losses_).all()


def test_both_document_what_they_share_in_the_same_words():
    own = {"n_surplus", "learning_rate_selector"}  # which differ
    cae, ipcae = (_entries(Selector) for Selector in (CAESelector, IPCAESelector))
    shared = cae.keys() & ipcae.keys()
    assert len(shared) > 40
    assert {name for name in shared if cae[name] != ipcae[name]} == own


def _entries(Selector):
    """Parameters and attributes of a docstring, with what it says of them."""
    text = inspect.getdoc(Selector).split("See Also")[0]
    parts = re.split(r"^(\w+) : ", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@both
@pytest.mark.parametrize("task", TASKS)
def test_decoder_knows_its_sizes(Selector, task):
    X, y = make_data(task)
    sizes = set()

    def decoder(n_inputs, n_outputs):
        sizes.add((n_inputs, n_outputs))
        return nn.Linear(n_inputs, n_outputs)

    quick(Selector, decoder=decoder).fit(X, y)
    n_outputs = {"reconstruction": 10, "classification": 2, "regression": 1}
    assert sizes == {(3, n_outputs[task])}


@both
def test_decoder_of_ones_own_is_the_same_alone_and_in_company(Selector):
    X, y = make_data("regression")
    alone = quick(Selector, decoder=mlp).fit(X, y)
    several = quick(Selector, decoder=mlp, n_init=3).fit(X, y)
    assert_allclose(several.restart_losses_[0], alone.restart_losses_[0], rtol=1e-4)


@both
@pytest.mark.parametrize(
    "decoder",
    [
        lambda n_inputs, n_outputs: nn.Linear(n_inputs, n_outputs + 1),
        lambda n_inputs, n_outputs: nn.Flatten(0),
        lambda n_inputs, n_outputs: nn.Unflatten(1, (n_inputs, 1)),
        lambda n_inputs, n_outputs: nn.GRU(n_inputs, n_outputs),  # returns a tuple
        lambda n_inputs, n_outputs: None,
        lambda n_inputs, n_outputs: torch.relu,
        lambda n_inputs, n_outputs: nn.Linear,
    ],
    ids=["wide", "flat", "3d", "tuple", "None", "function", "class"],
)
@pytest.mark.parametrize("task", TASKS)
def test_decoder_that_does_not_fit(Selector, decoder, task):
    X, y = make_data(task)
    selector = quick(Selector, decoder=decoder)
    with pytest.raises((TypeError, ValueError), match="decoder"):
        selector.fit(X, y)
    assert not hasattr(selector, "selected_indices_")


# Interruptions


class _Interrupting(nn.Linear):
    """Raises KeyboardInterrupt when it has been called some times."""

    countdown = 0

    def forward(self, x):
        type(self).countdown -= 1
        if self.countdown < 0:
            raise KeyboardInterrupt
        return super().forward(x)


@both
@pytest.mark.parametrize("n_calls", [0, 5, 20])  # 20: in the tuning
def test_interrupted_fit_leaves_an_unfitted_estimator(Selector, n_calls):
    X, y = make_data("regression")
    selector = quick(Selector, decoder=_Interrupting)
    before = vars(selector).copy()
    _Interrupting.countdown = n_calls
    with pytest.raises(KeyboardInterrupt):
        selector.fit(X, y)
    assert vars(selector) == before
    assert not hasattr(selector, "predict")


@both
@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("n_calls", [0, 5, 20])
def test_interrupted_fit_leaves_the_fit_before(Selector, n_calls, warm_start):
    X, y = make_data("regression")
    selector = quick(Selector, decoder=_Interrupting, warm_start=warm_start)
    _Interrupting.countdown = 10**9
    selector.fit(X, y)
    before, prediction = plain_state(selector), selector.predict(X)
    X_new, y_new = make_data("regression", seed=1)
    _Interrupting.countdown = n_calls
    with pytest.raises(KeyboardInterrupt):
        selector.fit(X_new, y_new)
    _Interrupting.countdown = 10**9
    np.testing.assert_equal(plain_state(selector), before)
    assert_array_equal(selector.predict(X), prediction)


@both
def test_interrupted_fit_on_other_features_leaves_the_fit_before(Selector):
    pd = pytest.importorskip("pandas")
    X, y = make_data("regression")
    names = [f"c{j}" for j in range(10)]
    selector = quick(Selector, decoder=_Interrupting)
    _Interrupting.countdown = 10**9
    selector.fit(pd.DataFrame(X, columns=names), y)
    _Interrupting.countdown = 5
    with pytest.raises(KeyboardInterrupt):
        selector.fit(X[:, :8], y)
    assert selector.n_features_in_ == 10
    assert_array_equal(selector.feature_names_in_, names)


# Planted truth


def planted(kind, seed):
    rng = np.random.default_rng(seed)
    if kind == "linear":
        X = rng.normal(size=(400, 30))
        relevant = rng.choice(30, 5, replace=False)
        y = X[:, relevant] @ [1, -1, 1.5, -1.5, 2] + 0.1 * rng.normal(size=400)
    else:
        X = rng.normal(size=(600, 20))
        relevant = rng.choice(20, 2, replace=False)
        y = (X[:, relevant] > 0).sum(axis=1) % 2
    return X, y, np.sort(relevant)


@both
@pytest.mark.parametrize("kind, seed", [("linear", 0), ("xor", 0), ("xor", 1)])
def test_planted_columns_are_found(Selector, kind, seed):
    X, y, relevant = planted(kind, seed)
    selector = Selector(len(relevant), device="cpu", random_state=seed).fit(X, y)
    assert_array_equal(selector.selected_indices_, relevant)
    assert selector.probabilities_.shape == (len(relevant), X.shape[1])
    assert selector.n_unique_ <= len(relevant)


@both
def test_k_beyond_the_columns_that_vary_keeps_them_all(Selector):
    X = np.ones((60, 30))
    varying = np.arange(3, 30, 3)
    X[:, varying] = make_X(60, len(varying))
    y = X[:, 3] > 0
    for k in (len(varying), len(varying) + 1, 29):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            selected = quick(Selector, k).fit(X, y).selected_indices_
        told = any("Only 9 of the columns" in str(w.message) for w in caught)
        assert told == (k > len(varying))
        assert len(selected) == k
        assert set(varying) <= set(selected)


# Local search and greedy start


# Columns are noisy copies of 10 factors; greedy selection finds one of each. A search
# of one epoch that is hot to the end misses some with most seeds, which the held-out
# rows tell.
MISSES = {"temperature": (10, 5), "max_iter": 1, "tuning_iter": 40}


def _factors_found(Selector, seed, **parameters):
    X, blocks = make_blocks(600, 60, n_blocks=10, noise=0.3, random_state=seed)
    assert len(set(blocks[greedy_columns(X, 10)])) == 10
    selector = quick(Selector, 10, random_state=seed, **MISSES, **parameters).fit(X)
    return len(set(blocks[selector.selected_indices_]))


@both
@pytest.mark.parametrize("make", [make_linear, make_xor, make_blocks])
def test_the_loss_from_a_greedy_start_is_no_higher_than_that_of_greedy(Selector, make):
    for seed in range(2):
        X, *others = make(random_state=seed)
        y, k = (None, 10) if make is make_blocks else (others[0], len(others[1]))
        options = {"init": "greedy", "tuning_iter": 40, "random_state": seed}
        # A cold search of one epoch at hardly any rate: the decoder of greedy columns,
        # tuned in the same way and judged by the same rows.
        stays = {"learning_rate_selector": 1e-12, "temperature": (0.01, 0.01)}
        stays |= {"max_iter": 1, "n_surplus": 0, "n_trials": 0}
        greedy = Selector(k, **stays, **options).fit(X, y)
        if make is make_linear:  # all rows tell the same as those not held out
            expected = greedy_columns(X, k, target=y)
            assert set(greedy.selected_indices_) == set(expected)
        own = Selector(k, max_iter=20, **options).fit(X, y)
        if set(own.selected_indices_) != set(greedy.selected_indices_):
            # The decoder may be that much worse by chance.
            assert own.restart_losses_[0] < 1.01 * greedy.restart_losses_[0]


@both
def test_a_greedy_start_finds_what_greedy_found(Selector):
    options = {"learning_rate_selector": 1.0, "init": "greedy"}
    seeds = range(4)
    without_trials = [_factors_found(Selector, s, n_trials=0, **options) for s in seeds]
    assert min(without_trials) < 10
    for seed in seeds:
        assert _factors_found(Selector, seed, n_trials=1, **options) == 10


@both
def test_the_local_search_finds_what_the_search_missed(Selector):
    seeds = range(4)
    assert min(_factors_found(Selector, s, n_trials=0) for s in seeds) < 10
    for seed in seeds:
        assert _factors_found(Selector, seed, n_trials=1) == 10


@both
def test_score_counts_columns_that_were_constant_in_training(Selector):
    X = make_X(p=6)
    X[:, 5] = 1.0
    selector = longer(Selector).fit(X)
    test = X.copy()
    same = selector.score(test)
    test[:, 5] = np.linspace(-3, 3, len(test))
    assert selector.score(test) < same
    full = selector.reconstruct(selector.transform(test))
    expected = r2_score(test, full, multioutput="variance_weighted")
    assert selector.score(test) == pytest.approx(expected)


@both
def test_rows_are_scored_and_decoded_in_blocks(Selector, monkeypatch):
    X = make_X(40, 6) * np.linspace(0.5, 2, 6) + 3
    weights = np.random.default_rng(1).uniform(size=40)
    selector = quick(Selector, 3).fit(X)
    for _ in range(2):
        full = selector.reconstruct(selector.transform(X))
        for own in (None, weights):
            expected = r2_score(
                X, full, sample_weight=own, multioutput="variance_weighted"
            )
            assert selector.score(X, sample_weight=own) == pytest.approx(expected)
        monkeypatch.setattr(_data, "_CHUNK_BYTES", 8 * 6 * 7)  # seven rows


@both
def test_weights_may_be_very_large(Selector):
    X, y = make_data("regression")
    weights = np.linspace(0.1, 1, len(y))
    expected = quick(Selector).fit(X, y, sample_weight=weights)
    scaled = quick(Selector).fit(X, y, sample_weight=weights * 1.5e308)
    assert_array_equal(scaled.selected_indices_, expected.selected_indices_)


@both
@pytest.mark.parametrize("n", [400, 499, 500, 550, 600])
def test_features_are_hidden_where_no_rows_are_held_out(Selector, n, monkeypatch):
    seen = []
    original = _selectors.train

    def watched(setup, **keywords):
        seen.append((setup.options.dropout, setup.batches.has_validation))
        return original(setup, **keywords)

    monkeypatch.setattr(_selectors, "train", watched)
    X = make_X(n, 40)
    quick(Selector, 3).fit(X, X[:, 0])
    quick(Selector, 3).fit(X)
    expected = 0.375 if n < 500 else 0.0  # 10 of 16 rows are left
    assert seen == [((expected,), n >= 500), ((0.0,), n >= 500)]


@both
def test_trials_of_a_warm_start_begin_with_new_decoders(Selector, monkeypatch):
    seen = []
    original = _training.local_search

    def watched(setup, *arguments):
        seen.append(setup.model.initial_decoders[0])
        return original(setup, *arguments)

    monkeypatch.setattr(_training, "local_search", watched)
    X, y = make_data("regression", n=600)
    selector = quick(Selector, warm_start=True)
    selector.fit(X, y).fit(X, y)
    for name, values in seen[0].items():
        assert torch.equal(values, seen[1][name])


def weight_norm_decoder(n_inputs, n_outputs):
    first = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(n_inputs, 8))
    return torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Linear(8, n_outputs))


@both
@pytest.mark.parametrize("n", [100, 600])
def test_decoders_that_cannot_be_copied(Selector, n):
    X, y = make_data("regression", n=n)
    selector = quick(Selector, decoder=weight_norm_decoder).fit(X, y)
    assert len(selector.selected_indices_) == selector.k


def adviser_of(monkeypatch, selector, X, y=None):
    """The adviser of a fit, and how often it was asked for alternatives."""
    advisers, original = [], GreedyAdviser.alternatives

    def watched(adviser, columns):
        advisers.append(adviser)
        return original(adviser, columns)

    with monkeypatch.context() as patch:
        patch.setattr(GreedyAdviser, "alternatives", watched)
        selector.fit(X, y)
    return advisers


@both
@pytest.mark.parametrize(
    ("task", "n", "expected"),
    [
        ("reconstruction", 600, (True, False, False)),
        ("reconstruction", 400, (False, False, False)),
        ("classification", 400, (False, True, True)),
        ("regression", 600, (False, True, False)),
        ("regression", 2500, (False, False, False)),
    ],
)
def test_what_the_local_search_tries_first(Selector, task, n, expected, monkeypatch):
    X, y = make_data(task, n=n)
    adviser, *_ = adviser_of(monkeypatch, quick(Selector, n_trials=5), X, y)
    tries = adviser.n_perturbations > 0, adviser.by_target, adviser.with_curves
    assert tries == expected
    assert adviser_of(monkeypatch, quick(Selector, n_trials=0), X, y) == []


@both
def test_a_default_search_that_was_short_does_not_warn(Selector):
    X, y = make_data("classification", n=600)
    short = {"batch_size": 600, "learning_rate_selector": 1e-9, "random_state": 0}
    own = {"tuning_iter": 2, "n_trials": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not Selector(3, **short, **own).fit(X, y).converged_
    with pytest.warns(ConvergenceWarning):
        Selector(3, **short, **own | {"n_trials": 0}).fit(X, y)


@both
def test_advice_for_a_search_that_a_callback_ended(Selector):
    selector = quick(Selector, max_iter=40, tuning_iter=0)
    best = RunResult(Selection(np.arange(3), 3), 1.0, {})
    best.history = {"temperature": np.full(7, 1.0)}
    options = selector._training_options(100, "regression")
    with pytest.warns(ConvergenceWarning, match=r"7 epochs. Increase learning_rate"):
        selector._warn_if_unsure(best, options)
    best.history = {"temperature": np.full(40, 1.0)}
    with pytest.warns(ConvergenceWarning, match=r"40 epochs.* max_iter \(to 80"):
        selector._warn_if_unsure(best, options)


@both
def test_warm_start_from_a_cold_fit_is_refused(Selector):
    X, y = make_data("classification")
    selector = quick(Selector).fit(X, y)
    with pytest.raises(ValueError, match=r"\(the last one had warm_start=False\)"):
        selector.set_params(warm_start=True).fit(X, y)


@both
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_targets_may_be_sparse(Selector, task):
    X, y = make_data(task)
    dense = quick(Selector).fit(X, y)
    with pytest.warns(DataConversionWarning, match="column-vector"):
        sparse = quick(Selector).fit(X, scipy.sparse.csr_matrix(y[:, None]))
    assert_array_equal(sparse.predict(X), dense.predict(X))


def test_warm_start_with_another_map_is_refused():
    X, y = make_data("classification")
    selector = quick(IPCAESelector, warm_start=True, map_bias=False).fit(X, y)
    with pytest.raises(ValueError, match=r"warm_start=True needs .* layer sizes"):
        selector.set_params(map_bias=True).fit(X, y)


# The last tuning, on the rows held out as well


@pytest.fixture
def drawn(monkeypatch):
    """The batches of each fit: those of the search and, if any, of the last tuning."""
    found, own = [], _problem.TrainingBatches

    def make(*arguments, **keywords):
        found.append(own(*arguments, **keywords))
        return found[-1]

    monkeypatch.setattr(_problem, "TrainingBatches", make)
    return found


def short(**parameters):
    return quick(IPCAESelector, n_trials=0, **parameters)


def test_the_last_tuning_is_on_all_rows(drawn):
    short().fit(*make_data("regression", 600))
    search, last = drawn
    held_out = search.held_out.index.numpy()
    assert len(held_out) == 180
    assert_array_equal(np.intersect1d(held_out, search.training.index), [])
    assert_array_equal(last.training.index, np.arange(600))
    assert last.batch_size == search.batch_size


def test_the_last_tuning_gives_the_decoder():
    X, y = make_data("regression", 600)
    with patch.object(_settings, "_MOST_ROWS_TO_REFIT", 0):
        judged = short().fit(X, y)
    last = short().fit(X, y)
    assert_array_equal(last.selected_indices_, judged.selected_indices_)
    assert_array_equal(last.restart_losses_, judged.restart_losses_)
    assert_array_equal(last.importances_, judged.importances_)
    assert abs(last.predict(X) - judged.predict(X)).max() > 1e-3


def test_directions_are_what_the_last_tuning_learns(drawn):
    X, _ = make_data("reconstruction", 520, 4200)
    selector = short().fit(X)
    search, last = drawn
    assert search.target.shape == last.target.shape
    assert search.target.shape[1] <= 520
    assert selector.reconstruct(selector.transform(X[:5])).shape == (5, 4200)


@pytest.mark.parametrize("parameters", [{}, {"batch_size": 5000}])
def test_a_run_in_company_takes_as_many_steps_as_alone(drawn, parameters):
    X, y = make_data("regression", 1500)
    folds = [train for train, _ in KFold(5).split(X)]
    prototype = short(**parameters)
    data = prototype._check(X, y, None)
    prototype._fit_cases(data, [(3, rows) for rows in folds])
    together = [batches.n_train_batches for batches in drawn]
    drawn.clear()
    short(**parameters).fit(X[folds[0]], y[folds[0]])
    alone = [batches.n_train_batches for batches in drawn]
    assert together == pytest.approx(alone, rel=0.03)


def test_a_batch_of_all_rows_stays_one(drawn):
    short(batch_size=5000).fit(*make_data("regression", 600))
    assert [batches.n_train_batches for batches in drawn] == [1, 1]
