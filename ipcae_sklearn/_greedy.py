"""Column-subset selection without gradients: start of the rows, and a baseline.

Letters: n rows, p columns, k chosen columns, m columns of the matrix T that they
have to reconstruct, and r rows of the triangular factor that stands for the data.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.linalg import qr, solve_triangular
from scipy.linalg.blas import dger

from ipcae_sklearn._parameters import check_number

# A column with less than this share of its squared norm left is a combination of the
# chosen ones up to rounding, and is called dead.
_DEAD = np.finfo(np.float64).eps
# Gains of one float64 computation and another (rows in another order, equal columns
# in other places) agree to about 1e-13; closer than this, the lowest index wins.
_TIE = 1e-10
# A swap has to explain this share of T more than the column it takes out.
_PROGRESS = 1e-12
# Gains are squares: rounding alone makes about eps² of them.
_NOTHING = 1e-28


def greedy_columns(
    X,
    k,
    *,
    target=None,
    target_weight=0.5,
    sample_weight=None,
    column_weight=None,
    alpha=0.0,
    start=(),
    n_swap_passes=0,
):
    """Choose the k columns that reconstruct all columns best by linear regression.

    Forward selection: each step takes the column that most reduces

    .. math:: \\min_B \\lVert T - X_S B \\rVert_F^2

    over the chosen columns S. T is the centred X, its columns times the roots of their
    weights, or, with a target Y, both blocks side by side, each scaled to unit total
    variance:
    :math:`T = [\\sqrt{w}\\, Y / \\lVert Y \\rVert_F,\\;
    \\sqrt{1 - w}\\, X / \\lVert X \\rVert_F]`.
    With E the part of X that S leaves unexplained and :math:`C = T^\\top E`, column j
    reduces the residual by :math:`\\lVert C_j \\rVert^2 / \\lVert E_j \\rVert^2`.

    With ``alpha`` the regression is a ridge regression: what is reduced has in addition
    :math:`\\alpha \\sum_{j \\in S} \\lVert X_j \\rVert^2 \\lVert B_j \\rVert^2`. Few
    rows are told apart by any few columns, and what these leave of a target is noise;
    a penalty keeps it from being explained so soon. A large one ranks the columns by
    what each of them explains alone.

    Parameters
    ----------
    X : array-like of shape (n, p)
        Dense, real and finite. Computed in float64 whatever its type, converted a
        block of rows at a time: selection compares near-equal gains, in which
        float32 would decide by rounding.
    k : int
        Number of columns, from 1 to p.
    target : array-like of shape (n,) or (n, m), default=None
        Explained together with X; classes have to be one-hot encoded.
    target_weight : float, default=0.5
        Share w of the target in T, from 0 (X only) to 1 (target only).
    sample_weight : array-like of shape (n,), default=None
        Weight of the rows, >= 0, in the means and in the squared residual.
    column_weight : array-like of shape (p,), default=None
        Weight of the columns, >= 0, in the squared residual. A column of weight 0 need
        not be explained; it may be chosen all the same.
    alpha : float, default=0.0
        Penalty on the squared coefficients, >= 0, in shares of the column's own sum of
        squares.
    start : array-like of int, default=()
        Distinct columns to begin with, at most k; they come first in the result. Before
        swaps those make room that are a linear combination of the ones before them,
        where a column is left that is not.
    n_swap_passes : int, default=0
        Passes after the forward selection, in which each chosen column in turn is
        replaced by the best one given the others. They stop at the first pass that
        changes nothing, and never increase the residual (with ``alpha``, the residual
        with the penalty).

    Returns
    -------
    ndarray of shape (k,)
        Distinct column indices in the order chosen; a column swapped in has the
        place of the one it replaced. Without a penalty, columns that are a linear
        combination of the chosen ones come last, those with the largest variance first.
        (With one, even a copy of a chosen column has something left to explain.)

    Raises
    ------
    TypeError, ValueError
        If a parameter has a wrong type, shape or value; the message names it.

    Notes
    -----
    With more rows than columns, the triangular factor of a QR decomposition stands
    for the data: O(n (p + m)²) once, and r = p + m rows from there on, else r = n. T
    has at most r columns, and TᵀX costs O(r² p) once. Then a step and a try of a swap
    cost O(r p) each, a swap made O(r k²) more. Memory is O(r p).

    References
    ----------
    A. K. Farahat, A. Ghodsi, M. S. Kamel, "An efficient greedy method for
    unsupervised feature selection", IEEE International Conference on Data Mining,
    2011.

    Examples
    --------
    Column 2 is the sum of the others, so two columns say all there is to say.

    >>> import numpy as np
    >>> a, b = np.random.default_rng(0).normal(size=(2, 100))
    >>> X = np.column_stack([a, 2 * b, a + 2 * b, np.ones(100)])
    >>> greedy_columns(X, 2)
    array([2, 0])
    >>> greedy_columns(X, 1, target=a, target_weight=1.0)
    array([0])
    """
    data = _check_data(X, target, target_weight, sample_weight, column_weight)
    k = check_number("k", k, low=1, high=data[0].shape[1], integer=True)
    n_swap_passes = check_number("n_swap_passes", n_swap_passes, low=0, integer=True)
    start = _check_start(start, k, data[0].shape[1])
    alpha = check_number("alpha", alpha, low=0)
    factors = _factor(*data)
    residual = _Residual(*factors, alpha, k)
    columns, live = _forward(residual, k, start)
    if n_swap_passes and not live[: len(start)].all():
        del residual  # there may be no room for two
        residual = _Residual(*factors, alpha, k)
        others, others_live = _forward(residual, k, start[live[: len(start)]])
        if others_live.sum() > live.sum():
            columns, live = others, others_live
    # Where dead ones are left the others span all of X, and no swap explains more.
    passes = n_swap_passes if live.all() else 0
    for _ in range(passes):
        if not _swap_pass(residual, columns):
            break
    return columns


def reconstruction_residual(
    X,
    columns,
    *,
    target=None,
    target_weight=0.5,
    sample_weight=None,
    column_weight=None,
):
    """Share of T that a linear regression on the given columns leaves unexplained.

    .. math:: \\min_B \\lVert T - X_S B \\rVert_F^2 / \\lVert T \\rVert_F^2

    Parameters
    ----------
    X : array-like of shape (n, p)
    columns : array-like of int
        Indices S from 0 to p - 1.
    target, target_weight, sample_weight, column_weight
        They define T as in :func:`greedy_columns`.

    Returns
    -------
    float
        From 0 (all of T is explained, or T is constant) to 1.

    Raises
    ------
    TypeError, ValueError
        If a parameter has a wrong type, shape or value; the message names it.

    Examples
    --------
    >>> reconstruction_residual([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], [0])
    0.5
    """
    data = _check_data(X, target, target_weight, sample_weight, column_weight)
    columns = _check_columns(columns, data[0].shape[1])
    X, T = _factor(*data)
    Q = _basis(X[:, columns])
    total = np.sum(T**2)
    left = np.sum((T - Q @ (Q.T @ T)) ** 2)
    return float(min(left / total, 1.0)) if total > 0 else 0.0


class _Residual:
    """What the chosen columns leave unexplained, a direction at a time.

    X (r, p) and T (r, m) stay; E (r, p) is X less its projection on the directions
    added, and C = TᵀE (m, p). Both are stored by columns, for BLAS to update them in
    place.

    A penalty α‖x‖² on the coefficients of a column x is a row more, in which x is √α‖x‖
    and all else is 0. It has to be there from when x is chosen; before, it adds to the
    norm of x alone.
    """

    def __init__(self, X, T, alpha, k):
        self.variance = _squared_norms(X)
        self.penalty = alpha * self.variance
        self.n_rows = len(X)
        n_more = k if alpha else 0
        self.X = np.asfortranarray(np.vstack([X, np.zeros((n_more, X.shape[1]))]))
        self.T = np.asfortranarray(np.vstack([T, np.zeros((n_more, T.shape[1]))]))
        self.E = self.X.copy(order="F")
        self.C = np.asfortranarray(self.T.T @ self.X)
        self._measure()

    def penalize(self, j, i, factor=1.0):
        """Have the i-th chosen column j in the penalty's i-th row; 0: no more."""
        if len(self.X) > self.n_rows:
            value = factor * np.sqrt(self.penalty[j])
            self.X[self.n_rows + i, j] = self.E[self.n_rows + i, j] = value

    def add(self, q):
        """Explain by the unit vector q (r,), orthogonal to those added before."""
        self._move(q, -1.0)

    def remove(self, q):
        """Undo ``add`` for a unit vector in the span of those added."""
        self._move(q, 1.0)

    def _move(self, q, sign):
        x, t = q @ self.X, self.T.T @ q
        self.E = dger(sign, q, x, a=self.E, overwrite_a=True)
        self.C = dger(sign, t, x, a=self.C, overwrite_a=True)
        self._measure()

    def _measure(self):
        self.norms = _squared_norms(self.E) + self.penalty
        self.products = _squared_norms(self.C)

    def live(self, norms):
        return norms > _DEAD * self.variance

    def gains(self):
        """Squared residual that each column would take away, (p,); -1 if dead."""
        return self._gains(self.products, self.norms)

    def gains_without(self, q):
        """The same after ``remove(q)`` and what q explains, without the update.

        ‖C_j + t x_j‖² is expanded, which reads C once and writes nothing.
        """
        x, t = q @ self.X, self.T.T @ q
        explained = t @ t
        products = self.products + x * (2 * (t @ self.C) + explained * x)
        return self._gains(products, self.norms + x**2), explained

    def _gains(self, products, norms):
        gains = np.full(len(norms), -1.0)
        return np.divide(products, norms, out=gains, where=self.live(norms))


