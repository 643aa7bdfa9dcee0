"""The search over k side by side, and as a grid search of single fits.

``IPCAESelectorCV`` and ``GridSearchCV`` on the same folds, at the default values of k
and at larger ones, with two processes of one thread each, which are up before the clock
starts; seconds are those of the search, without the refit. Whether scores agree is told
by ten seeds of scikit-learn's digits.
Then restarts: validation loss and seconds with 1, 3 and 8 runs.
Last, what a search would gain and lose that began each smaller k with the rows of the
largest, of which it would drop those that the decoder misses least: the accuracy on a
fifth of the training rows, held out, and what a fit takes with hardly a search.
``python benchmarks/search.py`` appends to ``results/search.jsonl``.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; workers inherit it

import time
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

from common import Results, Split, load_split, parser
from ipcae_sklearn import IPCAESelector, IPCAESelectorCV

KS = {
    "digits": (5, 10, 20, 40),
    "isolet": (10, 20, 50, 100),
    "mnist": (10, 20, 50, 100),
}
DEFAULT_KS = IPCAESelectorCV().ks
N_JOBS = 2
N_INITS = (1, 3, 8)
SEEDS_OF_DIGITS = 10


def load(name, data_home, seed) -> Split:
    if name != "digits":
        return load_split(name, data_home, seed)
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X / 16, y, test_size=0.2, stratify=y, random_state=seed
    )
    return Split(X_train, y_train, X_test, y_test)


def searches(ks, seed):
    """The searches to compare, not to be refitted: both refit in the same way."""
    options = {
        "cv": StratifiedKFold(5, shuffle=True, random_state=seed),
        "n_jobs": N_JOBS,
        "refit": False,
    }
    selector = IPCAESelector(task="classification", random_state=seed)
    yield "IPCAESelectorCV", IPCAESelectorCV(ks, estimator=selector, **options)
    yield "GridSearchCV", GridSearchCV(selector, {"k": list(ks)}, **options)


def measure(search, split):
    """Seconds and scores of a search, and of the selector with the k it chose."""
    seconds = -time.perf_counter()
    search.fit(split.X_train, split.y_train)
    seconds += time.perf_counter()
    chosen = clone(search.estimator).set_params(**search.best_params_)
    refit_seconds = -time.perf_counter()
    chosen.fit(split.X_train, split.y_train)
    refit_seconds += time.perf_counter()
    results = search.cv_results_
    return {
        "seconds": seconds,
        "refit_seconds": refit_seconds,
        "mean_scores": results["mean_test_score"].tolist(),
        "std_scores": results["std_test_score"].tolist(),
        "fit_seconds_by_k": results["mean_fit_time"].tolist(),
        "chosen_k": int(search.best_params_["k"]),
        "test_accuracy": chosen.score(split.X_test, split.y_test),
    }


def compare(results, name, ks, seed, data_home):
    split = None
    for method, search in searches(ks, seed):
        key = {"part": "search", "data": name, "method": method, "seed": seed}
        key["ks"] = list(ks)
        if results.has(**key):
            continue
        split = split or load(name, data_home, seed)
        figures = measure(search, split)
        results.add(**key, n_jobs=N_JOBS, **figures)
        print(
            f"{name:8} seed {seed} {method:16} {figures['seconds']:7.1f} s"
            f"  k = {figures['chosen_k']:3}  test {figures['test_accuracy']:.4f}"
            f"  folds {np.round(figures['mean_scores'], 4)}",
            flush=True,
        )


def restart(results, name, k, seed, data_home):
    for n_init in N_INITS:
        key = {"part": "restarts", "data": name, "n_init": n_init, "seed": seed}
        if results.has(**key):
            continue
        split = load(name, data_home, seed)
        selector = IPCAESelector(
            k, task="classification", n_init=n_init, random_state=seed
        )
        seconds = -time.perf_counter()
        selector.fit(split.X_train, split.y_train)
        seconds += time.perf_counter()
        figures = {
            "seconds": seconds,
            "validation_loss": float(selector.restart_losses_.min()),
            "restart_losses": selector.restart_losses_.tolist(),
            "test_accuracy": selector.score(split.X_test, split.y_test),
        }
        results.add(**key, k=k, **figures)
        print(
            f"{name:8} seed {seed} n_init {n_init}  {seconds:6.1f} s"
            f"  validation loss {figures['validation_loss']:.4f}"
            f"  test {figures['test_accuracy']:.4f}",
            flush=True,
        )


def begin_large(results, name, seed, data_home):
    """Each k with rows of its own, with those of the largest k, and hardly a search."""
    split = load(name, data_home, seed)
    X, X_held_out, y, y_held_out = train_test_split(
        split.X_train,
        split.y_train,
        test_size=0.2,
        stratify=split.y_train,
        random_state=seed,
    )
    for k in KS[name]:
        variants = {"rows of its own": {}, "one epoch of search": {"max_iter": 1}}
        if k < max(KS[name]):
            variants["rows of the largest k"] = {"n_surplus": max(KS[name]) - k}
        for variant, parameters in variants.items():
            key = {"part": "begin large", "data": name, "k": k, "variant": variant}
            key["seed"] = seed
            if results.has(**key):
                continue
            selector = IPCAESelector(
                k, task="classification", random_state=seed, **parameters
            )
            seconds = -time.process_time()
            selector.fit(X, y)
            seconds += time.process_time()
            accuracy = selector.score(X_held_out, y_held_out)
            figures = {"processor_seconds": seconds, "accuracy": accuracy}
            results.add(**key, parameters=parameters, **figures)
            print(*key.values(), f"{seconds:.1f} s  {accuracy:.4f}", flush=True)


def start_workers():
    """Have the processes import all they need, and see that each uses one thread."""
    tasks = (delayed(_threads)() for _ in range(4 * N_JOBS))
    assert set(Parallel(n_jobs=N_JOBS)(tasks)) == {1}, "a worker has several threads"


def _threads():
    clone(IPCAESelector())  # makes sure that the package is imported
    time.sleep(0.2)  # long enough for every worker to get a task
    return torch.get_num_threads()


def main():
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    # Scores tell how good a selection is; that a fold's rows are not sure is no news.
    warnings.simplefilter("ignore", ConvergenceWarning)
    os.environ["PYTHONWARNINGS"] = "ignore"  # in the workers
    command = "python benchmarks/search.py"
    results = Results("search", command, quick=options.quick)
    names, seeds, k = ["isolet", "mnist"], options.seeds, 50
    if options.quick:
        names, seeds, k = [], 1, 10
    with parallel_config("loky", inner_max_num_threads=1):
        start_workers()
        for seed in range(seeds):
            for name in names:
                for ks in (DEFAULT_KS, KS[name]):
                    compare(results, name, ks, seed, options.data)
        for seed in range(1 if options.quick else SEEDS_OF_DIGITS):
            compare(results, "digits", KS["digits"], seed, options.data)
    names = names or ["digits"]
    for seed in range(seeds):
        for name in names:
            restart(results, name, k, seed, options.data)
        begin_large(results, names[0], seed, options.data)


if __name__ == "__main__":
    main()
