"""Gene expression: fewer than two hundred rows, up to ten thousand columns.

The public sets that the repository jundongl/scikit-feature has in ``skfeature/data``,
as they are there: one ``.mat`` file each, in the directory that ``--data`` names.
Classes of fewer than four rows are left out; a third of the rows, stratified, is for
the test, others for each seed; columns are standardised on the training rows. Recorded
is what ``downstream.py`` says of the columns that selectors with default parameters
keep. ``python benchmarks/genes.py`` appends to ``results/genes.jsonl`` and goes on
where it was stopped; ``--packages`` adds mRMR of the extra ``[bench]``.
"""

import warnings
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from common import Results, Split, parser
from downstream import OURS, SUPERVISED, measure, show

SETS = (
    "colon",
    "leukemia",
    "lymphoma",
    "lung_small",
    "nci9",
    "ALLAML",
    "GLIOMA",
    "Prostate-GE",
    "TOX-171",
)
KS = (10, 50)
# Its penalty, which is for thousands of rows, leaves nothing of so few.
LEFT_OUT = ("L1 linear",)
FEWEST_ROWS = 4  # of a class


def load(name, data_home, seed) -> Split:
    data = loadmat(Path(data_home) / f"{name}.mat")
    X, y = data["X"], data["Y"].ravel().astype(int)
    X = np.asarray(X.toarray() if issparse(X) else X, dtype=np.float64)
    classes, counts = np.unique(y, return_counts=True)
    kept = np.isin(y, classes[counts >= FEWEST_ROWS])
    X_train, X_test, y_train, y_test = train_test_split(
        X[kept], y[kept], test_size=1 / 3, stratify=y[kept], random_state=seed
    )
    scaler = StandardScaler().fit(X_train)
    X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
    return Split(X_train, y_train, X_test, y_test)


def main():
    options = parser(__doc__)
    options.add_argument("--packages", action="store_true", help="add mRMR")
    options = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of models that have not converged
    command = "python benchmarks/genes.py"
    results = Results("genes", command, quick=options.quick)
    methods = [*OURS, *(name for name in SUPERVISED if name not in LEFT_OUT)]
    methods += ["mRMR"] if options.packages else []
    sets = SETS[:3] if options.quick else SETS
    for seed, name in product(range(1 if options.quick else options.seeds), sets):
        split = load(name, options.data, seed)
        for method, k in product(methods, KS):
            key = {"data": name, "k": k, "method": method, "seed": seed}
            if not results.has(**key):
                record = measure(method, "supervised", split, k, seed, False)
                results.add(**key, n_rows=len(split.X_train), **record)
                show(key, record)


if __name__ == "__main__":
    main()
