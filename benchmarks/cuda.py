"""What a GPU gains, and whether what it finds is what a processor finds.

Whole fits, on one thread: on CUDA with steps recorded as graphs, on CUDA step by step,
and on the processor. All read the same noise; of the losses of the first epochs is told
how far apart they are. While fits run on CUDA its utilisation is sampled. The search
over k is run side by side on the GPU, and as a grid search of single fits in two
processes, which share the GPU or have a core each. Last, what a fit to 1,000 rows costs
as the columns grow, as in ``scale.py``.
``python benchmarks/cuda.py`` appends to ``results/cuda.jsonl``; it needs a CUDA device.
"""

from search import KS, measure, searches, start_workers  # isort: skip; sets one thread

import json
import subprocess
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import numpy as np
import torch
from joblib import parallel_config
from sklearn.base import clone

import scale
from common import Results, load_split, parser
from ipcae_sklearn import IPCAESelector, _decoding, _regression, _training

SETS = {
    "isolet": "classification",
    "mnist": "classification",
    "coil20": "reconstruction",
    "dexter": "classification",
}
K = 50
SEEDS = 3
PS = (10**4, 10**5, 10**6)  # columns
EPOCHS_TO_COMPARE = 5
EVERY = 0.1  # seconds between two looks at how busy the device is
BY_GRAPHS = "cuda"


@contextmanager
def step_by_step():
    def as_it_is(step, device, recordable):
        return step

    with ExitStack() as stack:
        for module in (_decoding, _regression, _training):
            stack.enter_context(patch.object(module, "replayed", as_it_is))
        yield


WAYS = {
    BY_GRAPHS: nullcontext,
    "cpu": nullcontext,
    "cuda, step by step": step_by_step,
}


class Utilisation:
    """Samples how busy the device is, in percent, until it is left."""

    COMMAND = "nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits"

    def __enter__(self):
        self.samples, self.over = [], threading.Event()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def _sample(self):
        while not self.over.wait(EVERY):
            found = subprocess.run(
                self.COMMAND.split(), capture_output=True, text=True, check=True
            )
            self.samples.append(float(found.stdout.splitlines()[0]))

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()


def fit(results, name, way, seed, data_home):
    key = {"part": "fit", "data": name, "way": way, "seed": seed}
    if results.has(**key):
        return
    task = SETS[name]
    split = load_split(name, data_home, seed)
    selector = IPCAESelector(
        K, task=task, device="cpu" if way == "cpu" else "cuda", random_state=seed
    )
    target = None if task == "reconstruction" else split.y_train
    busy = Utilisation() if way == BY_GRAPHS else nullcontext()
    with WAYS[way](), busy:
        seconds = -time.perf_counter()
        selector.fit(split.X_train, target)
        seconds += time.perf_counter()
    figures = {
        "seconds": seconds,
        "epochs": len(selector.history_["train_loss"]),
        "first_losses": selector.history_["train_loss"][:EPOCHS_TO_COMPARE].tolist(),
        "columns": selector.selected_indices_.tolist(),
        "score": selector.score(split.X_test, None if target is None else split.y_test),
    }
    if way == BY_GRAPHS:
        figures["utilisation"] = float(np.mean(busy.samples or [np.nan]))
    results.add(**key, k=K, **figures)
    print(*key.values(), f"{seconds:.2f} s  {figures['score']:.4f}", flush=True)


def search(results, name, seed, data_home):
    """All runs side by side on the GPU; single fits there, and on two cores."""
    (_, side_by_side), (_, grid) = searches(KS[name], seed)
    side_by_side.set_params(n_jobs=1)  # the GPU has work enough
    on_cores = clone(grid).set_params(estimator__device="cpu")
    ways = {
        "IPCAESelectorCV": side_by_side,
        "GridSearchCV": grid,
        "GridSearchCV, cpu": on_cores,
    }
    for method, own in ways.items():
        key = {"part": "search", "data": name, "method": method, "seed": seed}
        key["ks"] = list(KS[name])
        if results.has(**key):
            continue
        figures = measure(own, load_split(name, data_home, seed))
        results.add(**key, n_jobs=own.n_jobs, **figures)
        print(*key.values(), f"{figures['seconds']:.1f} s", flush=True)


def grow(results, p, data_home):
    own = scale.case("p", "IPCAESelector", p=p)
    key = {"part": "scale", **own}
    if not results.has(**key):
        figures = scale.run(own, None, data_home)
        results.add(**key, **figures, seed=0)
        print(json.dumps(key), f"{figures['seconds']:.1f} s", flush=True)


def main():
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of rows that are not sure
    command = "python benchmarks/cuda.py"
    results = Results("cuda", command, quick=options.quick)
    torch.zeros(1, device="cuda")
    IPCAESelector(2, max_iter=2).fit(np.eye(8))  # what is set up once
    with parallel_config("loky", inner_max_num_threads=1):
        start_workers()
        for name in ("isolet", "mnist"):
            search(results, name, 0, options.data)
    for way in WAYS:
        for name in SETS:
            fit(results, name, way, 0, options.data)
    for p in PS[: 2 if options.quick else None]:
        grow(results, p, options.data)
    for seed in range(1, 1 if options.quick else SEEDS):
        for name in SETS:
            fit(results, name, BY_GRAPHS, seed, options.data)


if __name__ == "__main__":
    main()
