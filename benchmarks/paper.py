"""The experiments of the IP-CAE paper, with this package.

``python benchmarks/paper.py`` appends a record for each run to
``results/paper.jsonl`` and skips those it finds there, so a stopped run goes on; the
most telling runs come first. All of it takes hours on one core. ``--quick`` takes
minutes: COIL-20 alone, one seed, 60 epochs, results in ``results/quick``.

The protocol is that of the paper (200 epochs of Adam at 1e-3, no tuning, the model of
the lowest validation loss), but for the noise: one draw for each batch, and one for
each row as published where the method's name says so.
"""

import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from common import Results, load_split, parser
from ipcae_sklearn import CAESelector, IPCAESelector, greedy_columns
from ipcae_sklearn._modules import DirectLogits

PAPER = {
    "noise": "batch",
    "max_iter": 200,
    "tuning_iter": 0,
    "learning_rate_init": 1e-3,
    "learning_rate_selector": 1e-3,
    "n_iter_no_change": 1000,  # all of the 200 epochs
    "standardize": False,
}


@dataclass(frozen=True)
class Data:
    """A data set as the paper splits it."""

    name: str
    k: int
    batch_size: int
    validation_fraction: float
    rows: int | None = None
    split: dict | None = None

    def load(self, data_home, seed):
        split = load_split(self.name, data_home, seed, **(self.split or {}))
        split.X_train = split.X_train[: self.rows]
        split.y_train = split.y_train[: self.rows]
        return split


DATA = {
    # As published: pixels in [0, 1] as they are.
    "coil20": Data("coil20", 50, 16, 0.25, split={"scale": False}),
    "mice": Data("mice", 10, 16, 0.25, split={"by_group": False}),
    "mice by mouse": Data("mice", 10, 16, 0.25),
    "isolet": Data("isolet", 50, 128, 0.2),
    "mnist": Data("mnist", 50, 128, 0.2, rows=9000),
}


class LogitMoves:
    """How far the logits move: mean |change| in one step and in one epoch.

    They are computed with a pullback at each training step and without one at the end
    of each epoch.
    """

    def __init__(self, logits):
        self.steps, self.epochs = [], []
        self.last = None
        self.n_calls = 0
        self.in_step = False
        self.with_pullback = logits.with_pullback
        logits.with_pullback = self.at_step
        logits.register_forward_hook(self.at_end)

    def at_step(self, out=None, rows=None):
        self.in_step = True
        logits, pullback = self.with_pullback(out, rows)
        self.in_step = False
        if self.last is None:
            self.last = logits.clone()
        self.n_calls += 1
        if self.n_calls == 2:  # the first step of the epoch has been taken
            self.steps.append(self._moved(logits))
        return logits, pullback

    def at_end(self, module, inputs, output):
        # Once the search is over, rows may be dropped.
        if not self.in_step and self.last is not None:
            if output.shape == self.last.shape:
                self.epochs.append(self._moved(output.detach()))
                self.last = output.detach().clone()
                self.n_calls = 0

    def _moved(self, logits):
        return float((logits - self.last).abs().mean())


class Watched:
    """A selector that notes how far its logits move."""

    def _make_model(self, *args):
        model = super()._make_model(*args)
        self.moves = LogitMoves(model.logits)
        return model


class CAE(Watched, CAESelector):
    """The direct parameterization."""


class IPCAE(Watched, IPCAESelector):
    """The indirect parameterization."""


class SpreadCAE(CAE):
    """Direct logits that begin with the values that IP-CAE's begin with."""

    def _make_logits(self, k, n_features, generators, start):
        spread = IPCAESelector(embedding_dim="n_features")
        initial = spread._make_logits(k, n_features, generators, start)()
        logits = super()._make_logits(k, n_features, generators, start)
        logits.log_alpha.data.copy_(initial.detach())
        return logits


class FixedMap(IPCAE):
    """Indirect logits of a random map W that is not trained."""

    def _make_logits(self, k, n_features, generators, start):
        logits = super()._make_logits(k, n_features, generators, start)
        logits.weight.requires_grad_(False)
        return logits


class FixedEmbedding(IPCAE):
    """Indirect logits of a random embedding that is not trained."""

    def _make_logits(self, k, n_features, generators, start):
        logits = super()._make_logits(k, n_features, generators, start)
        logits.embedding.requires_grad_(False)
        return logits


