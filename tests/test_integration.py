"""The selectors among everything else: scikit-learn, frames, sparse data, pickles."""

import io
import pickle
import re
import warnings
from importlib.util import find_spec
from typing import ClassVar

import cloudpickle
import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from ipcae_sklearn import (
    CAESelector,
    CAESelectorCV,
    IPCAESelector,
    IPCAESelectorCV,
    _advice,
    _settings,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

both = pytest.mark.parametrize("Selector", [CAESelector, IPCAESelector])
TASKS = ["reconstruction", "classification", "regression"]
HISTORY = ["train_loss", "validation_loss", "mean_max_probability", "gjsd"]


def quick(Selector, k=3, **parameters):
    defaults = {
        "max_iter": 6,
        "tuning_iter": 3,
        "hidden_layer_sizes": (8,),
        "device": "cpu",
        "random_state": 0,
    }
    return Selector(k, **defaults | parameters)


def make_data(task="classification", n=120, p=10, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, p))
    if task == "reconstruction":
        return X, None
    values = X[:, 0] + 2 * X[:, 1] - X[:, 2]
    return X, values if task == "regression" else (values > 0).astype(int)


def assert_same_fit(a, b):
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    assert_array_equal(a.probabilities_, b.probabilities_)
    for name in HISTORY:
        assert_array_equal(a.history_[name], b.history_[name])


def linear(n_inputs, n_outputs):
    return nn.Linear(n_inputs, n_outputs)


# Within other estimators


@both
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_in_place_of_select_k_best(Selector, task):
    X, y = make_data(task)
    last = LogisticRegression() if task == "classification" else Ridge()
    pipeline = Pipeline([("select", SelectKBest(k=3)), ("last", last)])
    pipeline.set_params(select=quick(Selector)).fit(X, y)
    assert pipeline[:-1].get_feature_names_out().shape == (3,)
    assert pipeline["last"].n_features_in_ == 3
    assert pipeline.predict(X).shape == (120,)
    assert np.isfinite(pipeline.score(X, y))


@both
def test_as_last_step_of_a_pipeline(Selector):
    X, y = make_data()
    pipeline = make_pipeline(StandardScaler(), quick(Selector))
    assert pipeline.fit_transform(X, y).shape == (120, 3)
    assert pipeline.predict(X).shape == (120,)
    assert pipeline.predict_proba(X).shape == (120, 2)
    assert 0 <= pipeline.score(X, y) <= 1


@both
def test_column_transformer(Selector):
    X, y = make_data()
    transformer = ColumnTransformer(
        [
            ("first", quick(Selector, 2), [0, 1, 2, 3]),
            ("others", quick(Selector, 2), slice(4, 10)),
        ],
        remainder="passthrough",
    )
    assert transformer.fit_transform(X, y).shape == (120, 4)
    names = transformer.get_feature_names_out()
    assert len(set(names)) == 4
    assert all(name.startswith(("first__x", "others__x")) for name in names)


@both
def test_feature_union(Selector):
    X, y = make_data()
    union = FeatureUnion([("a", quick(Selector, 2)), ("b", SelectKBest(k=3))])
    assert union.fit(X, y).transform(X).shape == (120, 5)
    assert len(union.get_feature_names_out()) == 5


@both
def test_clone(Selector):
    X, y = make_data()
    selector = quick(Selector, 4, temperature=(3, 0.1), decoder=linear).fit(X, y)
    copy = clone(selector)
    assert copy.get_params() == selector.get_params()
    assert not hasattr(copy, "selected_indices_")
    assert_same_fit(copy.fit(X, y), selector)


@both
def test_repr_shows_what_was_changed(Selector):
    assert repr(Selector(k=4)) == f"{Selector.__name__}(k=4)"
    assert repr(Selector()) == f"{Selector.__name__}()"


