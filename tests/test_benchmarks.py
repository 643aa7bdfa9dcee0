"""The benchmark scripts fit the package as it is: what they import, patch and watch."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))


@pytest.fixture
def load(monkeypatch):
    """Import a script, with the environment left as it was."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which some of them set
    loaded = set(sys.modules)
    yield importlib.import_module
    for name in set(SCRIPTS) & set(sys.modules) - loaded:
        del sys.modules[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_can_be_imported(load, name):
    load(name)


def test_what_is_patched_to_make_a_variant_exists(load):
    choices = load("choices")
    for variant in choices.VARIANTS:
        with choices.ways_of(variant):
            pass


def test_parameters_of_a_variant_exist(load):
    choices = load("choices")
    changed = set()
    for key in choices.keys(1):
        parameters = choices.parameters_of(key["variant"], key["method"])
        if parameters is None:
            continue
        selector = choices.SELECTORS[key["method"]]
        assert parameters.items() <= selector(**parameters).get_params().items()
        if parameters or key["variant"] in choices.WAYS:
            changed.add(key["variant"])
    # The others are what was the default when their table was made.
    names = "JITTER", "CANDIDATES", "FOUR_STEPS", "ROWS_HELD_OUT", "ON_ALL_ROWS"
    defaults = {"default", *(getattr(choices, name) for name in names)}
    assert choices.VARIANTS.keys() - changed == defaults


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_the_call(load):
    common = load("common")
    # So large that malloc maps them anew; the second one is not that of all calls.
    for n_mb in (128, 64):
        _, peak = common.with_peak_memory(np.ones, n_mb * 2**17)
        assert 0.9 < peak / (n_mb * 2**20) < 1.5


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ["CAE", "IPCAE", "SpreadCAE"])
def test_moves_of_the_logits_are_watched(load, name):
    X = np.random.default_rng(0).normal(size=(600, 8))
    selector = getattr(load("paper"), name)(3, max_iter=4, tuning_iter=2, n_trials=0)
    selector.fit(X)
    assert len(selector.moves.steps) == 4
    assert min(selector.moves.epochs[:4]) > 0  # in the tuning they stay where they are
