"""Checks of the estimators' parameters, each error naming the parameter."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np

TASKS = ("auto", "reconstruction", "classification", "regression")


def check_option(name, value, options) -> None:
    """Raise unless ``value`` is one of the options."""
    known = any(value is option for option in options)
    if isinstance(value, (str, np.bool_)):  # an array, say, would not compare
        known = known or any(value == option for option in options)
    if not known:
        raise ValueError(f"{name} must be one of {list(options)}, got {value!r}.")


def check_number(name, value, *, low=None, high=None, open_low=False, integer=False):
    """A value as an int or a float; raise unless it is a finite one in the bounds."""
    kind = Integral if integer else Real
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
        word = "an integer" if integer else "a number"
        raise TypeError(f"{name} must be {word}, got {value!r}.")
    bad = value != value or abs(value) == float("inf")
    bad |= low is not None and (value <= low if open_low else value < low)
    bad |= high is not None and value > high
    if bad:
        lower = "" if low is None else f" {'>' if open_low else '>='} {low}"
        upper = "" if high is None else f" and <= {high}"
        raise ValueError(f"{name} must be{lower}{upper}, got {value!r}.")
    return int(value) if integer else float(value)


def check_number_or(name, value, words, **bounds) -> None:
    """Like :func:`check_number`, with words such as "auto" allowed beside."""
    if isinstance(value, str) or value is None:
        if value not in words:
            known = " or ".join(repr(word) for word in words)
            raise ValueError(f"{name} must be a number or {known}, got {value!r}.")
    else:
        check_number(name, value, **bounds)


def check_sizes(name, value) -> tuple[int, ...]:
    """Layer widths as a tuple; an int stands for one layer."""
    sizes = (value,) if isinstance(value, Integral) else value
    try:
        sizes = tuple(sizes)
    except TypeError:
        raise TypeError(
            f"{name} must be a sequence of integers, got {value!r}."
        ) from None
    name = f"each of {name}"
    return tuple(check_number(name, size, low=1, integer=True) for size in sizes)


def check_temperature(value) -> tuple[float, float]:
    """The (start, stop) temperatures."""
    try:
        start, stop = value
    except (TypeError, ValueError):
        raise ValueError(f"temperature must be (start, stop), got {value!r}.") from None
    start = check_number("temperature start", start, low=0, open_low=True)
    stop = check_number("temperature stop", stop, low=0, open_low=True)
    if stop > start:
        raise ValueError(
            f"temperature must fall: stop ({stop}) is above start ({start})."
        )
    return start, stop


def resolve_k(k, n_features: int) -> int:
    """Number of features to keep for k as int, fraction or "all"; may exceed p."""
    if isinstance(k, str):
        if k != "all":
            raise ValueError(f"k must be a number or 'all', got {k!r}.")
        return n_features
    if isinstance(k, Real) and not isinstance(k, Integral):
        if not 0 < float(k) < 1:
            raise ValueError(
                f"k as a fraction must be between 0 and 1, got {k!r}. A count is an "
                "integer, and k='all' keeps all."
            )
        number = int(float(k) * n_features + 1e-9)  # 0.29 * 100 is 28.999...
        if number == 0:
            raise ValueError(
                f"k={k!r} of {n_features} features rounds down to 0. Use a larger "
                "fraction or an integer k."
            )
        return number
    try:
        return check_number("k", k, low=1, integer=True)
    except TypeError:
        raise TypeError(
            f"k must be an integer, a fraction below 1, or 'all', got {k!r}."
        ) from None


def check_class_weight(class_weight, task: str) -> None:
    if class_weight is None:
        return
    if task != "classification":
        raise ValueError(f"class_weight needs a classification target, task is {task}.")
    # A list of dicts, one for each label, is scikit-learn's form for several labels.
    balanced = isinstance(class_weight, str) and class_weight == "balanced"
    if not balanced and not isinstance(class_weight, (Mapping, list)):
        raise ValueError(
            f"class_weight must be None, 'balanced' or a dict, got {class_weight!r}."
        )
