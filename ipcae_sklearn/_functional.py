"""Pure functions of the concrete autoencoder: tensors in, tensors out.

Nothing here holds state, prints, or draws from a global random generator: noise is
an argument, so that every function below the sampling is deterministic.

Letters, as in ``docs/method``: n rows, p features, k selected features, b rows of a
batch, r runs trained side by side, m outputs of the decoder, s Gumbel-Rao draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# exp(-40) = 4e-18 is far below float32 rounding of a probability (6e-8), so lifting
# the tails to it changes nothing; left alone they reach the subnormal range, where
# a processor is several times slower.
_TAIL = 40.0
# The same for the gradient: Adam squares it, and 1e-15 squared is still normal.
_GRADIENT_FLOOR = 1e-15

# A processor works through arrays of more values than this in parts of about so many,
# which stay in its cache from one operation to the next.
_LARGE, _PART = 2**21, 2**18
_WIDTH = 2**11  # columns of a part, at least, for its matrix product


def by_autograd(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor] = (),
    parameters: Sequence[Tensor] = (),
) -> tuple[Tensor, Callable[[Tensor], tuple]]:
    """``function(*inputs)``, and its pullback by torch's record of what it computes.

    The pullback returns the gradients of the inputs, then those of the parameters,
    which the function knows by itself; None for those that it does not depend on.
    """
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in inputs]
        value = function(*leaves)
    leaves += parameters

    def pullback(grad):
        if not value.requires_grad:
            return (None,) * len(leaves)
        return torch.autograd.grad(value, leaves, grad, allow_unused=True)

    return value.detach(), pullback


def _is_large(values: Tensor) -> bool:
    return _exceeds_cache(values.numel(), values.device)


def _exceeds_cache(n_values: int, device: torch.device) -> bool:
    return n_values > _LARGE and device.type == "cpu"


def workspace(r: int, k: int, p: int, device: torch.device) -> Tensor | None:
    """Memory for large logits (r, k, p), which step after step may use; else None.

    The system takes as long to find new memory of that size as a step to compute in it.
    """
    if not _exceeds_cache(r * k * p, device):
        return None
    return torch.empty(r, k, p, dtype=torch.float32)


def _width(values: Tensor) -> int:
    """How many columns of (..., k, p) values are worked through together."""
    p = values.shape[-1]
    return max(_WIDTH, _PART // (values.numel() // p)) if _is_large(values) else p


def gumbel_(uniform: Tensor) -> Tensor:
    """Turn uniform values in [0, 1) into standard Gumbel values, in place."""
    tiny = torch.finfo(uniform.dtype).tiny
    return uniform.clamp_(min=tiny).log_().neg_().log_().neg_()


def sample_gumbel(shape, *, generator, dtype=torch.float32) -> Tensor:
    """Draw standard Gumbel values.

    Uniform values and two logarithms in place are several times cheaper than
    ``Tensor.exponential_``, which torch does not vectorize on CPU.
    """
    return gumbel_(torch.rand(shape, generator=generator, dtype=dtype))


def relaxed_selection(logits: Tensor, gumbel: Tensor, temperature) -> Tensor:
    """Softmax of the perturbed logits at a temperature, rows sum to 1.

    .. math:: M = \\mathrm{softmax}((\\log\\alpha + g) / \\tau)

    Parameters
    ----------
    logits : Tensor of shape (..., k, p)
    gumbel : Tensor broadcastable with ``logits``
    temperature : float, > 0

    Returns
    -------
    Tensor of shape (..., k, p)
    """
    E, total = _exponentials(logits, gumbel, temperature)
    return E.div_(total)


def _exponentials(logits, gumbel, temperature, out=None) -> tuple[Tensor, Tensor]:
    """The relaxed selection (..., k, p) times the sums of its rows, and these sums."""
    if not _is_large(logits) or gumbel.shape != logits.shape:
        E = _exponentials_of_part(logits, gumbel, temperature)
        return E, E.sum(-1, keepdim=True)
    E = out
    if E is None:
        E = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    total = torch.empty_like(E[..., :1])
    n_rows = max(torch.get_num_threads(), _PART // logits.shape[-1], 1)
    arrays = (E, total, logits, gumbel)
    parts = (values.flatten(0, -2).split(n_rows) for values in arrays)
    for own, own_total, own_logits, own_gumbel in zip(*parts, strict=True):
        own.copy_(_exponentials_of_part(own_logits, own_gumbel, temperature))
        torch.sum(own, -1, keepdim=True, out=own_total)
    return E, total


def _exponentials_of_part(logits, gumbel, temperature) -> Tensor:
    z = logits + gumbel
    z.sub_(z.amax(-1, keepdim=True)).mul_(1 / temperature)
    return z.clamp_(min=-_TAIL).exp_()


def conditional_gumbel(logits: Tensor, chosen: Tensor, uniform: Tensor) -> Tensor:
    """Gumbel noise given which column wins (Paulus et al., 2021, equation 13).

    Parameters
    ----------
    logits : Tensor of shape (..., k, p)
    chosen : integer Tensor of shape (..., k)
        The column that has the largest perturbed logit.
    uniform : Tensor of shape (s, ..., k, p)
        Uniform values in [0, 1), the randomness of s draws.

    Returns
    -------
    Tensor of shape (s, ..., k, p)
        Noise g for which ``(logits + g).argmax(-1) == chosen``.
    """
    tiny = torch.finfo(uniform.dtype).tiny
    log_exponential = uniform.clamp(min=tiny).log_().neg_().log_()  # log E, E ~ Exp(1)
    index = chosen.expand(uniform.shape[:-1]).unsqueeze(-1)
    # The maximum is Gumbel with location log Z; the others are cut off below it.
    top = logits.logsumexp(-1, keepdim=True) - log_exponential.gather(-1, index)
    perturbed = -torch.logaddexp(log_exponential - logits, -top)
    return perturbed.scatter(-1, index, top) - logits


def select(
    X, logits, gumbel, temperature, *, hard=False, uniform=None, out=None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Selected features of a batch, and their pullback.

    Parameters
    ----------
    X : Tensor of shape (b, p) or (r, b, p)
        The same rows for all runs, or each run's own.
    logits : Tensor of shape (r, k, p)
    gumbel : Tensor of shape (r, k, p) or (r, b, k, p)
        One draw for the whole batch, or one for each of its rows.
    temperature : float, > 0
    hard : bool, default=False
        Straight-through: forward the winning column, backward the relaxation.
    uniform : Tensor of shape (s, r, k, p), optional
        Randomness of Gumbel-Rao: hard forward, backward averaged over s relaxations
        drawn given the winner. Implies ``hard`` and one draw per batch.
    out : Tensor of shape (r, k, p), optional
        From :func:`workspace`: taken for the relaxation and the gradient of large
        logits. It may hold the logits themselves, which are lost then.

    Returns
    -------
    selected : Tensor of shape (r, b, k)
    pullback : callable
        Turns the gradient of ``selected`` into that of the logits, once.
    """
    if gumbel.dim() > logits.dim():
        per_row = partial(_select_per_row, X, gumbel, temperature, hard)
        selected, recorded = by_autograd(per_row, [logits])
        return selected, lambda grad: recorded(grad)[0]
    r, k, _ = logits.shape
    if uniform is not None:
        return _gumbel_rao(X, logits, gumbel, temperature, uniform)
    chosen = (logits + gumbel).argmax(-1) if hard else None
    # M is left times the sums of its rows: a pass over (r, k, p) less.
    E, total = _exponentials(logits, gumbel, temperature, out)
    relaxed = (E @ X.mT).div_(total)  # (r, k, b)
    selected = relaxed.mT if chosen is None else _winners(X, chosen)

    def pullback(grad):
        nonlocal E
        own, E = E, None  # once: where it is large the gradient takes its place
        grad = grad.mT / (total * temperature)
        # dM = gradᵀ X, then through the softmax: M (dM - sum_j M dM) / τ. The sum
        # over p columns equals one over b rows, of grad times the relaxed features.
        inner = torch.linalg.vecdot(grad, relaxed).unsqueeze(-1)
        if X.dim() == 2:  # one product for all runs
            own, grad, inner = (A.reshape(r * k, -1) for A in (own, grad, inner))
        return _through_softmax(own, grad, X, inner).view(r, k, -1)

    return selected, pullback


