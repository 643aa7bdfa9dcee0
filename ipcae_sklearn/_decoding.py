"""The decoder alone: trained, judged and asked, on columns that stay as they are.

Also what that shares with the search: batches, options, the optimizer and its step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from ipcae_sklearn._graphs import replayed
from ipcae_sklearn._modules import trainable
from ipcae_sklearn._noise import Jitter

# Share of a tuning after which a loss that has not fallen will not fall any more.
_PATIENCE = 0.1

# X (b, p) or the values of some columns (r, b, k), target (b, ...) or (r, b, ...), and
# weights (r, b), None for equal weights
Batch = tuple[Tensor, Tensor, Tensor | None]


class Loss(Protocol):
    """A loss of rows, each of which depends on the row's own output."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of each row: (r, b, m), (b, ...) -> (r, b)."""
        ...

    def with_gradient(self, output, target) -> tuple[Tensor, Tensor]:
        """The same, and its gradient (r, b, m) for the row's output."""
        ...


class Batches(Protocol):
    """Where the rows come from.

    The search of all runs reads the same ones; where columns are selected (in a search
    among candidates, too), rows may be each run's own, with the targets (r, b, ...).
    """

    n_train_batches: int
    has_validation: bool
    seed: int  # of what all runs share
    n_features: int

    def select(self, columns: Tensor) -> Batches:
        """The same batches, but for the values of some columns (r, k) in place of X."""
        ...

    def repeated(self, times: int) -> Batches:
        """The same batches, for all runs several times."""
        ...

    def in_folds(self, most: int, n_runs: int) -> tuple[Batches, int]:
        """For all runs several times the training rows, but a fold that is held out,
        another one each time; and the number of folds.
        """
        ...

    def training_of(self, runs: slice) -> Batches:
        """The batches of some runs that have weights, without held-out rows."""
        ...

    def train_weights(self, n_rows: int) -> np.ndarray:
        """Each run's weights of all rows (r, n_rows), 0 for those not trained on."""
        ...

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield the training rows, in an order that depends on the epoch alone."""
        ...

    def train_together(self, epoch: int, n_groups: int) -> Iterator[tuple]:
        """Yield X of each of so many groups, and target and weights of its batches."""
        ...

    def validation(self) -> Iterator[Batch]:
        """Yield the held-out rows."""
        ...

    def sample(self) -> Batch:
        """Held-out rows, else training rows, as many as one batch can hold."""
        ...

    def rows(self, index: np.ndarray) -> Iterator[Batch]:
        """Yield the rows of the given numbers, (n,) or (r, n)."""
        ...


@dataclass(frozen=True)
class TrainingOptions:
    """What training is told; checked by the estimators."""

    max_iter: int
    n_decoder_steps: int  # for each step of the selector
    tuning_iter: int
    n_folds: int  # that judge columns and tuning where no rows are held out; 0: none
    n_trials: int
    dropout: tuple[float, ...]  # of each run; () for none
    learning_rate: float
    jitter: float  # deviation of noise on a decoder's inputs in the tuning; 0: none
    jitter_learning_rate: float  # of a tuning that tries such noise
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


@dataclass(frozen=True)
class Setup:
    """What is trained side by side, on which rows, for what, and how."""

    model: Any  # a ConcreteAutoencoder
    batches: Batches
    loss: Loss
    options: TrainingOptions

    @property
    def n_runs(self) -> int:
        return len(self.model.k)

    @property
    def device(self) -> torch.device:
        return self.model.row_mask.device

    def of(self, columns: Tensor) -> Setup:
        """This one where the decoders get the values of some columns (r, k).

        These are read once for all that goes by it.
        """
        return replace(self, batches=self.batches.select(columns))


class NonFiniteLossError(ValueError):
    """The loss became infinite or NaN."""


class AdamW:
    """Adam for the parameters of a module, at a rate that may change.

    The function that ``torch.optim.AdamW`` calls; what the class does besides takes as
    long again for tensors as small as these.
    """

    def __init__(self, module, rate, weight_decay=0.0):
        self.parameters = trainable(module)
        self.rate, self.weight_decay = rate, weight_decay
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [
            torch.zeros((), dtype=torch.float32, device=p.device)
            for p in self.parameters
        ]

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take a step with the parameters' gradients."""
        state = [self.parameters, self.means, self.squares, self.steps]
        live = [i for i, grad in enumerate(gradients) if grad is not None]
        if not live:
            return
        if len(live) < len(gradients):  # what has no gradient stays as it is
            state = [[values[i] for i in live] for values in state]
            gradients = [gradients[i] for i in live]
        parameters, means, squares, steps = state
        pairs = zip(parameters, gradients, strict=True)
        adamw(
            parameters,
            [_laid_out_as(p, grad) for p, grad in pairs],
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )


def _laid_out_as(parameter: Tensor, grad: Tensor) -> Tensor:
    """The gradient in the order of the parameter's memory, in which both are read."""
    if grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter).copy_(grad)


