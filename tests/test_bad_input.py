"""Bad input: an error that names the parameter or the column, and nothing lost."""

import datetime
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import nn

from ipcae_sklearn import CAESelector, IPCAESelector

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

both = pytest.mark.parametrize("Selector", [CAESelector, IPCAESelector])
TASKS = ["reconstruction", "classification", "regression"]


def quick(Selector, k=3, **parameters):
    defaults = {
        "max_iter": 4,
        "tuning_iter": 2,
        "hidden_layer_sizes": (8,),
        "device": "cpu",
        "random_state": 0,
    }
    return Selector(k, **defaults | parameters)


def make_data(n=60, p=8):
    X = np.random.default_rng(0).normal(size=(n, p))
    return X, X[:, 0] - X[:, 1]


def check_refused(selector, X, y, error, match, **fit_parameters):
    """Fails as expected, and leaves nothing behind."""
    before = vars(selector).copy()
    with pytest.raises(error, match=match):
        selector.fit(X, y, **fit_parameters)
    assert vars(selector) == before
    with pytest.raises(NotFittedError):
        selector.get_support()


# Parameters

POSITIVE_INTEGERS = ["n_gradient_samples", "n_iter_no_change", "n_init"]
INTEGERS_OR_AUTO = ["max_iter", "batch_size", "n_decoder_steps"]
NOT_NEGATIVE = ["diversity", "weight_decay", "tol"]
RATES = ["learning_rate_init", "learning_rate_selector"]
OPTIONS = [
    "task",
    "init",
    "temperature_schedule",
    "noise",
    "gradient",
    "standardize",
    "early_stopping",
    "warm_start",
]

