"""How steady recommendations are: a user's best 50 before and after one more event, and before and after a fit."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from artifacts.bundle import Role, input_names
from benchmarks.quality import learned, protocol
from benchmarks.quality.data import DataSet
from benchmarks.quality.learned import Setting
from benchmarks.quality.protocol import Part, best
from features.encode import item_features
from features.sequences import history_at
from features.vocabulary import PADDING
from models.candidates import item_vectors
from models.checkpoint import checkpoint_of
from models.embedding import look_up
from models.examples import Examples
from models.losses import serving_scores
from models.mind import Mind, route
from models.warm import start_warm

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
    stay = []
    for at in range(0, len(before), 256):
        some = np.arange(at, min(at + 256, len(before)))
        old, new = (_lists(part, mind, vectors, asked.take(some), starts) for asked in (before, with_one_more))
        stay.append(shared(old, new) * len(some))
    return sum(stay) / len(before)


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


def retrained(data: DataSet, part: Part, mind: Mind, setting: Setting, *, seed: int) -> dict[str, dict[str, float]]:
    """Fit MIND a day earlier, and go on from it with that day: warm for one epoch, or cold, which gives *mind*.

    Args:
        data: Of which *part* is the test part.
        part: Its questions are asked of all three.
        mind: Fitted to all days before the part.
        setting: Of all three.
        seed: Of all three.

    Returns:
        Of both ways the share of the earlier one's best 50 that stay, and what the new one is worth.
    """
    before = protocol.test(replace(data, test_from=data.test_from - timedelta(days=1)))
    earlier = learned.fit(before, "mind", setting, seed=seed)
    start = checkpoint_of(
        earlier,
        config=earlier.config,
        spec=earlier.spec,
        vocabularies=before.vocabularies,
        trained_through=before.split.trained_through,
        about={},
    )
    once = replace(setting, options=replace(setting.options, epochs=1))
    warm = learned.fit(part, "mind", once, seed=seed, start=lambda fresh: start_warm(fresh, start, part.vocabularies))
    old = protocol.lists_of(part, learned.scorer_of(before, earlier, setting))["all"]
    rows = {}
    for name, network in (("warm", warm), ("cold", mind)):
        new = protocol.lists_of(part, learned.scorer_of(part, network, setting))
        rows[name] = {"overlap@50": shared(old, new["all"])}
        rows[name]["new.hr@50"] = protocol.judge(part, new)["new.hr@50"]
    return rows


def shared(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    """Mean share of the first 50 of each list that both have; -1 is no item."""
    pairs = zip(one[:, :LIST], other[:, :LIST], strict=True)
    return float(np.mean([len(np.intersect1d(a[a >= 0], b)) / LIST for a, b in pairs]))
