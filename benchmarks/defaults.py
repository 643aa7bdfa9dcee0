"""Default selectors on real data, beside ``SelectKBest`` and random columns.

For each data set and seed: the test score of the jointly trained decoder, of a default
SVM and of extremely randomised trees on the selected columns, the share of distinct
columns before repair, and seconds. ``python benchmarks/defaults.py`` appends to
``results/defaults.jsonl`` and goes on where it was stopped.
"""

import time

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.feature_selection import SelectKBest, f_classif, f_regression
from sklearn.svm import SVC, SVR

from common import Results, linear_reconstruction_error, load_split, parser
from ipcae_sklearn import CAESelector, IPCAESelector, greedy_columns

CASES = {
    "isolet": {"k": 50, "task": "classification"},
    "mnist": {"k": 50, "task": "classification"},
    "coil20": {"k": 50, "task": "reconstruction"},
    "communities_crime": {"k": 10, "task": "regression"},
}


def select_kbest(split, k, task, seed):
    # Without a target SelectKBest has nothing to score with; variance stands in.
    if task == "reconstruction":
        return np.argsort(-split.X_train.var(axis=0))[:k], {}
    score = f_classif if task == "classification" else f_regression
    with np.errstate(divide="ignore", invalid="ignore"):  # constant columns
        selector = SelectKBest(score, k=k).fit(split.X_train, split.y_train)
    return selector.get_support(indices=True), {}


def select_random(split, k, task, seed):
    n_features = split.X_train.shape[1]
    return np.random.default_rng(seed).choice(n_features, k, replace=False), {}


def select_greedy(split, k, task, seed):
    target = None
    if task == "classification":
        target = (split.y_train[:, None] == np.unique(split.y_train)).astype(float)
    elif task == "regression":
        target = split.y_train
    return greedy_columns(split.X_train, k, target=target), {}


def concrete(cls):
    def select(split, k, task, seed):
        target = (None, None)
        if task != "reconstruction":
            target = (split.y_train, split.y_test)
        selector = cls(k, task=task, random_state=seed).fit(split.X_train, target[0])
        return selector.selected_indices_, {
            "joint": selector.score(split.X_test, target[1]),
            "unique": selector.n_unique_ / k,
            "epochs": selector.n_iter_,
        }

    return select


METHODS = {
    "IPCAESelector": concrete(IPCAESelector),
    "CAESelector": concrete(CAESelector),
    "greedy": select_greedy,
    "SelectKBest": select_kbest,
    "random": select_random,
}


def downstream(split, columns, task, seed):
    """Test scores of default models on the columns."""
    if task == "regression":
        models = {"svm": SVR(), "trees": ExtraTreesRegressor(50, random_state=seed)}
    else:
        models = {"svm": SVC(), "trees": ExtraTreesClassifier(50, random_state=seed)}
    scores = {
        name: model.fit(split.X_train[:, columns], split.y_train).score(
            split.X_test[:, columns], split.y_test
        )
        for name, model in models.items()
    }
    return scores | {"linear_mse": linear_reconstruction_error(split, columns)}


def main():
    options = parser(__doc__).parse_args()
    results = Results("defaults", "python benchmarks/defaults.py")
    for seed in range(1 if options.quick else options.seeds):
        for name, case in CASES.items():
            split = load_split(name, options.data, seed)
            for method, select in METHODS.items():
                key = {"data": name, "method": method, "seed": seed}
                if results.has(**key):
                    continue
                started = time.perf_counter()
                columns, extra = select(split, case["k"], case["task"], seed)
                seconds = time.perf_counter() - started
                scores = downstream(split, columns, case["task"], seed)
                results.add(**key, **case, seconds=seconds, **extra, **scores)
                print(key, {n: round(float(v), 4) for n, v in scores.items()}, extra)


if __name__ == "__main__":
    main()
