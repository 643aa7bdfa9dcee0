"""Training steps as CUDA graphs.

A step is some sixty small operations. A GPU is done with each of them long before
Python has asked for the next; recorded as a graph, one call asks for all.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from ipcae_sklearn._warnings import warn

# Steps taken as they are before one is recorded, in which libraries set themselves up.
_FIRST_STEPS = 2
# A graph can be recorded while other threads train, but no two at once.
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
        self.recordable = True
        self.recordings: dict[tuple, _Recording] = {}
        self.n_taken: Counter[tuple] = Counter()
        self.pool = torch.cuda.graph_pool_handle()  # never are two replayed at once

    def __call__(self, *inputs):
        shapes = tuple(getattr(x, "shape", x is None) for x in inputs)
        self.n_taken[shapes] += 1
        if self.n_taken[shapes] <= _FIRST_STEPS or not self.recordable:
            return self._take_as_it_is(inputs)
        if shapes not in self.recordings and not self._record(shapes, inputs):
            return self._take_as_it_is(inputs)
        return self.recordings[shapes].replay(inputs)

    def _record(self, shapes, inputs) -> bool:
        """Record the step for inputs of these shapes; whether that can be done."""
        try:
            own = self.step, inputs, self.device, self.pool
            self.recordings[shapes] = _Recording(*own)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.recordable = False
            warn(
                f"Training steps cannot be recorded as a CUDA graph and are slower: "
                f"{error}",
                RuntimeWarning,
            )
        return self.recordable

    def _take_as_it_is(self, inputs):
        # On the stream that is recorded: what libraries set up belongs to a stream.
        stream, current = _STREAMS[self.device], torch.cuda.current_stream(self.device)
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
        options = {"pool": pool, "stream": _STREAMS[device]}
        with (
            _RECORDING,
            torch.cuda.device(device),
            # Other threads may go on with what is not allowed while one records.
            torch.cuda.graph(self.graph, capture_error_mode="thread_local", **options),
        ):
            self.result = step(*self.places)

    def replay(self, inputs) -> Tensor:
        for place, x in zip(self.places, inputs, strict=True):
            if isinstance(x, Tensor):
                place.copy_(x)
            elif place is not None:
                place.fill_(x)
        self.graph.replay()
        return self.result.clone()


def _place(x, device) -> Tensor | None:
    if x is None:
        return None
    if isinstance(x, Tensor):
        return torch.empty(x.shape, dtype=x.dtype, device=device)
    return torch.empty((), dtype=torch.float32, device=device)


class _Streams(threading.local):
    """A stream for each device and thread: what another did on it would be recorded."""

    def __init__(self):
        self.of_device: dict[torch.device, torch.cuda.Stream] = {}

    def __getitem__(self, device) -> torch.cuda.Stream:
        if device not in self.of_device:
            self.of_device[device] = torch.cuda.Stream(device)
        return self.of_device[device]


_STREAMS = _Streams()
