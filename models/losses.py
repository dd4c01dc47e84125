"""The losses: label-aware scores, full and sampled softmax over the catalogue, weighted binary cross entropy."""

import math
from typing import Literal

import torch
from torch import Tensor

from models.attention import MASKED, label_weights

Attention = Literal["own", "label"]


def interest_mask(count: Tensor, interests: int) -> Tensor:
    """Which interests are active: bool [users, K], from how many each user has [users]."""
    return torch.arange(interests, device=count.device) < count[:, None]


def score_targets(
    interests: Tensor, count: Tensor, targets: Tensor, candidates: Tensor, *, attention: Attention, power: float
) -> tuple[Tensor, Tensor]:
    """Score each user's targets and the shared candidates through label-aware attention.

    ``own`` lets every item, target or not, choose its own mix of the interests, as serving does. ``label`` is the
    paper's (arXiv 1904.08030, section 4.4): the mix that a target chooses also scores that target's candidates.
    ``own`` of an infinite power is what serving does, and takes its short way, a third of the time; where two interests
    tie exactly they share the gradient, and the first would have it all.

    Args:
        interests: [users, K, d].
        count: How many interests each user has, [users].
        targets: Vectors of each user's targets, [users, T, d].
        candidates: Vectors that all users share, [S, d].
        attention: Whose mix scores the candidates.
        power: The power of :func:`models.attention.label_weights`.

    Returns:
        Scores of the targets [users, T]; and of the candidates, [users, 1, S] for ``own``, [users, T, S] for ``label``.
    """
    if attention == "own" and math.isinf(power):
        return serving_scores(interests, count, targets), serving_scores(interests, count, candidates)[:, None]
    active = interest_mask(count, interests.shape[1])[:, :, None]
    target_scores = interests @ targets.transpose(1, 2)
    weights = interest_weights(target_scores, active, power)
    positive = (weights * target_scores).sum(dim=1)
    if attention == "label":
        return positive, weights.transpose(1, 2) @ interests @ candidates.T
    scores = interests @ candidates.T
    return positive, (interest_weights(scores, active, power) * scores).sum(dim=1, keepdim=True)


def serving_scores(interests: Tensor, count: Tensor, vectors: Tensor) -> Tensor:
    """Score items as serving does: the best inner product over a user's active interests.

    Args:
        interests: [users, K, d].
        count: How many interests each user has, [users].
        vectors: Items that all users share [items, d], or each user's own [users, items, d].

    Returns:
        [users, items].
    """
    active = interest_mask(count, interests.shape[1])[:, :, None]
    return (interests @ vectors.mT).masked_fill(~active, -torch.inf).amax(dim=1)


def interest_weights(scores: Tensor, active: Tensor, power: float) -> Tensor:
    """Weigh interests as :func:`models.attention.label_weights` does, over the middle axis of scores [users, K, S].

    The power 1 leaves a plain softmax, and this layout of it takes a tenth of the time: a full softmax over a small
    catalogue is mostly this line.
    """
    if power == 1:
        return torch.where(active, scores, MASKED).softmax(dim=1)
    return label_weights(scores.transpose(1, 2), active.transpose(1, 2), power).transpose(1, 2)


def full_softmax(positive: Tensor, candidates: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of each target against the whole catalogue.

    Args:
        positive: Scores of the targets, [users, T].
        candidates: Scores of all items, the targets among them, [users, 1 or T, items].
        weights: Weight of each target, [users, T]; 0 where there is none.

    Returns:
        The weighted sum over the number of targets whose weight is not 0: weights of mean 1 change no learning rate.
    """
    return _weighted_mean(candidates.logsumexp(dim=-1) - positive, weights)


def sampled_softmax(
    positive: Tensor, candidates: Tensor, weights: Tensor, *, hits: Tensor, log_q: Tensor, candidate_log_q: Tensor
) -> Tensor:
    """Cross entropy of each target against itself and sampled items, corrected by how likely each is to be sampled.

    Every score is lowered by the logarithm of its inclusion probability (arXiv 1412.2007, section 3): without it the
    model would learn the popularity that the sampler already put there. When all items are sampled with certainty,
    this is :func:`full_softmax`.

    Args:
        positive: Scores of the targets, [users, T].
        candidates: Scores of the sampled items, [users, 1 or T, S].
        weights: Weight of each target, [users, T]; 0 where there is none.
        hits: Where a sampled item is the target itself, bool [users, T, S]; it is left out.
        log_q: Logarithm of the targets' inclusion probabilities, [users, T].
        candidate_log_q: The same of the sampled items, [S].
    """
    corrected = positive - log_q
    others = (candidates - candidate_log_q).expand(-1, positive.shape[1], -1).masked_fill(hits, -torch.inf)
    total = torch.cat([corrected[:, :, None], others], dim=-1).logsumexp(dim=-1)
    return _weighted_mean(total - corrected, weights)


def binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross entropy of logits and labels, [users, C] each; places of weight 0 (padding) count nothing."""
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return _weighted_mean(loss, weights)


def _weighted_mean(loss: Tensor, weights: Tensor) -> Tensor:
    kept = weights > 0
    return (torch.where(kept, loss, 0.0) * weights).sum() / kept.sum().clamp_min(1)