class GivenColumns(CAE):
    """The same decoder, trained in the same way on ``columns``, which stay."""

    def _make_model(self, problem, runs, n_rows, start, candidates):
        start = [np.searchsorted(problem.columns, self.columns)]
        return super()._make_model(problem, runs, n_rows, start, None)

    def _make_logits(self, k, n_features, generators, start):
        # So far ahead that no noise, at any temperature, picks another column.
        logits = DirectLogits(k, n_features, generators, start=start, start_logit=1e5)
        return logits.requires_grad_(False)


def random_columns(split, task, k, seed):
    varying = np.flatnonzero(split.X_train.std(axis=0))
    return np.random.default_rng(seed).choice(varying, k, replace=False)


def chosen_greedily(split, task, k, seed):
    target = None
    if task == "classification":
        target = (split.y_train[:, None] == np.unique(split.y_train)).astype(float)
    return greedy_columns(split.X_train, k, target=target)


# Name of a method: its selector and what differs from PAPER.
CORE = {
    "CAE": (CAE, {}),
    "IP-CAE": (IPCAE, {"embedding_dim": "n_features"}),
    "CAE, selector rate 0.03": (CAE, {"learning_rate_selector": 0.03}),
    "random columns": (GivenColumns, random_columns),
    "greedy columns": (GivenColumns, chosen_greedily),
}
# The package's own settings, in place of PAPER.
OURS = {
    "IPCAESelector": (IPCAE, None),
    "IPCAESelector, longer": (IPCAE, None),
    "IPCAESelector, longer, wider": (IPCAE, None),
}
MAIN = CORE | {
    "CAE, IP-CAE's start": (SpreadCAE, {}),
    "CAE, selector rate 0.01": (CAE, {"learning_rate_selector": 0.01}),
    "CAE + GJSD, λ = 0.01": (CAE, {"diversity": 0.01}),
    "CAE + GJSD, λ = 0.1": (CAE, {"diversity": 0.1}),
    "CAE + GJSD, λ = 1": (CAE, {"diversity": 1.0}),
    "CAE + GJSD, λ = 10": (CAE, {"diversity": 10.0}),
}
PER_ROW = {
    "CAE, noise per row": (CAE, {"noise": "sample"}),
    "IP-CAE, noise per row": (
        IPCAE,
        {"noise": "sample", "embedding_dim": "n_features"},
    ),
}
ABLATION = {
    "d = 8": (IPCAE, {"embedding_dim": 8}),
    "d = 32": (IPCAE, {"embedding_dim": 32}),
    "d = 128": (IPCAE, {"embedding_dim": 128}),
    "d = 32, selector rate 0.01": (
        IPCAE,
        {"embedding_dim": 32, "learning_rate_selector": 0.01},
    ),
    "W fixed, d = p": (FixedMap, {"embedding_dim": "n_features"}),
    "Ψ fixed, d = p": (FixedEmbedding, {"embedding_dim": "n_features"}),
    "map per_row, d = 32": (IPCAE, {"embedding_dim": 32, "map": "per_row"}),
    "map diagonal": (IPCAE, {"map": "diagonal"}),
    "map scalar": (IPCAE, {"map": "scalar"}),
    "no bias, d = 128": (IPCAE, {"embedding_dim": 128, "map_bias": False}),
    "identity rows, d = 128": (
        IPCAE,
        {"embedding_dim": 128, "embedding_init": "identity"},
    ),
    "CAE, linear decoder": (CAE, {"hidden_layer_sizes": ()}),
    "d = 128, linear decoder": (
        IPCAE,
        {"embedding_dim": 128, "hidden_layer_sizes": ()},
    ),
    "CAE, two hidden layers": (CAE, {"hidden_layer_sizes": (200, 200)}),
    "d = 128, two hidden layers": (
        IPCAE,
        {"embedding_dim": 128, "hidden_layer_sizes": (200, 200)},
    ),
    "CAE, selector rate 0.1": (CAE, {"learning_rate_selector": 0.1}),
}
# Too many parameters for a plan of hours: with --full alone.
SLOW = {"map full, d = 2": (IPCAE, {"embedding_dim": 2, "map": "full"})}
METHODS = MAIN | OURS | PER_ROW | ABLATION | SLOW
# "longer" takes no fewer steps of the decoder than PAPER does on COIL-20.
_LONGER = {"max_iter": 500, "tuning_iter": 300}
OWN = {
    "IPCAESelector": {},
    "IPCAESelector, longer": _LONGER,
    "IPCAESelector, longer, wider": _LONGER | {"hidden_layer_sizes": (600,)},
}
GJSD = [name for name in MAIN if "GJSD" in name]
JOINT = ["CAE", "IP-CAE", "CAE, selector rate 0.03"]
RETRAINED = [*JOINT, *PER_ROW]

