"""The decoder alone: trained, judged and asked, on columns that stay as they are.

Also what that shares with the search: batches, options, the optimizer and its step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# X (b, p) or the values of some columns (r, b, k), target (b, ...) and weights (r, b),
# None for equal weights
Batch = tuple[Tensor, Tensor, Tensor | None]
# ``loss(output (r, b, m), target (b, ...))``: the loss of each row, (r, b)
Loss = Callable[[Tensor, Tensor], Tensor]


class Batches(Protocol):
    """Where the rows come from; all runs see the same ones."""

    n_train_batches: int
    has_validation: bool
    seed: int  # of what all runs share

    def select(self, columns: Tensor) -> Batches:
        """The same batches, but for the values of some columns (r, k) in place of X."""
        ...

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield the training rows, in an order that depends on the epoch alone."""
        ...

    def validation(self) -> Iterator[Batch]:
        """Yield the held-out rows."""
        ...

    def sample(self) -> Batch:
        """Held-out rows, else training rows, as many as one batch can hold."""
        ...

    def rows(self, index: np.ndarray) -> Iterator[Batch]:
        """Yield the rows of the given numbers."""
        ...


@dataclass(frozen=True)
class TrainingOptions:
    """What training is told; checked by the estimators."""

    max_iter: int
    tuning_iter: int
    n_trials: int
    dropout: tuple[float, ...]  # of each run; () for none
    learning_rate: float
    selector_learning_rate: float
    weight_decay: float
    temperature: tuple[float, float]
    temperature_schedule: str
    noise: str
    gradient: str
    n_gradient_samples: int
    diversity: float
    early_stopping: bool
    n_iter_no_change: int
    tol: float


class NonFiniteLossError(ValueError):
    """The loss became infinite or NaN."""


def make_optimizer(model, options) -> torch.optim.Optimizer:
    """Adam for selector and decoder, each with its own rate."""
    groups = [
        {
            "params": list(model.logits.parameters()),
            "lr": options.selector_learning_rate,
            "weight_decay": 0.0,
        },
        {
            "params": list(model.decoder.parameters()),
            "lr": options.learning_rate,
            "weight_decay": options.weight_decay,
        },
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], fused=True)
    optimizer.zero_grad()  # a user's decoder may bring gradients along
    return optimizer


def descend(losses, optimizer, epoch: int) -> np.ndarray:
    """Take a step for each objective (r,); return the mean loss (r,) of the epoch."""
    values = []
    for objective, value in losses:
        objective.sum().backward()  # runs share no parameter: the sum keeps them apart
        optimizer.step()
        optimizer.zero_grad()  # afterwards, not to hold the gradients' memory
        values.append(value.detach())
    mean = torch.stack(values).mean(0).cpu().numpy()  # waits for the device
    if not np.isfinite(mean).all():
        raise NonFiniteLossError(
            f"The training loss became non-finite in epoch {epoch + 1}. Lower "
            "learning_rate_init or learning_rate_selector, raise the stop "
            "temperature, or look for extreme values in X and y."
        )
    return mean


def decoder_epochs(
    model, batches, loss, options, columns, n_steps=None, mask=None
) -> Iterator[np.ndarray]:
    """Train the decoder on columns (r, k); yield the loss (r,) of each epoch.

    The rate falls to zero as a cosine over ``n_steps``, by default as many as
    ``tuning_iter`` epochs have; the last epoch may be cut short. ``mask()`` returns
    factors (r, 1, k) of a batch's inputs.
    """
    optimizer = make_optimizer(model, options)
    batches = batches.select(columns)
    per_epoch = batches.n_train_batches
    n_steps = n_steps or options.tuning_iter * per_epoch

    def losses(first, epoch):
        for i, batch in enumerate(islice(batches.train(epoch), n_steps - first)):
            fraction = (first + i) / n_steps
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * math.cos(fraction * math.pi / 2)
            rows = _row_losses(model, batch, loss, mask and mask())
            value = training_mean(rows, batch[2])
            yield value, value

    for first in range(0, n_steps, per_epoch):
        epoch = options.max_iter + first // per_epoch
        yield descend(losses(first, epoch), optimizer, epoch)


def train_decoder(model, batches, loss, options, columns, n_steps, mask=None) -> None:
    """Train the decoder for a number of steps, without a look at how it goes."""
    for _ in decoder_epochs(model, batches, loss, options, columns, n_steps, mask):
        pass


