"""Warnings that point to the line that called, not to one within the package."""

from __future__ import annotations

import sys
import warnings

_INSIDE = ("ipcae_sklearn", "sklearn", "joblib", "torch", "contextlib", "threading")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as from the first caller outside of this package and scikit-learn."""
    level, frame = 1, sys._getframe()
    while frame.f_back and _module(frame).split(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _module(frame) -> str:
    return str(frame.f_globals.get("__name__") or "")