def _winners(X: Tensor, chosen: Tensor) -> Tensor:
    if X.dim() == 2:
        return X[:, chosen].transpose(0, 1)  # (b, r, k) -> (r, b, k)
    return X.gather(-1, chosen.unsqueeze(1).expand(-1, X.shape[1], -1))


def _through_softmax(E, grad, X, inner) -> Tensor:
    """E (grad X - inner), which takes the place of E where that is large."""
    floor = grad.new_full((), _GRADIENT_FLOOR)
    add_product = torch.addmm if X.dim() == 2 else torch.baddbmm
    if not _is_large(E):
        dz = add_product(inner, grad, X, beta=-1)
        return torch.addcmul(floor, E, dz, out=dz)
    # In place: new arrays of this size cost more than the arithmetic.
    width = _width(E)
    for own, own_X in zip(E.split(width, -1), X.split(width, -1), strict=True):
        dz = add_product(inner, grad, own_X, beta=-1)
        torch.addcmul(floor, own, dz, out=own)
    return E


def _gumbel_rao(X, logits, gumbel, temperature, uniform):
    chosen = (logits + gumbel).argmax(-1)  # (r, k)
    gumbel = conditional_gumbel(logits, chosen, uniform)  # (s, r, k, p)
    M = relaxed_selection(logits, gumbel, temperature)

    def pullback(grad):
        dM = grad.mT @ X  # averaged over the s draws of M
        inner = torch.einsum("srkp,rkp->srk", M, dM).unsqueeze(-1)
        return _GRADIENT_FLOOR + (M * (dM - inner)).mean(0) / temperature

    return _winners(X, chosen), pullback


