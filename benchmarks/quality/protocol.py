"""What every system may know and is asked, on which days; it is judged by :mod:`models.protocol`, without sampling."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch

from artifacts.bundle import FeatureSpec
from benchmarks.quality.data import DataSet
from features.catalogue import encode_catalogue
from features.ordered import Engine
from features.sequences import Sequences, fit_vocabularies, read_sequences
from features.vocabulary import Vocabulary
from models import protocol
from models.events import earlier_events
from models.examples import Examples, Split, next_day, split_by_time

QUESTIONS_AT_ONCE = 256
HISTORY = 100
HOUR = 3_600
GAP_EDGES = tuple(round(hours * HOUR) for hours in (0.1, 1, 24, 72, 168, 336, 720, 1440, 2160, 4320))

Ints = npt.NDArray[np.int64]
Scorer = Callable[[Examples], npt.NDArray[np.floating]]  # scores of the whole catalogue, [N, items]


@dataclass(frozen=True, eq=False)
class Part:
    """What one part of the days asks, and what a system may know for it.

    Attributes:
        sequences: Everything; a system looks at nothing from ``split.train.end_us`` on but the histories it is asked
            with.
        spec: What a network is told.
        vocabularies: Of the ids that training has seen.
        split: Days to train on, and no others: how long a model trains was chosen before.
        questions: One for each user who comes back.
        zone: Where days begin and end.
    """

    sequences: Sequences
    spec: FeatureSpec
    vocabularies: dict[str, Vocabulary]
    split: Split
    questions: Examples
    zone: str

    @property
    def cut_us(self) -> int:
        """The first moment that is not trained on."""
        return self.split.train.end_us

    @cached_property
    def asked(self) -> protocol.Questions:
        """The questions, with what each user had."""
        return protocol.with_history(self.sequences, self.questions, now_us=self.cut_us)


def validation(data: DataSet) -> Part:
    """Fit on the days before T1, ask on those from it to T2."""
    return _part(data, data.validate_from - timedelta(days=1), data.test_from - timedelta(days=1))


def test(data: DataSet) -> Part:
    """Fit on all days before T2, ask on those from it."""
    return _part(data, data.test_from - timedelta(days=1), data.last)


def last_days(data: DataSet) -> Part:
    """Ask every user on their last day, and fit on all days but those: for shops where few people come back.

    The cut goes through each user and not through time, so what others did later is known, to every system alike.
    """
    sequences, spec, vocabularies = _read(data, data.last)
    split = split_by_time(train_until=data.last, validate_until=data.last, zone=data.zone)
    return _by_last_day(sequences, spec, vocabularies, split, data.zone)


def days_before_last(data: DataSet) -> Part:
    """Ask on the last day but one, of which as of the last nothing is known: what is chosen here, last days judge."""
    last = last_days(data)
    return _by_last_day(last.sequences, last.spec, last.vocabularies, last.split, last.zone)


def _by_last_day(
    sequences: Sequences, spec: FeatureSpec, vocabularies: dict[str, Vocabulary], split: Split, zone: str
) -> Part:
    """Ask every user on the last of their days, and leave those days out of what is known."""
    days = next_day(sequences, split.train, zone=zone)
    last = np.unique(days.users[::-1], return_index=True)[1]  # a user's days are in order
    asked = days.take(len(days) - 1 - last)
    kept = np.ones(len(sequences.items), dtype=bool)
    for user, end in zip(asked.users, asked.ends, strict=True):
        kept[end : sequences.starts[user + 1]] = False
    starts = np.concatenate([[0], np.cumsum(kept)])[sequences.starts]
    told = replace(sequences, starts=starts, items=sequences.items[kept], times_us=sequences.times_us[kept])
    return Part(told, spec, vocabularies, split, replace(asked, ends=starts[asked.users + 1]), zone)


def _part(data: DataSet, train_until: date, asked_until: date) -> Part:
    sequences, spec, vocabularies = _read(data, train_until)
    train = split_by_time(train_until=train_until, validate_until=train_until, zone=data.zone)
    asked = split_by_time(train_until=train_until, validate_until=asked_until, zone=data.zone).valid
    return Part(sequences, spec, vocabularies, train, protocol.first_days(sequences, asked, zone=data.zone), data.zone)


def _read(data: DataSet, known_until: date) -> tuple[Sequences, FeatureSpec, dict[str, Vocabulary]]:
    spec = FeatureSpec(("item_id", *data.item_features), data.profile_features, HISTORY, GAP_EDGES)
    vocabularies = fit_vocabularies(data.inputs, spec=spec, until=known_until, zone=data.zone)
    catalogue, _ = encode_catalogue(data.inputs, spec=spec, vocabularies=vocabularies)
    with TemporaryDirectory() as scratch:
        sequences = read_sequences(
            data.inputs,
            catalogue=catalogue,
            spec=spec,
            vocabularies=vocabularies,
            until=data.last,
            zone=data.zone,
            engine=Engine(Path(scratch)),
        )
    return sequences, spec, vocabularies


def best(scores: npt.NDArray[np.floating], k: int) -> Ints:
    """Give each row's *k* best columns, best first, ties to the lower one: [N, k]."""
    scores, k = np.ascontiguousarray(scores, dtype=np.float32), min(k, scores.shape[1])
    least = torch.from_numpy(scores).topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True).numpy()
    kept = scores >= least
    tied = np.flatnonzero(np.count_nonzero(kept, axis=1) > k)
    if len(tied):
        level = scores[tied] == least[tied]
        left = k - (kept[tied] & ~level).sum(axis=1, keepdims=True)
        kept[tied] &= ~level | (np.cumsum(level, axis=1, dtype=np.int32) <= left)
    columns = np.nonzero(kept)[1].reshape(len(scores), k)
    order = np.argsort(-np.take_along_axis(scores, columns, 1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1)


def had_before(part: Part, questions: Examples) -> tuple[Ints, Ints]:
    """List what the users of some questions had: rows of questions and catalogue rows, aligned."""
    rows, positions = earlier_events(part.sequences, questions.users, questions.ends)
    items = part.sequences.items[positions].astype(np.int64)
    return rows[items >= 0], items[items >= 0]


def lists_of(part: Part, score: Scorer, k: int = max(protocol.KS)) -> dict[str, Ints]:
    """Let a system answer every question: lists of *k* catalogue rows, -1 where none is left; ``all`` and ``new``."""
    eligible = part.sequences.catalogue["eligible"].to_numpy()
    found: dict[str, list[Ints]] = {"all": [], "new": []}
    for start in range(0, len(part.questions), QUESTIONS_AT_ONCE):
        some = part.questions.take(np.arange(start, min(start + QUESTIONS_AT_ONCE, len(part.questions))))
        scores = np.array(score(some), dtype=np.float32)
        scores[:, ~eligible] = -np.inf
        found["all"].append(_possible(scores, k))
        scores[had_before(part, some)] = -np.inf
        found["new"].append(_possible(scores, k))
    return {name: np.concatenate(lists) for name, lists in found.items()}


def _possible(scores: npt.NDArray[np.float32], k: int) -> Ints:
    rows = best(scores, k)
    rows[np.take_along_axis(scores, rows, 1) == -np.inf] = -1
    return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)


def judge(part: Part, lists: dict[str, Ints]) -> dict[str, float]:
    """Measure lists as ``nightrec evaluate`` does: HitRate and NDCG, over questions that have a truth."""
    measured: dict[str, float] = protocol.judge(part.asked, lists)
    return measured
