"""Training steps as CUDA graphs. Most tests need a device."""

import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ipcae_sklearn import CAESelector, IPCAESelector, IPCAESelectorCV, _graphs
from ipcae_sklearn import _decoding as decoding
from ipcae_sklearn import _regression as regression
from ipcae_sklearn import _training as training
from ipcae_sklearn._graphs import (
    _garbage_left_alone,
    _Recording,
    _Replayed,
    replayed,
)

# Not in a context of each fit: what such contexts put back is the same for all threads.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Attempting to run cuBLAS:UserWarning"
    ),  # torch's
]

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)
DIGITS = load_digits(return_X_y=True)
SHORT = {"max_iter": 2, "tuning_iter": 2, "n_trials": 0, "random_state": 0}
LOSSES = ("train_loss", "validation_loss")


@pytest.fixture
def cuda():
    return torch.device("cuda", torch.cuda.current_device())


def fit(device="cuda", target=True, cls=IPCAESelector, k=10, **parameters):
    X, y = DIGITS
    selector = cls(k, device=device, **{**SHORT, **parameters})
    return selector.fit(X, y if target else None)


def assert_alike(one, other):
    """The losses of the search are the same but for rounding.

    It moves logits apart at last, and may part columns that are equally probable.
    """
    pair = (own.history_["train_loss"][: SHORT["max_iter"]] for own in (one, other))
    np.testing.assert_allclose(*pair, rtol=1e-3)


def step_by_step(monkeypatch):
    for module in (training, decoding):
        monkeypatch.setattr(module, "replayed", lambda step, device, recordable: step)


def test_on_a_processor_a_step_is_taken_as_it_is():
    def step():
        raise AssertionError

    assert replayed(step, CPU, recordable=True) is step


@pytest.fixture
def recorded(monkeypatch):
    """Recordings that only say so, for what needs no device."""

    class Recording:
        full = False

        def __init__(self, step, inputs, device, pool):
            if Recording.full:
                raise torch.cuda.OutOfMemoryError
            self.step = step

        def replay(self, inputs):
            return "replayed", self.step(*inputs)

    monkeypatch.setattr(_graphs, "_Recording", Recording)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(_Replayed, "_take_as_it_is", lambda s, x: ("taken", s.step(*x)))
    return Recording


def test_a_step_is_recorded_for_each_shape_after_two(recorded):
    own = _Replayed(lambda x, y, rate: (len(x), y, rate), CPU)
    calls = [(3, None), (3, None), (2, None), (3, 1), (3, None), (2, None), (2, None)]
    hows = [own(torch.zeros(n), y, 0.1 * i) for i, (n, y) in enumerate(calls)]
    assert [how for how, _ in hows] == ["taken"] * 4 + ["replayed", "taken", "replayed"]
    assert [value for _, value in hows] == [
        (n, y, 0.1 * i) for i, (n, y) in enumerate(calls)
    ]


def test_without_room_for_recordings_steps_are_taken_one_by_one(recorded):
    own = _Replayed(lambda x: len(x), CPU)
    for _ in range(3):
        how, _ = own(torch.zeros(3))
    assert how == "replayed"
    recorded.full = True
    own(torch.zeros(2)), own(torch.zeros(2))
    with pytest.warns(RuntimeWarning, match="no room on cpu .* one by one"):
        assert own(torch.zeros(2)) == ("taken", 2)
    assert own(torch.zeros(3)) == ("taken", 3)
    assert not own.recordings


@pytest.mark.parametrize("n_rows", [100, 600])  # judged in folds, and held out
@pytest.mark.parametrize("target", [True, False])
def test_no_step_outlives_its_fit(monkeypatch, n_rows, target):
    """Not even for the search for garbage: that frees recordings at any time."""
    steps = []

    class Step:
        def __init__(self, step, device, recordable):
            self.step = step
            steps.append(weakref.ref(self))

        def __call__(self, *inputs):
            return self.step(*inputs)

    for module in (training, decoding, regression):
        monkeypatch.setattr(module, "replayed", Step)
    X, y = DIGITS
    selector = IPCAESelector(5, **{**SHORT, "n_trials": 6})
    with _garbage_left_alone():
        selector.fit(X[:n_rows], y[:n_rows] if target else None)
        assert len(steps) > 5
        assert not [step for step in steps if step() is not None]


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_left_alone_for_a_while(enabled):
    was_enabled = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        with pytest.raises(KeyError), _garbage_left_alone():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        gc.enable() if was_enabled else gc.disable()


@needs_cuda
def test_a_recording_that_is_garbage_is_not_freed_while_another_is_made(cuda):
    def step(x):
        cycles = [[] for _ in range(10_000)]  # have garbage searched for
        return x + len(cycles)

    x, pool = torch.zeros(3, device=cuda), torch.cuda.graph_pool_handle()
    for _ in range(3):
        garbage = [_Recording(step, [x], cuda, pool)]
        garbage.append(garbage)
        del garbage
    assert _Recording(step, [x], cuda, pool).replay([x]).tolist() == [10_000] * 3


@pytest.mark.parametrize("target", [True, False])
@pytest.mark.parametrize("cls", [IPCAESelector, CAESelector])
def test_steps_read_all_that_changes_from_their_inputs(cls, target, request):
    how = {"device": "cpu", "target": target, "cls": cls, "n_init": 2, "n_trials": 4}
    expected = fit(**how)
    steps = request.getfixturevalue("like_recordings")
    found = fit(**how)
    assert len(steps) > 2
    for name in LOSSES:
        pair = found.history_[name], expected.history_[name]
        np.testing.assert_allclose(*pair, rtol=1e-3)


