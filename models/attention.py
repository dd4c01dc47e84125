"""Attention: MIND's label-aware weights over interests, and softmax attention to which one more key can be added."""

import math

import torch
from torch import Tensor

MASKED = -1e9  # a logit that gets no weight; not -inf, which makes NaN where every key is masked
_SMALLEST = 1e-12  # magnitude below which a score counts as this much, so that its logarithm has a gradient
_LARGEST_LOG = 30.0  # a power beyond exp(30) decides like exp(30): float32 has no differences between the two left


def label_weights(scores: Tensor, active: Tensor, power: float) -> Tensor:
    """Weigh interests by their scores for an item: softmax over the active ones of ``sign(x) |x|^power``.

    The plain power gives NaN for a negative score, and an even one would prefer a bad score to a middling one. The
    softmax needs only differences from the best interest; they are taken between logarithms of the powers, so that
    no power overflows:  ``x^p - y^p = x^p (1 - s e^(p log|y| - p log|x|))`` with ``s`` the product of their signs.

    Args:
        scores: [..., K] inner products of a user's interests with an item.
        active: [..., K] bool (broadcast over scores); at least one interest of each user is.
        power: p > 0; ``math.inf`` gives the whole weight to the best interest, the first of equals.

    Returns:
        Weights [..., K], zero for inactive interests, summing to 1. Neither they nor their gradient hold NaN or Inf.
    """
    masked = torch.where(active, scores, torch.finfo(scores.dtype).min)
    best = masked.argmax(dim=-1, keepdim=True)
    if math.isinf(power):
        return torch.zeros_like(masked).scatter(-1, best, 1.0)
    known = torch.where(active, scores, 0.0)
    log = power * known.abs().clamp(min=_SMALLEST).log()
    log_best, sign_best = log.gather(-1, best), known.sign().gather(-1, best)
    signs = known.sign() * sign_best
    # Of two with one sign the best is the larger if positive and the smaller if negative: the exponent is <= 0.
    ratio = torch.where(signs > 0, sign_best * (log - log_best), -(log - log_best).abs())
    larger = torch.maximum(log, log_best).clamp(max=_LARGEST_LOG).exp()
    below = larger * ((1 - signs) - signs * torch.expm1(ratio))
    return torch.where(active, torch.where(active, -below, MASKED).softmax(dim=-1), 0.0)


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
