"""Training steps as CUDA graphs.

A step is some sixty small operations. A GPU is done with each of them long before
Python has asked for the next; recorded as a graph, one call asks for all.
"""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from ipcae_sklearn._warnings import warn

# Steps taken as they are before one is recorded, in which libraries set themselves up.
_FIRST_STEPS = 2
# One thread at a time uses the stream that is recorded.
_RECORDING = threading.Lock()


def replayed(step: Callable[..., Tensor], device: torch.device, recordable: bool):
    """The step, or on CUDA one that does the same faster.

    Parameters
    ----------
    step : callable
        ``step(*inputs)`` returns a tensor. The inputs are tensors on the device,
        numbers, or None. Whatever else it reads and changes stays in its place, as the
        parameters of a model do that is trained.
    device : torch.device
    recordable : bool
        Whether the step does nothing but operations on tensors, the same each time.
    """
    if device.type != "cuda" or not recordable:
        return step
    return _Replayed(step, device)


class _Replayed:
    """A step that is recorded once for each shape of its inputs."""

    def __init__(self, step, device):
        self.step, self.device = step, device
        self.has_room = True
        self.recordings: dict[tuple, _Recording] = {}
        self.n_taken: Counter[tuple] = Counter()
        self.pool = torch.cuda.graph_pool_handle()  # never are two replayed at once

    def __call__(self, *inputs):
        shapes = tuple(getattr(x, "shape", x is None) for x in inputs)
        self.n_taken[shapes] += 1
        ready = self.n_taken[shapes] > _FIRST_STEPS and self.has_room
        if ready and shapes not in self.recordings:
            self._record(shapes, inputs)
        if shapes in self.recordings:
            return self.recordings[shapes].replay(inputs)
        return self._take_as_it_is(inputs)

    def _record(self, shapes, inputs) -> None:
        try:
            recording = _Recording(self.step, inputs, self.device, self.pool)
            self.recordings[shapes] = recording
        except torch.cuda.OutOfMemoryError:
            self.has_room = False
        if not self.has_room:  # here the error no longer holds anything
            self.recordings.clear()
            warn(
                f"There is no room on {self.device} to record training steps as CUDA "
                "graphs; they are taken one by one, which is slower.",
                RuntimeWarning,
            )

    def _take_as_it_is(self, inputs):
        # On the stream that is recorded: what libraries set up belongs to a stream.
        stream, current = _stream(self.device), torch.cuda.current_stream(self.device)
        with _RECORDING:
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                result = self.step(*inputs)
            current.wait_stream(stream)
        return result.clone()


class _Recording:
    """The graph of a step, and the places in memory that it reads its inputs from."""

    def __init__(self, step, inputs, device, pool):
        self.places = [_place(x, device) for x in inputs]
        self.graph = torch.cuda.CUDAGraph()
        options = {"pool": pool, "stream": _stream(device)}
        with (
            _RECORDING,
            _garbage_left_alone(),
            torch.cuda.device(device),
            # Other threads may go on with what is not allowed while one records.
            torch.cuda.graph(self.graph, capture_error_mode="thread_local", **options),
        ):
            self.result = step(*self.places)

    def replay(self, inputs) -> Tensor:
        _fill(self.places, inputs)
        self.graph.replay()
        return self.result.clone()


@contextmanager
def _garbage_left_alone() -> Iterator[None]:
    """Without Python's search for garbage, for some milliseconds.

    It may come upon an older graph, anyone's, and to free that while another one is
    recorded in the same thread makes the recording fail.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _place(x, device) -> Tensor | None:
    if x is None:
        return None
    if isinstance(x, Tensor):
        return torch.empty(x.shape, dtype=x.dtype, device=device)
    return torch.empty((), dtype=torch.float32, device=device)


def _fill(places, inputs) -> None:
    for place, x in zip(places, inputs, strict=True):
        if isinstance(x, Tensor):
            place.copy_(x)
        elif place is not None:
            place.fill_(x)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
