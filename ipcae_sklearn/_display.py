"""Pictures of results; matplotlib is imported when one is drawn."""

from __future__ import annotations

import numpy as np


def _import_pyplot(caller: str):
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib: pip install 'ipcae-sklearn[plot]'."
        ) from error
    return plt


class KPathDisplay:
    """Score of a selector over the number of features it keeps.

    :meth:`from_estimator` makes one of a fitted search. All parameters are stored as
    attributes, sorted by k.

    Parameters
    ----------
    ks : array-like of shape (n_ks,)
        Numbers of features.
    mean_scores : array-like of shape (n_ks,)
        Mean score of each k over the folds.
    std_errors : array-like of shape (n_ks,), default=None
        Standard error of each mean, the half width of the band. None for no band.
    best_k : int, default=None
        The k to mark; None for none.
    score_name : str, default="Score"
        Label of the axis of scores.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curve.
    figure_ : matplotlib Figure
        Figure that the axes are in.
    line_ : matplotlib Line2D
        Mean scores.
    band_ : matplotlib PolyCollection or None
        One standard error on either side.
    best_line_ : matplotlib Line2D or None
        The k that is marked.

    See Also
    --------
    IPCAESelectorCV : Chooses k by cross-validation.

    Examples
    --------
    >>> from ipcae_sklearn import KPathDisplay
    >>> scores = [0.93, 0.7, 0.9]
    >>> display = KPathDisplay(ks=[20, 5, 10], mean_scores=scores, best_k=20)
    >>> display.ks
    array([ 5, 10, 20])
    >>> display.plot()  # doctest: +SKIP
    """

    def __init__(
        self, *, ks, mean_scores, std_errors=None, best_k=None, score_name="Score"
    ):
        order = np.argsort(ks, kind="stable")
        self.ks = np.asarray(ks)[order]
        self.mean_scores = _in_order("mean_scores", mean_scores, order)
        self.std_errors = None
        if std_errors is not None:
            self.std_errors = _in_order("std_errors", std_errors, order)
        self.best_k = best_k
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, search, *, ax=None, score_name=None, **line_kw):
        """Draw the scores of a fitted search.

        Parameters
        ----------
        search : IPCAESelectorCV or CAESelectorCV
            Fitted, with ``refit`` or without.
        ax : matplotlib Axes, default=None
            Where to draw; None for a new figure.
        score_name : str, default=None
            Label of the axis of scores; None to make it from ``scoring``.
        **line_kw : dict
            Handed to matplotlib's ``plot``.

        Returns
        -------
        display : KPathDisplay

        Raises
        ------
        TypeError
            If the search has no results by k.
        ImportError
            Without matplotlib.
        """
        results = getattr(search, "cv_results_", None)
        if results is None or "n_features" not in results:
            raise TypeError(
                "search must be a fitted IPCAESelectorCV or CAESelectorCV, got "
                f"{search!r}."
            )
        display = cls(
            ks=results["n_features"],
            mean_scores=results["mean_test_score"],
            std_errors=_standard_errors(results, search.n_splits_),
            best_k=results["n_features"][search.best_index_],
            score_name=score_name or _name_of(search.scoring),
        )
        return display.plot(ax, **line_kw)

    def plot(self, ax=None, *, score_name=None, **line_kw):
        """Draw mean scores over k, a band of one standard error, and the k chosen.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None for a new figure.
        score_name : str, default=None
            Label of the axis of scores; None for that of the constructor.
        **line_kw : dict
            Handed to matplotlib's ``plot``.

        Returns
        -------
        display : KPathDisplay
            This object.

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        plt = _import_pyplot(f"{type(self).__name__}.plot")
        if ax is None:
            _, ax = plt.subplots()
        options = {"marker": "o", "label": "mean of the folds", **line_kw}
        (self.line_,) = ax.plot(self.ks, self.mean_scores, **options)
        color = self.line_.get_color()
        self.band_ = self._draw_band(ax, color)
        self.best_line_ = self._draw_best(ax, color)
        ax.set(
            xlabel="Number of features k",
            ylabel=self.score_name if score_name is None else score_name,
            xscale=_scale_of(self.ks),
        )
        ax.set_xticks(self.ks, labels=[str(k) for k in self.ks])
        ax.minorticks_off()  # a logarithmic axis would label them between the ks
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_band(self, ax, color):
        if self.std_errors is None:
            return None
        return ax.fill_between(
            self.ks,
            self.mean_scores - self.std_errors,
            self.mean_scores + self.std_errors,
            color=color,
            alpha=0.2,
            label="± one standard error",
        )

    def _draw_best(self, ax, color):
        if self.best_k is None:
            return None
        label = f"chosen: k = {self.best_k}"
        return ax.axvline(self.best_k, color=color, linestyle="--", label=label)


def _in_order(name, values, order) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.shape != order.shape:
        raise ValueError(
            f"{name} must have one value for each of ks, {order.shape}, got "
            f"{values.shape}."
        )
    return values[order]


def _standard_errors(results, n_folds) -> np.ndarray | None:
    """Of the mean over the folds; None for a single fold, which does not tell."""
    if n_folds < 2:
        return None
    scores = [results[f"split{j}_test_score"] for j in range(n_folds)]
    return np.std(scores, axis=0, ddof=1) / np.sqrt(n_folds)


def _name_of(scoring) -> str:
    """A label for a ``scoring`` parameter."""
    name = (
        scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    )
    return name.replace("neg_", "negative ").replace("_", " ").capitalize()


def _scale_of(ks) -> str:
    """Logarithmic where the gaps between the ks differ much, as scikit-learn does."""
    gaps = np.diff(ks)
    gaps = gaps[gaps > 0]
    return "log" if len(gaps) and gaps.max() > 5 * gaps.min() else "linear"
