"""Seconds to a test score: default parameters beside the protocol of the paper.

The paper's protocol (embedding dimension p, noise for each row, 200 epochs at a batch
size of 16 or 128, no tuning) is run by the same program, without the diagnostics of
the published code. ``python benchmarks/time_to_quality.py`` appends to
``results/time_to_quality.jsonl``; the paper's protocol takes the better part of an
hour.
"""

import resource
import time

import numpy as np
import torch

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
}
K = 50


def selectors(case, seed):
    """The selectors to compare, the slow one last."""
    common = {"task": case["task"], "random_state": seed}
    yield "IPCAESelector", IPCAESelector(K, **common)
    yield "CAESelector", CAESelector(K, **common)
    yield "paper", IPCAESelector(K, batch_size=case["batch_size"], **common, **PAPER)


def test_score(selector, split, task):
    """Mean squared error of the reconstruction, or accuracy of the joint decoder."""
    if task == "classification":
        return {"accuracy": selector.score(split.X_test, split.y_test)}
    error = selector.reconstruct(selector.transform(split.X_test)) - split.X_test
    paper_error = np.linalg.norm(error, axis=1).mean() / error.shape[1]
    return {"mse": float(np.mean(error**2)), "paper_error": float(paper_error)}


def main():
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    results = Results("time_to_quality", "python benchmarks/time_to_quality.py")
    for seed in range(options.seeds if options.seeds != 5 else 1):
        for name, case in CASES.items():
            # COIL-20 as published: pixels in [0, 1] as they are.
            split = load_split(name, options.data, seed, scale=name != "coil20")
            X, y = split.X_train[: case["rows"]], split.y_train[: case["rows"]]
            for method, selector in selectors(case, seed):
                key = {"data": name, "method": method, "seed": seed}
                if results.has(**key) or (options.quick and method == "paper"):
                    continue
                started = time.perf_counter()
                selector.fit(X, y if case["task"] == "classification" else None)
                seconds = time.perf_counter() - started
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
                score = test_score(selector, split, case["task"])
                unique = selector.n_unique_ / K
                results.add(
                    **key, seconds=seconds, unique=unique, peak_mb=peak, k=K, **score
                )
                print(key, round(seconds, 1), score, unique, flush=True)


if __name__ == "__main__":
    main()
