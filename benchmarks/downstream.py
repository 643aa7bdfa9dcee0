"""Columns kept by many selectors, judged by the models that come after.

Two protocols. *supervised*: the selector sees the training rows with their target.
*unsupervised*: it sees the rows alone. Ours run with default parameters beside the
classical selectors. Recorded for each data set, protocol, k, method and seed are the
test scores of a default SVM and of 50 extremely randomised trees on the columns kept
(accuracy, or R² for communities_crime), the test error of a least-squares
reconstruction of all columns, how well 20 restarts of k-means on the columns find the
classes again (normalised mutual information, unsupervised only), and seconds.

Official splits where there are any, else 80/20 by seed. MNIST is cut to 10,000 rows;
it comes a second time with all 60,000, of which the SVM sees the first 10,000.
``python benchmarks/downstream.py`` appends to ``results/downstream.jsonl`` and goes on
where it was stopped; ``--packages`` adds the selectors of the extra ``[bench]``.
"""

import collections.abc
import time
import warnings

import numpy as np
import torch
from scipy.linalg import qr
from sklearn.cluster import KMeans
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.feature_selection import (
    RFE,
    f_classif,
    f_regression,
    mutual_info_classif,
    mutual_info_regression,
)
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.metrics import normalized_mutual_info_score
from sklearn.svm import SVC, SVR

from common import Results, linear_reconstruction_error, load_split, parser
from ipcae_sklearn import CAESelector, IPCAESelector, greedy_columns

# The k that stands in the tables of the documentation.
DATA = {
    "mice": 10,
    "madelon": 20,
    "communities_crime": 10,
    "usps": 50,
    "isolet": 50,
    "coil20": 50,
    "mnist": 50,
    "arcene": 50,
    "dexter": 50,
    "mnist_60000": 50,
}
# At one k, without what takes too long: for nearest neighbours, minutes.
LARGE = ("mnist_60000",)
TOO_SLOW = ("mutual information",)
ALL_COLUMNS = "all columns"
SVM_ROWS = 10_000
REGRESSION = ("communities_crime",)
OTHER_K = (10, 25, 50)
SHOWN = ("svm", "trees", "linear_mse", "nmi")


def largest(scores, k):
    """The k columns of the largest score; NaN (constant columns) comes last."""
    scores = np.nan_to_num(scores, nan=-np.inf)
    return np.argsort(-scores, kind="stable")[:k]


def standardised(X):
    std = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(std > 0, std, 1)


def targets(y, regression):
    """Values, or a column of 0 and 1 for each class."""
    return y if regression else (y[:, None] == np.unique(y)).astype(float)


# Each takes (X, y, k, seed, regression) and returns columns.


def random_columns(X, y, k, seed, regression):
    return np.random.default_rng(seed).choice(X.shape[1], k, replace=False)


def f_test(X, y, k, seed, regression):
    return largest((f_regression if regression else f_classif)(X, y)[0], k)


def mutual_information(X, y, k, seed, regression):
    score = mutual_info_regression if regression else mutual_info_classif
    return largest(score(X, y, random_state=seed), k)


def trees(X, y, k, seed, regression):
    forest = ExtraTreesRegressor if regression else ExtraTreesClassifier
    model = forest(100, random_state=seed).fit(X, y)
    return largest(model.feature_importances_, k)


def l1_linear(X, y, k, seed, regression):
    if regression:
        model = Lasso(alpha=0.01).fit(standardised(X), standardised(y))
    else:
        # Twenty passes are enough to rank the columns; more take minutes.
        model = LogisticRegression(
            l1_ratio=1, C=0.02, solver="saga", max_iter=20, random_state=seed
        ).fit(standardised(X), y)
    return largest(np.abs(np.atleast_2d(model.coef_)).sum(axis=0), k)


def rfe_linear(X, y, k, seed, regression):
    model = Ridge() if regression else LogisticRegression(max_iter=50)
    eliminated = RFE(model, n_features_to_select=k, step=0.05).fit(standardised(X), y)
    return eliminated.get_support(indices=True)


def greedy_with_target(X, y, k, seed, regression):
    return greedy_columns(X, k, target=targets(y, regression))


