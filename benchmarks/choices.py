"""What chose the defaults: scores on held-out parts of the training rows.

No test row of ``downstream.py`` with the same seed is seen here. A quarter of its
training rows is held out (mice: by mouse), the selectors are fitted to the others, and
an SVM and 50 extremely randomised trees are judged on the quarter, as there.
``python benchmarks/choices.py`` appends to ``results/choices.jsonl``.
"""

import time
import warnings
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from common import Results, Split, load_split, parser
from downstream import DATA, REGRESSION, judge
from ipcae_sklearn import CAESelector, IPCAESelector, _local_search, _settings

MANY_ROWS = ("madelon", "isolet", "mice", "communities_crime", "usps")
FEW_ROWS = ("dexter", "arcene")
SETTLED = (*MANY_ROWS, "mnist")
ALL = (*SETTLED, *FEW_ROWS)
# How stand-ins are chosen is no parameter; see the method in docs.
BY_SHARE, BY_KINSHIP = "stand-ins by share", "stand-ins by kinship"
# Nor is the noise on a classifier's inputs, which changes the decoder alone. Without it
# the rate of the tuning is that of the search.
JITTER, NO_JITTER = "noise on the inputs", "no noise on the inputs"
# The search among some of the columns, and among all.
CANDIDATES, ALL_COLUMNS = "among candidates", "among all columns"
# Steps of the decoder for one of the selector.
ONE_STEP, FOUR_STEPS = "one step of the decoder", "four steps of the decoder"
# The share of the rows that the selector holds out, and at least 500 rows.
SHARE_HELD_OUT, ROWS_HELD_OUT = "15 per cent held out", "500 rows held out"
# Whether the decoder learns from the rows held out once they have judged it.
JUDGED, ON_ALL_ROWS = "decoder as judged", "decoder tuned on all rows"
CLASSES = ("madelon", "isolet", "mice", "usps", "mnist")
# Sets of which a part is fitted to.
PARTS = {
    f"{name}, {n} rows": (name, n)
    for n in (1000, 2000)
    for name in ("isolet", "usps", "mnist")
}
MODERATE = ("mice", "communities_crime", "madelon", *PARTS)
MANY_OR_MODERATE = (*SETTLED, *(name for name in PARTS if "1000" in name))
# Of the same sets and of COIL-20 the rows alone.
NO_TARGET = {
    f"{name}, no target": name
    for name in ("mice", "communities_crime", "usps", "isolet", "coil20", "mnist")
}
BOTH = (*SETTLED, *NO_TARGET)
# The selector's rate, in units of the default's.
RATES = {"a third of the selector's rate": 1 / 3, "thrice the selector's rate": 3.0}
# Parameters that differ from the defaults, and the sets on which they can matter.
VARIANTS = {
    "default": ({}, (*ALL, *NO_TARGET)),
    "regression's swaps alone": ({"n_trials": 1}, MANY_ROWS),
    "no local search": ({"n_trials": 0}, MANY_ROWS),
    BY_SHARE: ({}, SETTLED),
    "standard deviations": ({"standardize": True}, ALL),
    BY_KINSHIP: ({}, FEW_ROWS),
    "no features hidden": ({"feature_dropout": 0.0}, FEW_ROWS),
    JITTER: ({}, CLASSES),
    NO_JITTER: ({"learning_rate_init": 1e-3}, CLASSES),
    CANDIDATES: ({}, FEW_ROWS),
    ALL_COLUMNS: ({"n_candidates": "all"}, FEW_ROWS),
    ONE_STEP: ({"n_decoder_steps": 1}, ALL),
    FOUR_STEPS: ({}, ALL),
    SHARE_HELD_OUT: ({"validation_fraction": 0.15}, MODERATE),
    ROWS_HELD_OUT: ({}, MODERATE),
    JUDGED: ({}, MANY_OR_MODERATE),
    ON_ALL_ROWS: ({}, MANY_OR_MODERATE),
    "one epoch of the search": ({"max_iter": 1}, BOTH),
    "500 steps of the search": ({}, BOTH),
    "4,000 steps of the search": ({}, BOTH),
    "1,000 steps of the tuning": ({}, SETTLED),
    **{rate: ({}, BOTH) for rate in RATES},
    "d = 8": ({"embedding_dim": 8}, BOTH),
    "d = 128": ({"embedding_dim": 128}, BOTH),
    "7 trials": ({"n_trials": 7}, SETTLED),
    "28 trials": ({"n_trials": 28}, SETTLED),
    "noise of each batch": ({"noise": "batch"}, BOTH),
    "rows begin at greedy columns": ({"init": "greedy"}, BOTH),
    "no local search, no target": ({"n_trials": 0}, tuple(NO_TARGET)),
}
# What is no parameter and differs in a variant.
WAYS = {
    BY_SHARE: (_local_search, "_BY", ("company", "share", "curve")),
    BY_KINSHIP: (_local_search, "_BY_UNTRIED", "kinship"),
    NO_JITTER: (_settings, "_JITTER", 0.0),
    JUDGED: (_settings, "_MOST_ROWS_TO_REFIT", 0),
    "500 steps of the search": (_settings, "_SEARCH_STEPS", 500),
    "4,000 steps of the search": (_settings, "_SEARCH_STEPS", 4000),
    "1,000 steps of the tuning": (_settings, "_TUNING_STEPS", 1000),
}
SELECTORS = {"IPCAESelector": IPCAESelector, "CAESelector": CAESelector}
MOST_ROWS = 4000  # to fit to; half as many are held out