BAD_PARAMETERS = [
    *[(name, "unknown", ValueError) for name in OPTIONS],
    *[(name, None, ValueError) for name in OPTIONS],
    *[(name, 2, ValueError) for name in OPTIONS],
    *[(name, ["auto"], ValueError) for name in OPTIONS],
    *[(name, 0, ValueError) for name in POSITIVE_INTEGERS + INTEGERS_OR_AUTO],
    *[(name, -1, ValueError) for name in POSITIVE_INTEGERS + INTEGERS_OR_AUTO],
    *[(name, 1.5, TypeError) for name in POSITIVE_INTEGERS + INTEGERS_OR_AUTO],
    *[(name, True, TypeError) for name in POSITIVE_INTEGERS + INTEGERS_OR_AUTO],
    *[(name, "many", (TypeError, ValueError)) for name in POSITIVE_INTEGERS],
    *[(name, "many", ValueError) for name in INTEGERS_OR_AUTO],
    *[(name, None, (TypeError, ValueError)) for name in POSITIVE_INTEGERS],
    *[(name, None, ValueError) for name in INTEGERS_OR_AUTO],
    *[(name, -0.1, ValueError) for name in NOT_NEGATIVE + RATES],
    *[(name, np.nan, ValueError) for name in NOT_NEGATIVE + RATES],
    *[(name, np.inf, ValueError) for name in NOT_NEGATIVE + RATES],
    *[(name, "small", (TypeError, ValueError)) for name in NOT_NEGATIVE + RATES],
    *[(name, None, (TypeError, ValueError)) for name in NOT_NEGATIVE + RATES],
    *[(name, [0.1], TypeError) for name in NOT_NEGATIVE + RATES],
    *[(name, 0, ValueError) for name in RATES],
    ("k", 0, ValueError),
    ("k", -1, ValueError),
    ("k", 0.0, ValueError),
    ("k", 1.0, ValueError),
    ("k", 2.5, ValueError),
    ("k", -0.5, ValueError),
    ("k", np.nan, ValueError),
    ("k", 0.01, ValueError),  # of 8 columns rounds down to 0
    ("k", "most", ValueError),
    ("k", None, TypeError),
    ("k", True, TypeError),
    ("k", [3], TypeError),
    ("k", (1, 2), TypeError),
    ("tuning_iter", -1, ValueError),
    ("tuning_iter", 1.5, TypeError),
    ("tuning_iter", "none", ValueError),
    ("validation_fraction", -0.1, ValueError),
    ("validation_fraction", 1.0, ValueError),
    ("validation_fraction", 0.999, ValueError),  # leaves no row to train on
    ("validation_fraction", 1.5, ValueError),
    ("validation_fraction", "some", ValueError),
    ("validation_fraction", None, ValueError),
    ("temperature", (0, 0.1), ValueError),
    ("temperature", (10, 0), ValueError),
    ("temperature", (10, -1), ValueError),
    ("temperature", (0.1, 10), ValueError),  # stops above its start
    ("temperature", (np.inf, 1), ValueError),
    ("temperature", (np.nan, 1), ValueError),
    ("temperature", 10, ValueError),
    ("temperature", None, ValueError),
    ("temperature", (10,), ValueError),
    ("temperature", (10, 1, 0.1), ValueError),
    ("temperature", ("10", "1"), TypeError),
    ("hidden_layer_sizes", 0, ValueError),
    ("hidden_layer_sizes", (8, -1), ValueError),
    ("hidden_layer_sizes", (8, 2.5), TypeError),
    ("hidden_layer_sizes", 2.5, TypeError),
    ("hidden_layer_sizes", None, TypeError),
    ("hidden_layer_sizes", "many", TypeError),
    ("hidden_layer_sizes", (8, True), TypeError),
    ("hidden_layer_sizes", True, TypeError),
    ("verbose", "no", TypeError),
    ("verbose", None, TypeError),
    ("decoder", "mlp", TypeError),
    ("decoder", 3, TypeError),
    ("decoder", nn.Linear(3, 8), TypeError),  # a module in place of its factory
    ("class_weight", "unbalanced", ValueError),
    ("class_weight", "balanced", ValueError),  # the target is no class
    ("class_weight", {0: 1, 1: 2}, ValueError),
    ("class_weight", 2.0, ValueError),
    ("device", "abacus", ValueError),
    ("device", 1.5, ValueError),
    ("device", None, ValueError),
    ("device", "meta", ValueError),  # a device on which nothing can be computed
    ("random_state", "seed", ValueError),
    ("random_state", -1, ValueError),
    ("random_state", 2**32, ValueError),
    ("random_state", 1.5, ValueError),
]
BAD_PARAMETERS_IPCAE = [
    *[(name, "unknown", ValueError) for name in ("map", "embedding_init", "map_bias")],
    *[(name, None, ValueError) for name in ("map", "embedding_init", "map_bias")],
    ("embedding_dim", 0, ValueError),
    ("embedding_dim", -3, ValueError),
    ("embedding_dim", 2.5, TypeError),
    ("embedding_dim", "k", ValueError),
    ("embedding_dim", None, ValueError),
    ("map_hidden_layer_sizes", 0, ValueError),
    ("map_hidden_layer_sizes", (8, 0), ValueError),
    ("map_hidden_layer_sizes", None, TypeError),
]


def _bad_parameters():
    for Selector, cases in [
        (CAESelector, BAD_PARAMETERS),
        (IPCAESelector, BAD_PARAMETERS + BAD_PARAMETERS_IPCAE),
    ]:
        for name, value, error in cases:
            label = f"{Selector.__name__}-{name}-{value}"
            yield pytest.param(Selector, name, value, error, id=label)


@pytest.mark.parametrize("Selector, name, value, error", list(_bad_parameters()))
def test_bad_parameter(Selector, name, value, error):
    X, y = make_data()
    selector = quick(Selector).set_params(**{name: value})
    words = {"random_state": "(?i)random_state|seed"}
    check_refused(selector, X, y, error, words.get(name, rf"\b{name}\b"))


