"""Pure functions of the concrete autoencoder: tensors in, tensors out.

Nothing here holds state, prints, or draws from a global random generator: noise is
an argument, so that every function below the sampling is deterministic.

Letters, as in ``docs/method``: n rows, p features, k selected features, b rows of a
batch, r runs trained side by side, m outputs of the decoder, s Gumbel-Rao draws.
"""

from __future__ import annotations

from collections.abc import Iterator

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


def _is_large(values: Tensor) -> bool:
    return values.numel() > _LARGE and values.device.type == "cpu"


def _width(values: Tensor) -> int:
    """How many columns of (..., k, p) values are worked through together."""
    p = values.shape[-1]
    return max(_WIDTH, _PART // (values.numel() // p)) if _is_large(values) else p


def gumbel_(uniform: Tensor) -> Tensor:
    """Turn uniform values in [0, 1) into standard Gumbel values, in place."""
    tiny = torch.finfo(uniform.dtype).tiny
    return uniform.clamp_(min=tiny).log_().neg_().log_().neg_()


def sample_gumbel(shape, *, generator, device=None, dtype=torch.float32) -> Tensor:
    """Draw standard Gumbel values.

    Uniform values and two logarithms in place are several times cheaper than
    ``Tensor.exponential_``, which torch does not vectorize on CPU.
    """
    uniform = torch.rand(shape, generator=generator, device=device, dtype=dtype)
    return gumbel_(uniform)


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
    if not _is_large(logits) or gumbel.shape != logits.shape:
        return _softmax(logits, gumbel, temperature)
    M = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    n_rows = max(torch.get_num_threads(), _PART // logits.shape[-1], 1)
    parts = (values.flatten(0, -2).split(n_rows) for values in (M, logits, gumbel))
    for own, own_logits, own_gumbel in zip(*parts, strict=True):
        own.copy_(_softmax(own_logits, own_gumbel, temperature))
    return M


def _softmax(logits: Tensor, gumbel: Tensor, temperature) -> Tensor:
    z = (logits + gumbel).div_(temperature)
    floor = z.amax(-1, keepdim=True).sub_(_TAIL)
    return torch.softmax(torch.maximum(z, floor, out=z), -1)


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


class _Select(torch.autograd.Function):
    """X Mᵀ and its gradient for the logits, written by hand.

    One node instead of six, and no (r, k, p) array but M is kept for the backward
    pass, which puts the gradient in its place where it is large (a second backward
    pass is then an error of torch). With ``draws`` (Gumbel-Rao) M holds s relaxations,
    over which the backward pass averages; with ``hard`` the forward pass takes the
    winning column.
    """

    @staticmethod
    def forward(ctx, X, logits, gumbel, temperature, hard, uniform):
        r, k, p = logits.shape
        chosen = (logits + gumbel).argmax(-1) if hard else None  # (r, k)
        if uniform is not None:
            gumbel = conditional_gumbel(logits, chosen, uniform)  # (s, r, k, p)
        M = relaxed_selection(logits, gumbel, temperature)
        relaxed = None
        if M.dim() == 3:
            relaxed = X @ M.view(r * k, p).T  # (b, rk)
        ctx.save_for_backward(X, M, relaxed)
        ctx.temperature = temperature
        if hard:
            return X[:, chosen].transpose(0, 1)  # (b, r, k) -> (r, b, k)
        return relaxed.view(-1, r, k).transpose(0, 1)

    @staticmethod
    def backward(ctx, grad):  # (r, b, k)
        X, M, relaxed = ctx.saved_tensors
        r, b, k = grad.shape
        grad = grad.transpose(0, 1).reshape(b, r * k)
        floor = grad.new_full((), _GRADIENT_FLOOR)
        # dM = gradᵀ X, then through the softmax: M (dM - sum_j M dM) / τ. The sum
        # over p columns equals one over b rows, of grad times the relaxed features.
        if relaxed is not None:
            inner = (grad * relaxed).sum(0).unsqueeze(-1)
            # In place: new arrays of this size cost more than the arithmetic.
            if _is_large(M):
                rows, dlogits, width = M.flatten(0, 1), M, _width(M)
                parts = rows.split(width, -1), X.split(width, -1)
                for own, own_X in zip(*parts, strict=True):
                    dz = torch.addmm(inner, grad.T, own_X, beta=-1)
                    torch.addcmul(floor, own, dz, value=1 / ctx.temperature, out=own)
            else:
                dz = torch.addmm(inner, grad.T, X, beta=-1).view_as(M)
                dlogits = torch.addcmul(floor, M, dz, value=1 / ctx.temperature, out=dz)
        else:
            dM = (grad.T @ X).view(r, k, -1)  # averaged over the s draws of M
            inner = torch.einsum("srkp,rkp->srk", M, dM).unsqueeze(-1)
            dlogits = floor + (M * (dM - inner)).mean(0) / ctx.temperature
        return None, dlogits, None, None, None, None


def select(X, logits, gumbel, temperature, *, hard=False, uniform=None) -> Tensor:
    """Selected features of a batch, differentiable in the logits.

    Parameters
    ----------
    X : Tensor of shape (b, p)
    logits : Tensor of shape (r, k, p)
    gumbel : Tensor of shape (r, k, p) or (r, b, k, p)
        One draw for the whole batch, or one for each of its rows.
    temperature : float, > 0
    hard : bool, default=False
        Straight-through: forward the winning column, backward the relaxation.
    uniform : Tensor of shape (s, r, k, p), optional
        Randomness of Gumbel-Rao: hard forward, backward averaged over s relaxations
        drawn given the winner. Implies ``hard`` and one draw per batch.

    Returns
    -------
    Tensor of shape (r, b, k)
    """
    if gumbel.dim() == logits.dim():
        hard = hard or uniform is not None
        return _Select.apply(X, logits, gumbel, temperature, hard, uniform)
    return _select_per_row(X, logits, gumbel, temperature, hard)


def _select_per_row(X, logits, gumbel, temperature, hard):
    # (r, b, k, p) arrays: as many times dearer as the batch has rows.
    perturbed = logits.unsqueeze(1) + gumbel
    M = torch.softmax(perturbed / temperature, -1)
    if hard:
        one_hot = F.one_hot(perturbed.argmax(-1), M.shape[-1]).to(M.dtype)
        M = one_hot + (M - M.detach())
    return torch.einsum("bp,rbkp->rbk", X, M)


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
    columns = log_probs.argmax(-1).cpu().numpy()
    if len(np.unique(columns)) == k:
        return columns
    # k - 1 other rows can take at most k - 1 of a row's k best columns, so the best
    # assignment lies within them and the cost matrix stays small for any p.
    candidates = np.unique(log_probs.topk(k, -1).indices.cpu().numpy())
    index = torch.as_tensor(candidates, device=log_probs.device)
    cost = log_probs[:, index].double().cpu().numpy()
    _, assigned = linear_sum_assignment(cost, maximize=True)
    return candidates[assigned]


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row: (r, b, m), (b, m) -> (r, b)."""
    return (output - target).square().mean(-1)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each row: (r, b, m), class indices (b,) -> (r, b)."""
    target = target.expand(output.shape[:2])
    losses = F.cross_entropy(output.flatten(0, 1), target.flatten(), reduction="none")
    return losses.view_as(target)


def binary_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of m binary labels: (r, b, m), (b, m) -> (r, b)."""
    return (F.softplus(output) - output * target).mean(-1)
