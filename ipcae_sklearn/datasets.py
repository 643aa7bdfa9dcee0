"""Data to try feature selection on.

Synthetic data whose relevant columns are known, and a loader of benchmark files. Which
columns are relevant is drawn at random, so their positions tell a selector nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ipcae_sklearn._parameters import check_number

_SPLIT_KEYS = ("X_train", "y_train", "X_test", "y_test")


def make_linear(
    n_samples=500,
    n_features=100,
    n_informative=10,
    *,
    task="regression",
    noise=0.1,
    random_state=None,
):
    """Draw a target that is linear in a few of many independent columns.

    With standard normal X and relevant columns S,

    .. math:: y = X_S w + \\text{noise} \\cdot \\varepsilon,
        \\qquad \\lVert w \\rVert = 1,

    and for classification, whether y is above its median. No weight is more than
    twice another one, so every relevant column counts.

    Parameters
    ----------
    n_samples : int, default=500
        Number of rows.
    n_features : int, default=100
        Number of columns.
    n_informative : int, default=10
        Number of relevant columns, at most ``n_features``.
    task : {"regression", "classification"}, default="regression"
        Kind of target. The two classes are equally large.
    noise : float, default=0.1
        Standard deviation of the noise in y; that of the signal is 1.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same data in every call.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        Standard normal values.
    y : ndarray of shape (n_samples,)
        Floats, or the classes 0 and 1.
    relevant : ndarray of shape (n_informative,)
        Indices of the relevant columns, sorted.

    Raises
    ------
    TypeError, ValueError
        If a parameter has a wrong type or value; the message names it.

    Examples
    --------
    >>> from sklearn.feature_selection import SelectKBest, f_regression
    >>> from ipcae_sklearn.datasets import make_linear
    >>> X, y, relevant = make_linear(n_features=20, n_informative=3, random_state=0)
    >>> relevant
    array([ 1, 18, 19])
    >>> SelectKBest(f_regression, k=3).fit(X, y).get_support(indices=True)
    array([ 1, 18, 19])
    """
    n_samples = check_number("n_samples", n_samples, low=1, integer=True)
    n_features = check_number("n_features", n_features, low=1, integer=True)
    n_informative = check_number(
        "n_informative", n_informative, low=1, high=n_features, integer=True
    )
    noise = check_number("noise", noise, low=0)
    if task not in ("regression", "classification"):
        raise ValueError(
            f"task must be 'regression' or 'classification', got {task!r}."
        )
    rng = check_random_state(random_state)
    relevant = _draw_columns(rng, n_features, n_informative)
    X = rng.standard_normal((n_samples, n_features))
    weights = rng.uniform(1, 2, n_informative) * rng.choice([-1, 1], n_informative)
    weights /= np.linalg.norm(weights)
    y = X[:, relevant] @ weights + noise * rng.standard_normal(n_samples)
    if task == "classification":
        y = (y > np.median(y)).astype(np.int64)
    return X, y, relevant


def make_xor(
    n_samples=1000, n_features=50, n_informative=2, *, flip_y=0.0, random_state=None
):
    """Draw classes that depend on a few columns jointly and on no column alone.

    The class is the parity of the number of relevant columns with a positive value:
    exclusive or, if there are two. Given all relevant columns but one, it is still a
    toss-up, so tests of one column at a time find nothing. With three or more,
    greedy and gradient-based searches find little to go by either.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows.
    n_features : int, default=50
        Number of columns.
    n_informative : int, default=2
        Number of relevant columns, at most ``n_features``.
    flip_y : float, default=0.0
        Share of rows, from 0 to 1, whose class is drawn at random instead, as in
        :func:`sklearn.datasets.make_classification`: half of them end up wrong.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same data in every call.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        Standard normal values.
    y : ndarray of shape (n_samples,)
        The classes 0 and 1.
    relevant : ndarray of shape (n_informative,)
        Indices of the relevant columns, sorted.

    Raises
    ------
    TypeError, ValueError
        If a parameter has a wrong type or value; the message names it.

    Examples
    --------
    >>> from ipcae_sklearn.datasets import make_xor
    >>> X, y, relevant = make_xor(random_state=0)
    >>> relevant
    array([11, 28])
    >>> a, b = X[:, relevant].T > 0
    >>> bool(((a ^ b) == y).all())
    True
    """
    n_samples = check_number("n_samples", n_samples, low=1, integer=True)
    n_features = check_number("n_features", n_features, low=1, integer=True)
    n_informative = check_number(
        "n_informative", n_informative, low=1, high=n_features, integer=True
    )
    flip_y = check_number("flip_y", flip_y, low=0, high=1)
    rng = check_random_state(random_state)
    relevant = _draw_columns(rng, n_features, n_informative)
    X = rng.standard_normal((n_samples, n_features))
    parity = (X[:, relevant] > 0).sum(axis=1) % 2
    # Drawn for every row, so that X and the other classes do not depend on flip_y.
    random_class = rng.randint(2, size=n_samples)
    y = np.where(rng.uniform(size=n_samples) < flip_y, random_class, parity)
    return X, y.astype(np.int64), relevant


def make_blocks(
    n_samples=500, n_features=100, n_blocks=10, *, noise=0.1, random_state=None
):
    """Draw columns that are noisy copies of a few latent factors, without a target.

    Column j of block c is :math:`x_j = f_c + \\text{noise} \\cdot \\varepsilon_j`
    with an independent standard normal factor :math:`f_c`. A good choice of
    ``n_blocks`` columns takes one of each block: it reconstructs all others up to
    noise, while a block left out is lost whole.

    Parameters
    ----------
    n_samples : int, default=500
        Number of rows.
    n_features : int, default=100
        Number of columns, spread over the blocks as evenly as possible.
    n_blocks : int, default=10
        Number of factors, at most ``n_features``.
    noise : float, default=0.1
        Standard deviation of the noise in each column; that of the factors is 1. Two
        columns of a block correlate by ``1 / (1 + noise**2)``.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same data in every call.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        The columns, blocks mixed.
    blocks : ndarray of shape (n_features,)
        Block of each column, from 0 to ``n_blocks - 1``.

    Raises
    ------
    TypeError, ValueError
        If a parameter has a wrong type or value; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from ipcae_sklearn import greedy_columns
    >>> from ipcae_sklearn.datasets import make_blocks
    >>> X, blocks = make_blocks(n_features=12, n_blocks=4, random_state=0)
    >>> blocks
    array([2, 3, 0, 2, 2, 0, 1, 3, 1, 3, 0, 1])
    >>> np.sort(blocks[greedy_columns(X, 4)])
    array([0, 1, 2, 3])
    """
    n_samples = check_number("n_samples", n_samples, low=1, integer=True)
    n_features = check_number("n_features", n_features, low=1, integer=True)
    n_blocks = check_number("n_blocks", n_blocks, low=1, high=n_features, integer=True)
    noise = check_number("noise", noise, low=0)
    rng = check_random_state(random_state)
    blocks = rng.permutation(np.arange(n_features) % n_blocks)
    factors = rng.standard_normal((n_samples, n_blocks))
    X = factors[:, blocks] + noise * rng.standard_normal((n_samples, n_features))
    return X, blocks


def load_benchmark(name, *, data_home):
    """Load a data set from ``data_home/name.npz``.

    The file holds arrays ``X_train``, ``y_train``, ``X_test`` and ``y_test`` if there
    is an official split, else ``X`` and ``y``. Others, such as ``groups`` or
    ``groups_train`` (rows of one group belong on one side of a split) and
    ``feature_names``, are handed on as they are.

    Parameters
    ----------
    name : str
        Name of the file without its ending.
    data_home : path-like
        Directory of the file.

    Returns
    -------
    sklearn.utils.Bunch
        The arrays, as attributes and as items.

    Raises
    ------
    FileNotFoundError
        If there is no such file. The message says where public data come from.
    ValueError
        If arrays are missing, or hold Python objects (they are never unpickled).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from ipcae_sklearn.datasets import load_benchmark
    >>> X, y = load_iris(return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/iris.npz", X=X, y=y)
    ...     data = load_benchmark("iris", data_home=folder)
    >>> data.X.shape, data["y"].shape
    ((150, 4), (150,))
    """
    path = Path(data_home) / f"{name}.npz"
    if not path.is_file():
        # fetch_openml's labels are Python objects, hence the astype.
        raise FileNotFoundError(
            f"There is no data set {name!r}: {path} does not exist. Public data sets "
            "come from scikit-learn: X, y = sklearn.datasets.fetch_openml('mnist_784', "
            "return_X_y=True, as_frame=False), for example, to be stored by "
            "numpy.savez(path, X=X, y=y.astype(int))."
        )
    with np.load(path, allow_pickle=False) as file:
        data = Bunch(**file)
    if not any(set(keys) <= set(data) for keys in (_SPLIT_KEYS, ("X", "y"))):
        raise ValueError(
            f"{path} must hold the arrays X and y, or {', '.join(_SPLIT_KEYS)}; it "
            f"holds {sorted(data)}."
        )
    return data


def _draw_columns(rng, n_features, n_drawn):
    return np.sort(rng.permutation(n_features)[:n_drawn])