@pytest.mark.parametrize(
    "parameters, match",
    [
        ({"map": "full", "map_hidden_layer_sizes": (4,)}, "map_hidden_layer_sizes"),
        ({"map": "per_row", "init": "greedy"}, "init='greedy'"),
        ({"map_hidden_layer_sizes": 4, "init": "greedy"}, "init='greedy'"),
        ({"embedding_init": "identity", "embedding_dim": 2}, "embedding_dim >= 4"),
        ({"gradient": "gumbel_rao", "noise": "sample"}, "gumbel_rao.*noise='sample'"),
        ({"n_surplus": 1, "decoder": nn.Linear}, "n_surplus=1.*decoder"),
        ({"n_surplus": 1, "warm_start": True}, "n_surplus=1.*warm_start"),
        ({"n_surplus": 1, "tuning_iter": 0}, "n_surplus=1.*tuning_iter=0"),
        ({"n_surplus": 1, "map": "full"}, "n_surplus=1.*map='full'"),
        ({"n_candidates": 9, "warm_start": True}, "n_candidates=9.*warm_start=True"),
        ({"n_candidates": 2}, "n_candidates=2 .*nodes"),
        ({"n_candidates": 9, "task": "reconstruction"}, "n_candidates=9 .*target"),
    ],
    ids=str,
)
def test_parameters_that_do_not_go_together(parameters, match):
    check_refused(quick(IPCAESelector, **parameters), *make_data(), ValueError, match)


@both
def test_unknown_parameter(Selector):
    with pytest.raises(TypeError, match="n_features_to_select"):
        Selector(n_features_to_select=3)
    with pytest.raises(ValueError, match="n_features_to_select"):
        Selector().set_params(n_features_to_select=3)


@both
@pytest.mark.parametrize("fraction", [0.7, 0.99])
def test_validation_fraction_that_leaves_no_rows(Selector, fraction):
    X, y = make_data(3)
    selector = quick(Selector, validation_fraction=fraction)
    check_refused(selector, X, y, ValueError, r"validation_fraction=.* of 3 rows")


@both
@pytest.mark.parametrize("name", ["None", "nan", "NA"])
def test_labels_that_are_missing(Selector, name):
    pd = pytest.importorskip("pandas")
    missing = {"None": None, "nan": np.nan, "NA": pd.NA}[name]
    X, _ = make_data()
    y = np.array(["a", "b"] * len(X), dtype=object)[: len(X)]
    y[[5, 7]] = missing
    match = f"y has no value in 2 of {len(X)} rows .*row 5"
    for target in (y, pd.Series(y), list(y)):
        check_refused(quick(Selector), X, target, ValueError, match)


@both
def test_labels_of_two_kinds(Selector):
    X, _ = make_data()
    y = np.array(["a", 1] * len(X), dtype=object)[: len(X)]
    check_refused(quick(Selector), X, y, ValueError, "y holds text and other values")


@both
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
def test_no_cuda(Selector, device):
    selector = quick(Selector, device=device)
    check_refused(selector, *make_data(), ValueError, "device.*no CUDA device")


@both
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_device_that_is_not_there(Selector):
    selector = quick(Selector, device="cuda:99")
    check_refused(selector, *make_data(), ValueError, "device")


@both
def test_parameters_are_checked_by_fit_alone(Selector):
    selector = Selector(k=-1, task="unknown", temperature="cold", device="abacus")
    assert selector.k == -1


