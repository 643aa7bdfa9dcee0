"""Targets become tensors, and predictions targets again."""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ipcae_sklearn._targets import encode_labels, encode_values, resolve_task


@pytest.mark.parametrize(
    ("task", "y", "expected"),
    [
        ("auto", [0.5, 1.5], "regression"),
        ("auto", [[0.5, 1.0], [1.5, 2.0]], "regression"),
        ("auto", [0, 1, 2], "classification"),
        ("auto", ["a", "b"], "classification"),
        ("auto", [[0, 1], [1, 0]], "classification"),
        ("regression", [0, 1, 2], "regression"),
        ("reconstruction", [0, 1], "reconstruction"),
    ],
)
def test_task_follows_from_y(task, y, expected):
    assert resolve_task(task, np.array(y)) == expected


@pytest.mark.parametrize(
    ("dtype", "n_single", "expected"),
    [
        (float, 6, "regression"),
        (float, 5, "classification"),
        (int, 21, "classification"),
    ],
)
def test_many_whole_numbers_some_of_them_rare_are_a_guess(dtype, n_single, expected):
    every = np.arange(21).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_task("auto", every.repeat(10)) == "classification"
        assert resolve_task("auto", every[1:].repeat(2)) == "classification"
        assert resolve_task("regression", every) == "regression"
    taken = {"regression": "values to predict", "classification": "classes"}[expected]
    y = np.append(every, every[n_single:].repeat(20))
    with pytest.warns(UserWarning, match=f"21 whole .* as {taken}: .*{expected!r}"):
        assert resolve_task("auto", y) == expected


@pytest.mark.parametrize(
    "y",
    [[2, 0, 2, 5], ["b", "a", "b", "c"], [True, False, True, True], [-1.0, 1.0, 1.0]],
)
def test_labels_round_trip(y):
    target = encode_labels(np.array(y))
    assert target.loss == "cross_entropy"
    assert target.n_outputs == len(set(y)) == len(target.classes)
    assert target.tensor.dtype == torch.int64
    assert target.classes[target.tensor.numpy()].tolist() == y


def test_several_labels_stay_a_matrix():
    labels = [[0, 1, 1], [1, 0, 1], [0, 0, 0]]
    target = encode_labels(np.array(labels))
    assert target.loss == "binary_cross_entropy"
    assert target.n_outputs == 3
    assert target.tensor.dtype == torch.float32
    assert target.tensor.tolist() == labels


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"y has one class only \(.*'a'.*\)"):
        encode_labels(np.array(["a", "a"]))


def test_several_columns_of_classes_are_refused():
    with pytest.raises(ValueError, match="y has several columns of classes"):
        encode_labels(np.array([[0, 1], [2, 0], [1, 2]]))


def test_values_are_no_labels():
    with pytest.raises(ValueError, match="Unknown label type"):
        encode_labels(np.array([0.5, 1.5, 2.5]))


@pytest.mark.parametrize("shape", [(30,), (30, 1), (30, 3)])
def test_values_round_trip(shape):
    y = 5 * np.random.default_rng(0).normal(size=shape) + 1e4
    target = encode_values(y)
    assert target.loss == "squared_error"
    assert target.n_outputs == (shape[1] if len(shape) == 2 else 1)
    values = target.tensor.double().numpy()
    assert_allclose(values.mean(0), 0, atol=1e-6)
    assert_allclose(values.std(0), 1, rtol=1e-6)
    restored = values * target.scale + target.center
    assert_allclose(restored, y.reshape(30, -1), atol=1e-5)


def test_values_are_standardised_with_weights():
    y, weights = np.array([1.0, 2.0, 30.0, 4.0]), np.array([1.0, 1.0, 0.0, 2.0])
    target = encode_values(y, weights)
    mean = np.average(y, weights=weights)
    assert_allclose(target.center, mean)
    assert_allclose(target.scale**2, np.average((y - mean) ** 2, weights=weights))


def test_a_constant_target_is_centred_only():
    with pytest.warns(UserWarning, match="y has one value only: there is nothing"):
        target = encode_values(np.full(5, 0.1))
    assert target.scale.tolist() == [0.0]  # predictions are the constant
    assert_allclose(target.tensor, torch.zeros(5, 1), atol=1e-6)


def test_the_constant_ones_of_several_targets_are_named():
    y = np.column_stack([np.arange(5.0), np.ones(5), np.zeros(5)])
    with pytest.warns(UserWarning, match=r"one value only in columns \[1, 2\], which"):
        encode_values(y)
    weights = np.array([0, 0, 0, 0, 1.0])
    with pytest.warns(UserWarning, match="only where sample_weight is not 0: there is"):
        encode_values(y, weights)


def test_values_that_are_nearly_alike_are_told_apart():
    y = 1.7e12 + np.random.default_rng(0).normal(size=20_000)
    target = encode_values(y)
    deviations = y - 1.7e12
    assert_allclose(target.scale, deviations.std())
    assert_allclose(target.center - 1.7e12, deviations.mean(), atol=3e-4)
    expected = (deviations - deviations.mean()) / deviations.std()
    assert_allclose(target.tensor[:, 0], expected, atol=1e-4)
