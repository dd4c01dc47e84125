"""How steady recommendations are: a user's best 50 before and after one more event, by what routing starts from."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from artifacts.bundle import Role, input_names
from benchmarks.quality.protocol import Part, best
from features.encode import item_features
from features.sequences import history_at
from features.vocabulary import PADDING
from models.candidates import item_vectors
from models.embedding import look_up
from models.examples import Examples
from models.losses import serving_scores
from models.mind import Mind, route

LIST = 50
Starts = Callable[[Tensor], Tensor]  # start logits [users, L, K] of the rows [users, L] of a history's items


def starts_of(mind: Mind, seed: int) -> dict[str, Starts]:
    """Give three ways to start: keyed by the item, as ours is; by the place in the history; drawn every time."""
    table = torch.randn(mind.spec.history_length, mind.config.interests, generator=torch.Generator().manual_seed(seed))
    drawn = torch.Generator().manual_seed(seed + 1)
    return {
        "item": lambda rows: mind.start[rows.long()],
        "position": lambda rows: mind.config.sigma * table.expand(len(rows), -1, -1),
        "random": lambda rows: mind.config.sigma * torch.randn((*rows.shape, mind.config.interests), generator=drawn),
    }


def overlap(part: Part, mind: Mind, starts: Starts) -> float:
    """Mean share of the best 50 that stay when a user's newest event is told, over the part's questions."""
    questions = part.questions
    with_one_more = questions.take(questions.ends - part.sequences.starts[questions.users] > 1)
    before = replace(with_one_more, ends=with_one_more.ends - 1)
    vectors = item_vectors(mind, item_features(part.sequences.catalogue, mind.spec))
    shared = []
    for at in range(0, len(before), 256):
        some = np.arange(at, min(at + 256, len(before)))
        old, new = (_lists(part, mind, vectors, asked.take(some), starts) for asked in (before, with_one_more))
        shared += [len(np.intersect1d(a, b)) / LIST for a, b in zip(old, new, strict=True)]
    return float(np.mean(shared))


def _lists(part: Part, mind: Mind, vectors: Tensor, questions: Examples, starts: Starts) -> npt.NDArray[np.int64]:
    told = history_at(part.sequences, questions.users, questions.now_us, questions.ends, mind.spec)
    inputs = [torch.from_numpy(told[name]) for name in input_names(Role.USER, mind.spec)]
    with torch.no_grad():
        interests, count = _interests(mind, inputs, starts)
        return best(serving_scores(interests, count, vectors).numpy(), LIST)


def _interests(mind: Mind, inputs: list[Tensor], starts: Starts) -> tuple[Tensor, Tensor]:
    """Do what :meth:`models.mind.Mind.interests` does, from other start logits."""
    features = len(mind.spec.item_features)
    history, profile = inputs[:features], inputs[features:]
    real = history[0] != PADDING
    active = real.sum(dim=-1, keepdim=True) >= mind.thresholds
    e = torch.where(real.unsqueeze(-1), mind.embed_items(history), 0.0)
    u, _ = route(mind.shared(e), starts(history[0]), real, active, mind.config.rounds)
    known = [one.unsqueeze(1).expand(-1, u.shape[1], -1) for one in look_up(mind.profile_tables, profile)]
    v = mind.head(torch.cat([u, *known], dim=-1))
    if mind.config.normalise:
        v = torch.nn.functional.normalize(v, dim=-1) / mind.config.temperature
    return torch.where(active.unsqueeze(-1), v, 0.0), active.sum(dim=-1)
