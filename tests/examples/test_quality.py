"""The demo's quality table: who is asked, what came true, and where a model loses."""

import io

import numpy as np
import pyarrow as pa
from rich.console import Console

from artifacts import schemas
from examples import quality
from features.sequences import Sequences
from models.candidates import NEGATIVE, POSITIVE, UNUSED

DAY = 86_400_000_000
# User 5 has a history and comes back for items 11 and 13; user 6 comes back without a history; user 7 does not.
SEQUENCES = Sequences(
    user_ids=pa.array([5, 6, 7]),
    starts=np.array([0, 4, 5, 6]),
    items=np.array([0, 1, 3, 3, 2, 1], dtype=np.int32),
    times_us=np.array([1, 5, 6, 7, 5, 1]) * DAY,
    catalogue=pa.table({"item_id": [10, 11, 12, 13], "eligible": [True] * 4, "title": ["a", "b", "c", "d"]}),
    profiles={},
    counts={},
)
SCORES = pa.table(
    {
        "user_id": [5, 5, 5, 6],
        "item_id": [12, 11, 10, 10],
        "rank": pa.array([1, 2, 3, 1], pa.uint16()),
        "source": pa.array([0, 0, 1, 1], pa.uint8()),
        "score": pa.array([0.9, 0.5, None, None], pa.float32()),
        "retrieval_score": pa.array([1.0, 2.0, None, None], pa.float32()),
        "interest": pa.array([0, 0, None, None], pa.uint8()),
    },
    schema=schemas.scores(pa.int64(), pa.int64()),
)


def test_those_are_asked_who_have_a_history_and_come_back() -> None:
    """Each different item of the days to come is a target once; only what was before the night is told."""
    examples = quality._held_out(SEQUENCES, 5 * DAY)

    assert examples.users.tolist() == [0]
    assert examples.ends.tolist() == [1]
    assert examples.targets[examples.weights > 0].tolist() == [1, 3]


def test_candidates_stand_in_the_order_of_retrieval_with_what_came_true() -> None:
    """Ranked rows alone are candidates, best retrieval score first; the ranker's scores stay beside them."""
    held = quality._released(SEQUENCES, quality._held_out(SEQUENCES, 5 * DAY), SCORES)

    assert held.found.items.tolist() == [[1, 2]]
    assert held.found.labels.tolist() == [[POSITIVE, NEGATIVE]]
    assert held.scores.round(3).tolist() == [[0.5, 0.9]]
    assert UNUSED not in held.found.labels


def test_a_model_that_loses_is_told_on() -> None:
    """Below the table stands every floor that a model loses to, and at which measures; a tie is no loss."""
    console = Console(file=io.StringIO(), width=100)

    quality._print(console, "t", ["@10", "@50"], {"model": [0.1, 0.3], "floor": [0.2, 0.3], "low": [0, 0]}, models=1)

    text = console.file.getvalue()
    assert "model loses to floor at @10." in text
    assert "low at" not in text
