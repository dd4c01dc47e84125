"""torch-rechub's MIND and BST with their own training, on the days and the lists that ours are fitted to.

Its MIND is told histories and the first profile feature, its BST all features of items and users and the cross
features, but no time gaps: it has places in the history instead.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.environment import interpreter_of
from benchmarks.quality.protocol import Part, Scorer
from benchmarks.quality.ranking import Lists, RankSetting, epoch_of, inputs_of
from models.events import DAY_US
from models.examples import Examples, Window, next_day

Arrays = dict[str, npt.NDArray[Any]]
LENGTH = 50  # as in its example
RANK_LENGTH = 20  # its BST runs every pair's own history through layers of width 2,048
RANK_EPOCHS = 3
RANK_LEARNING_RATE = 0.001


@dataclass(frozen=True, slots=True)
class RechubSetting:
    """How it is fitted.

    Attributes:
        epochs: Passes over the examples.
        learning_rate: Of Adam; 0.001 in its example.
        negatives: Items that a target is compared with; its example's 3 are too few for thousands of items.
        targets: The most items of a user's day, each an example of its own.
        last_days: Days before the cut that examples are taken from; 0 takes them from all.
    """

    epochs: int = 5
    learning_rate: float = 0.001
    negatives: int = 20
    targets: int = 4
    last_days: int = 0


def scorers(part: Part, setting: RechubSetting, *, seed: int) -> list[Scorer] | None:
    """Fit it in its own environment; gives a scorer of every epoch, or None, with a message, if it cannot be made."""
    items = len(part.sequences.catalogue)
    random = np.random.default_rng(seed)
    asked, targets = _examples(part, setting, random)
    negatives = random.integers(1, items + 1, (len(targets), setting.negatives))
    train = {**_told(part, asked), "item_id": targets + 1, "negatives": negatives}
    words = max(2, *(int(rows.max(initial=0)) + 1 for rows in part.sequences.profiles.values()))
    how = {"model": "retrieval", "items": items + 1, "words": words, "seed": seed, "epochs": setting.epochs}
    how["learning_rate"] = setting.learning_rate
    names = [f"vectors-{epoch + 1}.npz" for epoch in range(setting.epochs)]
    found = _fitted(how, train, _told(part, part.questions), names)
    return found and [_scorer(part, vectors) for vectors in found]


def _fitted(how: dict[str, Any], train: Arrays, asked: Arrays, names: list[str]) -> list[Arrays] | None:
    """Fit one of its models in its own environment; gives the files *names* that it wrote, or None without it."""
    python = interpreter_of("torch-rechub")
    if python is None:
        return None
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "train.npz", **train)
        np.savez(folder / "asked.npz", **asked)
        (folder / "how.json").write_text(json.dumps(how))
        command = [python.absolute(), "-m", "benchmarks.quality.with_torch_rechub", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return [dict(np.load(folder / name)) for name in names]


def _examples(
    part: Part, setting: RechubSetting, random: np.random.Generator
) -> tuple[Examples, npt.NDArray[np.int64]]:
    """Draw some items of each user's day; gives a question for each of them, and the items."""
    start_us = part.cut_us - setting.last_days * DAY_US if setting.last_days else part.split.train.start_us
    days = next_day(part.sequences, Window(start_us, part.cut_us), zone=part.zone)
    question, place = np.nonzero(days.weights)
    order = np.lexsort((random.random(len(question)), question))
    rank = np.arange(len(question)) - np.searchsorted(question, question, side="left")
    kept = np.sort(order[rank < setting.targets])
    return days.take(question[kept]), days.targets[question[kept], place[kept]]


def _scorer(part: Part, found: dict[str, npt.NDArray[np.float32]]) -> Scorer:
    interests, vectors = found["interests"], found["items"][1:]
    row_of = np.zeros(len(part.sequences.user_ids), np.int64)
    row_of[part.questions.users] = np.arange(len(part.questions))

    def score(questions: Examples) -> npt.NDArray[np.floating]:
        own = interests[row_of[questions.users]]
        return np.max(own @ vectors.T, axis=1, initial=-1.0)

    return score


def _told(part: Part, examples: Examples) -> dict[str, npt.NDArray[np.int64]]:
    """Give histories as catalogue rows from 1, newest first, and the first profile feature."""
    sequences = part.sequences
    at = examples.ends[:, None] - 1 - np.arange(LENGTH)
    real = at >= sequences.starts[examples.users][:, None]
    items = sequences.items[np.maximum(at, 0)].astype(np.int64)
    history = np.where(real & (items >= 0), items + 1, 0)
    profile = next(iter(sequences.profiles.values()), np.zeros(len(sequences.user_ids), np.int32))
    return {"history": history, "profile": profile[examples.users].astype(np.int64)}


def ranker_scores(train: Lists, asked: Lists, setting: RankSetting, *, seed: int) -> npt.NDArray[np.float32] | None:
    """Fit its BST to the pairs of *train*, one draw of negatives; gives scores of *asked* [N, C], or None without it.

    A pair's history is the newest ``RANK_LENGTH`` behaviours, the newest last, as its places count them.
    """
    part = asked.part
    inputs, labels, filled = epoch_of(train, setting, seed=seed)
    pairs = {**_pairs(inputs, filled), "label": labels[filled]}
    every = np.ones(asked.found.items.shape, dtype=bool)
    how = {
        "model": "ranking",
        "seed": seed,
        "epochs": RANK_EPOCHS,
        "learning_rate": RANK_LEARNING_RATE,
        "item_features": part.spec.item_features,
        "profile_features": [f"profile_{name}" for name in part.spec.profile_features],
        "words": _words(part),
        "mlp": setting.config.mlp,
        "dropout": setting.config.dropout,
    }
    found = _fitted(how, pairs, _pairs(inputs_of(asked, setting), every), ["scores.npz"])
    return found and found[0]["scores"].reshape(every.shape)


def _words(part: Part) -> dict[str, int]:
    """Say how many rows each feature's table needs."""
    names = {name: name for name in part.spec.item_features}
    names |= {f"profile_{name}": name for name in part.spec.profile_features}
    return {told: part.vocabularies[name].size for told, name in names.items()}


def _pairs(inputs: Arrays, kept: npt.NDArray[np.bool_]) -> Arrays:
    """Make one row of each pair of a user and a candidate that is *kept* [N, C]."""
    users, _ = np.nonzero(kept)
    pairs = {}
    for name, values in inputs.items():
        if name.startswith("history_"):
            pairs[name] = np.ascontiguousarray(values[users, :RANK_LENGTH][:, ::-1])
        elif name.startswith("profile_"):
            pairs[name] = values[users]
        elif name.startswith("candidate_") or name == "cross":
            pairs[name] = values[kept]
    return pairs