def held_out_split(name, data_home, seed, most=MOST_ROWS) -> Split:
    """Part of the training rows in place of all rows, another in place of the test."""
    split = load_split(name, data_home, seed)
    rows = np.arange(len(split.X_train))
    if split.groups_train is not None:
        splitter = GroupShuffleSplit(1, test_size=0.25, random_state=100 + seed)
        fitted, held_out = next(splitter.split(rows, groups=split.groups_train))
    else:
        fitted, held_out = train_test_split(
            rows,
            test_size=0.25,
            stratify=None if name in REGRESSION else split.y_train,
            random_state=100 + seed,
        )
    fitted, held_out = fitted[:most], held_out[: MOST_ROWS // 2]
    X, y = split.X_train, split.y_train
    return Split(X[fitted], y[fitted], X[held_out], y[held_out])


def ways_of(variant):
    """In it, what is no parameter is as in the variant."""
    return patch.object(*WAYS[variant]) if variant in WAYS else nullcontext()


def parameters_of(variant, method):
    """The parameters that differ from the defaults; None where they do not exist."""
    parameters = VARIANTS[variant][0]
    if variant in RATES:
        rate = RATES[variant] * SELECTORS[method]._selector_rate
        return {"learning_rate_selector": rate}
    if "embedding_dim" in parameters and method == "CAESelector":
        return None
    return parameters


def measure(key, parameters, data_home):
    """Scores of what is kept, seconds of the processor, and the held-out loss."""
    name, most = PARTS.get(key["data"], (key["data"], MOST_ROWS))
    name, seed = NO_TARGET.get(name, name), key["seed"]
    split, regression = held_out_split(name, data_home, seed, most), name in REGRESSION
    task, protocol = "regression" if regression else "classification", "supervised"
    if key["data"] in NO_TARGET:
        task, protocol = "reconstruction", "unsupervised"
    selector = SELECTORS[key["method"]](
        DATA[name], task=task, random_state=seed, **parameters
    )
    started = time.process_time()
    with ways_of(key["variant"]):
        selector.fit(split.X_train, split.y_train)
    seconds = time.process_time() - started
    scores = judge(split, selector.selected_indices_, protocol, seed, regression)
    return scores | {
        "seconds": seconds,
        "decoder": float(selector.score(split.X_test, split.y_test)),
        "validation_loss": float(selector.restart_losses_.min()),
    }


def keys(n_seeds):
    """Of all fits: data, variant, selector and seed."""
    for seed in range(n_seeds):
        for variant, (_, names) in VARIANTS.items():
            for name in names:
                for method in SELECTORS:
                    key = {"data": name, "variant": variant, "method": method}
                    yield key | {"seed": seed}


def main():
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of rows that are not sure
    command = "python benchmarks/choices.py"
    results = Results("choices", command, quick=options.quick)
    for key in keys(1 if options.quick else options.seeds):
        parameters = parameters_of(key["variant"], key["method"])
        if parameters is None or results.has(**key):
            continue
        found = measure(key, parameters, options.data)
        results.add(**key, parameters=parameters, **found)
        print(*key.values(), found, flush=True)


if __name__ == "__main__":
    main()