def greedy_with_target_and_swaps(X, y, k, seed, regression):
    return greedy_columns(X, k, target=targets(y, regression), n_swap_passes=3)


def variance(X, y, k, seed, regression):
    return largest(X.var(axis=0), k)


def pivoted_qr(X, y, k, seed, regression):
    return qr(X - X.mean(axis=0), mode="r", pivoting=True)[1][:k]


def greedy(X, y, k, seed, regression):
    return greedy_columns(X, k)


def greedy_with_swaps(X, y, k, seed, regression):
    return greedy_columns(X, k, n_swap_passes=3)


def mrmr(X, y, k, seed, regression):
    import pandas as pd
    from mrmr import mrmr_classif, mrmr_regression

    select = mrmr_regression if regression else mrmr_classif
    frame = pd.DataFrame(X)
    return np.array(select(frame, pd.Series(y), K=k, show_progress=False, n_jobs=1))


def boruta(X, y, k, seed, regression):
    from boruta import BorutaPy

    forest = ExtraTreesRegressor if regression else ExtraTreesClassifier
    model = forest(100, max_depth=7, random_state=seed)
    fitted = BorutaPy(model, max_iter=30, random_state=seed).fit(X, y)
    return largest(-fitted.ranking_.astype(float), k)


def lassonet(X, y, k, seed, regression):
    from lassonet import LassoNetClassifier, LassoNetRegressor

    model = (LassoNetRegressor if regression else LassoNetClassifier)(
        hidden_dims=(100,),
        path_multiplier=1.1,
        n_iters=(100, 20),
        patience=(10, 5),
        batch_size=256,
        random_state=seed,
        torch_seed=seed,
        device="cpu",
        verbose=0,
    )
    y = y.astype(np.float32)[:, None] if regression else y
    model.path(standardised(X).astype(np.float32), y)
    # The strength of the penalty at which a column is dropped.
    return largest(model.feature_importances_.numpy(), k)


def stg(X, y, k, seed, regression):
    # Four names that its last release, of 2021, looks for where they were until 3.9.
    for name in ("Iterable", "Mapping", "Sequence", "Set"):
        setattr(collections, name, getattr(collections.abc, name))
    from stg import STG

    torch.manual_seed(seed)
    n_outputs = 1
    if not regression:
        classes, y = np.unique(y, return_inverse=True)
        n_outputs = len(classes)
    model = STG(
        "cpu",
        task_type="regression" if regression else "classification",
        input_dim=X.shape[1],
        output_dim=n_outputs,
        hidden_dims=[200],
        batch_size=64,
        learning_rate=1e-3,
        random_state=seed,
    )
    y = standardised(y).astype(np.float32)[:, None] if regression else y
    X = standardised(X).astype(np.float32)
    model.fit(X, y, nr_epochs=300, verbose=False, shuffle=True)
    return largest(np.asarray(model.get_gates("raw")), k)


def all_columns(X, y, k, seed, regression):
    """No selection: what the models that come after make of everything."""
    return np.arange(X.shape[1])


SUPERVISED = {
    "random": random_columns,
    "F-test": f_test,
    "mutual information": mutual_information,
    "trees": trees,
    "L1 linear": l1_linear,
    "RFE linear": rfe_linear,
    "greedy": greedy_with_target,
    "greedy + swaps": greedy_with_target_and_swaps,
}
UNSUPERVISED = {
    "random": random_columns,
    "variance": variance,
    "pivoted QR": pivoted_qr,
    "greedy": greedy,
    "greedy + swaps": greedy_with_swaps,
}
NO_SELECTION = {ALL_COLUMNS: all_columns}  # the same at any k: at that of the tables
PACKAGES = {"mRMR": mrmr, "Boruta": boruta, "LassoNet": lassonet, "STG": stg}
OURS = {"IPCAESelector": IPCAESelector, "CAESelector": CAESelector}