def _row_losses(model, batch, loss, mask=None) -> Tensor:
    """Loss of each row (r, b) of a batch of selected columns (r, b, k)."""
    selected = batch[0] if mask is None else batch[0] * mask
    return loss(model(selected), batch[1])


def training_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over the rows, (r, b) -> (r,), unbiased over the batches.

    The weights are 1 in the mean over all rows. Divided by their sum in the batch
    instead, rare rows of a large weight would count for too little.
    """
    return (losses if weights is None else losses * weights).mean(-1)


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over the rows: (r, b) -> (r,)."""
    if weights is None:
        return losses.mean(-1)
    total = weights.sum(-1).clamp(min=torch.finfo(weights.dtype).tiny)
    return (losses * weights).sum(-1) / total


@torch.no_grad()
def validate(model, batches, loss, columns) -> np.ndarray:
    """Loss (r,) on the held-out rows with columns (r, k); NaN without such rows."""
    n_runs = len(model.k)
    if not batches.has_validation:
        return np.full(n_runs, np.nan)
    total = torch.zeros(n_runs, dtype=torch.float64, device=columns.device)
    weight = torch.zeros_like(total)
    model.eval()
    for batch in batches.select(columns).validation():
        weights = batch[2]
        batch_weight = len(batch[1]) if weights is None else weights.sum(-1)
        losses = _row_losses(model, batch, loss)
        total += batch_weight * _mean(losses, weights)
        weight += batch_weight
    model.train()
    values = (total / weight).cpu().numpy()
    if not np.isfinite(values).all():
        raise NonFiniteLossError(
            "The loss on the held-out rows became non-finite. Look for extreme values "
            "in X and y, and for weights that leave no held-out row."
        )
    return values


@torch.no_grad()
def importances(model, batches, loss, columns: Sequence[np.ndarray]) -> np.ndarray:
    """Loss (r, k) added when a selected column is replaced by its mean, which is 0."""
    selected, target, weights = batches.select(padded(columns, model)).sample()
    model.eval()
    losses = []
    for j in range(selected.shape[-1]):
        without = selected.clone()
        without[..., j] = 0
        losses.append(_mean(loss(model(without), target), weights))
    reference = _mean(loss(model(selected), target), weights)
    model.train()
    return (torch.stack(losses, -1) - reference.unsqueeze(-1)).cpu().numpy()


def unmet_needs(model, batches, loss, columns, index, masks) -> np.ndarray:
    """What the decoder still wants to know of some rows: (r, len(index), h).

    The gradient of each row's loss for what the decoder's first layer makes of its
    inputs. A new input x would enter there, so a column that goes with it is one that
    the decoder would learn from. It is the mean over masks, factors (r, 1, k) of the
    inputs.
    """
    model.eval()
    parts = []
    for selected, target, _ in batches.select(columns).rows(index):
        gradients = []
        for mask in masks:
            with torch.no_grad():
                entered = model.enter(selected * mask)
            entered.requires_grad_()
            value = loss(model.decoder.leave(entered), target).sum()
            gradients += torch.autograd.grad(value, entered)
        parts.append(torch.stack(gradients).mean(0))
    model.train()
    return torch.cat(parts, dim=1).cpu().numpy()


class InputMasks:
    """Draws factors (r, 1, k) of the decoders' inputs, for all rows of a batch.

    Inputs are left out at random, at the rate of their run; the others make up for
    them. Each run has a generator of its own, whose values are others than those of its
    noise, which is drawn from the seed as it is.
    """

    def __init__(self, k, rates, seeds, device):
        self.k, self.rates, self.device = k, rates, device
        states = [np.random.SeedSequence([seed, 1]).generate_state(1) for seed in seeds]
        self.generators = [torch.Generator().manual_seed(int(s[0])) for s in states]

    def __call__(self) -> Tensor:
        factors = torch.zeros(len(self.k), 1, max(self.k), dtype=torch.float32)
        own = zip(factors, self.k, self.rates, self.generators, strict=True)
        for row, k, rate, generator in own:
            uniform = torch.rand(k, generator=generator, dtype=torch.float32)
            row[0, :k] = (uniform >= rate) / (1 - rate)
        return factors.to(self.device)


def padded(columns: Sequence[np.ndarray], model) -> Tensor:
    """Columns of all runs as one integer tensor (r, k); spare rows hold 0."""
    table = np.zeros(model.row_mask.shape, dtype=np.int64)
    for row, own in zip(table, columns, strict=True):
        row[: len(own)] = own
    return torch.as_tensor(table, device=model.row_mask.device)
