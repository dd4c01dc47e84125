"""torch-rechub's MIND with its own training, told the same days, histories and first profile feature as our MIND."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from benchmarks.peers.environment import interpreter_of
from benchmarks.quality.protocol import Part, Scorer
from models.examples import DAY_US, Examples, Window, next_day

LENGTH = 50  # as in its example
NEGATIVES = 20  # its example's 3 are too few for thousands of items
TARGETS = 4  # items of a day


def scorer(part: Part, *, last_days: int, epochs: int, seed: int) -> Scorer | None:
    """Fit it in its own environment to the days of *last_days* (0: all); None, with a message, if it cannot be made."""
    python = interpreter_of("torch-rechub")
    if python is None:
        return None
    items = len(part.sequences.catalogue)
    start_us = part.cut_us - last_days * DAY_US if last_days else part.split.train.start_us
    days = next_day(part.sequences, Window(start_us, part.cut_us), zone=part.zone)
    random = np.random.default_rng(seed)
    question, place = np.nonzero(days.weights)
    order = np.lexsort((random.random(len(question)), question))
    rank = np.arange(len(question)) - np.searchsorted(question, question, side="left")
    kept = np.sort(order[rank < TARGETS])
    targets = days.targets[question[kept], place[kept]]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        told = _told(part, days.take(question[kept]))
        negatives = random.integers(1, items + 1, (len(targets), NEGATIVES))
        np.savez(folder / "train.npz", **told, item_id=targets + 1, negatives=negatives)
        np.savez(folder / "asked.npz", **_told(part, part.questions))
        words = max(2, *(int(rows.max(initial=0)) + 1 for rows in part.sequences.profiles.values()))
        numbers = map(str, (items + 1, words, epochs, seed))
        command = [python.absolute(), "-m", "benchmarks.quality.with_torch_rechub", str(folder), *numbers]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = np.load(folder / "vectors.npz")
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