def _forward(residual, k, start=()):
    """Columns (k,) in the order chosen, and which of them were not dead then."""
    columns, live = np.empty(k, dtype=np.intp), np.zeros(k, dtype=bool)
    Q = np.empty((len(residual.X), 0))
    for step in range(k):
        given = step < len(start)
        j = start[step] if given else _next_column(residual, columns[:step])
        columns[step] = j
        residual.penalize(j, step)
        live[step] = residual.live(residual.norms)[j]
        if live[step]:
            # A column almost explained is mostly rounding in the old directions.
            q = residual.E[:, j] / np.sqrt(residual.norms[j])
            q = q - Q @ (Q.T @ q)
            q /= np.linalg.norm(q)
            residual.add(q)
            Q = np.column_stack([Q, q])
    return columns, live


def _next_column(residual, chosen):
    """The column with the largest gain.

    Where T is explained the gains are rounding, so the variance left decides, and
    where X is explained too, the variance.
    """
    left = np.where(residual.live(residual.norms), residual.norms, 0.0)
    for values, floor in ((residual.gains(), _NOTHING), (left, 0.0)):
        values[chosen] = -1.0
        if values.max() > floor:
            return _first_best(values)
    values = residual.variance.copy()
    values[chosen] = -1.0
    return _first_best(values)


