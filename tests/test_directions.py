"""Few rows of many columns: a decoder of their directions is one of the columns."""

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from ipcae_sklearn import CAESelector, IPCAESelector, _directions, _problem
from ipcae_sklearn._data import Rows
from ipcae_sklearn._directions import Directions, worthwhile

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, P, H = 12, 200, 7


def make_X(n=N, p=P, seed=0):
    return np.random.default_rng(seed).normal(size=(n, p)) * np.linspace(0.5, 2, p)


def make_rows(X):
    center = X.mean(axis=0)
    scale = np.full(len(center), 1.5)
    return Rows(X, np.arange(len(center)), center, scale, torch.device("cpu"))


def scaled(rows):
    return rows.take(torch.arange(rows.X.shape[0])).double()


@pytest.fixture
def rows():
    return make_rows(make_X())


def state_of(m, h=H, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "layers.0.weight": (h, 3),
        "layers.0.bias": (1, h),
        "layers.3.weight": (m, h),
        "layers.3.bias": (1, m),
    }
    return {n: torch.randn(s, generator=generator) for n, s in shapes.items()}


def output(state, hidden):
    weight, bias = list(state)[-2:]
    return hidden @ state[weight].double().T + state[bias].double()


def test_the_loss_is_that_of_all_columns(rows):
    directions = Directions(rows, np.arange(N))
    T = directions.target.tensor.double()
    assert T.shape == (N, N - 1) == (N, directions.target.n_outputs)  # centred rows
    assert directions.target.loss == "squared_error"
    state = state_of(N - 1)
    whole = directions.of_all_columns(state, rows)
    hidden = torch.randn(N, H, generator=torch.Generator().manual_seed(1)).double()
    error = output(state, hidden) - T
    error_of_all = output(whole, hidden) - scaled(rows)
    assert_close(
        error_of_all.square().mean(-1), error.square().mean(-1), rtol=1e-5, atol=0
    )


def test_the_target_itself_becomes_the_rows(rows):
    directions = Directions(rows, np.arange(N))
    m = directions.target.n_outputs
    state = {"weight": torch.eye(m), "bias": torch.zeros(1, m)}
    whole = directions.of_all_columns(state, rows)
    found = output(whole, directions.target.tensor.double())
    assert_close(found, scaled(rows), rtol=0, atol=1e-5)


def test_only_the_last_layer_changes(rows):
    directions = Directions(rows, np.arange(N))
    state = state_of(N - 1)
    whole = directions.of_all_columns(state, rows)
    assert list(whole) == list(state)
    assert all(whole[n] is state[n] for n in list(state)[:-2])
    assert whole["layers.3.weight"].shape == (P, H)
    assert whole["layers.3.bias"].shape == (1, P)
    assert {t.dtype for t in whole.values()} == {torch.float32}


def test_rows_that_are_not_seen_do_not_matter(rows):
    seen = np.array([0, 2, 3, 7, 11])
    directions = Directions(rows, seen)
    X = rows.X.copy()
    X[[1, 4, 5, 6, 8, 9, 10]] += 100
    others = Rows(X, np.arange(P), rows.center, rows.scale, rows.device)
    changed = Directions(others, seen)
    assert torch.equal(directions.target.tensor, changed.target.tensor)
    unseen = np.setdiff1d(np.arange(N), seen)
    assert not directions.target.tensor[unseen].any()
    state = state_of(directions.target.n_outputs)
    a, b = (
        d.of_all_columns(state, r) for d, r in ((directions, rows), (changed, others))
    )
    assert all(torch.equal(a[n], b[n]) for n in state)


def test_columns_are_read_in_parts(rows, monkeypatch):
    at_once = Directions(rows, np.arange(N))
    monkeypatch.setattr(_directions, "_VALUES_AT_ONCE", 64 * N)
    in_parts = Directions(rows, np.arange(N))
    T, other = at_once.target.tensor, in_parts.target.tensor
    assert_close(T @ T.T, other @ other.T, rtol=1e-4, atol=1e-5)  # signs are free
    state = state_of(N - 1)
    a = in_parts.of_all_columns(state, rows)
    monkeypatch.undo()
    b = in_parts.of_all_columns(state, rows)
    assert_close(a["layers.3.weight"], b["layers.3.weight"])


def test_rows_without_any_difference():
    X = np.ones((3, 60))
    rows = Rows(X, np.arange(60), np.ones(60), np.ones(60), torch.device("cpu"))
    directions = Directions(rows, np.arange(3))
    assert directions.target.tensor.isfinite().all()
    state = state_of(directions.target.n_outputs)
    whole = directions.of_all_columns(state, rows)
    assert all(t.isfinite().all() for t in whole.values())


@pytest.mark.parametrize(
    "n, p, expected",
    [
        (10, 4096, True),
        (10, 4095, False),
        (2000, 8000, True),
        (2000, 7999, False),
        (2049, 10**6, False),
    ],
)
def test_where_it_is_worthwhile(n, p, expected):
    assert worthwhile(n, p) is expected


@pytest.fixture
def few_columns_suffice(monkeypatch):
    monkeypatch.setattr(_directions, "_FEWEST_COLUMNS", 1)