@torch.no_grad()
def take_steps(steps: Iterable[Tensor], epoch: int) -> np.ndarray:
    """Take the steps of an epoch; the mean of the losses (r,) that they begin with.

    No gradient is recorded: pullbacks are by hand, and parameters change in place.
    """
    mean = torch.stack(list(steps)).mean(0).cpu().numpy()  # waits for the device
    if not np.isfinite(mean).all():
        raise NonFiniteLossError(
            f"The training loss became non-finite in epoch {epoch + 1}. Lower "
            "learning_rate_init or learning_rate_selector, raise the stop "
            "temperature, or look for extreme values in X and y."
        )
    return mean


def _decoder_epochs(
    setup: Setup, *, rate, n_steps=None, mask=None, jitter=None
) -> Iterator[np.ndarray]:
    """Train the decoder on the columns of the setup; yield the loss (r,) of each epoch.

    ``mask()`` returns factors (r, 1, k) of a batch's inputs, and ``jitter(b, k)`` noise
    (r, b, k). The rate, and the noise with it, falls to zero as a cosine over
    ``n_steps``, by default as many as ``tuning_iter`` epochs have; the last epoch may
    be cut short.
    """
    model, batches, options = setup.model, setup.batches, setup.options
    decoder = AdamW(model.decoder, rate, options.weight_decay)
    per_epoch = batches.n_train_batches
    n_steps = n_steps or options.tuning_iter * per_epoch

    def one_step(selected, target, weights, factors, noise, left):
        decoder.rate = rate * left
        if factors is not None:
            selected = selected * factors
        if noise is not None:
            selected = selected + noise * left
        value, pullback = loss_with_pullback(setup, selected, target, weights)
        decoder.step(pullback(to_input=False)[1])
        return value

    one_step = replayed(one_step, setup.device, model.decoder.recordable)

    def steps(first, epoch):
        for i, batch in enumerate(islice(batches.train(epoch), n_steps - first)):
            left = math.cos((first + i) / n_steps * math.pi / 2)
            drawn = mask and mask(), jitter and jitter(*batch[0].shape[1:])
            yield one_step(*batch, *drawn, left)

    for first in range(0, n_steps, per_epoch):
        epoch = options.max_iter + first // per_epoch
        yield take_steps(steps(first, epoch), epoch)


def tuning_epochs(setup: Setup, jitter=None) -> Iterator[np.ndarray]:
    """Train the decoder on the columns of the setup as it will be used; yield the loss
    (r,) of each epoch.

    ``jitter`` are r standard deviations of noise on the inputs, if there is any. It
    keeps a decoder from learning rows by heart, which then bears a higher rate.
    """
    rate = setup.options.learning_rate
    if jitter is None:
        return _decoder_epochs(setup, rate=rate)
    rate = setup.options.jitter_learning_rate
    noise = Jitter(jitter, setup.batches.seed, setup.device)
    return _decoder_epochs(setup, rate=rate, jitter=noise)


def train_decoder(setup: Setup, n_steps, mask=None) -> None:
    """Train the decoder for a number of steps, without a look at how it goes."""
    rate = setup.options.learning_rate
    for _ in _decoder_epochs(setup, rate=rate, n_steps=n_steps, mask=mask):
        pass


@dataclass(frozen=True)
class TuningLength:
    """How long to tune the decoder of each run."""

    n_epochs: np.ndarray  # (r,)
    losses: np.ndarray  # (n_folds, r) then, each on rows that are not trained on

    @property
    def loss(self) -> np.ndarray:
        """(r,) expected on other rows."""
        return self.losses.mean(0)

    def where(self, own: np.ndarray, other: TuningLength) -> TuningLength:
        """This one for the runs (r,) that are True, the other one for the rest."""
        return TuningLength(
            np.where(own, self.n_epochs, other.n_epochs),
            np.where(own, self.losses, other.losses),
        )


def folds_of(setup: Setup) -> tuple[Batches, int] | None:
    """The batches in folds and how many these are, as ``in_folds`` returns them.

    None where other rows are held out, and where there are no two folds.
    """
    batches, options = setup.batches, setup.options
    if batches.has_validation or not options.n_folds:
        return None
    folds, n_folds = batches.in_folds(options.n_folds, setup.n_runs)
    return None if n_folds < 2 else (folds, n_folds)


