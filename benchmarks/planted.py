"""How often default selectors find the features that were planted.

Six kinds of synthetic data, ten seeds each: a linear target, an XOR of two features (no
single feature tells anything), targets that are curves of single features (most of them
even: no line tells anything), redundant blocks without a target, of which a good
selection takes one column each, and few rows of many independent features, of which
some differ between two classes. ``python benchmarks/planted.py`` appends to
``results/planted.jsonl`` and goes on where it was stopped.
"""

import time

import numpy as np
from sklearn.datasets import make_friedman1
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.feature_selection import SelectKBest, f_classif, f_regression

from common import Results, parser
from ipcae_sklearn import CAESelector, IPCAESelector, greedy_columns
from ipcae_sklearn.datasets import make_blocks, make_linear, make_xor


def with_share_of_relevant(X, y, relevant):
    return X, y, len(relevant), lambda columns: np.isin(relevant, columns).mean()


def linear(seed):
    return with_share_of_relevant(*make_linear(random_state=seed))


def xor(seed):
    return with_share_of_relevant(*make_xor(random_state=seed))


def curves(seed):
    rng, relevant = np.random.default_rng(seed), np.arange(4)
    X = rng.uniform(-2, 2, size=(1000, 120))
    y = np.cos(3 * X[:, 0]) + np.abs(X[:, 1]) + X[:, 2] ** 2 / 2 + X[:, 3] / 2
    return with_share_of_relevant(X, y + 0.4 * rng.normal(size=len(X)), relevant)


def friedman(seed):
    X, y = make_friedman1(500, n_features=30, noise=1.0, random_state=seed)
    return with_share_of_relevant(X, y, np.arange(5))


def blocks(seed):
    X, block = make_blocks(random_state=seed)
    k = block.max() + 1
    return X, None, k, lambda columns: len(np.unique(block[columns])) / k


def effects(seed):
    rng = np.random.default_rng(seed)
    X, y, relevant = rng.normal(size=(80, 5000)), rng.integers(0, 2, 80), np.arange(8)
    X[y == 1, : len(relevant)] += 1.1
    return with_share_of_relevant(X, y, relevant)


def univariate(X, y, k, seed):
    if y is None:
        return np.argsort(-X.var(axis=0))[:k]
    score = f_regression if np.issubdtype(y.dtype, np.floating) else f_classif
    return SelectKBest(score, k=k).fit(X, y).get_support(indices=True)


def trees(X, y, k, seed):
    if y is None:
        return None
    regression = np.issubdtype(y.dtype, np.floating)
    forest = ExtraTreesRegressor if regression else ExtraTreesClassifier
    fitted = forest(500, random_state=seed).fit(X, y)
    return np.argsort(-fitted.feature_importances_)[:k]


METHODS = {
    "IPCAESelector": lambda X, y, k, seed: (
        IPCAESelector(k, random_state=seed).fit(X, y).selected_indices_
    ),
    "IPCAESelector, n_init=4": lambda X, y, k, seed: (
        IPCAESelector(k, n_init=4, random_state=seed).fit(X, y).selected_indices_
    ),
    "IPCAESelector, n_surplus=0": lambda X, y, k, seed: (
        IPCAESelector(k, n_surplus=0, random_state=seed).fit(X, y).selected_indices_
    ),
    "IPCAESelector, max_iter=1": lambda X, y, k, seed: (
        IPCAESelector(k, max_iter=1, random_state=seed).fit(X, y).selected_indices_
    ),
    "CAESelector": lambda X, y, k, seed: (
        CAESelector(k, random_state=seed).fit(X, y).selected_indices_
    ),
    "greedy": lambda X, y, k, seed: greedy_columns(X, k, target=y),
    "SelectKBest": univariate,
    "trees": trees,
}


def main():
    options = parser(__doc__).parse_args()
    command = "python benchmarks/planted.py"
    results = Results("planted", command, quick=options.quick)
    for seed in range(1 if options.quick else 10):
        for make in (linear, xor, curves, friedman, blocks, effects):
            X, y, k, recovered = make(seed)
            for method, select in METHODS.items():
                key = {"data": make.__name__, "method": method, "seed": seed}
                if results.has(**key):
                    continue
                started = time.perf_counter()
                columns = select(X, y, k, seed)
                seconds = time.perf_counter() - started
                if columns is None:
                    continue
                results.add(**key, recovered=recovered(columns), seconds=seconds)
                print(key, recovered(columns), round(seconds, 2))


if __name__ == "__main__":
    main()
