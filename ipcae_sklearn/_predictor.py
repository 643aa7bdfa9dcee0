"""The trained decoder as a fitted selector keeps it, on any machine: no tensors."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch

from ipcae_sklearn._context import training_context
from ipcae_sklearn._data import row_blocks
from ipcae_sklearn._modules import CustomDecoder, make_decoder

_CPU = torch.device("cpu")


@dataclass
class Predictor:
    """What a fit leaves for predictions and for a warm start."""

    selected: np.ndarray  # (k,) numbers of the selected columns, in order
    inputs: np.ndarray  # (k,) places among them of what the decoder takes in
    columns: np.ndarray  # (p,) numbers of the columns that were in use
    center: np.ndarray  # (n_features,)
    scale: np.ndarray  # (n_features,)
    factory: object  # the user's decoder or None
    hidden_layer_sizes: tuple[int, ...]
    n_outputs: int
    loss: str
    target_center: np.ndarray | None
    target_scale: np.ndarray | None
    decoder_state: dict[str, np.ndarray]
    selector_state: dict[str, np.ndarray]  # to go on from, for a warm start

    def decode(self, X, decoder=None) -> np.ndarray:
        """Outputs of the decoder, on the CPU, for the selected columns X (n, k).

        To save the time that it takes to build, it may be given.
        """
        if decoder is None:
            decoder = self.decoder()
        # In float64 a row's prediction does not depend on the rows beside it. A user's
        # decoder may know float32 alone, in which it was trained.
        own = isinstance(decoder, CustomDecoder)
        dtype = torch.float32 if own else torch.float64
        decoder.to(dtype)
        as_trained: contextlib.AbstractContextManager = contextlib.nullcontext()
        if own:
            as_trained = training_context(_CPU, 0, users_module=True)
        outputs = np.empty((X.shape[0], self.n_outputs))
        with as_trained, torch.inference_mode():
            width = max(len(self.selected), self.n_outputs, *self.hidden_layer_sizes)
            for rows in row_blocks((X.shape[0], width)):
                Z = self.scaled(X[rows], self.selected)
                batch = torch.from_numpy(Z[:, self.inputs]).to(dtype)
                outputs[rows] = decoder(batch.unsqueeze(0))[0].numpy()
        return outputs

    def scaled(self, X, columns=slice(None)) -> np.ndarray:
        """Some columns as the decoder was trained on them, dense."""
        X = X.toarray() if scipy.sparse.issparse(X) else X
        return (X - self.center[columns]) / self.scale[columns]

    def decoder(self):
        """The decoder as a module of one run."""
        with training_context(_CPU, 0, self.factory is not None):
            decoder = make_decoder(
                self.factory,
                [len(self.selected)],
                self.hidden_layer_sizes,
                self.n_outputs,
                [torch.Generator().manual_seed(0)],
            )
            decoder.load_run_state(0, to_tensors(self.decoder_state))
        return decoder.eval()


def to_arrays(state) -> dict[str, np.ndarray]:
    """A state of tensors as one of arrays."""
    return {name: t.cpu().numpy() for name, t in state.items()}


def to_tensors(state) -> dict[str, torch.Tensor]:
    """A copy as tensors: torch shares memory with numpy, and the state has to stay."""
    return {name: torch.tensor(array) for name, array in state.items()}
