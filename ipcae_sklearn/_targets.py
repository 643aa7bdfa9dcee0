"""What is to be predicted: targets become tensors, and predictions targets again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from torch import Tensor

from ipcae_sklearn._data import column_statistics
from ipcae_sklearn._warnings import warn

# "auto" is not sure of more whole numbers than this, if some are in fewer rows; floats
# are values if this share of them comes only once.
_MANY_CLASSES, _FEW_ROWS, _OF_VALUES = 20, 10, 0.25


@dataclass(frozen=True)
class Target:
    """What the decoder is to predict, and how its outputs become predictions.

    ``loss`` names a loss in ``_functional``; the other fields belong to some
    tasks only: ``classes`` to classification, ``center`` and ``scale`` to regression.
    """

    loss: str
    n_outputs: int
    tensor: Tensor | None = None  # None: the rows of X themselves
    classes: np.ndarray | None = None
    center: np.ndarray | None = None
    scale: np.ndarray | None = None


def check_labels(y) -> None:
    """Raise an error if objects in y are missing, or cannot be compared."""
    # Of a list of texts numpy would make a text of NaN, too.
    values = np.asarray(y, dtype=object if isinstance(y, (list, tuple)) else None)
    if values.dtype.kind != "O" or not values.size:
        return
    missing = np.array([_is_missing(value) for value in values.ravel()])
    if missing.any():
        rows = np.unique(np.flatnonzero(missing) // (values.size // len(values)))
        raise ValueError(
            f"y has no value in {len(rows)} of {len(values)} rows (the first: row "
            f"{rows[0]}). Leave these rows out."
        )
    texts = [isinstance(value, str) for value in values.ravel()]
    if any(texts) and not all(texts):
        raise ValueError(
            "y holds text and other values, which cannot be put in order. Turn all of "
            "them into text, for instance by y.astype(str)."
        )


def _is_missing(value) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN
    except TypeError:  # of pandas: NA
        return True


def resolve_task(task: str, y) -> str:
    """The task that "auto" stands for, where there is a target."""
    if task != "classification" and np.asarray(y).dtype.kind in "mM":
        raise ValueError(
            "y holds dates or durations. If they are values to predict, pass numbers, "
            "such as days; task='classification' says that they are classes."
        )
    if task != "auto":
        return task
    kind = type_of_target(y, input_name="y")
    if kind.startswith("continuous"):
        return "regression"
    if kind == "multiclass" and np.asarray(y).dtype.kind in "iuf":
        return _task_of_whole_numbers(np.asarray(y))
    return "classification"


def _task_of_whole_numbers(y: np.ndarray) -> str:
    """Classes, unless they are floats many of which come only once.

    Both are guesses if there are many values, some of them rare (classes are more
    even), and a warning says so.
    """
    _, counts = np.unique(y, return_counts=True)
    if len(counts) <= _MANY_CLASSES or counts.min() >= _FEW_ROWS:
        return "classification"
    task, other = "classification", "regression"
    taken_as, or_else = "classes", "values to predict"
    if y.dtype.kind == "f" and np.mean(counts == 1) >= _OF_VALUES:
        task, other, taken_as, or_else = other, task, or_else, taken_as
    warn(
        f"y holds {len(counts)} whole numbers ({y.dtype}), some of them in fewer than "
        f"{_FEW_ROWS} rows. They are taken as {taken_as}: task={task!r} says so "
        f"without this warning. If they are {or_else}, use task={other!r}."
    )
    return task


def encode_labels(y) -> Target:
    """Class indices, or a matrix of 0 and 1 for several labels."""
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y")
    if kind == "multiclass-multioutput":
        raise ValueError(
            "y has several columns of classes other than 0 and 1, which is not "
            "supported. Use task='regression' if they are values to predict; else fit "
            "one selector for each column, or pass 0/1 indicators."
        )
    if kind == "multilabel-indicator":
        labels = np.asarray(y)
        tensor = torch.from_numpy(labels.astype(np.float32))
        classes = np.arange(labels.shape[1])
        return Target("binary_cross_entropy", len(classes), tensor, classes)
    classes, code = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        only = classes.tolist()[0]
        raise ValueError(
            f"y has one class only ({only!r}): there is nothing to tell apart. Use "
            "task='reconstruction' to select without a target."
        )
    return Target("cross_entropy", len(classes), torch.from_numpy(code), classes)


def encode_values(y, weights=None) -> Target:
    """Standardised values of one or several targets."""
    values = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    counted = values if weights is None else values[weights > 0]
    varies = (counted != counted[0]).any(axis=0)
    _warn_if_constant(varies, len(counted) < len(values))
    statistics = column_statistics(values, weights)
    # Values that are nearly alike, such as times, vary by less than their mean errs.
    origin = np.where(varies & (statistics.std == 0), counted[0], 0)
    if origin.any():
        statistics = column_statistics(values - origin, weights)
    scale = np.where(varies, statistics.std, 0)
    # A constant target is predicted as it is: its scale is 0 on the way back.
    scaled = (values - origin - statistics.mean) / np.where(scale == 0, 1, scale)
    tensor = torch.from_numpy(scaled.astype(np.float32))
    n_outputs, center = values.shape[1], origin + statistics.mean
    return Target("squared_error", n_outputs, tensor, center=center, scale=scale)


def _warn_if_constant(varies: np.ndarray, weighted: bool) -> None:
    """Warn of targets that do not vary, where only some rows may have a weight."""
    if varies.all():
        return
    where = " where sample_weight is not 0" if weighted else ""
    if not varies.any():
        warn(
            f"y has one value only{where}: there is nothing to explain. Use "
            "task='reconstruction' to select without a target."
        )
        return
    columns = np.flatnonzero(~varies).tolist()
    warn(
        f"y has one value only{where} in columns {columns}, which have no part in the "
        "selection."
    )