def select(method, protocol, split, k, seed, regression):
    """Columns, and what else there is to say of our own selectors."""
    X, y = split.X_train, split.y_train
    if method not in OURS:
        functions = UNSUPERVISED
        if protocol == "supervised":
            functions = SUPERVISED | PACKAGES | NO_SELECTION
        return functions[method](X, y, k, seed, regression), {}
    task = "reconstruction"
    if protocol == "supervised":
        task = "regression" if regression else "classification"
    selector = OURS[method](k, task=task, random_state=seed)
    selector.fit(X, None if task == "reconstruction" else y)
    test = () if task == "reconstruction" else (split.y_test,)
    return selector.selected_indices_, {
        "joint": selector.score(split.X_test, *test),
        "validation_loss": float(selector.restart_losses_.min()),
        "unique": selector.n_unique_ / k,
    }


def judge(split, columns, protocol, seed, regression):
    """Test scores of what comes after the selection."""
    if regression:
        models = {"svm": SVR(), "trees": ExtraTreesRegressor(50, random_state=seed)}
    else:
        models = {"svm": SVC(), "trees": ExtraTreesClassifier(50, random_state=seed)}
    train, test = split.X_train[:, columns], split.X_test[:, columns]
    scores = {}
    for name, model in models.items():
        most = SVM_ROWS if name == "svm" else None
        model.fit(train[:most], split.y_train[:most])
        scores[name] = model.score(test, split.y_test)
    if train.shape[1] < split.X_train.shape[1]:
        scores["linear_mse"] = linear_reconstruction_error(split, columns)
    if protocol == "unsupervised" and not regression:
        classes = len(np.unique(split.y_train))
        found = KMeans(classes, n_init=20, random_state=seed).fit_predict(test)
        scores["nmi"] = normalized_mutual_info_score(split.y_test, found)
    return scores


def measure(method, protocol, split, k, seed, regression):
    """What there is to record of a selection."""
    seconds = -time.perf_counter()
    columns, extra = select(method, protocol, split, k, seed, regression)
    seconds += time.perf_counter()
    scores = judge(split, columns, protocol, seed, regression)
    if method != ALL_COLUMNS:
        extra["columns"] = np.sort(columns).tolist()
    return {"seconds": seconds, **scores, **extra}


def show(key, record):
    shown = {name: round(value, 4) for name, value in record.items() if name in SHOWN}
    print(*key.values(), f"{record['seconds']:.1f} s", shown, flush=True)


def cases(options):
    """(k, seed, data, protocol, method), the most wanted first."""
    seeds = range(1 if options.quick else options.seeds)
    names = ("mice", "usps") if options.quick else tuple(DATA)
    main = [(None, seed) for seed in seeds]
    others = [(k, seed) for seed in seeds for k in OTHER_K]
    for k, seed in main if options.quick or options.main else main + others:
        for name in names:
            if k == DATA[name] or (k and name in LARGE):
                continue
            for protocol, methods in (
                ("supervised", SUPERVISED | OURS | ({} if k else NO_SELECTION)),
                ("unsupervised", UNSUPERVISED | OURS),
            ):
                for method in methods:
                    if name not in LARGE or method not in TOO_SLOW:
                        yield k or DATA[name], seed, name, protocol, method
                packages = options.packages and name not in LARGE
                if packages and protocol == "supervised":
                    for method in PACKAGES:
                        yield k or DATA[name], seed, name, protocol, method


def main():
    options = parser(__doc__)
    options.add_argument("--packages", action="store_true", help="add [bench]")
    options.add_argument("--main", action="store_true", help="one k for each set")
    options = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of models that have not converged
    command = "python benchmarks/downstream.py"
    results = Results("downstream", command, quick=options.quick)
    todo = list(cases(options))
    loaded = {}
    for i, (k, seed, name, protocol, method) in enumerate(todo):
        key = {"data": name, "protocol": protocol, "k": k, "method": method}
        key["seed"] = seed
        if results.has(**key):
            continue
        if (name, seed) not in loaded:
            loaded = {(name, seed): load_split(name, options.data, seed)}
        split = loaded[name, seed]
        record = measure(method, protocol, split, k, seed, name in REGRESSION)
        results.add(**key, **record)
        print(f"{i + 1}/{len(todo)}", end=" ")
        show(key, record)


if __name__ == "__main__":
    main()