@both
def test_grid_search_over_k(Selector):
    X, y = make_data()
    pipeline = Pipeline(
        [("select", quick(Selector)), ("classify", LogisticRegression())]
    )
    searches = [
        GridSearchCV(pipeline, {"select__k": [1, 3, "all"]}, cv=2, n_jobs=n_jobs)
        for n_jobs in (1, 2)
    ]
    one, two = (search.fit(X, y) for search in searches)
    assert_array_equal(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]
    )
    assert one.best_params_ == two.best_params_
    assert_same_fit(
        one.best_estimator_["select"],
        two.best_estimator_["select"],
    )


@both
@pytest.mark.parametrize("task", TASKS)
def test_grid_search_with_the_joint_decoder(Selector, task):
    X, y = make_data(task)
    grid = {"k": [1, 8], "diversity": [0.0, 0.1]}
    selector = quick(Selector, max_iter=20, tuning_iter=20)
    search = GridSearchCV(selector, grid, cv=2).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert search.transform(X).shape == (120, search.best_params_["k"])
    if task == "reconstruction":
        assert search.best_params_["k"] == 8
        assert_allclose(search.score(X), search.best_estimator_.score(X))


@both
@pytest.mark.parametrize("task", TASKS)
def test_cross_val_score(Selector, task):
    X, y = make_data(task)
    scores = cross_val_score(quick(Selector), X, y, cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


@both
@pytest.mark.parametrize("scoring", ["roc_auc", "neg_log_loss", "accuracy"])
def test_scorers_find_the_classes(Selector, scoring):
    X, y = make_data()
    names = np.array(["no", "yes"])[y]
    scores = cross_val_score(quick(Selector), X, names, cv=2, scoring=scoring)
    assert np.isfinite(scores).all()


def _decoder_with_dropout(n_inputs, n_outputs):
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(n_inputs, n_outputs))


@both
@pytest.mark.parametrize("decoder", [None, _decoder_with_dropout])
def test_several_threads_give_the_same(Selector, decoder):
    X, y = make_data()
    selector = quick(Selector, decoder=decoder)
    torch.set_default_dtype(torch.float64)
    try:
        jobs = (joblib.delayed(clone(selector).fit)(X, y) for _ in range(4))
        fits = joblib.Parallel(n_jobs=2, backend="threading")(jobs)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    expected = selector.fit(X, y)
    for fit in fits:
        assert_same_fit(fit, expected)


@both
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_selector_said_to_predict_is_a_predictor(Selector, task):
    kinds = {"classification": is_classifier, "regression": is_regressor}
    assert kinds[task](quick(Selector, task=task))
    assert not any(kind(quick(Selector)) for kind in kinds.values())


# Weights, routed


@both
def test_sample_weight_is_routed(Selector):
    X, y = make_data()
    seen = np.arange(120) % 3 > 0
    expected = quick(Selector).fit(X, y, sample_weight=seen)
    with sklearn.config_context(enable_metadata_routing=True):
        selector = quick(Selector).set_fit_request(sample_weight=True)
        last = LogisticRegression().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(selector, last)
        pipeline.fit(X, y, sample_weight=seen)
        assert_same_fit(pipeline[0], expected)
        # Not asked for: not handed on.
        selector = quick(Selector).set_fit_request(sample_weight=False)
        last = LogisticRegression().set_fit_request(sample_weight=True)
        pipeline = make_pipeline(selector, last)
        pipeline.fit(X, y, sample_weight=seen)
        assert_same_fit(pipeline[0], quick(Selector).fit(X, y))


