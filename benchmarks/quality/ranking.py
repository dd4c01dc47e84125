"""The rankers on real lists: what MIND retrieved for each question, ordered by BST and by what it is compared with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from artifacts.bundle import FeatureSpec, Role, input_names
from benchmarks.quality.protocol import QUESTIONS_AT_ONCE, Ints, Part, Scorer, best, had_before
from benchmarks.quality.rankers import Pooled
from features.encode import NO_ITEM
from models.backend import keras
from models.bst import Bst, BstConfig
from models.candidates import NEGATIVE, POSITIVE, UNUSED, Candidates, Night, draw_negatives, ranker_inputs
from models.evaluate import RankingQuality, ranking_quality
from models.events import EventIndex
from models.examples import Examples, Window, next_day
from models.fit import FitOptions, calibrate, forget_untrained
from models.loop import optimizer_of
from models.trainers import Batch, Batches, BstTrainer, Epoch, reproducible

Ranker = Bst | Pooled
RANKERS: dict[str, Callable[..., Ranker]] = {
    "bst": Bst,
    "wdl": partial(Pooled, "nothing"),
    "wdl_sequence": partial(Pooled, "mean"),
    "din": partial(Pooled, "attention"),
}
CANDIDATES = 100
CROSS = ("retrieval_score", "times_had", "days_since", "popularity")
LISTS_AT_ONCE = 16  # DIN looks at every pair of a behaviour and a candidate


@dataclass(frozen=True, slots=True)
class RankSetting:
    """How a ranker is built and fitted.

    Attributes:
        config: Of the network; those that have no blocks leave what is said of them.
        options: How it is fitted.
        popular_days: Of the cross feature ``popularity``.
        cross: What of each user and candidate it is told.
        gaps: Whether it is told how long ago each behaviour was.
    """

    config: BstConfig
    options: FitOptions
    popular_days: int = 7
    cross: tuple[str, ...] = CROSS
    gaps: bool = True


@dataclass(frozen=True, eq=False)
class Lists:
    """Questions, what was retrieved for each, best first, and the events that rankers are told of.

    Attributes:
        part: Whose sequences they are of.
        questions: [N].
        found: [N, C].
        index: Of all events: the past of every question is asked of it.
    """

    part: Part
    questions: Examples
    found: Candidates
    index: EventIndex

    def take(self, rows: npt.NDArray[Any]) -> "Lists":
        """Keep *rows*, a mask or positions."""
        return replace(self, questions=self.questions.take(rows), found=self.found.take(rows))

    def with_a_truth(self) -> "Lists":
        """Keep the lists of which a candidate came true: one learns from them alone, and measures no others."""
        return self.take((self.found.labels == POSITIVE).any(axis=1))


def retrieve(part: Part, questions: Examples, score: Scorer, *, new: bool = False) -> Lists:
    """Retrieve for every question, and say which candidates the user had on that day.

    Args:
        part: Whose catalogue and histories it is.
        questions: Who is asked when.
        score: Of the whole catalogue.
        new: Whether what the user had before is left out.
    """
    eligible = part.sequences.catalogue["eligible"].to_numpy()
    items, scores = [], []
    for start in range(0, len(questions), QUESTIONS_AT_ONCE):
        some = questions.take(np.arange(start, min(start + QUESTIONS_AT_ONCE, len(questions))))
        every = np.array(score(some), dtype=np.float32)
        every[:, ~eligible] = -np.inf
        if new:
            every[had_before(part, some)] = -np.inf
        rows = best(every, CANDIDATES)
        reached = np.take_along_axis(every, rows, 1)
        rows[reached == -np.inf] = NO_ITEM
        items.append(rows)
        scores.append(np.where(rows == NO_ITEM, 0, reached).astype(np.float32))
    found = np.concatenate(items)
    wanted = np.where(questions.weights > 0, questions.targets, NO_ITEM - 1)
    true = np.stack([np.isin(row, asked) for row, asked in zip(found, wanted, strict=True)])
    labels = np.where(true, POSITIVE, np.where(found == NO_ITEM, UNUSED, NEGATIVE)).astype(np.int8)
    index = EventIndex(part.sequences, zone=part.zone, until_us=int(np.iinfo(np.int64).max))
    return Lists(part, questions, Candidates(found, np.concatenate(scores), labels), index)


def days_of(part: Part, window: Window) -> Examples:
    """Ask every user on every day of the *window* on which they did something."""
    return next_day(part.sequences, window, zone=part.zone)


def rank_spec(part: Part, setting: RankSetting) -> FeatureSpec:
    """Say what a ranker of the setting is told."""
    edges = part.spec.gap_edges if setting.gaps else ()
    return replace(part.spec, gap_edges=edges, cross_features=setting.cross)


def inputs_of(lists: Lists, setting: RankSetting) -> dict[str, npt.NDArray[Any]]:
    """Give a ranker's inputs, as of each question's time."""
    night = Night(popular_days=setting.popular_days)
    return ranker_inputs(lists.part.sequences, lists.questions, lists.index, lists.found,
                         spec=rank_spec(lists.part, setting), night=night)  # fmt: skip


def drawn(lists: Lists, setting: RankSetting, *, seed: list[int]) -> tuple[Lists, npt.NDArray[np.bool_]]:
    """Keep the positives of each list that has any, and draw negatives of it; says which places are filled, [N, C]."""
    useful = lists.with_a_truth()
    options = setting.options
    keys = np.random.default_rng(seed).random(useful.found.items.shape)
    kept, filled = draw_negatives(useful.found, keys, positives=options.targets, ratio=options.ratio)
    return replace(useful, found=kept), filled


def epoch_of(
    lists: Lists, setting: RankSetting, *, seed: int
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Give all that one epoch learns from: inputs, labels [N, C], and which places are filled [N, C]."""
    kept, filled = drawn(lists, setting, seed=[seed, 0])
    return inputs_of(kept, setting), (kept.found.labels == POSITIVE).astype(np.float32), filled