def _swap_pass(residual, columns):
    """Replace each column by the best one given the others; whether any changed."""
    before = columns.copy()
    Q, R = qr(residual.X[:, columns], mode="economic")
    for i in range(len(columns)):
        own = _own_direction(Q, R, i)
        gains, explained = residual.gains_without(own)
        gains[columns] = -1.0
        j = _first_best(gains)
        if gains[j] > explained + _PROGRESS:
            residual.remove(own)
            residual.penalize(columns[i], i, 0.0)
            residual.penalize(j, i)
            columns[i] = j
            Q, R = qr(residual.X[:, columns], mode="economic")
            residual.add(_own_direction(Q, R, i))
    return not np.array_equal(columns, before)


def _own_direction(Q, R, i):
    """Unit vector in the span of QR, orthogonal to all of its columns but the i-th.

    It is Q z with Rᵀz a multiple of the i-th unit vector: O(r k) against the O(r k²)
    of a new decomposition.
    """
    z = solve_triangular(R, np.eye(1, len(R), i)[0], trans="T")
    return Q @ (z / np.linalg.norm(z))


def _first_best(values):
    """Index of the largest value, the lowest of those that rounding may part."""
    return int(np.argmax(values >= values.max() * (1 - _TIE)))


def _squared_norms(A):
    return np.einsum("ij,ij->j", A, A)


def _basis(A):
    """Orthonormal basis of the columns of A, (r, rank)."""
    norms = np.sqrt(_squared_norms(A))
    A = A[:, norms > 0] / norms[norms > 0]
    if not A.size:
        return np.empty((len(A), 0))
    Q, R, _ = qr(A, mode="economic", pivoting=True)
    return Q[:, : len(R)][:, np.abs(np.diag(R)) > np.sqrt(_DEAD)]


def _factor(X, target, target_weight, weight, column_weight):
    """X as (r, p) and T as (r, m) with the scalar products of the data, r <= n."""
    p = X.shape[1]
    A = _triangle([_reader(block, weight) for block in (X, target)], len(X))
    own = A[:, :p] * np.sqrt(column_weight)
    blocks = ((A[:, p:], target_weight), (own, 1 - target_weight))
    T = np.hstack([_scaled(block, share) for block, share in blocks if share > 0])
    if T.shape[1] > T.shape[0]:
        T = np.linalg.qr(T.T, mode="r").T  # the same T Tᵀ, which is all that counts
    return A[:, :p], T


def _scaled(block, share):
    """The block with ``share`` for its squared norm."""
    return block * (np.sqrt(share) / (np.linalg.norm(block) or 1.0))


