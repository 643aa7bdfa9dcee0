"""Whether the number of threads changes what is selected.

The same fits with one and with two threads; the number of columns they share.
``python benchmarks/threads.py`` appends to ``results/threads.jsonl``.
"""

import torch
from sklearn.datasets import load_breast_cancer, load_digits

from common import Results, parser
from ipcae_sklearn import IPCAESelector
from ipcae_sklearn.datasets import make_blocks, make_linear

K = 8
CASES = {
    "digits": lambda: load_digits(return_X_y=True),
    "breast_cancer": lambda: load_breast_cancer(return_X_y=True),
    "linear": lambda: make_linear(random_state=0)[:2],
    "blocks": lambda: (make_blocks(random_state=0)[0], None),
}


def selected(X, y, seed, n_threads):
    torch.set_num_threads(n_threads)
    return set(IPCAESelector(K, random_state=seed).fit(X, y).selected_indices_)


def main():
    options = parser(__doc__).parse_args()
    results = Results("threads", "python benchmarks/threads.py", quick=options.quick)
    for seed in range(1 if options.quick else 2):
        for name, load in CASES.items():
            key = {"data": name, "seed": seed}
            if results.has(**key):
                continue
            X, y = load()
            shared = len(selected(X, y, seed, 1) & selected(X, y, seed, 2))
            results.add(**key, k=K, shared=shared)
            print(key, shared)


if __name__ == "__main__":
    main()
