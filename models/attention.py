"""Attention: MIND's label-aware weights over interests, and softmax attention to which one more key can be added."""

import math

import torch
from torch import Tensor

MASKED = -1e9  # a logit that gets no weight; not -inf, which makes NaN where every key is masked
_SMALLEST = 1e-12  # magnitude below which a score counts as this much, so that its power has a finite gradient
_LARGEST_DIRECT = 4.0  # up to here no power of a float32 score, nor its gradient, is too large for float64
_LARGEST_LOG = 30.0  # a power beyond exp(30) decides like exp(30): float32 scores leave no smaller differences


def label_weights(scores: Tensor, active: Tensor, power: float, *, dim: int = -1) -> Tensor:
    """Weigh interests by their scores for an item: softmax over the active ones of ``sign(x) |x|^power``.

    The plain power gives NaN for a negative score, and an even one would prefer a bad score to a middling one. It is
    taken in float64, which loses no near tie of float32 scores.

    Args:
        scores: [..., K, ...] inner products of a user's interests with an item.
        active: [..., K, ...] bool (broadcast over scores); at least one interest of each user is.
        power: p > 0; ``math.inf`` gives the whole weight to the best interest, the first of equals.
        dim: Where the interests lie; on a full catalogue another axis than the last is much faster.

    Returns:
        Weights like scores, zero for inactive interests, summing to 1. Neither they nor their gradient hold NaN or Inf.
    """
    lowest = torch.finfo(torch.float64).min
    known = torch.where(active, scores, 0.0).double()
    if power <= _LARGEST_DIRECT:
        powers = known.sign() * known.abs().clamp(min=_SMALLEST).pow(power)
    else:
        best = torch.where(active, known, lowest).argmax(dim=dim, keepdim=True)
        if math.isinf(power):
            return torch.zeros_like(scores).scatter(dim, best, 1.0)
        powers = _powers_from_best(known, best, power, dim)
    weights = torch.where(active, powers, lowest).softmax(dim=dim)
    return torch.where(active, weights, 0.0).to(scores.dtype)


def _powers_from_best(scores: Tensor, best: Tensor, power: float, dim: int) -> Tensor:
    """Give ``y^p - x^p`` of each score y and the *best* one x, by logarithms, so that no power overflows.

    With z the larger and w the smaller in magnitude, and s the product of the signs, it is
    ``-|z|^p (1 - s e^(p log|w| - p log|z|))``.
    """
    log, sign = power * scores.abs().clamp(min=_SMALLEST).log(), scores.sign()
    log_best, sign_best = log.gather(dim, best), sign.gather(dim, best)
    same = sign * sign_best
    # Of two with one sign the best is the larger if positive and the smaller if negative: the exponent is <= 0, and
    # without the absolute value it has a gradient at a tie, too.
    exponent = torch.where(same > 0, sign_best * (log - log_best), -(log - log_best).abs())
    larger = torch.maximum(log, log_best).clamp(max=_LARGEST_LOG).exp()
    return -larger * ((1 - same) - same * torch.expm1(exponent))


def attend(queries: Tensor, keys: Tensor, values: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Attend from queries [..., Q, w] to the *real* [..., 1, N] of keys and values [..., N, w].

    Returns:
        The mixed values [..., Q, w], and the log-sum-exp of the logits [..., Q, 1], by which :func:`add_key` goes on.
        Without a real key the latter is about ``MASKED``, and the former has no meaning.
    """
    logits = torch.where(real, queries @ keys.transpose(-1, -2) / math.sqrt(keys.shape[-1]), MASKED)
    peak = logits.amax(dim=-1, keepdim=True)
    weights = (logits - peak).exp()
    total = weights.sum(dim=-1, keepdim=True)
    return weights @ values / total, peak + total.log()


def add_key(mixed: Tensor, log_total: Tensor, logit: Tensor, value: Tensor) -> Tensor:
    """Give what :func:`attend` would have given with one more key, whose logit and value these are."""
    return mixed + torch.sigmoid(logit - log_total) * (value - mixed)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., N, d] -> [..., heads, N, d / heads]."""
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-2, -3)


def join_heads(x: Tensor) -> Tensor:
    """[..., heads, N, w] -> [..., N, heads * w]."""
    return x.transpose(-2, -3).flatten(-2)
