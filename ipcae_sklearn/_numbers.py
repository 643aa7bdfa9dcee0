"""Columns of the user's data that hold no numbers are named."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator

import numpy as np

WHAT_TO_DO = (
    "Turn the column into numbers (categories by OneHotEncoder in a "
    "sklearn.compose.ColumnTransformer, say), or drop it."
)


def of_numbers(X):
    """A validated X itself, but for what frames with categories or dates become."""
    if X.dtype.kind in "mM":
        raise TypeError(f"X holds {X.dtype}, not numbers.")
    return X.astype(np.float64) if X.dtype.kind == "O" else X


@contextlib.contextmanager
def naming_columns_without_numbers(X):
    """Where X cannot be made an array of numbers, name the first column at fault."""
    for name, dtype in _types_of_polars(X):
        if dtype.is_temporal():  # which would pass for large numbers
            raise ValueError(f"Input X holds {dtype} in column {name!r}. {WHAT_TO_DO}")
    try:
        yield
    except (TypeError, ValueError) as error:
        found = _first_without_numbers(X)
        if found is None:
            raise
        name, what = found
        raise ValueError(
            f"Input X holds {what} in column {name!r}. {WHAT_TO_DO}"
        ) from error


def _types_of_polars(X) -> Iterator[tuple[str, object]]:
    types = getattr(X, "schema", None)
    if isinstance(types, dict):
        yield from ((n, t) for n, t in types.items() if hasattr(t, "is_temporal"))


def _first_without_numbers(X) -> tuple[object, str] | None:
    """The name of the column, and what it holds; None where that cannot be told."""
    with contextlib.suppress(Exception):  # another error than the user's would be worse
        for name, values in _columns(X):
            wrong = _not_a_number(values)
            if wrong is not None:
                return name, wrong
    return None


def _columns(X) -> Iterator[tuple[object, np.ndarray]]:
    """The columns of a frame, a table or an array, with names or numbers."""
    names = getattr(X, "column_names", getattr(X, "columns", None))
    if names is not None:
        for name in names:
            yield name, np.asarray(X[name])
    elif isinstance(X, np.ndarray):
        yield from enumerate(X.T)
    else:
        yield from enumerate(np.asarray(X, dtype=object).T)


def _not_a_number(values: np.ndarray) -> str | None:
    """What a column holds in place of numbers, with an example."""
    if values.dtype.kind in "mM":
        return f"{'dates' if values.dtype.kind == 'M' else 'durations'} ({values[0]})"
    if values.dtype.kind in "OUST":
        for value in values:
            if isinstance(value, (datetime.date, datetime.timedelta)):
                return f"dates or durations ({value})"
            if isinstance(value, (str, bytes)) and not _is_number(value):
                return f"the text {str(value)!r}"
    return None


def _is_number(text) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
