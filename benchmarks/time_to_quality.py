"""Seconds to a test score: default parameters beside the protocol of the paper.

The paper's protocol (embedding dimension p, noise for each row, 200 epochs at a batch
size of 16 or 128, no tuning) is run by the same program, without the diagnostics of
the published code. All 60,000 rows of MNIST, for which it would take hours, have three
fits of 500 extremely randomised trees beside them instead. Seconds are of the
processor, on one thread. ``python benchmarks/time_to_quality.py`` appends to
``results/time_to_quality.jsonl``; the paper's protocol takes the better part of an
hour.
"""

import time

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesClassifier

from common import Results, load_split, parser
from ipcae_sklearn import CAESelector, IPCAESelector

PAPER = {
    "embedding_dim": "n_features",
    "noise": "sample",
    "max_iter": 200,
    "tuning_iter": 0,
    "learning_rate_init": 1e-3,
    "learning_rate_selector": 1e-3,
    "n_iter_no_change": 1000,  # all of the 200 epochs
    "standardize": False,
    "validation_fraction": 0.2,
}
CASES = {
    "coil20": {"task": "reconstruction", "batch_size": 16, "rows": None},
    "isolet": {"task": "classification", "batch_size": 128, "rows": None},
    "mnist": {"task": "classification", "batch_size": 128, "rows": 9000},
    "mnist_60000": {"task": "classification", "batch_size": None, "rows": None},
}
K = 50


def selectors(case, seed):
    """The selectors to compare."""
    common = {"task": case["task"], "random_state": seed}
    found = {
        "IPCAESelector": IPCAESelector(K, **common),
        "CAESelector": CAESelector(K, **common),
    }
    if case["batch_size"]:
        paper = PAPER | {"batch_size": case["batch_size"]}
        found["paper"] = IPCAESelector(K, **common, **paper)
    return found


def test_score(selector, split, task):
    """Mean squared error of the reconstruction, or accuracy of the joint decoder."""
    if task == "classification":
        return {"accuracy": selector.score(split.X_test, split.y_test)}
    error = selector.reconstruct(selector.transform(split.X_test)) - split.X_test
    paper_error = np.linalg.norm(error, axis=1).mean() / error.shape[1]
    return {"mse": float(np.mean(error**2)), "paper_error": float(paper_error)}


def data_of(name, case, data_home, seed):
    # COIL-20 as published: pixels in [0, 1] as they are.
    split = load_split(name, data_home, seed, scale=name != "coil20")
    split.X_train, split.y_train = (
        split.X_train[: case["rows"]],
        split.y_train[: case["rows"]],
    )
    return split


def timed(fit, *arguments):
    """Seconds of the processor that a call takes."""
    started = time.process_time()
    fit(*arguments)
    return {"seconds": time.process_time() - started}


def main():
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    results = Results("time_to_quality", "python benchmarks/time_to_quality.py")
    seeds = range(options.seeds if options.seeds != 5 else 1)
    # The slow ones last.
    for method in ("IPCAESelector", "CAESelector", "trees", "paper"):
        for seed in seeds:
            for name, case in CASES.items():
                key = {"data": name, "method": method, "seed": seed}
                if not results.has(**key) and not (options.quick and method == "paper"):
                    measure(results, key, case, options.data)


def measure(results, key, case, data_home):
    """Fit and add what it took and how good it is."""
    if key["method"] == "trees":
        if case["batch_size"] is None:
            add_trees(results, key, case, data_home)
        return
    selector = selectors(case, key["seed"]).get(key["method"])
    if selector is None:
        return
    split = data_of(key["data"], case, data_home, key["seed"])
    y = split.y_train if case["task"] == "classification" else None
    cost = timed(selector.fit, split.X_train, y)
    score = test_score(selector, split, case["task"])
    results.add(**key, **cost, unique=selector.n_unique_ / K, k=K, **score)
    print(key, cost, score, flush=True)


def add_trees(results, key, case, data_home):
    """What three fits of 500 trees take on the same rows."""
    split = data_of(key["data"], case, data_home, key["seed"])
    trees = ExtraTreesClassifier(500, random_state=key["seed"])
    seconds = 3 * timed(trees.fit, split.X_train, split.y_train)["seconds"]
    accuracy = trees.score(split.X_test, split.y_test)
    results.add(**key, seconds=seconds, accuracy=accuracy)
    print(key, seconds, accuracy, flush=True)


if __name__ == "__main__":
    main()
