"""What a fit costs in time and memory, as the data and the selection grow.

A linear target of 50 planted columns. One quantity grows at a time: the columns p, the
rows n (a memory-mapped file, and a sparse matrix with 1 % of its values), the selected
features k, or the runs r. One set is large both ways ("wide"), and DEXTER is a text set
of sparse counts. The study "reconstruction" has no target and columns that are noisy
copies of 50 factors, of which each should have a column among those selected. Each case
has a process and one thread of its own (Linux only), and a GPU if there is one. Its
peak is the most memory resident in the fit, less what was resident before it, when the
data were there.

``python benchmarks/scale.py`` appends to ``results/scale.jsonl`` and goes on where it
was stopped.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

from common import Results, load_split, parser, with_peak_memory
from ipcae_sklearn import CAESelector, IPCAESelector, greedy_columns

N_RELEVANT = 50
SELECTORS = {"IPCAESelector": IPCAESelector, "CAESelector": CAESelector}
DENSE, DENSITY = "dense", 0.01
BLOCKS, NOISE = "blocks", 0.5


def case(study, method, n=1000, p=1000, k=50, r=1, data=DENSE, **parameters):
    own = {"study": study, "method": method, "n": n, "p": p, "k": k, "r": r}
    return own | {"data": data, "parameters": parameters}


def all_cases():
    """Small ones first, in each study; the largest, half an hour each, last of all."""
    both = tuple(SELECTORS)
    for p in (10**3, 10**4, 10**5):
        for method in both:
            yield case("p", method, p=p)
        yield case("p", "greedy_columns", p=p)
        yield case("p", "IPCAESelector", p=p, init="greedy")
    for data in ("memmap", "csr"):
        for n in (10**4, 10**5, 10**6):  # the search has about 3,300 steps at most
            steps = {"batch_size": 256, "max_iter": 10**6 // n, "tuning_iter": 1}
            yield case("n", "IPCAESelector", n=n, p=500, data=data, **steps)
    for k in (10, 50, 100, 200):
        for method in both:
            yield case("k", method, k=k)
    for r in (1, 2, 4, 8):
        for method in both:
            yield case("r", method, r=r)
    for method in both:
        yield case("dexter", method, n=300, p=20_000, data="dexter")
    for method in both:
        yield case("wide", method, n=5000, p=30_000)
    for p in (10**3, 10**4, 10**5):
        for method in both:
            yield case("reconstruction", method, p=p, data=BLOCKS)
    yield case("n", "IPCAESelector", n=10**6, p=500, data="memmap")  # by default
    for p in (10**5, 10**6):
        yield case("p", "CAESelector", p=p, n_candidates="all")
    for method in reversed(both):  # greedy_columns would hold five times X in float64
        yield case("p", method, p=10**6)


def quick_cases():
    for own in all_cases():
        small = own["n"] <= 10**4 and own["p"] < 10**4 and own["k"] * own["r"] <= 100
        if (
            small
            and own["method"] == "IPCAESelector"
            and "init" not in own["parameters"]
        ):
            yield own


# Data


def draw_target(rng, columns, n):
    """Unit variance of the planted columns (n, 50) in some mixture, and noise."""
    weights = rng.uniform(1, 2, N_RELEVANT) * rng.choice([-1, 1], N_RELEVANT)
    signal = columns @ weights
    return signal / signal.std() + 0.1 * rng.standard_normal(n)


def fill(X, rng):
    """Standard normal values, without a second array of that size."""
    for row in range(0, len(X), 1000):
        part = X[row : row + 1000]
        for own in part:
            own[:] = rng.standard_normal(len(own), dtype=np.float32)
    return X


def write_data(folder, data, n, p):
    """Files that ``read_data`` reads; written by a process that is not measured."""
    rng = np.random.default_rng(0)
    relevant = np.sort(rng.choice(p, N_RELEVANT, replace=False))
    if data == "memmap":
        path, shape = folder / "X.npy", (n, p)
        X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        fill(X, rng)
        columns = np.array(X[:, relevant])
    else:
        X = scipy.sparse.random_array(
            (n, p), density=DENSITY, format="csr", dtype=np.float32, rng=rng
        )
        scipy.sparse.save_npz(folder / "X.npz", X, compressed=False)
        columns = X[:, relevant].toarray()
    y = draw_target(rng, columns, n)
    np.savez(folder / "y.npz", y=y, relevant=relevant)


def read_data(own, folder, data_home):
    """X, y, the planted columns, and held-out rows, where there are any."""
    if own["data"] == BLOCKS:
        rng = np.random.default_rng(0)
        X = fill(np.empty((own["n"], own["p"]), dtype=np.float32), rng)
        factors = rng.standard_normal((own["n"], N_RELEVANT), dtype=np.float32)
        for row, own_factors in zip(X, factors, strict=True):
            row *= NOISE
            row += np.repeat(own_factors, own["p"] // N_RELEVANT)
        return X, None, None, None
    if own["data"] == "dexter":
        split = load_split("dexter", data_home, scale=False)
        X_train, X_test = map(scipy.sparse.csr_matrix, (split.X_train, split.X_test))
        return X_train, split.y_train, None, (X_test, split.y_test)
    if own["data"] == DENSE:
        rng = np.random.default_rng(0)
        relevant = np.sort(rng.choice(own["p"], N_RELEVANT, replace=False))
        X = fill(np.empty((own["n"], own["p"]), dtype=np.float32), rng)
        return X, draw_target(rng, X[:, relevant], own["n"]), relevant, None
    with np.load(folder / "y.npz") as file:
        y, relevant = file["y"], file["relevant"]
    if own["data"] == "memmap":
        return np.load(folder / "X.npy", mmap_mode="r"), y, relevant, None
    return scipy.sparse.load_npz(folder / "X.npz"), y, relevant, None


# A case, in a process of its own


def measure(own, folder, data_home):
    """What a case took, and what it found."""
    warnings.simplefilter("ignore")  # short searches do not converge, and say so
    torch.set_num_threads(1)
    X, y, relevant, test = read_data(own, folder, data_home)
    warm_up()
    fit = FIT.get(own["method"], fit_selector)
    started = time.perf_counter()
    (columns, figures), peak = with_peak_memory(fit, own, X, y)
    figures["seconds"] = time.perf_counter() - started
    figures |= {"peak_mb": peak / 2**20, "data_mb": n_bytes(X) / 2**20}
    if torch.cuda.is_available():
        figures["device_peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    figures["arrays"] = peak / (4 * own["k"] * own["p"] * own["r"])
    if relevant is not None:
        found = np.isin(relevant, columns).sum()
        figures["recovered"] = found / min(own["k"], N_RELEVANT)
    if own["data"] == BLOCKS:
        factor = columns // (own["p"] // N_RELEVANT)
        figures["recovered"] = len(set(factor.tolist())) / N_RELEVANT
    if test is not None:
        figures["accuracy"] = figures.pop("model").score(*test)
    figures.pop("model", None)
    return figures


def fit_selector(own, X, y):
    model = SELECTORS[own["method"]](
        own["k"], n_init=own["r"], random_state=0, **own["parameters"]
    )
    model.fit(X, y)
    figures = {"epochs": model.n_iter_, "converged": model.converged_}
    return model.selected_indices_, figures | {"model": model}


def fit_greedy(own, X, y):
    return greedy_columns(X, own["k"], target=y), {}


FIT = {"greedy_columns": fit_greedy}


def warm_up():
    """Loads what is loaded at first use, which is no memory of the fit."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(600, 20)), rng.normal(size=600)
    IPCAESelector(5, max_iter=2, tuning_iter=1, random_state=0).fit(X, y)
    greedy_columns(X, 5, target=y)


def n_bytes(X):
    if scipy.sparse.issparse(X):
        return X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    return X.nbytes


# All cases


def run(own, folder, data_home):
    command = [sys.executable, __file__, "--case", json.dumps(own)]
    command += ["--folder", str(folder), "--data", str(data_home)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{own} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--case", type=json.loads, help="measure this one (JSON)")
    arguments.add_argument("--folder", type=Path, help="where its data are")
    arguments.add_argument("--largest", type=float, default=np.inf, help="n p at most")
    options = arguments.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.folder, options.data)))
        return
    command = "python benchmarks/scale.py"
    results = Results("scale", command, quick=options.quick)
    for own in quick_cases() if options.quick else all_cases():
        if results.has(**own) or own["n"] * own["p"] > options.largest:
            continue
        with tempfile.TemporaryDirectory() as folder:
            if own["data"] in ("memmap", "csr"):
                write_data(Path(folder), own["data"], own["n"], own["p"])
            figures = run(own, folder, options.data)
        results.add(**own, seed=0, **figures)
        print(json.dumps(own), {k: round(v, 3) for k, v in figures.items()})


if __name__ == "__main__":
    main()
