"""What several test files share."""

import weakref

import pytest
import torch

from ipcae_sklearn import _decoding, _functional, _graphs, _regression, _training


@pytest.fixture
def only_room_for(monkeypatch):
    """Have a GPU run out of memory where more runs than that take a step at once.

    What did not fit has to be gone before the next step.
    """

    def limit(n_runs):
        original, failed = _training._search_step, []

        def step(setup, *arguments):
            if setup.n_runs > n_runs:
                failed.append(weakref.ref(setup.model))
                raise torch.cuda.OutOfMemoryError
            assert all(reference() is None for reference in failed)
            return original(setup, *arguments)

        monkeypatch.setattr(_training, "_search_step", step)

    return limit


@pytest.fixture
def small_parts(monkeypatch):
    """Work through all but the smallest arrays in parts of a few columns or rows."""
    for name, value in (("_LARGE", 20), ("_PART", 16), ("_WIDTH", 3)):
        monkeypatch.setattr(_functional, name, value)


@pytest.fixture
def like_recordings(monkeypatch):
    """Steps read their inputs from places that stay, as recordings on a GPU do.

    Returns the list of all steps; it grows.
    """
    steps = []

    def replayed(step, device, recordable):
        places = {}

        def own(*inputs):
            shapes = tuple(getattr(x, "shape", x is None) for x in inputs)
            if shapes not in places:
                places[shapes] = [_graphs._place(x, device) for x in inputs]
            _graphs._fill(places[shapes], inputs)
            return step(*places[shapes]).clone()

        steps.append(own)
        return own

    for module in (_decoding, _regression, _training):
        monkeypatch.setattr(module, "replayed", replayed)
    return steps
