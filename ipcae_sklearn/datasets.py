"""Synthetic data whose relevant features are known, and files of benchmark data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.utils import Bunch, check_random_state


def make_linear(
    n_samples=500,
    n_features=100,
    n_informative=10,
    *,
    task="regression",
    noise=0.1,
    random_state=None,
):
    """Targets that are a linear function of a few independent features.

    Parameters
    ----------
    n_samples, n_features, n_informative : int
    task : {"regression", "classification"}, default="regression"
        Values, or whether they are above their median.
    noise : float, default=0.1
        Standard deviation of the noise, in standard deviations of the signal.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        Independent standard normal values.
    y : ndarray of shape (n_samples,)
    relevant : ndarray of shape (n_informative,)
        The features that the target depends on, in increasing order.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from ipcae_sklearn.datasets import make_linear
    >>> X, y, relevant = make_linear(n_informative=3, random_state=0)
    >>> X.shape, y.shape, len(relevant)
    ((500, 100), (500,), 3)
    """
    if task not in ("regression", "classification"):
        raise ValueError(f"task must be 'regression' or 'classification', got {task!r}")
    _check_sizes(n_samples, n_features, n_informative)
    _check_share("noise", noise, np.inf)
    rng = check_random_state(random_state)
    X = rng.standard_normal((n_samples, n_features))
    relevant = _draw_relevant(rng, n_features, n_informative)
    # Coefficients away from 0, or a feature would be relevant in name only.
    coefficients = rng.uniform(0.5, 1.5, n_informative) * rng.choice(
        [-1, 1], n_informative
    )
    y = X[:, relevant] @ coefficients / np.linalg.norm(coefficients)
    y += noise * rng.standard_normal(n_samples)
    if task == "classification":
        y = (y > np.median(y)).astype(int)
    return X, y, relevant


def make_xor(
    n_samples=1000, n_features=50, n_informative=2, *, flip_y=0.0, random_state=None
):
    """Classes that no feature tells anything of by itself.

    The class is the parity of the signs of the informative features. Scores of single
    features, as in ``SelectKBest``, are blind to it.

    Parameters
    ----------
    n_samples, n_features, n_informative : int
    flip_y : float, default=0.0
        Share of the rows whose class is flipped.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        Independent standard normal values.
    y : ndarray of shape (n_samples,)
        0 or 1.
    relevant : ndarray of shape (n_informative,)
        The informative features, in increasing order.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from ipcae_sklearn.datasets import make_xor
    >>> X, y, relevant = make_xor(random_state=0)
    >>> bool(((X[:, relevant] > 0).sum(axis=1) % 2 == y).all())
    True
    """
    _check_sizes(n_samples, n_features, n_informative)
    _check_share("flip_y", flip_y, 1)
    rng = check_random_state(random_state)
    X = rng.standard_normal((n_samples, n_features))
    relevant = _draw_relevant(rng, n_features, n_informative)
    y = (X[:, relevant] > 0).sum(axis=1) % 2
    flipped = rng.random(n_samples) < flip_y
    return X, np.where(flipped, 1 - y, y), relevant


def make_blocks(
    n_samples=500, n_features=100, n_blocks=10, *, noise=0.1, random_state=None
):
    """Redundant features: each is a noisy copy of one of a few latent factors.

    A good selection of ``n_blocks`` features takes one from each block.

    Parameters
    ----------
    n_samples, n_features, n_blocks : int
    noise : float, default=0.1
        Standard deviation of a copy's noise; that of a factor is 1.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    blocks : ndarray of shape (n_features,)
        Number of the block that each feature belongs to.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from ipcae_sklearn.datasets import make_blocks
    >>> X, blocks = make_blocks(n_features=30, n_blocks=3, random_state=0)
    >>> X.shape, blocks.max()
    ((500, 30), 2)
    """
    _check_sizes(n_samples, n_features, n_blocks, "n_blocks")
    _check_share("noise", noise, np.inf)
    rng = check_random_state(random_state)
    factors = rng.standard_normal((n_samples, n_blocks))
    blocks = rng.permutation(np.arange(n_features) % n_blocks)
    X = factors[:, blocks] + noise * rng.standard_normal((n_samples, n_features))
    return X, blocks


def load_benchmark(name, *, data_home):
    """Read a benchmark data set from a file.

    Parameters
    ----------
    name : str
        The file ``name.npz`` in ``data_home`` is read.
    data_home : path-like
        Directory of the files.

    Returns
    -------
    data : Bunch
        The arrays of the file: ``X`` and ``y``, or ``X_train``, ``y_train``,
        ``X_test`` and ``y_test`` where there is an official split; ``groups`` where
        rows belong together.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from ipcae_sklearn.datasets import load_benchmark
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/tiny.npz", X=np.eye(3), y=np.arange(3))
    ...     load_benchmark("tiny", data_home=folder).X.shape
    (3, 3)
    """
    path = Path(data_home) / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}. Save the data there with numpy.savez(path, "
            "X=..., y=...); the public sets come from sklearn.datasets.fetch_openml."
        )
    with np.load(path, allow_pickle=False) as arrays:
        return Bunch(**{key: arrays[key] for key in arrays.files})


def _draw_relevant(rng, n_features, n_informative):
    return np.sort(rng.choice(n_features, n_informative, replace=False))


def _check_sizes(n_samples, n_features, n_relevant, name="n_informative"):
    for label, value in (("n_samples", n_samples), ("n_features", n_features)):
        if value < 1:
            raise ValueError(f"{label} must be >= 1, got {value!r}")
    if not 1 <= n_relevant <= n_features:
        raise ValueError(
            f"{name} must be from 1 to n_features={n_features}, got {n_relevant!r}"
        )


def _check_share(name, value, most):
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most}, got {value!r}")