def batches(lists: Lists, setting: RankSetting) -> Batches:
    """Batches for the trainer: the positives of each list, and negatives of it that are drawn anew every epoch."""
    options = setting.options

    def begin(epoch: int) -> Epoch:
        kept, filled = drawn(lists, setting, seed=[options.seed, epoch])

        def assemble(rows: npt.NDArray[np.int64]) -> Batch:
            some = kept.take(rows)
            labels = (some.found.labels == POSITIVE).astype(np.float32)
            return inputs_of(some, setting), labels, filled[rows].astype(np.float32)

        return Epoch(len(kept.questions), assemble)

    return Batches(begin, batch=options.batch, seed=options.seed)


def fit(
    lists: Lists, system: str, setting: RankSetting, *, seed: int, watch: Callable[[int, Ranker], None] | None = None
) -> Ranker:
    """Fit a ranker, a key of ``RANKERS``, to which candidates of *lists* came true; arguments as in learned.fit."""
    setting = replace(setting, options=replace(setting.options, seed=seed), config=replace(setting.config, seed=seed))
    part, options = lists.part, setting.options
    spec = rank_spec(part, setting)
    with reproducible(seed):
        train = batches(lists, setting)
        network = RANKERS[system](setting.config, spec, part.vocabularies)
        calibrate(network, train)
        trainer = BstTrainer(network, input_names(Role.RANKER, spec), unknown_rate=options.unknown_rate)
        trainer.compile(optimizer=optimizer_of(options))
        shown = [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: watch(epoch + 1, network))]
        trainer.fit(train, epochs=options.epochs, shuffle=False, verbose=0, callbacks=shown if watch else [])
    forget_untrained(network, part.sequences, part.split)
    network.eval()
    return network


def order(lists: Lists, network: Ranker, setting: RankSetting) -> npt.NDArray[np.float32]:
    """Score the candidates of *lists* [N, C]."""
    network.eval()
    parts = []
    for start in range(0, len(lists.questions), LISTS_AT_ONCE):
        some = lists.take(np.arange(start, min(start + LISTS_AT_ONCE, len(lists.questions))))
        with torch.no_grad():
            told = inputs_of(some, setting).values()
            parts.append(network(*(torch.from_numpy(array) for array in told)).numpy())
    scores: npt.NDArray[np.float32] = np.concatenate(parts)
    return scores


def quality(scores: npt.NDArray[np.floating], lists: Lists) -> dict[str, float]:
    """Measure scores [N, C] of candidates over the lists that hold something true."""
    found: RankingQuality = ranking_quality(scores, lists.found)
    return {"auc": found.auc, "gauc": found.gauc, "ndcg@10": found.ndcg_10}


def reordered(lists: Lists, scores: npt.NDArray[np.floating]) -> Ints:
    """Give the candidates of *lists* [N, C] by *scores*, best first; places without an item come last."""
    known = np.where(lists.found.items == NO_ITEM, -np.inf, scores)
    by = np.argsort(-known, axis=1, kind="stable")
    ordered: Ints = np.take_along_axis(lists.found.items, by, axis=1)
    return ordered