@both
def test_sample_weight_is_routed_to_fit_and_score(Selector):
    X, y = make_data()
    with sklearn.config_context(enable_metadata_routing=True):
        selector = quick(Selector).set_fit_request(sample_weight=True)
        selector.set_score_request(sample_weight=True)
        search = GridSearchCV(selector, {"k": [2]}, cv=2)
        search.fit(X, y, sample_weight=np.arange(120) % 3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@both
def test_sample_weight_as_a_parameter_of_the_step(Selector):
    X, y = make_data()
    weights = np.arange(120) % 3
    pipeline = Pipeline(
        [("select", quick(Selector)), ("classify", LogisticRegression())]
    )
    pipeline.fit(X, y, select__sample_weight=weights)
    expected = quick(Selector).fit(X, y, sample_weight=weights)
    assert_same_fit(pipeline["select"], expected)


@both
def test_weights_may_be_a_list_or_integers(Selector):
    X, y = make_data()
    expected = quick(Selector).fit(X, y, sample_weight=np.arange(120.0))
    for weights in (list(range(120)), np.arange(120, dtype=np.uint8)):
        selector = quick(Selector).fit(X, y, sample_weight=weights)
        assert_same_fit(selector, expected)


# Frames


def make_frame(library):
    module = pytest.importorskip(library)
    X, y = make_data()
    names = [f"column {j}" for j in range(10)]
    return module, module.DataFrame(dict(zip(names, X.T, strict=True))), y


@both
@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("task", ["reconstruction", "classification"])
def test_frames_in_and_out(Selector, library, task):
    _, frame, y = make_frame(library)
    y = None if task == "reconstruction" else y
    X, _ = make_data()
    selector = quick(Selector).fit(frame, y)
    assert_array_equal(selector.feature_names_in_, list(frame.columns))
    assert_same_fit(selector, quick(Selector).fit(X, y))
    expected = [f"column {j}" for j in selector.selected_indices_]
    assert_array_equal(selector.get_feature_names_out(), expected)
    assert isinstance(selector.transform(frame), np.ndarray)
    for output in ("pandas", "polars"):
        container = pytest.importorskip(output).DataFrame
        selected = selector.set_output(transform=output).transform(frame)
        assert isinstance(selected, container)
        assert list(selected.columns) == expected
        assert_array_equal(np.asarray(selected), X[:, selector.selected_indices_])
    if task == "classification":
        plain = quick(Selector).fit(X, y)
        assert_array_equal(selector.predict(frame), plain.predict(X))
        assert selector.score(frame, y) == plain.score(X, y)
    else:
        assert np.isfinite(selector.score(frame))
        selector.set_output(transform=library)
        full = selector.reconstruct(selector.transform(frame))
        assert full.shape == (120, 10)


@both
def test_pandas_columns_of_several_types(Selector):
    _, frame, y = make_frame("pandas")
    frame = frame.astype({"column 1": "float32", "column 5": "Float64"})
    frame["column 2"] = (frame["column 2"] > 0).astype(bool)
    frame["column 3"] = np.arange(120) % 7
    selector = quick(Selector).set_output(transform="pandas")
    selected = selector.fit_transform(frame, y)
    assert list(selected.columns) == list(selector.get_feature_names_out())
    assert_array_equal(selected.index, frame.index)


@both
@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("kind", ["labels", "values", "strings"])
def test_target_as_a_series(Selector, library, kind):
    module, frame, _ = make_frame(library)
    X, y = make_data("regression")
    if kind != "values":
        y = (y > 0).astype(int)
    if kind == "strings":
        y = np.array(["no", "yes"])[y]
    series = module.Series(y.tolist())
    selector = quick(Selector).fit(frame, series)
    assert_same_fit(selector, quick(Selector).fit(X, y))
    assert_allclose(selector.score(frame, series), selector.score(frame, y))


# Sparse data


def make_sparse(task="classification", n=150, p=12):
    X = scipy.sparse.random(n, p, 0.3, format="csr", random_state=0).toarray()
    values = X[:, 0] + 2 * X[:, 1] - X[:, 2]
    y = {"reconstruction": None, "classification": values > 0, "regression": values}
    return X, y[task]


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("container", ["csr", "csc"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_sparse_data_give_the_same_as_dense(Selector, task, container, kind):
    X, y = make_sparse(task)
    sparse = getattr(scipy.sparse, f"{container}_{kind}")(X)
    dense = quick(Selector).fit(X, y)
    selector = quick(Selector).fit(sparse, y)
    assert_array_equal(selector.selected_indices_, dense.selected_indices_)
    assert_allclose(
        selector.history_["train_loss"], dense.history_["train_loss"], rtol=1e-3
    )
    selected = selector.transform(sparse)
    assert scipy.sparse.issparse(selected)
    assert_array_equal(selected.toarray(), X[:, selector.selected_indices_])
    assert_allclose(selector.score(sparse, y), selector.score(X, y))
    if y is None:
        dense_selected = selected.toarray()
        assert_allclose(
            selector.reconstruct(selected), selector.reconstruct(dense_selected)
        )
    else:
        assert_array_equal(selector.predict(sparse), selector.predict(X))


@both
def test_sparse_integers_and_constant_columns(Selector):
    X, y = make_sparse()
    X = np.round(10 * X).astype(np.int32)
    X[:, 4] = 0
    X[:, 7] = 3
    dense = quick(Selector).fit(X, y)
    for container in (scipy.sparse.csr_array, scipy.sparse.csc_array):
        selector = quick(Selector).fit(container(X), y)
        assert_array_equal(selector.selected_indices_, dense.selected_indices_)
        assert selector.scores_[4] == selector.scores_[7] == 0


@both
def test_sparse_weights(Selector):
    X, y = make_sparse()
    weights = np.arange(150) % 4
    dense = quick(Selector).fit(X, y, sample_weight=weights)
    for container in (scipy.sparse.csr_array, scipy.sparse.csc_array):
        selector = quick(Selector).fit(container(X), y, sample_weight=weights)
        assert_array_equal(selector.selected_indices_, dense.selected_indices_)


@both
@pytest.mark.parametrize("init", ["random", "greedy"])
@pytest.mark.parametrize("task", ["reconstruction", "classification"])
@pytest.mark.parametrize("container", ["csr_array", "csc_array"])
def test_sparse_data_are_never_densified_whole(
    Selector, task, container, init, monkeypatch
):
    X, y = make_sparse(task, n=1500, p=40)
    largest = 0
    # Selected columns of all rows are made dense in blocks of as many values.
    monkeypatch.setattr("ipcae_sklearn._data._CHUNK_BYTES", 8 * 20_000)
    # Rows that share a column make the fit look at as many values at once.
    monkeypatch.setattr("ipcae_sklearn._advice._MOST_VALUES", 20_000)
    monkeypatch.setitem(_advice._VALUES_AT_ONCE, "cpu", 20_000)

    def watched(method):
        def toarray(self, *args, **kwargs):
            nonlocal largest
            largest = max(largest, self.shape[0] * self.shape[1])
            return method(self, *args, **kwargs)

        return toarray

    for base in (scipy.sparse.csr_array, scipy.sparse.csc_array):
        for name in ("toarray", "todense"):
            monkeypatch.setattr(base, name, watched(getattr(base, name)))
    sparse = getattr(scipy.sparse, container)(X)
    quick(Selector, init=init, max_iter=2, tuning_iter=1).fit(sparse, y)
    # A batch, or the rows that importances are measured on.
    assert 0 < largest <= 1024 * 40


@both
def test_sparse_labels(Selector):
    X, _ = make_data()
    Y = (X[:, :3] > 0).astype(int)
    selector = quick(Selector).fit(X, scipy.sparse.csr_matrix(Y))
    assert_array_equal(selector.predict(X), quick(Selector).fit(X, Y).predict(X))


# Dense data of all kinds


@both
@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int64", "bool"]
)
@pytest.mark.parametrize("task", ["reconstruction", "classification"])
def test_types_of_numbers(Selector, dtype, task):
    X, y = make_data(task)
    X = (X > 0.3).astype(dtype) if dtype == "bool" else (20 * abs(X)).astype(dtype)
    selector = quick(Selector).fit(X, y)
    expected = quick(Selector).fit(X.astype(np.float64), y)
    assert_array_equal(selector.selected_indices_, expected.selected_indices_)
    assert_allclose(
        selector.history_["train_loss"], expected.history_["train_loss"], rtol=1e-3
    )
    assert selector.transform(X).dtype == X.dtype
    assert np.isfinite(selector.score(X, y))


def _read_only(X, folder):
    X.flags.writeable = False
    return X


def _memory_map(X, folder):
    path = folder / "X.dat"
    X.tofile(path)
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


def _npy_memory_map(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


def _joblib_memory_map(X, folder):
    joblib.dump(X, folder / "X.joblib")
    return joblib.load(folder / "X.joblib", mmap_mode="r")


def _strided(X, folder):
    wide = np.zeros((2 * X.shape[0], 3 * X.shape[1]))
    view = wide[::2, ::3]
    view[:] = X
    return view


LAYOUTS = {
    "read-only": _read_only,
    "memory-mapped": _memory_map,
    "npy memory-mapped": _npy_memory_map,
    "joblib memory-mapped": _joblib_memory_map,
    "strided": _strided,
    "reversed": lambda X, folder: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "Fortran-ordered": lambda X, folder: np.asfortranarray(X),
    "transposed": lambda X, folder: np.ascontiguousarray(X.T).T,
    "other byte order": lambda X, folder: X.astype(X.dtype.newbyteorder()),
    "lists": lambda X, folder: X.tolist(),
}


@both
@pytest.mark.parametrize("task", ["reconstruction", "classification"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_in_memory_does_not_matter(Selector, task, layout, tmp_path):
    X, y = make_data(task)
    expected = quick(Selector).fit(X, y)
    other = LAYOUTS[layout](X.copy(), tmp_path)
    selector = quick(Selector).fit(other, y)
    assert_array_equal(selector.selected_indices_, expected.selected_indices_)
    # Sums over other strides may be rounded otherwise.
    assert_allclose(
        selector.history_["train_loss"], expected.history_["train_loss"], rtol=1e-3
    )
    assert_array_equal(selector.transform(other), expected.transform(X))
    assert_allclose(selector.score(other, y), expected.score(X, y), rtol=1e-3)


@both
def test_read_only_target_and_weights(Selector):
    X, y = make_data("regression")
    weights = np.arange(120.0)
    for array in (X, y, weights):
        array.flags.writeable = False
    quick(Selector).fit(X, y, sample_weight=weights).score(X, y)
    _, labels = make_data()
    labels.flags.writeable = False
    quick(Selector, class_weight="balanced").fit(X, labels, weights).score(X, labels)
    Y = np.c_[labels, labels]
    Y.flags.writeable = False
    quick(Selector).fit(X, Y)


# Pickles


def _with_pickle(selector):
    return pickle.loads(pickle.dumps(selector))


def _with_cloudpickle(selector):
    return pickle.loads(cloudpickle.dumps(selector))


def _with_joblib(selector):
    file = io.BytesIO()
    joblib.dump(selector, file)
    file.seek(0)
    return joblib.load(file)


@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("decoder", [None, linear])
@pytest.mark.parametrize("copy", [_with_pickle, _with_cloudpickle, _with_joblib])
def test_pickle(Selector, task, decoder, copy):
    X, y = make_data(task)
    selector = quick(Selector, decoder=decoder).fit(X, y)
    again = copy(selector)
    assert_same_fit(again, selector)
    assert_array_equal(again.transform(X), selector.transform(X))
    assert again.score(X, y) == selector.score(X, y)
    if task == "reconstruction":
        Z = selector.transform(X)
        assert_array_equal(again.reconstruct(Z), selector.reconstruct(Z))
    else:
        assert_array_equal(again.predict(X), selector.predict(X))
    assert_same_fit(again.fit(X, y), selector)


@both
def test_cloudpickle_of_a_local_decoder(Selector):
    X, y = make_data()
    selector = quick(Selector, decoder=lambda k, m: nn.Linear(k, m)).fit(X, y)
    assert_array_equal(_with_cloudpickle(selector).predict(X), selector.predict(X))


@both
def test_memory_mapped_pickle_predicts(Selector, tmp_path):
    X, y = make_data()
    selector = quick(Selector).fit(X, y)
    joblib.dump(selector, tmp_path / "selector.joblib")
    again = joblib.load(tmp_path / "selector.joblib", mmap_mode="r")
    assert_array_equal(again.predict(X), selector.predict(X))
    again = again.set_params(warm_start=False).fit(X, y)
    assert_same_fit(again, selector)


def test_tools_that_need_a_predictor_take_a_selector_that_names_its_task():
    X, y = make_data("classification")
    selector = quick(IPCAESelector, task="classification")
    assert cross_val_predict(selector, X, y, cv=2).shape == y.shape
    proba = cross_val_predict(selector, X, y, cv=2, method="predict_proba")
    assert proba.shape == (len(y), len(np.unique(y)))
    assert CalibratedClassifierCV(selector, cv=2).fit(X, y).predict(X).shape == y.shape
    search = IPCAESelectorCV((2,), estimator=selector, cv=2)
    assert cross_val_predict(search, X, y, cv=2).shape == y.shape
    X, y = make_data("regression")
    selector = quick(IPCAESelector, task="regression")
    own = {"func": np.sinh, "inverse_func": np.arcsinh}
    model = TransformedTargetRegressor(selector, **own).fit(X, y)
    assert model.predict(X).shape == y.shape


@both
@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision"])
@pytest.mark.parametrize("n_labels", [None, 2, 3])
def test_scorers_of_probabilities(Selector, scoring, n_labels):
    X, y = make_data("classification")
    if n_labels is not None:
        y = (X[:, :n_labels] > 0).astype(int)
    selector = quick(Selector, task="classification")
    options = {"scoring": scoring, "error_score": "raise"}
    assert np.isfinite(cross_val_score(selector, X, y, cv=2, **options)).all()


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_what_is_announced_is_not_there_before_a_fit(method):
    selector = IPCAESelector(2, task="classification")
    for own in (selector, IPCAESelectorCV((2,), estimator=selector)):
        with pytest.raises(NotFittedError, match=type(own).__name__):
            getattr(own, method)([[0.0, 1.0]])
        assert not hasattr(own, "reconstruct")
    with pytest.raises(NotFittedError):
        IPCAESelector(2, task="reconstruction").reconstruct([[0.0, 1.0]])


@both
def test_pickle_of_an_unfitted_selector(Selector):
    selector = _with_pickle(quick(Selector))
    assert not hasattr(selector, "predict")
    assert_same_fit(selector.fit(*make_data()), quick(Selector).fit(*make_data()))


# What a fit says


@both
@pytest.mark.parametrize("n_init", [1, 2])
def test_verbose_prints_a_line_an_epoch(Selector, n_init, capsys):
    quick(Selector, verbose=True, n_init=n_init, n_trials=0).fit(*make_data())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    for epoch, line in enumerate(lines, start=1):
        assert line.startswith(f"[{Selector.__name__}] epoch {epoch}/9  train ")


def test_verbose_leaves_out_what_there_is_not(capsys):
    few = quick(IPCAESelector, verbose=True, n_trials=0)  # no rows are held out
    few.fit(*make_data("classification", n=100))
    lines = capsys.readouterr().out.splitlines()
    assert not any("nan" in line or "validation" in line for line in lines)
    assert "temperature" in lines[0]
    assert "temperature" not in lines[-1]  # of the tuning


def test_verbose_tells_of_the_local_search(capsys):
    X, y = make_data("classification", n=600)
    selector = quick(IPCAESelector, verbose=True, n_trials=5).fit(X, y)
    lines = [x for x in capsys.readouterr().out.splitlines() if "local search" in x]
    start = "[IPCAESelector] local search, {} tried  loss on rows not trained on "
    assert len(lines) > 1
    for tried, line in zip(("1 set", "3 sets", "5 sets"), lines, strict=False):
        assert line.startswith(start.format(tried))
    losses = [float(line.split("trained on ")[1].split()[0]) for line in lines]
    assert losses == sorted(losses, reverse=True)
    assert np.isfinite(losses).all()
    assert selector.n_iter_ == 9


def test_verbose_tells_that_few_rows_are_searched_again(capsys):
    quick(IPCAESelector, verbose=True).fit(*make_data("classification", n=100))
    lines = capsys.readouterr().out.splitlines()
    name = "[IPCAESelector] "
    again = f"{name}the search is repeated without the rows of each fold (5)  "
    (first,) = [i for i, line in enumerate(lines) if line.startswith(again)]
    assert lines[first - 1].startswith(f"{name}epoch ")
    assert re.match(r".{16}local search, \d sets tried  loss", lines[first + 1])


LAST = "[IPCAESelector] the tuning is repeated on all rows, "


@pytest.mark.parametrize("task", TASKS)
def test_verbose_tells_that_held_out_rows_are_learned_from(task, capsys):
    quick(IPCAESelector, verbose=True, n_trials=0).fit(*make_data(task, n=600))
    *epochs, last = capsys.readouterr().out.splitlines()
    assert len(epochs) == 9
    assert re.match(re.escape(LAST) + "[123] epochs  ", last)


@pytest.mark.parametrize(
    ("n", "parameters"),
    [
        (120, {}),  # none are held out
        (600, {"validation_fraction": 0}),
        (600, {"tuning_iter": 0}),
        (600, {"warm_start": True}),
        (720, {}),  # more than _MOST_ROWS_TO_REFIT, below
    ],
)
def test_held_out_rows_are_not_learned_from(n, parameters, capsys, monkeypatch):
    monkeypatch.setattr(_settings, "_MOST_ROWS_TO_REFIT", 490)
    X, y = make_data(n=n)
    quick(IPCAESelector, verbose=True, n_trials=0, **parameters).fit(X, y)
    assert LAST not in capsys.readouterr().out


@both
@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_printed(Selector, task, capfd):
    X, y = make_data(task)
    quick(Selector).fit(X, y).score(X, y)
    assert capfd.readouterr() == ("", "")


@both
@pytest.mark.parametrize("task", TASKS)
def test_nothing_warns(Selector, task):
    X, y = make_data(task, n=600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selector = quick(Selector, max_iter=80, learning_rate_selector=0.1)
        selector.fit(X, y).score(X, y)
    assert selector.converged_


@both
def test_rows_that_have_not_converged_warn(Selector):
    with pytest.warns(ConvergenceWarning, match=r"after 2 epochs\. Increase max_iter"):
        selector = quick(Selector, max_iter=2).fit(make_data()[0])
    assert not selector.converged_


# scikit-learn's callbacks, new in 1.9

if find_spec("sklearn.callback"):
    from sklearn.callback import ProgressBar
else:
    ProgressBar = None

needs_callbacks = pytest.mark.skipif(
    ProgressBar is None, reason="this scikit-learn has no callbacks"
)


class Recorder:
    """A FitCallback that notes the name of each task that begins or ends."""

    max_propagation_depth = None  # also within other estimators
    notes: ClassVar[list] = []  # of all copies
    stop_after = None

    def setup(self, estimator, context):
        self.notes.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.notes.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        self.notes.append(("begin", context.task_name))
        self.data = X, y

    def on_fit_task_end(self, estimator, context, *, X=None, y=None):
        self.notes.append(("end", context.task_name))
        return context.task_name == "epoch" and context.task_id == self.stop_after


@pytest.fixture
def recorder():
    Recorder.notes.clear()
    return Recorder()


@needs_callbacks
@both
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n_init", [1, 2])
def test_callback_sees_each_epoch(Selector, task, n_init, recorder):
    X, y = make_data(task)
    selector = quick(Selector, n_init=n_init).set_callbacks(recorder).fit(X, y)
    assert selector.n_iter_ == 9
    assert recorder.notes[0] == ("setup", "fit")
    assert recorder.notes[1] == ("begin", "fit")
    assert recorder.notes[2:-2] == 9 * [("begin", "epoch"), ("end", "epoch")]
    assert recorder.notes[-2] == ("end", "fit")
    assert recorder.notes[-1] == ("teardown", "fit")
    assert recorder.data[0].shape == (120, 10)
    assert_same_fit(selector, quick(Selector, n_init=n_init).fit(X, y))


@needs_callbacks
@both
def test_callback_ends_the_search(Selector, recorder):
    recorder.stop_after = 2
    selector = quick(Selector).set_callbacks(recorder).fit(*make_data())
    assert selector.n_iter_ == 3 + 3


@needs_callbacks
@pytest.mark.filterwarnings("ignore:.* side by side do not fit:RuntimeWarning")
def test_callback_of_runs_that_are_trained_in_parts(recorder, only_room_for):
    only_room_for(1)
    selector = quick(IPCAESelector, n_init=3).set_callbacks(recorder)
    assert selector.fit(*make_data()).n_iter_ == 9
    assert recorder.notes.count(("end", "epoch")) == 9  # as many as were announced


@needs_callbacks
@both
def test_callback_within_a_grid_search(Selector, recorder):
    X, y = make_data()
    search = GridSearchCV(quick(Selector), {"k": [1, 2]}, cv=2)
    search.set_callbacks(recorder).fit(X, y)
    n_fits = 2 * 2 + 1
    assert recorder.notes.count(("begin", "epoch")) == 9 * n_fits
    assert recorder.notes.count(("end", "epoch")) == 9 * n_fits


@needs_callbacks
@both
def test_callback_within_a_search_over_k(Selector, recorder):
    estimator = quick(Selector).set_callbacks(recorder)
    Search = {IPCAESelector: IPCAESelectorCV, CAESelector: CAESelectorCV}[Selector]
    Search(ks=(1, 2), cv=2, estimator=estimator).fit(*make_data())
    began, ended = (recorder.notes.count((what, "fit")) for what in ("setup", "end"))
    # Two groups of runs, and the refit; whoever is set up has to be torn down.
    assert began == ended == recorder.notes.count(("teardown", "fit")) == 3


@needs_callbacks
@both
def test_callback_of_a_fit_that_fails(Selector, recorder):
    X, y = make_data()
    selector = quick(Selector, max_iter=-1).set_callbacks(recorder)
    with pytest.raises(ValueError, match="max_iter"):
        selector.fit(X, y)
    assert not hasattr(selector, "selected_indices_")
    selector.set_params(max_iter=2).fit(X, y)
    assert recorder.notes[-1] == ("teardown", "fit")


@needs_callbacks
@both
def test_fitted_with_a_callback_and_pickled(Selector, recorder):
    X, y = make_data()
    selector = quick(Selector).set_callbacks(recorder).fit(X, y)
    assert_array_equal(_with_pickle(selector).predict(X), selector.predict(X))


@needs_callbacks
@both
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_bar(Selector, n_jobs, capfd):
    pytest.importorskip("rich")
    X, y = make_data()
    quick(Selector).set_callbacks(ProgressBar()).fit(X, y)
    assert f"{Selector.__name__} - fit" in capfd.readouterr().out
    search = GridSearchCV(quick(Selector), {"k": [1, 2]}, cv=2, n_jobs=n_jobs)
    search.set_callbacks(ProgressBar()).fit(X, y)
    assert Selector.__name__ in capfd.readouterr().out