def tuning_lengths(setup: Setup, folds, n_folds: int, tables) -> list[TuningLength]:
    """How many epochs of tuning are best for an untrained decoder, by cross-validation.

    Few rows are learned by heart long before the rate has fallen. For each fold of a
    run's rows a decoder is trained on the others, at the rates of a whole tuning, on
    columns that may be other ones for each fold: a table (n_folds r, k). Found for some
    tables side by side.
    """
    times, n_runs = len(tables), setup.n_runs
    decoders = setup.model.decoders_alone(times * n_folds)
    decoders.forget(range(times * n_folds * n_runs))
    in_folds = replace(setup, model=decoders, batches=folds.repeated(times))
    in_folds = in_folds.of(torch.cat(tables))
    patience = math.ceil(_PATIENCE * setup.options.tuning_iter)
    shape = n_folds, times * n_runs
    best = TuningLength(np.zeros(shape[1], dtype=int), np.full(shape, np.inf))
    for epoch, _ in enumerate(tuning_epochs(in_folds), 1):
        losses = validate(in_folds).reshape(times, n_folds, n_runs)
        losses = losses.swapaxes(0, 1).reshape(shape)
        found = TuningLength(np.full(shape[1], epoch), losses)
        # Those that have stalled wait for the others as they are.
        waits = epoch - best.n_epochs > patience
        best = found.where((found.loss < best.loss) & ~waits, best)
        if (epoch - best.n_epochs >= patience).all():
            break
    of_tables = best.n_epochs.reshape(times, -1), np.split(best.losses, times, axis=1)
    return [TuningLength(*own) for own in zip(*of_tables, strict=True)]


def loss_with_pullback(setup: Setup, selected, target, weights):
    """Loss (r,) of a training batch, and its pullback through the decoder.

    The loss is the weighted mean over the rows, unbiased over the batches: the weights
    are 1 in the mean over all rows. Divided by their sum in the batch instead, rare
    rows of a large weight would count for too little.

    The pullback returns the gradients of ``selected`` and of the decoder's parameters.
    """
    output, pullback = setup.model.with_pullback(selected)
    rows, grad = setup.loss.with_gradient(output, target)
    grad = grad / rows.shape[-1]
    if weights is not None:
        rows, grad = rows * weights, grad * weights.unsqueeze(-1)
    return rows.mean(-1), partial(pullback, grad)


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over the rows: (r, b) -> (r,)."""
    if weights is None:
        return losses.mean(-1)
    total = weights.sum(-1).clamp(min=torch.finfo(weights.dtype).tiny)
    return (losses * weights).sum(-1) / total


@torch.no_grad()
def validate(setup: Setup) -> np.ndarray:
    """Loss (r,) on the held-out rows, of the columns of the setup; NaN without them."""
    model, batches = setup.model, setup.batches
    if not batches.has_validation:
        return np.full(setup.n_runs, np.nan)
    total = torch.zeros(setup.n_runs, dtype=torch.float64, device=setup.device)
    weight = torch.zeros_like(total)
    model.eval()
    for batch in batches.validation():
        weights = batch[2]
        batch_weight = len(batch[1]) if weights is None else weights.sum(-1)
        losses = setup.loss(model(batch[0]), batch[1])
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
def importances(setup: Setup, columns: Sequence[np.ndarray]) -> np.ndarray:
    """Loss (r, k) added when a selected column is replaced by its mean, which is 0."""
    model, batches = setup.model, setup.batches
    selected, target, weights = batches.select(padded(columns, model)).sample()
    model.eval()

    def loss_with(factors):
        return _mean(setup.loss(model(selected * factors), target), weights)

    loss_with = replayed(loss_with, selected.device, model.decoder.recordable)
    n_columns = selected.shape[-1]
    every = selected.new_ones(n_columns + 1, n_columns)
    every[:-1].fill_diagonal_(0)
    *losses, reference = map(loss_with, every)
    model.train()
    return (torch.stack(losses, -1) - reference.unsqueeze(-1)).cpu().numpy()


@torch.no_grad()
def unmet_needs(setup: Setup, index, masks) -> Tensor:
    """What the decoders still want to know of rows with the numbers (r, n): (r, n, h).

    The gradient of each row's loss for what the decoder's first layer makes of its
    inputs. A new input x would enter there, so a column that goes with it is one that
    the decoder would learn from. It is the mean over masks, factors (r, 1, k) of the
    inputs.
    """
    model = setup.model.eval()

    def needs(selected, target, mask):
        entered = model.enter(selected * mask)
        output, pullback = model.decoder.leave_with_pullback(entered)
        return pullback(setup.loss.with_gradient(output, target)[1], to_own=False)[0]

    needs = replayed(needs, setup.device, model.decoder.recordable)
    parts = []
    for selected, target, _ in setup.batches.rows(index):
        first, *others = masks
        total = needs(selected, target, first)
        for mask in others:
            total += needs(selected, target, mask)
        parts.append(total / len(masks))
    model.train()
    return torch.cat(parts, dim=1)


def padded(columns: Sequence[np.ndarray], model, times: int = 1) -> Tensor:
    """Columns of all runs, several times if so many, as one integer tensor (r, k).

    Spare rows hold 0.
    """
    n_runs, k = model.row_mask.shape
    table = np.zeros((times * n_runs, k), dtype=np.int64)
    for row, own in zip(table, columns, strict=True):
        row[: len(own)] = own
    return torch.as_tensor(table, device=model.row_mask.device)