@needs_cuda
def test_a_replayed_step_is_the_step(cuda):
    total = torch.zeros(3, device=cuda)

    def step(x, weights, rate):
        product = x if weights is None else x * weights
        total.add_(product.sum(0) * rate)
        return product.sum(0)

    own = replayed(step, cuda, recordable=True)
    expected = np.zeros(3)
    generator = np.random.default_rng(0)
    for i in range(20):
        x, weights = generator.normal(size=(2, 4 + i % 2, 3))
        weights = None if i % 3 else weights
        product = x if weights is None else x * weights
        inputs = [None if v is None else torch.tensor(v).to(cuda) for v in (x, weights)]
        value = own(*inputs, 0.1 * i)
        np.testing.assert_allclose(value.cpu(), product.sum(0), rtol=1e-6)
        expected += product.sum(0) * 0.1 * i
        np.testing.assert_allclose(total.cpu(), expected, rtol=1e-5, atol=1e-5)
    assert len(own.recordings) == 4  # two shapes, with and without weights


@needs_cuda
def test_a_step_that_is_not_to_be_recorded(cuda):
    def step():
        raise AssertionError

    assert replayed(step, cuda, recordable=False) is step


@needs_cuda
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"cls": CAESelector},
        {"target": False},
        {"diversity": 0.1},
        {"noise": "sample"},
        {"gradient": "gumbel_rao"},
        {"gradient": "straight_through"},
        {"map": "per_row"},
        {"n_init": 3},
    ],
    ids=str,
)
def test_a_fit_by_graphs_is_one_step_by_step(parameters, monkeypatch):
    recorded = []
    original = _Replayed._record

    def counted(self, shapes, inputs):
        original(self, shapes, inputs)
        recorded.append(shapes in self.recordings)

    monkeypatch.setattr(_Replayed, "_record", counted)
    by_graphs = fit(**parameters)
    assert recorded
    assert all(recorded)
    step_by_step(monkeypatch)
    assert_alike(by_graphs, fit(**parameters))


@needs_cuda
@pytest.mark.parametrize("weighted", [True, False])
def test_a_tuning_by_graphs_is_one_step_by_step(weighted, monkeypatch):
    X, y = DIGITS
    X = X[:, X.std(axis=0) > 0]
    k = X.shape[1]
    weights = np.random.default_rng(0).uniform(0.5, 2, len(X)) if weighted else None

    def fit_to_all_columns():
        selector = IPCAESelector(k, device="cuda", tuning_iter=6, random_state=0)
        return selector.fit(X, y, sample_weight=weights).history_

    by_graphs = fit_to_all_columns()
    step_by_step(monkeypatch)
    expected = fit_to_all_columns()
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(by_graphs[name], expected[name], rtol=1e-2)


@needs_cuda
@pytest.mark.parametrize("target", [True, False])
@pytest.mark.parametrize("cls", [IPCAESelector, CAESelector])
def test_a_fit_is_the_same_on_cpu(cls, target):
    assert_alike(*(fit(device, target=target, cls=cls) for device in ("cuda", "cpu")))


@needs_cuda
def test_fits_repeat_on_the_device():
    one, other = fit(), fit()
    np.testing.assert_array_equal(one.selected_indices_, other.selected_indices_)
    for name in LOSSES:
        np.testing.assert_array_equal(one.history_[name], other.history_[name])


@needs_cuda
def test_a_users_decoder_runs_in_python():
    calls = []

    class Counting(torch.nn.Linear):
        def forward(self, z):
            calls.append(self.training)
            return super().forward(z)

    fit(decoder=Counting, max_iter=3, tuning_iter=2, batch_size=300)
    assert sum(calls) == 5 * 6  # epochs of 1,617 rows in batches of 300


@needs_cuda
def test_torchs_generators_stay_as_they_are():
    fit()  # whatever is set up once
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    fit()
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], torch.cuda.get_rng_state())


@needs_cuda
def test_fits_in_threads():
    alone = [fit(k=k) for k in (5, 10, 15)]
    together = {}

    def work(k):
        together[k] = fit(k=k)

    threads = [threading.Thread(target=work, args=(k,)) for k in (5, 10, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in alone:
        other = together[own.k]
        np.testing.assert_array_equal(own.selected_indices_, other.selected_indices_)


@needs_cuda
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_search_on_the_device(n_jobs):
    X, y = DIGITS
    selector = IPCAESelector(device="cuda", **SHORT)
    search = IPCAESelectorCV((2, 12), estimator=selector, cv=3, n_jobs=n_jobs)
    search.fit(X, y)
    assert search.best_k_ == 12


IN_A_FORK = """
import os
import numpy as np
import torch
from ipcae_sklearn import IPCAESelector

X = np.random.default_rng(0).normal(size=(600, 8))

def fit(device):
    return IPCAESelector(2, max_iter=4, device=device, random_state=0).fit(X)

fit("cuda")
if not (child := os.fork()):
    try:
        fit("cpu")
        print("fitted on the processor,", flush=True)
        fit("cuda")
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
fit("cuda")
print("and the parent goes on")
"""


@needs_cuda
def test_a_forked_process_is_told_what_to_do():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_FORK],
        capture_output=True,
        text=True,
        timeout=100,
    )
    first, *_, last = done.stdout.splitlines()
    assert first == "fitted on the processor,"
    assert "spawn" in done.stdout
    assert last == "and the parent goes on"
