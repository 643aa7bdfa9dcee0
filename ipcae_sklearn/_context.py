"""Torch's global settings while a model is made, trained or, a user's, asked."""

from __future__ import annotations

import contextlib
import threading

import torch

_GLOBAL_STATE = threading.RLock()


@contextlib.contextmanager
def training_context(device, seed, users_module: bool):
    """Torch's global settings as training needs them, put back afterwards."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # A device context slows every call of torch: only where one has to be undone.
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if users_module:  # which depends on them; one fit at a time
            stack.enter_context(_GLOBAL_STATE)
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
            devices = [device] if device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices))
            torch.manual_seed(seed)
        yield
