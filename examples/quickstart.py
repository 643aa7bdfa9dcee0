"""
Which pixels of a digit are worth measuring?
============================================

A drop-in for ``SelectKBest``: the selector stands in a Pipeline in front of a
classifier, and a grid search looks for the number of pixels. Beside it, the same with
``SelectKBest`` and with pixels drawn at random.
"""

import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file is written, no window is opened

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.feature_selection import SelectKBest, SelectorMixin, VarianceThreshold
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from ipcae_sklearn import IPCAESelector

PICTURE = Path(__file__).with_name("quickstart.png")
N_PIXELS = [5, 10, 20]


class RandomSelector(SelectorMixin, BaseEstimator):
    """Keeps k columns drawn at random: what any selector has to beat."""

    def __init__(self, k=10, random_state=None):
        self.k = k
        self.random_state = random_state

    def fit(self, X, y=None):
        validate_data(self, X)
        order = check_random_state(self.random_state).permutation(X.shape[1])
        self.support_ = np.isin(np.arange(X.shape[1]), order[: self.k])
        return self

    def _get_support_mask(self):
        return self.support_


def search(selector, X, y):
    """A grid search over k, and the seconds it took."""
    # For SelectKBest, which divides by the variance: some pixels are always white.
    pipeline = make_pipeline(VarianceThreshold(), selector, SVC())
    k = f"{pipeline.steps[1][0]}__k"
    started = time.perf_counter()
    grid = GridSearchCV(pipeline, {k: N_PIXELS}, cv=3).fit(X, y)
    return grid, time.perf_counter() - started


def draw(pipeline, X, path):
    """The selected pixels over the mean image, and the training curves."""
    history = pipeline[1].history_
    numbers = np.arange(X.shape[1], dtype=float).reshape(1, -1)
    rows, columns = np.divmod(pipeline[:-1].transform(numbers)[0], 8)
    figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
    axes[0].imshow(X.mean(axis=0).reshape(8, 8), cmap="gray_r")
    axes[0].scatter(
        columns, rows, marker="s", s=120, facecolors="none", edgecolors="C3"
    )
    axes[0].set(title=f"{len(rows)} selected pixels", xticks=[], yticks=[])
    axes[1].plot(history["train_loss"], label="training")
    axes[1].plot(history["validation_loss"], label="validation")
    axes[1].set(title="loss", xlabel="epoch", yscale="log")
    axes[1].legend()
    axes[2].plot(100 * history["unique_fraction"], color="C2")
    axes[2].set(title="distinct columns (%)", xlabel="epoch")
    axes[3].plot(history["temperature"], color="C1")
    axes[3].set(title="temperature", xlabel="epoch", yscale="log")
    figure.savefig(path, dpi=120)


def main():
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, stratify=y, random_state=0
    )
    selectors = {
        "IPCAESelector": IPCAESelector(random_state=0),
        "SelectKBest": SelectKBest(),
        "random pixels": RandomSelector(random_state=0),
    }
    print("The first search fits ten networks: a minute or more on one core.")
    print(f"{'selector':16}{'k':>4}{'cross-validated':>18}{'test':>8}{'search, s':>11}")
    for name, selector in selectors.items():
        grid, seconds = search(selector, X_train, y_train)
        accuracies = grid.cv_results_["mean_test_score"]
        for i, (k, accuracy) in enumerate(zip(N_PIXELS, accuracies, strict=True)):
            best = i == grid.best_index_
            test = f"{grid.score(X_test, y_test):8.3f}{seconds:11.1f}" if best else ""
            print(f"{name:16}{k:>4}{accuracy:>18.3f}{test}")
        if name == "IPCAESelector":
            draw(grid.best_estimator_, X_train, PICTURE)
    print(f"Picture: {PICTURE.name}")


if __name__ == "__main__":
    main()
