"""Pictures: what is drawn, and what is said when nothing can be."""

import sys

import numpy as np
import pytest

from ipcae_sklearn import IPCAESelector, IPCAESelectorCV, KPathDisplay
from ipcae_sklearn.datasets import make_blocks

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

PATH = {
    "ks": [20, 5, 10],
    "mean_scores": [0.9, 0.5, 0.8],
    "std_errors": [0.1, 0.2, 0.3],
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def search():
    X, _ = make_blocks(n_samples=90, n_features=8, n_blocks=4, random_state=0)
    short = IPCAESelector(max_iter=5, tuning_iter=2, random_state=0)
    with pytest.warns(match="not sure"):
        return IPCAESelectorCV((4, 0.25, "all"), estimator=short, cv=3).fit(X)


def test_the_curve_is_sorted_by_k():
    display = KPathDisplay(**PATH)
    assert display.plot() is display
    np.testing.assert_array_equal(
        display.line_.get_xydata(), [[5, 0.5], [10, 0.8], [20, 0.9]]
    )
    assert display.figure_ is display.ax_.figure


def test_the_band_is_one_standard_error_wide():
    path = KPathDisplay(**PATH).plot().band_.get_paths()[0].vertices
    for k, low, high in ((5, 0.3, 0.7), (10, 0.5, 1.1), (20, 0.8, 1.0)):
        at_k = path[path[:, 0] == k, 1]
        np.testing.assert_allclose([at_k.min(), at_k.max()], [low, high])


def test_the_chosen_k_is_marked():
    display = KPathDisplay(**PATH, best_k=10).plot()
    assert list(display.best_line_.get_xdata()) == [10, 10]
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert "chosen: k = 10" in labels


def test_band_and_mark_are_left_out_where_there_is_nothing_to_say():
    display = KPathDisplay(ks=[3], mean_scores=[0.5]).plot()
    assert display.band_ is None
    assert display.best_line_ is None


def test_axes_and_names_of_the_user_are_used():
    _, ax = matplotlib.pyplot.subplots()
    display = KPathDisplay(**PATH, score_name="Accuracy").plot(ax, color="red")
    assert display.ax_ is ax
    assert ax.get_ylabel() == "Accuracy"
    assert display.line_.get_color() == "red"
    assert display.plot(score_name="Other").ax_.get_ylabel() == "Other"


@pytest.mark.parametrize(
    ("ks", "scale"), [((1, 2, 3), "linear"), ((1, 10, 100), "log"), ((4,), "linear")]
)
def test_ks_are_labelled_on_an_axis_that_suits_them(ks, scale):
    ax = KPathDisplay(ks=ks, mean_scores=np.zeros(len(ks))).plot().ax_
    assert ax.get_xscale() == scale
    ax.figure.canvas.draw()
    assert [text.get_text() for text in ax.get_xticklabels()] == [str(k) for k in ks]


def test_a_search_is_drawn_with_its_numbers_of_features(search):
    display = KPathDisplay.from_estimator(search)
    np.testing.assert_array_equal(display.ks, [2, 4, 8])
    mean = search.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(display.line_.get_ydata(), mean[[1, 0, 2]])
    splits = np.array([search.cv_results_[f"split{j}_test_score"] for j in range(3)])
    error = splits.std(axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(display.std_errors, error[[1, 0, 2]])
    assert display.best_k == len(search.selected_indices_)


@pytest.mark.parametrize(
    ("scoring", "label"),
    [
        (None, "Score"),
        ("balanced_accuracy", "Balanced accuracy"),
        ("neg_log_loss", "Negative log loss"),
    ],
)
def test_the_score_is_named_after_scoring(search, scoring, label, monkeypatch):
    monkeypatch.setattr(search, "scoring", scoring)
    assert KPathDisplay.from_estimator(search).ax_.get_ylabel() == label


def test_one_fold_has_no_standard_error(search, monkeypatch):
    monkeypatch.setattr(search, "n_splits_", 1)
    assert KPathDisplay.from_estimator(search).band_ is None


@pytest.mark.parametrize("search", [IPCAESelectorCV(), IPCAESelector(), None])
def test_what_is_no_fitted_search_is_refused(search):
    with pytest.raises(TypeError, match="search must be a fitted"):
        KPathDisplay.from_estimator(search)


@pytest.mark.parametrize("name", ["mean_scores", "std_errors"])
def test_lengths_that_differ_are_named(name):
    with pytest.raises(ValueError, match=name):
        KPathDisplay(**{**PATH, name: [0.1, 0.2]})


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with pytest.raises(ImportError, match=r"ipcae-sklearn\[plot\]"):
        KPathDisplay(**PATH).plot()