RECONSTRUCTION, CLASSIFICATION = "reconstruction", "classification"
BOTH = RECONSTRUCTION, CLASSIFICATION
# Experiment, data, tasks, methods, number of seeds; a run listed twice is done once.
PLAN = [
    ("main", "isolet", [CLASSIFICATION], CORE, 1),
    ("main", "mnist", [CLASSIFICATION], CORE, 1),
    ("main", "coil20", BOTH, MAIN, 1),
    ("main", "mice by mouse", BOTH, CORE, 3),
    ("main", "coil20", BOTH, CORE, 3),
    ("main", "mice", BOTH, CORE, 3),
    ("retrained", "coil20", BOTH, RETRAINED, 1),
    ("ablation", "coil20", [RECONSTRUCTION], ABLATION, 1),
    ("main", "isolet", BOTH, CORE, 2),
    ("main", "mnist", BOTH, CORE, 2),
    ("main", "mice by mouse", BOTH, CORE, 5),
    ("main", "coil20", BOTH, CORE, 5),
    ("main", "mice", BOTH, CORE, 5),
    ("main", "isolet", BOTH, CORE, 3),
    ("main", "mnist", [CLASSIFICATION], CORE, 3),
    ("retrained", "coil20", BOTH, RETRAINED, 3),
    ("main", "isolet", BOTH, CORE, 5),
    ("main", "mnist", BOTH, CORE, 5),
    ("main", "coil20", BOTH, PER_ROW, 1),
    ("main", "mice by mouse", BOTH, MAIN | PER_ROW, 5),
    ("main", "mice", BOTH, MAIN | PER_ROW, 5),
    ("main", "isolet", BOTH, MAIN, 5),
    ("main", "mnist", BOTH, MAIN, 5),
    ("ablation", "coil20", [RECONSTRUCTION], ABLATION, 5),
    ("retrained", "coil20", BOTH, RETRAINED, 5),
    ("main", "coil20", BOTH, MAIN | PER_ROW, 5),
    ("retrained", "mice by mouse", BOTH, JOINT, 3),
    ("retrained", "isolet", BOTH, JOINT, 3),
    ("retrained", "mnist", BOTH, JOINT, 3),
]
# The package's own settings are quick: in front of all others.
OWN_PLAN = [
    ("main", data, tasks, methods, 5)
    for data, tasks, methods in (
        ("coil20", BOTH, OURS),
        ("mice by mouse", BOTH, ["IPCAESelector"]),
        ("mice", BOTH, ["IPCAESelector"]),
        ("isolet", BOTH, ["IPCAESelector"]),
        ("mnist", BOTH, ["IPCAESelector"]),
    )
]
QUICK = [
    ("main", "coil20", BOTH, MAIN | OURS, 1),
    ("retrained", "coil20", BOTH, RETRAINED, 1),
]
# With --full, after all of the plan.
FULL = [
    ("ablation", "isolet", [CLASSIFICATION], ABLATION, 3),
    ("ablation", "coil20", [RECONSTRUCTION], SLOW, 1),
]


def runs(plan, max_seeds):
    """The keys of all runs in their order."""
    for experiment, data, tasks, methods, n_seeds in plan:
        for seed in range(min(n_seeds, max_seeds)):
            for task in tasks:
                for method in methods:
                    yield {
                        "experiment": experiment,
                        "data": data,
                        "task": task,
                        "method": method,
                        "seed": seed,
                    }


def wanted(key, results):
    """Of the λ of GJSD, only the best at seed 0 by validation goes on to others."""
    if key["method"] not in GJSD or key["seed"] == 0:
        return True
    tried = [
        r for name in GJSD for r in results.find(**(key | {"method": name, "seed": 0}))
    ]
    best = min(tried, key=lambda r: min(r["validation_loss"]))
    return key["method"] == best["method"]


