"""MIND: a user's history becomes up to K interest vectors by dynamic routing (arXiv 1904.08030, as in DESIGN §6)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from artifacts.bundle import FeatureSpec
from artifacts.errors import UsageError
from features.hashing import id_hash
from features.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary
from models.attention import MASKED
from models.embedding import look_up, make_tables, seeded

_MOST_INTERESTS = 256  # the scores table numbers them in a byte


@dataclass(frozen=True, slots=True)
class MindConfig:
    """What a MIND is made of; every field enters its checkpoint.

    Attributes:
        width: d, of item vectors and interests.
        interests: K, the most interests of a user.
        rounds: Rounds of routing.
        sigma: Standard deviation of the routing's start logits.
        start_rows: M, rows of the Gaussian table that start logits come from.
        hidden: Widths of the ReLU layers of H, between the routing and the last linear layer.
        profile_width: Of the embedding of each profile feature.
        power: p of the label-aware attention in training; ``inf`` scores an item by its best interest, as serving does.
        attention: Whether an item is scored through its ``"own"`` mix of interests, as serving does, or every
            negative through the mix of the positive, the ``"label"`` (the paper's).
        normalise: Whether item vectors have length 1, and interests length 1 / temperature: their inner product is
            then the cosine over the temperature, and every reader of vectors still takes inner products.
        temperature: Of ``normalise``.
        unknown_rate: Share of ids that training turns into the unknown row, so that the row is learnt.
        seed: Of the start weights and of the Gaussian table.
    """

    width: int = 64
    interests: int = 4
    rounds: int = 3
    sigma: float = 1.0
    start_rows: int = 4096
    hidden: tuple[int, ...] = (256,)
    profile_width: int = 16
    power: float = math.inf
    attention: Literal["own", "label"] = "own"
    normalise: bool = True
    temperature: float = 0.05
    unknown_rate: float = 0.02
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            UsageError: Naming the field, what was expected and what was found.
        """
        positive = ("width", "rounds", "start_rows", "profile_width", "power", "temperature")
        for name in positive:
            if not getattr(self, name) > 0:
                raise UsageError(f"mind.{name}: expected more than 0, found {getattr(self, name)}")
        if not 1 <= self.interests <= _MOST_INTERESTS:
            raise UsageError(f"mind.interests: expected 1 to {_MOST_INTERESTS}, found {self.interests}")
        if not all(width > 0 for width in self.hidden):
            raise UsageError(f"mind.hidden: expected widths above 0, found {self.hidden}")
        if not 0 <= self.sigma < math.inf:
            raise UsageError(f"mind.sigma: expected 0 or more, found {self.sigma}")
        if self.attention not in {"own", "label"}:
            raise UsageError(f'mind.attention: expected "own" or "label", found "{self.attention}"')
        if not 0 <= self.unknown_rate < 1:
            raise UsageError(f"mind.unknown_rate: expected a share from 0 to below 1, found {self.unknown_rate}")


def start_logits(vocabulary: Vocabulary, config: MindConfig) -> NDArray[np.float32]:
    """Bake the routing's start logits [rows of the vocabulary, K]: ``sigma * G[hash(raw id) mod M]``.

    Keyed by the raw id, they do not change with the order of clicks, with padding, or when another vocabulary numbers
    the ids anew. The padding row is zero; unknown ids share a row of G of their own, its last.
    """
    gaussian = np.random.default_rng(config.seed).standard_normal((config.start_rows + 1, config.interests))
    known = id_hash(vocabulary.values) % np.uint64(config.start_rows)
    logits = np.zeros((FIRST + len(known), config.interests), dtype=np.float32)
    logits[UNKNOWN] = config.sigma * gaussian[-1]
    logits[FIRST:] = config.sigma * gaussian[known.astype(np.int64)]
    return logits


def interest_thresholds(interests: int) -> list[int]:
    """Give, per interest, the behaviours n from which it is active.

    Exactly ``max(1, min(K, floor(log2 n)))`` interests have a threshold <= n: the j-th needs n >= 2^j, and the first
    needs nothing. Powers of two are compared as integers, since a rounded logarithm is one short at some of them.
    """
    return [0] + [min(2**j, 2**31 - 1) for j in range(2, interests + 1)]


def squash(z: Tensor) -> Tensor:
    """Shorten vectors [..., d] to a length below 1: ``z sqrt(|z|^2 + 1e-9) / (1 + |z|^2)``."""
    square = z.square().sum(dim=-1, keepdim=True)
    return z * (square + 1e-9).sqrt() / (1 + square)


def route(h: Tensor, logits: Tensor, real: Tensor, active: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Route behaviours to interests.

    Args:
        h: Behaviours after the shared map S, [users, L, d].
        logits: Start logits b, [users, L, K].
        real: Which behaviours are no padding, [users, L].
        active: Which interests the user has, [users, K]; at least one.
        rounds: How often logits become weights.

    Returns:
        Capsules u [users, K, d], zero where inactive, and the weights of the last round [users, K, L], which sum to 1
        over the active interests of a real behaviour and are 0 elsewhere.
    """
    kept = real.unsqueeze(-1) & active.unsqueeze(-2)
    for round_ in range(rounds):
        # The inactive leave the softmax before it is taken; the padded leave the sum over behaviours.
        weights = torch.where(kept, torch.where(active.unsqueeze(-2), logits, MASKED).softmax(dim=-1), 0.0)
        u = squash(weights.transpose(-1, -2) @ h)
        if round_ + 1 < rounds:
            logits = logits + h @ u.transpose(-1, -2)
    return u, weights.transpose(-1, -2)


class Mind(nn.Module):
    """The network: both towers over the same item tables.

    Inputs are vocabulary rows, int32 or int64; histories come newest first, padded with row 0 to L.
    """

    start: Tensor  # [rows of item_id, K]; a part of the trained state, so that no later change can move it
    thresholds: Tensor  # [K]

    def __init__(self, config: MindConfig, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary]) -> None:
        """Build with start weights drawn from ``config.seed`` alone.

        Raises:
            UsageError: If a feature of *spec* has no vocabulary.
        """
        super().__init__()
        self.config, self.spec = config, spec
        items, profiles = spec.item_features, spec.profile_features
        unit = config.width**-0.5  # vectors of about length 1, the scale at which squash is neither flat nor linear
        self.deviation = unit  # of a row of a table at the start
        with seeded(config.seed):
            self.item_tables = make_tables(vocabularies, items, [config.width] * len(items), deviation=unit)
            self.profile_tables = make_tables(
                vocabularies, profiles, [config.profile_width] * len(profiles), deviation=unit
            )
            self.shared = nn.Linear(config.width, config.width, bias=False)
            nn.init.orthogonal_(self.shared.weight)
            widths = [config.width + config.profile_width * len(profiles), *config.hidden]
            hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
            self.head = nn.Sequential(*hidden, nn.Linear(widths[-1], config.width))
        self.register_buffer("start", torch.from_numpy(start_logits(vocabularies[items[0]], config)))
        self.register_buffer("thresholds", torch.tensor(interest_thresholds(config.interests)), persistent=False)

    def embed_items(self, rows: Sequence[Tensor]) -> Tensor:
        """Average the embeddings of an item's features: rows [...] of each feature -> [..., d]."""
        first, *others = look_up(self.item_tables, rows)
        return sum(others, first) / len(rows)

    def item_vectors(self, *rows: Tensor) -> Tensor:
        """Rows [...] of each item feature -> item vectors [..., d], of length 1 if the config normalises."""
        vectors = self.embed_items(rows)
        return unit(vectors) if self.config.normalise else vectors

    def interests(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn histories into interests.

        Args:
            *inputs: Rows [users, L] of each item feature of the history, then rows [users] of each profile feature.

        Returns:
            Interests [users, K, d], zero where inactive; how many are active [users] int32, from 1; and the weights of
            behaviours [users, K, L] in the last round of routing.
        """
        features = len(self.spec.item_features)
        history, profile = inputs[:features], inputs[features:]
        real = history[0] != PADDING
        active = real.sum(dim=-1, keepdim=True) >= self.thresholds
        e = torch.where(real.unsqueeze(-1), self.embed_items(history), 0.0)
        u, weights = route(
            self.shared(e), functional.embedding(history[0], self.start), real, active, self.config.rounds
        )
        known = [table.unsqueeze(1).expand(-1, u.shape[1], -1) for table in look_up(self.profile_tables, profile)]
        v = self.head(torch.cat([u, *known], dim=-1))
        if self.config.normalise:
            v = unit(v) / self.config.temperature
        return torch.where(active.unsqueeze(-1), v, 0.0), active.sum(dim=-1, dtype=torch.int32), weights


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors [..., d] to length 1; the zero vector stays zero, with a finite gradient."""
    return vectors * (vectors.square().sum(dim=-1, keepdim=True) + 1e-12).rsqrt()


class ItemTower(nn.Module):
    """What the item bundle computes: ``forward(*input_names(Role.ITEM, spec))`` -> vector [items, d]."""

    def __init__(self, mind: Mind) -> None:
        """Wrap *mind*; weights are shared with it, not copied."""
        super().__init__()
        self.mind = mind

    def forward(self, *inputs: Tensor) -> Tensor:
        """Give the vectors of items.

        ``torch.export`` names a starred argument as one: ``dynamic_shapes={"inputs": (shape of the first, ...)}``;
        the graph's own input names come from ``input_names``.
        """
        return self.mind.item_vectors(*inputs)


class UserTower(nn.Module):
    """What the user bundle computes: ``forward(*input_names(Role.USER, spec))`` -> interests, count[, weights]."""

    def __init__(self, mind: Mind, *, with_weights: bool = False) -> None:
        """Wrap *mind*; the optional third output tells which behaviours made which interest."""
        super().__init__()
        self.mind, self.with_weights = mind, with_weights

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Give interests [users, K, d], count [users] int32 and, if asked for, weights [users, K, L]."""
        outputs = self.mind.interests(*inputs)
        return outputs if self.with_weights else outputs[:2]