# X


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "value, word", [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_column_with_a_value_that_is_not_finite(Selector, task, value, word, dtype):
    X, y = make_data()
    X[[4, 7], 5] = value
    y = {"reconstruction": None, "classification": y > 0, "regression": y}[task]
    advice = "SimpleImputer" if word == "NaN" else "Clip it"
    match = rf"X contains {word} in column 5 \(2 of 60 rows\).*{advice}"
    check_refused(quick(Selector), X.astype(dtype), y, ValueError, match)


@both
def test_named_column_with_nan(Selector):
    pd = pytest.importorskip("pandas")
    X, y = make_data()
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    frame.loc[3, "d"] = np.nan
    check_refused(quick(Selector), frame, y, ValueError, "NaN in column 'd'")
    frame = pd.DataFrame(X, columns=list("abcdefgh")).astype({"f": "Float64"})
    frame.loc[3, "f"] = pd.NA
    check_refused(quick(Selector), frame, y, ValueError, "NaN in column 'f'")


@both
@pytest.mark.parametrize("container", ["csr_array", "csc_array", "csr_matrix"])
def test_sparse_column_with_nan(Selector, container):
    X, y = make_data()
    X[4, 5] = np.nan
    X = getattr(scipy.sparse, container)(X * (np.abs(X) > 1) + 0 * X)
    check_refused(quick(Selector), X, y, ValueError, "NaN in column 5")


@both
@pytest.mark.parametrize("method", ["transform", "predict", "score"])
def test_nan_after_fit(Selector, method):
    X, y = make_data()
    selector = quick(Selector).fit(X, y)
    column = selector.selected_indices_[0]
    X[0, column] = np.nan
    arguments = (X, y) if method == "score" else (X,)
    match = "NaN" if method == "transform" else f"NaN in column {column}"
    with pytest.raises(ValueError, match=match):
        getattr(selector, method)(*arguments)


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shape", [(0, 8), (1, 8), (60, 0)])
def test_too_little_data(Selector, task, shape):
    X = np.ones(shape)
    y = None if task == "reconstruction" else np.ones(len(X))
    match = r"minimum of [12] is required"
    check_refused(quick(Selector, task=task), X, y, ValueError, match)


@both
@pytest.mark.parametrize("X", [np.ones(8), np.ones((6, 8, 2)), 3.0, "data", None])
def test_data_that_is_no_table(Selector, X):
    with pytest.raises((TypeError, ValueError), match="array"):
        quick(Selector).fit(X)


@both
def test_strings(Selector):
    X, y = make_data()
    words = X.astype(object)
    words[3, 2] = "red"
    check_refused(quick(Selector), words, y, ValueError, "red")
    words = np.char.add(X.astype(str), "x")
    match = f"the text '{words[0, 0]}' in column 0"
    check_refused(quick(Selector), words, y, ValueError, match)


@both
def test_object_column_of_a_frame(Selector):
    pd = pytest.importorskip("pandas")
    X, y = make_data()
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    frame["c"] = ["red", "green"] * 30
    check_refused(quick(Selector), frame, y, ValueError, "red")


@both
def test_objects_that_are_numbers_are_taken(Selector):
    X, y = make_data()
    selector = quick(Selector).fit(X.astype(object), y)
    expected = quick(Selector).fit(X, y)
    assert_array_equal(selector.selected_indices_, expected.selected_indices_)


@both
def test_complex_numbers(Selector):
    X, y = make_data()
    check_refused(quick(Selector), X + 1j, y, ValueError, "[Cc]omplex")


@both
@pytest.mark.parametrize("container", ["coo_array", "lil_array", "dok_array"])
def test_other_sparse_formats_are_taken(Selector, container):
    X, y = make_data()
    selector = quick(Selector).fit(getattr(scipy.sparse, container)(X), y)
    expected = quick(Selector).fit(X, y)
    assert_array_equal(selector.selected_indices_, expected.selected_indices_)


# y


@both
@pytest.mark.parametrize("task", ["auto", "classification", "regression"])
@pytest.mark.parametrize("n", [59, 61])
def test_target_of_another_length(Selector, task, n):
    X, _ = make_data()
    y = np.arange(n) % 2 + (0.5 if task == "regression" else 0)
    check_refused(quick(Selector, task=task), X, y, ValueError, "inconsistent numbers")


@both
@pytest.mark.parametrize("task", ["auto", "classification", "regression"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_target_that_is_not_finite(Selector, task, value):
    X, y = make_data()
    y[3] = value
    match = r"(?i)y contains (NaN|infinity)"
    check_refused(quick(Selector, task=task), X, y, ValueError, match)
    check_refused(quick(Selector, task=task), X, np.c_[y, y], ValueError, match)


@both
def test_target_with_none(Selector):
    X, y = make_data()
    labels = np.where(y > 0, "a", "b").astype(object)
    labels[4] = None
    with pytest.raises((TypeError, ValueError), match=r"y|label|str"):
        quick(Selector).fit(X, labels)


@both
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_target_is_required(Selector, task):
    X, _ = make_data()
    match = f"task='{task}' requires y"
    check_refused(quick(Selector, task=task), X, None, ValueError, match)


@both
@pytest.mark.parametrize("y", [np.zeros(60, int), ["same"] * 60], ids=["0", "same"])
def test_one_class_only(Selector, y):
    X, _ = make_data()
    check_refused(quick(Selector), X, y, ValueError, "y has one class only")


@both
def test_one_class_only_with_a_weight(Selector):
    X, y = make_data()
    labels = (y > 0).astype(int)
    match = "sample_weight"
    check_refused(quick(Selector), X, labels, ValueError, match, sample_weight=labels)


@both
@pytest.mark.parametrize("n", [60, 600])
@pytest.mark.parametrize("validation_fraction", ["auto", 0.0, 0.1, 0.5])
def test_class_with_one_row(Selector, n, validation_fraction):
    X, y = make_data(n)
    labels = (y > 0).astype(int)
    labels[7] = 2
    selector = quick(Selector, validation_fraction=validation_fraction)
    selector.fit(X, labels)
    assert_array_equal(selector.classes_, [0, 1, 2])
    assert selector.predict_proba(X).shape == (n, 3)


@both
@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
@pytest.mark.filterwarnings("ignore:y holds 60 whole numbers:UserWarning")
@pytest.mark.parametrize("validation_fraction", ["auto", 0.01, 0.1, 0.5])
def test_every_class_with_one_row(Selector, validation_fraction):
    X, _ = make_data()
    selector = quick(Selector, validation_fraction=validation_fraction)
    selector.fit(X, np.arange(60))
    assert len(selector.classes_) == 60


@both
@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
def test_whole_numbers_of_pandas_are_the_same_numbers(Selector):
    pd = pytest.importorskip("pandas")
    X, _ = make_data(n=80)
    numbers = np.random.default_rng(0).permutation(80) + 100
    with pytest.warns(UserWarning, match=r"y holds 80 whole numbers \(int64\)"):
        selector = quick(Selector).fit(X, pd.Series(numbers, dtype="Int64"))
    assert selector.task_ == "classification"
    assert selector.classes_.dtype.kind == "i"


@both
def test_a_selector_that_diverges_in_the_last_step_is_refused(Selector):
    X, _ = make_data()
    selector = quick(
        Selector, max_iter=1, tuning_iter=0, learning_rate_selector=3.4e38, n_trials=0
    )
    with pytest.raises(ValueError, match="selector became non-finite in epoch 1"):
        selector.fit(X, X[:, 0])


@both
def test_whole_numbers_that_look_like_values_are_told_of(Selector):
    X, _ = make_data(n=90)
    y = np.arange(90) // 3
    with pytest.warns(UserWarning, match="task='regression'"):
        selector = quick(Selector).fit(X, y)
    assert selector.task_ == "classification"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        quick(Selector, task="classification").fit(X, y)
        quick(Selector).fit(X, np.array(["a", "b", "c"])[y % 3])


@both
def test_continuous_target_is_no_class(Selector):
    X, y = make_data()
    selector = quick(Selector, task="classification")
    check_refused(selector, X, y, ValueError, "Unknown label type")


@both
def test_strings_are_no_regression_target(Selector):
    X, y = make_data()
    selector = quick(Selector, task="regression")
    check_refused(selector, X, np.where(y > 0, "a", "b"), ValueError, "a|b")


@both
def test_several_targets_of_several_classes(Selector):
    X, _ = make_data()
    Y = np.c_[np.arange(60) % 3, np.arange(60) % 4]
    check_refused(quick(Selector), X, Y, ValueError, "y has several columns")


@both
def test_structured_target(Selector):
    X, y = make_data()
    pairs = np.array([(v > 0, v) for v in y], dtype=[("event", bool), ("time", float)])
    check_refused(quick(Selector), X, pairs, ValueError, "fields .'event', 'time'.")


@both
def test_target_of_three_dimensions(Selector):
    X, _ = make_data()
    check_refused(quick(Selector), X, np.zeros((60, 2, 2)), ValueError, "dim 3|3D|dim")


@both
def test_class_weight_of_an_unknown_class(Selector):
    X, y = make_data()
    selector = quick(Selector, class_weight={0: 1, 1: 1, "other": 2})
    # scikit-learn lets a class be missing from the data: rows decide.
    selector.fit(X, (y > 0).astype(int))
    assert len(selector.classes_) == 2


@both
@pytest.mark.parametrize("weight", [-1.0, np.nan, "heavy"])
def test_class_weight_that_is_no_weight(Selector, weight):
    X, y = make_data()
    selector = quick(Selector, class_weight={0: 1, 1: weight})
    labels = (y > 0).astype(int)
    check_refused(selector, X, labels, (TypeError, ValueError), "class_weight")


@both
def test_class_weights_that_are_all_zero(Selector):
    X, y = make_data()
    selector = quick(Selector, class_weight={0: 0, 1: 0})
    check_refused(selector, X, (y > 0).astype(int), ValueError, "class_weight")


@both
def test_one_class_of_a_weight(Selector):
    X, y = make_data()
    selector = quick(Selector, class_weight={0: 0, 1: 1})
    check_refused(selector, X, (y > 0).astype(int), ValueError, "one class only")


@both
def test_weights_that_leave_one_row(Selector):
    X, y = make_data()
    labels = np.zeros((len(X), 2), dtype=int)
    labels[0, 0] = 1
    labels[:, 1] = y > 0
    weights = [{0: 0, 1: 1}, {0: 1, 1: 1}]
    selector = quick(Selector, class_weight=weights)
    check_refused(selector, X, labels, ValueError, "fewer than two rows")


# sample_weight


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "weights",
    [
        -np.ones(60),
        np.r_[-1e-9, np.ones(59)],
        np.zeros(60),
        np.r_[1, np.zeros(59)],
        np.ones(59),
        np.ones((60, 1)),
        np.r_[np.nan, np.ones(59)],
    ],
    ids=["negative", "one negative", "zero", "one row", "short", "2d", "nan"],
)
def test_bad_sample_weight(Selector, task, weights):
    X, y = make_data()
    y = {"reconstruction": None, "classification": y > 0, "regression": y}[task]
    match = "sample_weight|inconsistent"
    check_refused(quick(Selector), X, y, ValueError, match, sample_weight=weights)


@both
@pytest.mark.parametrize("value", [np.inf, "heavy", None])
def test_sample_weight_that_is_no_number(Selector, value):
    X, y = make_data()
    weights = np.array([value] * 60)
    match = "sample_weight|heavy|NoneType"
    error = (TypeError, ValueError)
    check_refused(quick(Selector), X, y, error, match, sample_weight=weights)


@both
@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_extreme_sample_weights_are_taken(Selector, factor):
    X, y = make_data()
    weights = factor * np.linspace(1, 2, 60)
    selector = quick(Selector).fit(X, y, sample_weight=weights)
    expected = quick(Selector).fit(X, y, sample_weight=weights / factor)
    assert_array_equal(selector.selected_indices_, expected.selected_indices_)


@both
def test_weights_that_leave_no_weight_to_a_batch(Selector):
    X, y = make_data(300)
    weights = np.zeros(300)
    weights[[3, 200]] = 1
    selector = quick(Selector, batch_size=10).fit(X, y, sample_weight=weights)
    assert np.isfinite(selector.history_["train_loss"]).all()
    weights[:] = 1e-12
    weights[3] = 1
    selector = quick(Selector, batch_size=10).fit(X, y, sample_weight=weights)
    assert np.isfinite(selector.history_["train_loss"]).all()


# After fit


@both
@pytest.mark.parametrize(
    "method, arguments",
    [
        ("transform", (np.ones((4, 8)),)),
        ("inverse_transform", (np.ones((4, 3)),)),
        ("get_support", ()),
        ("get_feature_names_out", ()),
        ("score", (np.ones((4, 8)), np.ones(4))),
    ],
)
def test_not_fitted(Selector, method, arguments):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(quick(Selector), method)(*arguments)


@both
@pytest.mark.parametrize("method", ["predict", "predict_proba", "reconstruct"])
def test_method_that_is_not_there(Selector, method):
    with pytest.raises(AttributeError, match=method):
        getattr(quick(Selector), method)


@both
@pytest.mark.parametrize("method", ["transform", "predict", "score"])
@pytest.mark.parametrize("p", [7, 9])
def test_other_number_of_features(Selector, method, p):
    X, y = make_data()
    selector = quick(Selector).fit(X, y)
    arguments = (np.ones((60, p)), y) if method == "score" else (np.ones((60, p)),)
    match = rf"X has {p} features, but \w+ is expecting 8 features"
    with pytest.raises(ValueError, match=match):
        getattr(selector, method)(*arguments)


@both
def test_other_number_of_features_to_reconstruct(Selector):
    X, _ = make_data()
    selector = quick(Selector).fit(X)
    with pytest.raises(ValueError, match=r"X has 8 features.*takes the 3 selected"):
        selector.reconstruct(X)
    with pytest.raises(ValueError, match="different shape"):
        selector.inverse_transform(X)
    with pytest.raises(ValueError, match="NaN"):
        selector.reconstruct(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="expecting 8 features"):
        selector.score(X[:, :3])


@both
@pytest.mark.parametrize("method", ["transform", "predict"])
def test_other_feature_names(Selector, method):
    pd = pytest.importorskip("pandas")
    X, y = make_data()
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    selector = quick(Selector).fit(frame, y)
    with pytest.raises(ValueError, match="feature names should match"):
        getattr(selector, method)(frame[list("hgfedcba")])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        getattr(selector, method)(X)


@both
def test_bad_names_asked_for(Selector):
    selector = quick(Selector).fit(make_data()[0])
    with pytest.raises(ValueError, match="input_features"):
        selector.get_feature_names_out(["a", "b"])


# Training that fails


@both
@pytest.mark.parametrize("task", TASKS)
def test_loss_that_becomes_non_finite(Selector, task):
    X, y = make_data()
    y = {"reconstruction": None, "classification": y > 0, "regression": y}[task]
    selector = quick(Selector, hidden_layer_sizes=(), learning_rate_init=1e38)
    match = r"non-finite in epoch \d+\. Lower learning_rate_init"
    check_refused(selector, X, y, ValueError, match)


@both
def test_loss_that_becomes_non_finite_in_the_tuning(Selector):
    class Decoder(nn.Linear):
        """Returns NaN once it has been called five times in training."""

        n_calls = 0

        def forward(self, x):
            self.n_calls += self.training
            return super().forward(x) + (np.nan if self.n_calls > 5 else 0)

    X, y = make_data()
    selector = quick(Selector, decoder=Decoder, max_iter=5, batch_size=60)
    check_refused(selector, X, y, ValueError, "non-finite in epoch 6")


@both
@pytest.mark.parametrize("warm_start", [False, True])
def test_failed_training_leaves_the_fit_before(Selector, warm_start):
    X, y = make_data()
    selector = quick(Selector, hidden_layer_sizes=(), warm_start=warm_start).fit(X, y)
    support, prediction = selector.get_support(), selector.predict(X)
    history = selector.history_["train_loss"]
    selector.set_params(learning_rate_init=1e30)
    with pytest.raises(ValueError, match="non-finite"):
        selector.fit(X + 1, y)
    assert_array_equal(selector.get_support(), support)
    assert_array_equal(selector.predict(X), prediction)
    assert_array_equal(selector.history_["train_loss"], history)
    # And it can be gone on from.
    selector.set_params(learning_rate_init=1e-3).fit(X, y)
    assert np.isfinite(selector.score(X, y))


@both
def test_failed_check_leaves_the_fit_before(Selector):
    pd = pytest.importorskip("pandas")
    X, y = make_data()
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    selector = quick(Selector).fit(frame, y)
    for bad_X, bad_y in [
        (X[:, :5], y[:10]),
        (np.full((60, 5), np.nan), y),
        (X[:, :5], np.full(60, np.nan)),
        (frame.iloc[:, :5], ["same"] * 60),
    ]:
        with pytest.raises(ValueError):
            selector.fit(bad_X, bad_y)
        assert selector.n_features_in_ == 8
        assert_array_equal(selector.feature_names_in_, list("abcdefgh"))
        assert selector.task_ == "regression"
        assert selector.transform(frame).shape == (60, 3)


@both
def test_new_fit_forgets_the_names_of_the_last(Selector):
    pd = pytest.importorskip("pandas")
    X, y = make_data()
    selector = quick(Selector).fit(pd.DataFrame(X, columns=list("abcdefgh")), y)
    selector.fit(X[:, :5], y)
    assert selector.n_features_in_ == 5
    assert not hasattr(selector, "feature_names_in_")


# Columns that are not numbers


def frame_with(column):
    pandas = pytest.importorskip("pandas")
    X, y = make_data()
    frame = pandas.DataFrame(X[:, :4], columns=list("abcd"))
    values = {
        "text": ["u"] * 59 + ["3"],
        "category": pandas.Categorical(["u", "v"] * 30),
        "text of numbers but one": ["1.5"] * 59 + ["u"],
        "date": pandas.Timestamp("2020-01-31"),
        "date of a time zone": pandas.Timestamp("2020-01-31", tz="UTC"),
        "date object": [datetime.date(2020, 1, 31)] * 60,
        "duration": pandas.to_timedelta(range(60), unit="s"),
    }
    frame["c"] = values[column]
    return frame, y


HOLDS = {
    "text": "the text 'u'",
    "category": "the text 'u'",
    "text of numbers but one": "the text 'u'",
    "date": "dates .2020-01-31.*",
    "date of a time zone": "dates or durations .2020-01-31.*",
    "date object": "dates or durations .2020-01-31.*",
    "duration": "durations .*",
}


@pytest.mark.parametrize("column", HOLDS)
@pytest.mark.parametrize("task", TASKS)
@both
def test_a_column_that_holds_no_numbers_is_named(Selector, task, column):
    X, y = frame_with(column)
    y = y > 0 if task == "classification" else y
    selector = quick(Selector, task=task)
    match = f"{HOLDS[column]} in column 'c'.*drop it"
    check_refused(selector, X, y, ValueError, match)
    check_refused(selector, X[["c"]], y, ValueError, match)


def test_such_a_column_is_named_after_the_fit_too():
    X, y = frame_with("text")
    selector = quick(CAESelector, task="regression").fit(X.assign(c=1.5 * y), y)
    with pytest.raises(ValueError, match="the text 'u' in column 'c'"):
        selector.predict(X)


def test_dates_of_polars_are_no_numbers():
    polars = pytest.importorskip("polars")
    X, _ = make_data()
    frame = polars.DataFrame({"a": X[:, 0], "b": [datetime.date(2020, 1, 31)] * 60})
    check_refused(quick(CAESelector), frame, None, ValueError, "Date in column 'b'")


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist])
def test_a_column_of_an_array_that_holds_a_text_is_numbered(form):
    X = make_data()[0].astype(object)
    X[3, 1] = "n/a"
    match = "the text 'n/a' in column 1"
    check_refused(quick(CAESelector), form(X), None, ValueError, match)