def columns_of(key, results):
    """The columns that the run of the main experiment selected; None if not done."""
    found = results.find(**(key | {"experiment": "main"}))
    return np.array(found[0]["columns"]) if found else None


def make_selector(key, split, columns, epochs):
    """The selector of a run, and the parameters to put on record."""
    data, method = DATA[key["data"]], key["method"]
    kind, changes = METHODS[method]
    parameters = PAPER | {"max_iter": epochs, "batch_size": data.batch_size}
    if method in OWN:
        parameters = OWN[method]
    elif columns is not None:
        kind = GivenColumns
    elif callable(changes):
        columns = changes(split, key["task"], data.k, key["seed"])
    else:
        parameters = parameters | changes
    parameters = parameters | {"validation_fraction": data.validation_fraction}
    own = {"task": key["task"], "random_state": key["seed"]}
    selector = kind(data.k, **own, **parameters)
    if columns is not None:
        selector.columns = np.sort(columns)
    return selector, parameters


def test_score(selector, split, task):
    """The paper's error mean ‖x - x̂‖₂ / p and the squared one, or the accuracy."""
    if task == CLASSIFICATION:
        return {"accuracy": selector.score(split.X_test, split.y_test)}
    error = selector.reconstruct(selector.transform(split.X_test)) - split.X_test
    paper_error = np.linalg.norm(error, axis=1).mean() / error.shape[1]
    return {"mse": float(np.mean(error**2)), "paper_error": float(paper_error)}


def rounded(values, digits=5):
    return [float(f"{value:.{digits}g}") for value in values]


def quarters(values, n_epochs):
    """Means over the quarters of the search."""
    parts = np.array_split(values[:n_epochs], 4)
    return rounded([part.mean() for part in parts], 3)


def findings(selector):
    """What there is to say of a fit besides its score."""
    history = selector.history_
    n_search = int(np.isfinite(history["temperature"]).sum())
    return {
        "k": len(selector.selected_indices_),
        # Of the kept model, and of the last one.
        "unique": selector.n_unique_ / len(selector.selected_indices_),
        "last_unique": history["unique_fraction"][n_search - 1],
        "mean_max_probability": rounded(history["mean_max_probability"])[n_search - 1],
        "converged": selector.converged_,
        "epochs": selector.n_iter_,
        "search_epochs": n_search,
        "kept_epoch": 1 + int(np.argmin(history["validation_loss"])),
        "logit_step": quarters(selector.moves.steps, n_search),
        "logit_epoch": quarters(selector.moves.epochs, n_search),
        "columns": selector.selected_indices_.tolist(),
        "validation_loss": rounded(history["validation_loss"]),
        "unique_fraction": rounded(history["unique_fraction"]),
    }


def run(key, options, results, epochs):
    """Fit one selector and put it on record."""
    columns = None
    if key["experiment"] == "retrained":
        columns = columns_of(key, results)
        if columns is None:
            return
    split = DATA[key["data"]].load(options.data, key["seed"])
    y = split.y_train if key["task"] == CLASSIFICATION else None
    # Of one thread; other processes on the machine cost it less than wall time.
    started = time.process_time()
    selector, parameters = make_selector(key, split, columns, epochs)
    selector.fit(split.X_train, y)
    seconds = round(time.process_time() - started, 2)
    score = test_score(selector, split, key["task"])
    results.add(
        **key, parameters=parameters, seconds=seconds, **score, **findings(selector)
    )
    print(f"  {seconds} s", score, selector.n_unique_, "distinct", flush=True)


def main():
    options = parser(__doc__)
    options.add_argument("--full", action="store_true", help="ablation on ISOLET, too")
    options = options.parse_args()
    torch.set_num_threads(1)
    # That CAE does not converge is one of the findings.
    warnings.simplefilter("ignore", ConvergenceWarning)
    epochs, plan = 200, OWN_PLAN + PLAN + options.full * FULL
    if options.quick:
        epochs, plan = 60, QUICK
    results = Results("paper", "python benchmarks/paper.py", quick=options.quick)
    every = list(runs(plan, options.seeds))
    for i, key in enumerate(every, 1):
        if not results.has(**key) and wanted(key, results):
            print(f"{i}/{len(every)}", *key.values(), sep=", ", flush=True)
            run(key, options, results, epochs)


if __name__ == "__main__":
    main()