def _select_per_row(X, gumbel, temperature, hard, logits):
    # (r, b, k, p) arrays: as many times dearer as the batch has rows.
    perturbed = logits.unsqueeze(1) + gumbel
    M = torch.softmax(perturbed / temperature, -1)
    if hard:
        one_hot = F.one_hot(perturbed.argmax(-1), M.shape[-1]).to(M.dtype)
        M = one_hot + (M - M.detach())
    return torch.einsum("...bp,...bkp->...bk", X, M)


def generalized_jsd(logits: Tensor, row_mask: Tensor | None = None) -> Tensor:
    """Generalized Jensen-Shannon divergence of the k selector rows.

    .. math:: H(\\tfrac1k \\sum_i \\pi_i) - \\tfrac1k \\sum_i H(\\pi_i)

    Parameters
    ----------
    logits : Tensor of shape (r, k, p)
    row_mask : bool Tensor of shape (r, k), optional
        False for spare rows, which do not count.

    Returns
    -------
    Tensor of shape (r,)
        0 for equal rows, log k for disjoint ones.
    """
    if row_mask is None:
        row_mask = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
    share = row_mask / row_mask.sum(-1, keepdim=True).to(logits.dtype)  # (r, k)
    divergence = torch.zeros_like(share[:, 0])
    for log_pi in _log_probabilities(logits):
        # Tails as in the relaxation: subnormal ones would take ten times as long.
        log_pi = log_pi.clamp(min=-_TAIL)
        pi = log_pi.exp()
        mean = (share.unsqueeze(1) @ pi).squeeze(1)  # (r, p)
        row_entropy = -torch.linalg.vecdot(pi, log_pi)  # (r, k)
        entropy = torch.special.entr(mean).sum(-1)
        divergence = divergence + entropy - (row_entropy * share).sum(-1)
    return divergence