def test_other_errors_stay_as_they_are():
    X = make_data()[0].astype(object)
    X[0, 0] = {"foo": "bar"}
    match = "argument must be .* string.* number"
    check_refused(quick(CAESelector), X, None, TypeError, match)


def test_categories_that_are_numbers_are_numbers():
    pandas = pytest.importorskip("pandas")
    X, _ = make_data()
    frame = pandas.DataFrame(X)
    frame[2] = pandas.Categorical(np.arange(60) % 3)
    X[:, 2] = np.arange(60) % 3
    a, b = quick(CAESelector).fit(frame), quick(CAESelector).fit(X)
    assert_array_equal(a.probabilities_, b.probabilities_)


@pytest.mark.parametrize("unit", ["datetime64[D]", "timedelta64[D]"])
def test_dates_are_no_target_unless_they_are_classes(unit):
    X, _ = make_data()
    y = (np.arange(60) // 20).astype(unit)
    check_refused(quick(CAESelector), X, y, ValueError, "y holds dates.*numbers")
    selector = quick(CAESelector, task="classification").fit(X, y)
    assert_array_equal(selector.classes_, np.unique(y))


@pytest.mark.parametrize(
    "method, task, match",
    [
        ("predict", "reconstruction", "it was one of reconstruction"),
        ("predict_proba", "regression", "needs a fit of classification"),
        ("reconstruct", "regression", "it was one of regression"),
        ("reconstruct", None, "needs a fit of reconstruction; there was none"),
    ],
)
def test_why_a_method_is_not_there(method, task, match):
    X, y = make_data()
    selector = quick(CAESelector)
    if task is not None:
        selector.set_params(task=task).fit(X, y)
    assert not hasattr(selector, method)
    with pytest.raises(AttributeError, match=f"no attribute '{method}'") as raised:
        getattr(selector, method)
    with pytest.raises(AttributeError, match=match):
        raise raised.value.__cause__
