"""Random draws of r runs: of the selector's rows, and of the decoder's inputs.

A run draws the same alone and in company.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ipcae_sklearn._functional import gumbel_, sample_gumbel

_JITTERED_ROWS = 512  # of a batch, whose noise has no value in common
# Masks drawn at once: a call for each run takes longer than its values.
_MASKS_AHEAD = 64


class _FreshNoise:
    """Gumbel noise of r runs, each from a generator of its own."""

    def __init__(self, k, options, seeds, device):
        self.k = k
        self.options = options
        self.device = device
        self.generators = [torch.Generator(device).manual_seed(s) for s in seeds]

    def _uniform(self, n_features: int, *leading: int) -> Tensor:
        """(r, *leading, k, p) uniform values; the spare rows hold zeros."""
        shape = (len(self.k), *leading, max(self.k), n_features)
        uniform = torch.zeros(shape, device=self.device, dtype=torch.float32)
        for row, k, generator in zip(uniform, self.k, self.generators, strict=True):
            own = row[..., :k, :]
            if own.is_contiguous():
                own.uniform_(generator=generator)
            else:
                own.copy_(torch.empty_like(own).uniform_(generator=generator))
        return uniform

    def draw(self, n_rows: int, n_features: int) -> tuple[Tensor, Tensor | None]:
        """Gumbel values and, for Gumbel-Rao, the uniform values of its draws."""
        leading = (n_rows,) if self.options.noise == "sample" else ()
        gumbel = gumbel_(self._uniform(n_features, *leading))
        if self.options.gradient != "gumbel_rao":
            return gumbel, None
        uniform = self._uniform(n_features, self.options.n_gradient_samples)
        return gumbel, uniform.transpose(0, 1)  # (s, r, k, p)


class Pool:
    """Noise of r runs, read at random places of a pool.

    Drawing fresh noise costs as much as all that is done with it. Here a row of noise
    is successive values of the pool; where it begins, and how far from the row before,
    is drawn anew for each run and step. The pool itself is drawn anew after some
    hundred steps. It depends on ``seed`` alone and the places on a run's own seed, so
    that a run reads the same noise alone and in company, and on any device.

    Parameters
    ----------
    n_rows : sequence of r ints
        Rows of each run that overlap in no value, if these are short.
    seeds : sequence of r ints
    seed : int
    device : torch.device
    sample : callable
        ``sample(size, generator=...)`` draws values on the CPU.
    """

    SIZE = 2**20
    STEPS = 500

    def __init__(self, n_rows, seeds, seed, device, sample: Callable[..., Tensor]):
        self.n_rows, self.device, self.sample = n_rows, device, sample
        self.own = [random.Random(s) for s in seeds]
        self.generator = torch.Generator().manual_seed(seed)
        self.n_drawn = 0

    def rows(self, n: int, width: int, own: Tensor | None = None) -> Tensor:
        """Values (r, n, width) of the next step, or those of each run's own rows
        (r, m) alone.
        """
        step = self.n_drawn % self.STEPS
        if step == 0:
            self._redraw(width)
        self.n_drawn += 1
        if own is None and len(self.n_rows) == 1 and n <= self.n_rows[0]:  # a view
            stride, start = self.places[step][0]
            return self.values.as_strided((1, n, width), (0, stride, 1), start)
        stride, start = self.place_table[step].unsqueeze(-1).unbind(1)  # (r, 1) each
        if own is None:
            own = torch.arange(n, device=self.device)
        begin = (start + stride * own) % self.SIZE
        windows = self.values.unfold(0, width, 1)
        return windows.index_select(0, begin.flatten()).view(*begin.shape, width)

    def _redraw(self, width: int) -> None:
        """Draw a pool, and where each run reads it in the steps to come."""
        values = self.sample(self.SIZE + width, generator=self.generator)
        self.values = values.to(self.device)
        runs = zip(self.n_rows, self.own, strict=True)
        places = [[self._place(n, own) for _ in range(self.STEPS)] for n, own in runs]
        self.places = list(zip(*places, strict=True))
        self.place_table = torch.tensor(self.places).to(self.device)  # (STEPS, r, 2)

    def _place(self, n_rows: int, own: random.Random) -> tuple[int, int]:
        """How far apart the rows begin, and where the first does."""
        furthest = self.SIZE // (2 * n_rows)
        stride = own.randint(furthest // 2, furthest)
        return stride, own.randint(0, self.SIZE - n_rows * stride)


class _PooledNoise(Pool):
    """Gumbel noise of r runs from a pool."""

    def draw(self, n_rows: int, n_features: int, rows=None) -> tuple[Tensor, None]:
        """Gumbel values (r, k, p), or (r, m, p) of some rows (r, m) of the selector;
        what spare rows hold has no meaning.
        """
        return self.rows(max(self.n_rows), n_features, rows), None


def selector_noise(k: Sequence[int], options, seeds, seed: int, device):
    """The Gumbel noise of r selectors as ``options`` ask for it.

    It has a method ``draw(n_rows, n_features)``, for the rows of a step.
    """
    if options.noise == "pool" and options.gradient != "gumbel_rao":
        return _PooledNoise(list(k), seeds, seed, device, sample_gumbel)
    return _FreshNoise(k, options, seeds, device)


class Jitter:
    """Draws normal noise (r, b, k) of the decoders' inputs, the same for all but its
    size.

    Parameters
    ----------
    scales : sequence of r floats
        Standard deviations.
    seed : int
    device : torch.device
    """

    def __init__(self, scales, seed, device):
        self.scales = torch.tensor(scales, dtype=torch.float32, device=device)
        own = _another_seed(seed, 2)
        self.pool = Pool([_JITTERED_ROWS], [own], own, device, self._sample)

    def __call__(self, n_rows: int, width: int) -> Tensor:
        return self.pool.rows(n_rows, width) * self.scales.view(-1, 1, 1)

    @staticmethod
    def _sample(size, generator) -> Tensor:
        # As many whatever the width, which is larger in the company of a larger run.
        values = torch.randn(Pool.SIZE, generator=generator, dtype=torch.float32)
        return torch.cat([values, values[: size - Pool.SIZE]])


class InputMasks:
    """Draws factors (r, 1, k) of the decoders' inputs, for all rows of a step.

    Inputs are left out at random, at the rate of their run; the others make up for
    them. Each run has a generator of its own, whose values are others than those of its
    noise, which is drawn from the seed as it is.
    """

    def __init__(self, k, rates, seeds, device):
        self.k, self.rates, self.device = k, rates, device
        own = [_another_seed(seed, 1) for seed in seeds]
        self.generators = [torch.Generator().manual_seed(s) for s in own]
        self.ahead: Iterator[Tensor] = iter(())

    def __call__(self) -> Tensor:
        if (factors := next(self.ahead, None)) is None:
            self.ahead = iter(self._draw())
            factors = next(self.ahead)
        return factors

    def _draw(self) -> Tensor:
        """The factors of the next calls, drawn at once."""
        n, dtype = _MASKS_AHEAD, torch.float32
        factors = torch.zeros(n, len(self.k), 1, max(self.k), dtype=dtype)
        own = zip(self.k, self.rates, self.generators, strict=True)
        for i, (k, rate, generator) in enumerate(own):
            uniform = torch.rand(n, k, generator=generator, dtype=dtype)
            factors[:, i, 0, :k] = (uniform >= rate) / (1 - rate)
        return factors.to(self.device)


def shown_rows(factors: Tensor) -> tuple[Tensor, Tensor | None]:
    """The factors (r, 1, m), of (r, 1, k), of the inputs that are not left out, and the
    numbers (r, m) of these inputs; None for all.

    Runs that have fewer of them have others among theirs, whose factors are 0.
    """
    shown = factors.squeeze(1) > 0
    m = max(1, int(shown.sum(-1).max()))
    if m == shown.shape[-1]:
        return factors, None
    rows = shown.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :m]
    return factors.gather(-1, rows.unsqueeze(1)), rows


class SearchDraws:
    """What is drawn for the steps of r searches.

    Parameters
    ----------
    k : sequence of r ints
        Rows of the selectors.
    options : TrainingOptions
    seeds : sequence of r ints
    seed : int
        Of what all runs share.
    device : torch.device
    """

    def __init__(self, k, options, seeds, seed, device):
        self.noise = selector_noise(k, options, seeds, seed, device)
        self.masks = None
        if any(options.dropout):
            self.masks = InputMasks(k, options.dropout, seeds, device)
        # Rows whose features are hidden take no part where that saves time: not on a
        # GPU, which records steps of one shape, nor where the noise is all drawn anew.
        leaves_out = isinstance(self.noise, _PooledNoise) and device.type == "cpu"
        self.leaves_out = (
            self.masks is not None and leaves_out and not options.diversity
        )

    def __call__(self, n_rows: int, n_features: int):
        """Noise (Gumbel values and, for Gumbel-Rao, uniform ones), factors of the
        selected features, and the rows (r, m) of the selectors that all these are of;
        None for what is not drawn, and for all rows.
        """
        factors = self.masks and self.masks()
        if not self.leaves_out:
            return *self.noise.draw(n_rows, n_features), factors, None
        factors, rows = shown_rows(factors)
        return *self.noise.draw(n_rows, n_features, rows), factors, rows


def _another_seed(seed: int, use: int) -> int:
    """One that depends on a seed, for another use of it."""
    return int(np.random.SeedSequence([seed, use]).generate_state(1)[0])