def wide(n=40, p=700, seed=0):
    """Four factors, each of which many columns repeat with some noise."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 4))
    return np.repeat(factors, p // 4, axis=1) + 0.1 * rng.normal(size=(n, p)) + 5


def fit(Selector, X, k=4, sample_weight=None, **parameters):
    options = {"max_iter": 300, "tuning_iter": 150, "random_state": 0, "device": "cpu"}
    return Selector(k, **options | parameters).fit(X, sample_weight=sample_weight)


@pytest.fixture
def number_made(monkeypatch, few_columns_suffice):
    """How often directions were computed."""
    made = []

    class Counted(Directions):
        def __init__(self, *arguments):
            made.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr(_problem, "Directions", Counted)
    return lambda: len(made)


@pytest.mark.parametrize("Selector", [CAESelector, IPCAESelector])
def test_a_fit_of_few_rows_reconstructs_all_columns(Selector, number_made, monkeypatch):
    X = wide()
    selector = fit(Selector, X, tuning_iter=1000)
    assert number_made() == 1
    assert len(set(selector.selected_indices_ // 175)) == 4  # one of each factor
    estimate = selector.reconstruct(selector.transform(X))
    assert estimate.shape == X.shape
    loss = np.mean((estimate - X) ** 2)
    assert loss == pytest.approx(selector.history_["train_loss"][-1], rel=0.1)
    new = wide(seed=1)
    monkeypatch.setattr(_problem, "worthwhile", lambda *sizes: False)
    plain = fit(Selector, X, tuning_iter=1000)
    assert selector.score(new) > max(0.8, plain.score(new) - 0.05)


def test_importances_are_in_the_units_of_the_columns(few_columns_suffice):
    X = wide()
    selector = fit(CAESelector, X)
    transformed = selector.transform(X)
    loss = np.mean((selector.reconstruct(transformed) - X) ** 2)
    for j, importance in enumerate(selector.importances_):
        without = transformed.copy()
        without[:, j] = transformed[:, j].mean()
        added = np.mean((selector.reconstruct(without) - X) ** 2) - loss
        assert importance == pytest.approx(added, rel=1e-3)


@pytest.mark.parametrize(
    "parameters",
    [
        {"tuning_iter": 0},
        {"warm_start": True},
        {"decoder": torch.nn.Linear},
    ],
)
def test_the_columns_stay_the_outputs(parameters, number_made):
    selector = fit(CAESelector, wide(), max_iter=5, **{"tuning_iter": 5} | parameters)
    assert number_made() == 0
    assert selector.reconstruct(np.zeros((1, 4))).shape == (1, 700)


def test_not_with_a_target_and_not_with_many_rows(number_made):
    X = wide()
    CAESelector(5, max_iter=2, tuning_iter=2, device="cpu").fit(X, X[:, 0] > 5)
    fit(CAESelector, wide(n=200), max_iter=2, tuning_iter=2)
    assert number_made() == 0


def test_rows_of_weight_zero_are_not_seen(few_columns_suffice):
    X = wide()
    weight = np.ones(len(X))
    weight[[3, 20]] = 0
    changed = X.copy()
    changed[[3, 20]] += 7
    short = {"max_iter": 10, "tuning_iter": 10}
    a, b = (fit(CAESelector, A, sample_weight=weight, **short) for A in (X, changed))
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    assert_allclose(a.history_["train_loss"], b.history_["train_loss"], rtol=1e-4)


@pytest.mark.parametrize("form", ["csr", "memmap", "float32", "fortran"])
def test_any_form_of_the_data(form, tmp_path, few_columns_suffice):
    X = wide().astype(np.float32).astype(np.float64)
    if form == "csr":
        other = scipy.sparse.csr_array(X)
    elif form == "memmap":
        np.save(tmp_path / "X.npy", X)
        other = np.load(tmp_path / "X.npy", mmap_mode="r")
    else:
        other = X.astype(np.float32) if form == "float32" else np.asfortranarray(X)
    short = {"max_iter": 20, "tuning_iter": 20}
    a, b = fit(CAESelector, X, **short), fit(CAESelector, other, **short)
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    assert_allclose(a.reconstruct(X[:, :4]), b.reconstruct(X[:, :4]), rtol=1e-2)


def equivalent(X, weight):
    """Rows that are repeated, in another order, in place of weights."""
    order = np.random.default_rng(3).permutation(weight.sum())
    return np.repeat(X, weight, axis=0)[order]


def test_directions_of_weighted_rows_are_those_of_repeated_rows():
    X = make_X(5)
    weight = np.array([3, 1, 2, 1, 5])
    center = np.average(X, axis=0, weights=weight)
    found = []
    for own, weights in ((X, weight), (equivalent(X, weight), None)):
        rows = Rows(own, np.arange(P), center, np.ones(P), torch.device("cpu"))
        directions = Directions(rows, np.arange(len(own)), weights)
        m = directions.target.n_outputs
        state = {"weight": torch.eye(m), "bias": torch.zeros(1, m)}
        found.append(directions.of_all_columns(state, rows)["weight"])
    assert_close(*found, rtol=0, atol=1e-4)  # the signs, too


@pytest.mark.parametrize("Selector", [CAESelector, IPCAESelector])
def test_weights_and_repetitions_find_the_same(Selector, few_columns_suffice):
    X = wide(n=10, p=400)
    weight = np.array([3, 1, 1, 2, 1, 1, 1, 4, 1, 1])
    repeated = equivalent(X, weight)
    short = {"max_iter": 20, "tuning_iter": 20}  # of one batch each
    a = fit(Selector, X, sample_weight=weight, **short)
    b = fit(Selector, repeated, **short)
    assert_array_equal(a.selected_indices_, b.selected_indices_)
    estimates = (s.reconstruct(s.transform(X)) for s in (a, b))
    assert_allclose(*estimates, atol=1e-2)
