"""Checks of parameters: what passes, what is refused, and that errors name it."""

import numpy as np
import pytest

from ipcae_sklearn._parameters import (
    check_class_weight,
    check_number,
    check_number_or,
    check_option,
    check_sizes,
    check_temperature,
    resolve_k,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", ["a", "b", None])
def test_option_passes(value):
    check_option("noise", value, ("a", "b", None))


@pytest.mark.parametrize("value", ["c", "A", "", 0, False, [], ("a",)])
def test_option_is_refused(value):
    with pytest.raises(ValueError, match=r"noise must be one of \['a', None\], got"):
        check_option("noise", value, ("a", None))


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (1, {}),
        (-2.5, {}),
        (0, {"low": 0}),
        (1, {"high": 1}),
        (1e-300, {"low": 0, "open_low": True}),
        (np.float32(0.5), {"low": 0, "high": 1}),
        (3, {"integer": True}),
        (np.int64(3), {"low": 3, "integer": True}),
    ],
)
def test_number_passes(value, bounds):
    check_number("tol", value, **bounds)


@pytest.mark.parametrize(
    ("value", "bounds", "words"),
    [
        (-1, {"low": 0}, "tol must be >= 0, got -1"),
        (0, {"low": 0, "open_low": True}, "tol must be > 0, got 0"),
        (2, {"low": 0, "high": 1}, "tol must be >= 0 and <= 1, got 2"),
        (NAN, {}, "tol must be.*nan"),
        (NAN, {"low": 0, "high": 1}, "tol must be >= 0 and <= 1, got nan"),
        (INF, {"low": 0}, "tol must be >= 0, got inf"),
        (-INF, {"high": 0}, "tol must be.*-inf"),
    ],
)
def test_number_out_of_bounds_is_refused(value, bounds, words):
    with pytest.raises(ValueError, match=words):
        check_number("tol", value, **bounds)


@pytest.mark.parametrize("value", ["1", None, True, np.True_, [1], np.ones(1), 1j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match="tol must be a number"):
        check_number("tol", value)


@pytest.mark.parametrize("value", [1.0, np.float64(2), "1", True, None])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(TypeError, match="tol must be an integer"):
        check_number("tol", value, integer=True)


@pytest.mark.parametrize("value", ["auto", None, 2, 0.5])
def test_number_or_word_passes(value):
    check_number_or("rate", value, ("auto", None), low=0)


@pytest.mark.parametrize("value", ["Auto", None])
def test_unknown_word_is_refused(value):
    with pytest.raises(ValueError, match="rate must be a number or 'auto', got"):
        check_number_or("rate", value, ("auto",))


def test_number_beside_words_is_checked():
    with pytest.raises(ValueError, match="rate must be >= 1"):
        check_number_or("rate", 0, ("auto",), low=1)
    with pytest.raises(TypeError, match="rate must be an integer"):
        check_number_or("rate", 0.5, ("auto",), integer=True)


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        ((), ()),
        ([], ()),
        (200, (200,)),
        (np.int32(7), (7,)),
        ([5, 3], (5, 3)),
        (np.array([5, 3]), (5, 3)),
    ],
)
def test_sizes_become_a_tuple(value, sizes):
    assert check_sizes("hidden_layer_sizes", value) == sizes


@pytest.mark.parametrize("value", [2.0, None, [5, 3.0], "20", [True], True, [None]])
def test_sizes_of_the_wrong_type_are_refused(value):
    with pytest.raises(TypeError, match="hidden_layer_sizes must be"):
        check_sizes("hidden_layer_sizes", value)


@pytest.mark.parametrize("value", [0, -3, [5, 0]])
def test_sizes_below_one_are_refused(value):
    with pytest.raises(ValueError, match="hidden_layer_sizes must be >= 1"):
        check_sizes("hidden_layer_sizes", value)


@pytest.mark.parametrize("value", [(10, 0.01), [1.0, 1.0], np.array([2, 1])])
def test_temperature_becomes_two_floats(value):
    result = check_temperature(value)
    assert result == tuple(value)
    assert [type(t) for t in result] == [float, float]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.0, r"temperature must be \(start, stop\)"),
        ((1,), r"temperature must be \(start, stop\)"),
        ((3, 2, 1), r"temperature must be \(start, stop\)"),
        (None, r"temperature must be \(start, stop\)"),
        ((0, 0), "temperature start must be > 0"),
        ((1, 0), "temperature stop must be > 0"),
        ((1, -1), "temperature stop must be > 0"),
        ((INF, 1), "temperature start must be > 0"),
        ((1, NAN), "temperature stop must be > 0"),
        ((0.1, 1), "temperature must fall"),
    ],
)
def test_temperature_is_refused(value, words):
    with pytest.raises(ValueError, match=words):
        check_temperature(value)


@pytest.mark.parametrize("value", ["ab", (None, 1), (1, "2"), (True, 0.1)])
def test_temperature_of_the_wrong_type_is_refused(value):
    with pytest.raises(TypeError, match=r"temperature (start|stop) must be a number"):
        check_temperature(value)


@pytest.mark.parametrize(
    ("k", "number"),
    [
        (1, 1),
        (np.int64(7), 7),
        (30, 30),  # more than there are: the estimators decide
        ("all", 20),
        (0.5, 10),
        (0.99, 19),
        (0.05, 1),
        (np.float32(0.25), 5),
    ],
)
def test_k_becomes_an_integer(k, number):
    result = resolve_k(k, 20)
    assert result == number
    assert type(result) is int


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (0, "k must be >= 1"),
        (-1, "k must be >= 1"),
        (0.0, "between 0 and 1"),
        (1.0, "between 0 and 1"),
        (2.5, "between 0 and 1"),
        (-0.5, "between 0 and 1"),
        (NAN, "between 0 and 1"),
        (0.04, "rounds down to 0"),
        ("every", "k must be a number or 'all'"),
    ],
)
def test_k_is_refused(k, words):
    with pytest.raises(ValueError, match=words):
        resolve_k(k, 20)


@pytest.mark.parametrize("k", [None, True, [3]])
def test_k_of_the_wrong_type_is_refused(k):
    with pytest.raises(TypeError, match="k must be an integer"):
        resolve_k(k, 20)


@pytest.mark.parametrize("value", [None, "balanced", {0: 1, 1: 2}, [{0: 1}, {0: 2}]])
def test_class_weight_passes(value):
    check_class_weight(value, "classification")


def test_no_class_weight_passes_for_every_task():
    check_class_weight(None, "reconstruction")


@pytest.mark.parametrize("task", ["reconstruction", "regression"])
def test_class_weight_without_classes_is_refused(task):
    with pytest.raises(ValueError, match=f"classification target, task is {task}"):
        check_class_weight("balanced", task)


@pytest.mark.parametrize("value", ["even", 1, 0.5])
def test_class_weight_is_refused(value):
    with pytest.raises(ValueError, match="class_weight must be None, 'balanced' or"):
        check_class_weight(value, "classification")
