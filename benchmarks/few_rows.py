"""Few rows: what folds of them tell of the columns and of the decoder.

Random parts of data sets (those of scikit-learn and those of ``downstream.py``) with
fewer rows than ``IPCAESelector`` holds some out of, and up to 1,000 other rows to test
on. Ours: by default; without the swaps that the folds judge (``n_trials=0``); and
without any folds, tuned to the end of the schedule. Recorded are the test score of the
decoder (accuracy, R², or R² of the reconstruction), the mean negative log probability
of the true class, and what ``downstream.py`` says of the columns. That is recorded of
other selectors, too. Seconds are of the processor, with the scores of our decoders.
``python benchmarks/few_rows.py`` appends to
``results/few_rows.jsonl``.
"""

import time
import warnings
from unittest.mock import patch

import numpy as np
import torch
from sklearn import datasets
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from common import Results, Split, load_split, parser
from downstream import SUPERVISED, UNSUPERVISED, judge
from ipcae_sklearn import CAESelector, IPCAESelector, _settings

MOST_TEST_ROWS = 1000
# Name: where it is from, rows to fit to, k, and the task.
CASES = {
    "cancer": ("load_breast_cancer", 200, 8, "classification"),
    "diabetes": ("load_diabetes", 250, 5, "regression"),
    "wine": ("load_wine", 100, 5, "classification"),
    "digits": ("load_digits", 300, 20, "classification"),
    "digits, no target": ("load_digits", 300, 20, "reconstruction"),
    "isolet": ("isolet", 300, 50, "classification"),
    "isolet, k = 10": ("isolet", 300, 10, "classification"),
    "isolet, no target": ("isolet", 300, 50, "reconstruction"),
    "usps": ("usps", 300, 50, "classification"),
    "usps, no target": ("usps", 300, 50, "reconstruction"),
    "mnist": ("mnist", 300, 50, "classification"),
    "madelon": ("madelon", 400, 20, "classification"),
    "communities_crime": ("communities_crime", 300, 10, "regression"),
    "coil20, no target": ("coil20", 100, 50, "reconstruction"),
    "arcene": ("arcene", 100, 50, "classification"),
    "arcene, no target": ("arcene", 100, 50, "reconstruction"),
    "dexter": ("dexter", 300, 50, "classification"),
    "dexter, no target": ("dexter", 300, 50, "reconstruction"),
}
# Selector, its parameters, and the number of folds.
_FOLDS = _settings._FOLDS
OURS = {
    "no folds": (IPCAESelector, {}, 0),
    "no swaps": (IPCAESelector, {"n_trials": 0}, _FOLDS),
    "IPCAESelector": (IPCAESelector, {}, _FOLDS),
    "CAESelector": (CAESelector, {}, _FOLDS),
}
OTHERS = ("F-test", "trees", "RFE linear", "variance", "greedy", "greedy + swaps")


def load(source, n_rows, data_home, seed) -> Split:
    if source.startswith("load_"):
        X, y = getattr(datasets, source)(return_X_y=True)
        if source != "load_digits":  # whose columns have one unit
            X = StandardScaler().fit_transform(X)
    else:
        split = load_split(source, data_home)
        X, y = split.X_train, split.y_train
        if n_rows == len(X):  # the official split
            return split
    order = np.random.default_rng(seed).permutation(len(X))
    fitted, test = order[:n_rows], order[n_rows : n_rows + MOST_TEST_ROWS]
    return Split(X[fitted], y[fitted], X[test], y[test])


def fit(method, split, k, task, seed):
    """The columns that ours select, and what is to be said of the decoder."""
    kind, parameters, folds = OURS[method]
    selector = kind(k, task=task, random_state=seed, **parameters)
    with patch.object(_settings, "_FOLDS", folds):
        selector.fit(split.X_train, split.y_train)
    figures = {"score": selector.score(split.X_test, split.y_test)}
    if task == "classification":
        proba = selector.predict_proba(split.X_test)
        figures["log_loss"] = log_loss(split.y_test, proba, labels=selector.classes_)
    searched = np.isfinite(selector.history_["temperature"]).sum()
    figures["tuning_epochs"] = int(selector.n_iter_ - searched)
    return selector.selected_indices_, figures


def measure(method, split, k, task, seed):
    regression, figures = task == "regression", {}
    protocol = "unsupervised" if task == "reconstruction" else "supervised"
    started = time.process_time()
    if method in OURS:
        columns, figures = fit(method, split, k, task, seed)
    else:
        own = split.X_train, split.y_train, k, seed, regression
        columns = others_for(task)[method](*own)
    figures["fit_seconds"] = time.process_time() - started
    return figures | judge(split, columns, protocol, seed, regression)


def others_for(task):
    known = UNSUPERVISED if task == "reconstruction" else SUPERVISED
    return {name: known[name] for name in OTHERS if name in known}


def main():
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of rows that are not sure
    command = "python benchmarks/few_rows.py"
    results = Results("few_rows", command, quick=options.quick)
    for seed in range(1 if options.quick else options.seeds):
        for case, (source, n_rows, k, task) in CASES.items():
            split = load(source, n_rows, options.data, seed)
            for method in (*OURS, *others_for(task)):
                key = {"case": case, "method": method, "seed": seed}
                if results.has(**key):
                    continue
                found = measure(method, split, k, task, seed)
                results.add(**key, task=task, n_rows=n_rows, k=k, **found)
                print(*key.values(), found, flush=True)


if __name__ == "__main__":
    main()