def summary(logits: Tensor, row_mask: Tensor) -> tuple[np.ndarray, Tensor, Tensor]:
    """What there is to say of selectors, without a gradient.

    Parameters
    ----------
    logits : Tensor of shape (r, k, p)
    row_mask : bool Tensor of shape (r, k)
        False for spare rows.

    Returns
    -------
    int array of shape (r, k)
        The column that each row prefers.
    Tensor of shape (r, k)
        Its probability.
    Tensor of shape (r,)
        ``generalized_jsd(logits, row_mask)``. On a processor some rows at a time,
        which takes a half to a sixth of its time.
    """
    r, k, p = logits.shape
    on_processor = logits.device.type == "cpu"
    share = row_mask / row_mask.sum(-1, keepdim=True).to(logits.dtype)  # (r, k)
    largest = logits.amax(-1, keepdim=True)
    mean = torch.zeros_like(logits[:, :1])
    row_entropy, totals = torch.zeros_like(share[:, 0]), []
    n_rows = max(1, _PART // (2 * r * p)) if on_processor else k
    parts = (values.split(n_rows, 1) for values in (logits, largest, share))
    for own, own_largest, own_share in zip(*parts, strict=True):
        z = (own - own_largest).clamp_(min=-_TAIL)
        E = z.exp()
        total = E.sum(-1)
        mean += (own_share / total).unsqueeze(1) @ E
        entropy = total.log() - torch.linalg.vecdot(E, z) / total
        row_entropy += (own_share * entropy).sum(-1)
        totals.append(total)
    divergence = torch.special.entr(mean).sum((-1, -2)) - row_entropy
    return _argmax(logits), 1 / torch.cat(totals, 1), divergence


def _argmax(values: Tensor) -> np.ndarray:
    """``values.argmax(-1)``; on a processor numpy takes a tenth of torch's time."""
    if values.device.type == "cpu":
        return values.numpy().argmax(-1)
    return values.argmax(-1).cpu().numpy()


def log_normalizer(logits: Tensor) -> Tensor:
    """log of the sum of exp(logits) over the columns: (..., k, p) -> (..., k)."""
    parts = logits.split(_width(logits), -1)
    return torch.stack([own.logsumexp(-1) for own in parts]).logsumexp(0)


def _log_probabilities(logits: Tensor) -> Iterator[Tensor]:
    """``torch.log_softmax(logits, -1)``, some columns at a time."""
    if not _is_large(logits):
        yield torch.log_softmax(logits, -1)
        return
    total = log_normalizer(logits).unsqueeze(-1)
    # Unlike that of slices, the gradient of a split is written once.
    for own in logits.split(_width(logits), -1):
        yield own - total


def temperature_at(step, n_steps, start, stop, schedule="exponential") -> float:
    """Temperature of a step, exact at both ends.

    Parameters
    ----------
    step : int
        0 for the first of ``n_steps`` steps. A single step is taken at ``stop``.
    schedule : {"exponential", "linear"}
    """
    if step >= n_steps - 1:
        return stop
    t = step / (n_steps - 1)
    if schedule == "linear":
        return start + t * (stop - start)
    return start * (stop / start) ** t


def distinct_argmax(log_probs: Tensor) -> np.ndarray:
    """Most probable selection of k distinct columns.

    Equal to the rows' argmax where these differ; else the assignment of distinct
    columns to rows with the largest sum of log-probabilities.

    Parameters
    ----------
    log_probs : Tensor of shape (k, p), k <= p

    Returns
    -------
    ndarray of shape (k,), dtype int64
    """
    k = log_probs.shape[0]
    columns = _argmax(log_probs)
    if len(np.unique(columns)) == k:
        return columns
    # k - 1 other rows can take at most k - 1 of a row's k best columns, so the best
    # assignment lies within them and the cost matrix stays small for any p.
    candidates = np.unique(log_probs.topk(k, -1).indices.cpu().numpy())
    index = torch.as_tensor(candidates, device=log_probs.device)
    cost = log_probs[:, index].double().cpu().numpy()
    _, assigned = linear_sum_assignment(cost, maximize=True)
    return candidates[assigned]


class SquaredError:
    """Mean squared error of each row: (r, b, m), (b, m) -> (r, b)."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean(-1)

    def with_gradient(self, output, target) -> tuple[Tensor, Tensor]:
        error = output - target
        loss = torch.linalg.vecdot(error, error) / error.shape[-1]
        return loss, error.mul_(2 / error.shape[-1])


class CrossEntropy:
    """Cross-entropy of each row: (r, b, m), class indices (b,) or (r, b) -> (r, b)."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return self._with_log_probability(output, target)[0]

    def with_gradient(self, output, target) -> tuple[Tensor, Tensor]:
        loss, log_probability, index = self._with_log_probability(output, target)
        minus = log_probability.new_full(index.shape, -1)
        gradient = log_probability.exp_().scatter_add_(1, index, minus)
        return loss, gradient.mT

    @staticmethod
    def _with_log_probability(output, target):
        # On a processor torch is several times slower along a last axis of few classes.
        log_probability = torch.log_softmax(output.mT, 1)  # (r, m, b)
        index = target.unsqueeze(-2).expand(len(output), 1, -1)
        loss = log_probability.gather(1, index).squeeze(1).neg_()
        return loss, log_probability, index


class BinaryCrossEntropy:
    """Mean cross-entropy of m binary labels: (r, b, m), (b, m) -> (r, b)."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return (F.softplus(output) - output * target).mean(-1)

    def with_gradient(self, output, target) -> tuple[Tensor, Tensor]:
        gradient = (torch.sigmoid(output) - target) / output.shape[-1]
        return self(output, target), gradient


squared_error = SquaredError()
cross_entropy = CrossEntropy()
binary_cross_entropy = BinaryCrossEntropy()