def _triangle(readers, n):
    """The blocks side by side or, if that has fewer rows, their triangular factor.

    Householder QR errs by rounding of each column's own norm, so columns of any scale
    may stand together; a Gram matrix, half the work, would lose half of the digits.
    """
    A = np.hstack([read(slice(0, 0)) for read in readers])
    step = max(1024, 4 * A.shape[1])  # each block repeats the work of a fifth of it
    for start in range(0, n, step):
        rows = slice(start, start + step)
        A = np.vstack([A, np.hstack([read(rows) for read in readers])])
        if A.shape[0] > A.shape[1]:
            A = np.linalg.qr(A, mode="r")
    return A


def _reader(A, weight):
    """Function from a slice to those rows of A: float64, centred, times √weight.

    Divided by the largest value, no square overflows; measured from the first row,
    constant columns become exact zeros.
    """
    peak = max(float(A.max(initial=0)), -float(A.min(initial=0))) or 1.0
    origin = A[0].astype(np.float64) / peak

    def read(rows):
        return A[rows].astype(np.float64) / peak - origin

    blocks = [slice(start, start + 1024) for start in range(0, len(A), 1024)]
    mean = sum(weight[rows] @ read(rows) for rows in blocks) / weight.sum()
    return lambda rows: (read(rows) - mean) * np.sqrt(weight[rows])[:, None]


def _check_data(X, target, target_weight, sample_weight, column_weight):
    """X (n, p), target (n, m >= 0), its share, weights (n,) of the rows, and those (p,)
    of the columns; rows of weight 0 left out.

    Without a target, m and its share are 0.
    """
    X = _check_matrix("X", X)
    n = len(X)
    target_weight = check_number("target_weight", target_weight, low=0, high=1)
    if target is None:
        target, target_weight = np.empty((n, 0)), 0.0
    else:
        if not scipy.sparse.issparse(target):
            target = np.asarray(target)
            target = target[:, None] if target.ndim == 1 else target
        target = _check_matrix("target", target, n)
    weight = _check_weight("sample_weight", sample_weight, n)
    column_weight = _check_weight("column_weight", column_weight, X.shape[1])
    if not weight.all():
        X, target, weight = (A[weight > 0] for A in (X, target, weight))
    return X, target, target_weight, weight, column_weight


def _check_matrix(name, A, n=None):
    if scipy.sparse.issparse(A):
        raise TypeError(f"{name} must be dense; {name}.toarray() makes it so.")
    A = np.asarray(A)
    if A.ndim != 2 or 0 in A.shape:
        raise ValueError(f"{name} must be a 2-D array, not empty, got {A.shape}.")
    if A.dtype == object:  # a frame with columns of numbers and of booleans
        A = _as_numbers(name, A)
    if A.dtype.kind not in "buif":
        hint = " Encode classes one-hot." if name == "target" else ""
        raise ValueError(f"{name} must hold real numbers, got dtype {A.dtype}.{hint}")
    if n is not None and len(A) != n:
        raise ValueError(f"{name} has {len(A)} rows, X has {n}.")
    if not np.isfinite(A.min()) or not np.isfinite(A.max()):  # no array of booleans
        j = int(np.argmin(np.isfinite(A).all(axis=0)))
        raise ValueError(f"{name} must be finite, but column {j} is not.")
    return A


def _as_numbers(name, A):
    columns = np.empty(A.shape)
    for j, column in enumerate(A.T):
        try:
            columns[:, j] = column
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} must hold real numbers, but column {j} does not: drop or "
                "encode it."
            ) from None
    return columns


def _check_weight(name, weight, n):
    weight = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    if weight.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {weight.shape}.")
    if not np.isfinite(weight).all() or weight.min() < 0 or weight.max() == 0:
        raise ValueError(f"{name} must be finite, >= 0 and not all 0.")
    return weight / weight.max()


def _check_columns(columns, p, name="columns"):
    columns = np.asarray(columns)
    if columns.ndim != 1 or (columns.size and columns.dtype.kind not in "ui"):
        raise ValueError(f"{name} must be a 1-D array of indices, got {columns!r}.")
    if columns.size and not 0 <= columns.min() <= columns.max() < p:
        raise ValueError(f"{name} must be from 0 to {p - 1}, got {columns!r}.")
    return columns.astype(np.intp)


def _check_start(start, k, p):
    start = _check_columns(start, p, "start")
    if len(start) > k or len(np.unique(start)) < len(start):
        raise ValueError(f"start must be at most k={k} distinct columns, got {start}.")
    return start
