"""Few rows of many columns, reconstructed in their directions: what it saves and costs.

Reconstructions of 50 columns, fitted with outputs for the directions that the rows span
(what the package does where there are thousands of columns), and for the columns
themselves. Real sets are parts of the training rows of ``downstream.py``, judged by
other rows of these: R² of the decoder, and the mean squared error of a least-squares
reconstruction. "factors" are 1,000 rows and 10,000 columns that are noisy copies of 50
factors. ``python benchmarks/directions.py`` appends to ``results/directions.jsonl``.
"""

import time
import warnings
from unittest.mock import patch

import numpy as np
import torch

from common import Results, Split, linear_reconstruction_error, load_split, parser
from ipcae_sklearn import CAESelector, IPCAESelector, _problem

# Name, data, and rows to fit to; those with few columns have columns by default.
CASES = {
    "arcene, 75 rows": ("arcene", 75),
    "dexter, 225 rows": ("dexter", 225),
    "factors, 1,000 rows": ("factors", 1000),
    "coil20, 100 rows": ("coil20", 100),
    "coil20, 300 rows": ("coil20", 300),
    "isolet, 100 rows": ("isolet", 100),
    "isolet, 300 rows": ("isolet", 300),
}
SELECTORS = {"IPCAESelector": IPCAESelector, "CAESelector": CAESelector}
MOST_ROWS = 1000  # to judge by


def factors(seed):
    """Rows of 50 factors, each copied 200 times with noise of a half of it."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((2 * MOST_ROWS, 50), dtype=np.float32)
    noise = rng.standard_normal((2 * MOST_ROWS, 10_000), dtype=np.float32)
    return np.repeat(values, 200, axis=1) + noise / 2


def load(name, n_rows, data_home, seed) -> Split:
    X = factors(seed) if name == "factors" else load_split(name, data_home).X_train
    order = np.random.default_rng(seed).permutation(len(X))
    fitted, others = order[:n_rows], order[n_rows : n_rows + MOST_ROWS]
    return Split(X[fitted], None, X[others], None)


def measure(split, Selector, outputs, seed):
    selector = Selector(50, random_state=seed)
    started = time.process_time()
    turned = outputs == "directions"
    with patch.object(_problem, "worthwhile", lambda n_rows, n_columns: turned):
        selector.fit(split.X_train)
    return {
        "seconds": time.process_time() - started,
        "score": selector.score(split.X_test),
        "linear_mse": linear_reconstruction_error(split, selector.selected_indices_),
    }


def main():
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of rows that are not sure
    command = "python benchmarks/directions.py"
    results = Results("directions", command, quick=options.quick)
    for seed in range(1 if options.quick else options.seeds):
        for case, (name, n_rows) in CASES.items():
            split = load(name, n_rows, options.data, seed)
            for method, Selector in SELECTORS.items():
                for outputs in ("columns", "directions"):
                    key = {"case": case, "method": method, "outputs": outputs}
                    key["seed"] = seed
                    if results.has(**key):
                        continue
                    found = measure(split, Selector, outputs, seed)
                    results.add(**key, p=split.X_train.shape[1], **found)
                    print(*key.values(), found, flush=True)


if __name__ == "__main__":
    main()
