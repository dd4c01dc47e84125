"""What an event counts in training: by its column, by its kind, and beside the event that it belongs to."""

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.bundle import FeatureSpec
from artifacts.errors import InputError, UsageError
from features.catalogue import encode_catalogue
from features.inputs import Inputs, Source
from features.ordered import Engine
from features.sequences import read_sequences
from features.vocabulary import fit_vocabulary
from features.weights import Weighing

SPEC = FeatureSpec(item_features=("item_id",), history_length=3)
VOCABULARIES = {"item_id": fit_vocabulary("item_id", pa.array([1, 2, 3]))}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = [  # user, item, hours after noon, kind, weight; in no order
    ("b", 1, 2, "view", 0.5),
    ("a", 3, 1, "buy", 2.0),
    ("a", 2, 0, "view", 4.0),
    ("a", 3, 1, None, 8.0),  # the same item at the same moment, twice
    ("b", 2, 3, "gift", 1.0),
]


@pytest.fixture
def write(tmp_path):
    """Write the rows, and give the inputs with the columns of kinds and weights as they are called there."""

    def write_rows(weights=None, *, declared=("event", "weight")):
        users, items, hours, kinds, told = zip(*ROWS, strict=True)
        table = pa.table(
            {
                "user_id": users,
                "item_id": items,
                "time": [NOON + timedelta(hours=one) for one in hours],
                "kind": kinds,
                "worth": told if weights is None else weights,
            }
        )
        pq.write_table(table, tmp_path / "events.parquet")
        pq.write_table(pa.table({"item_id": [1, 2, 3]}), tmp_path / "items.parquet")
        named = {"event": "kind", "weight": "worth"}
        columns = {name: name for name in ("user_id", "item_id", "time")} | {name: named[name] for name in declared}
        events = Source(str(tmp_path / "events.parquet"), columns)
        return Inputs(events, None, None, Source(str(tmp_path / "items.parquet"), {"item_id": "item_id"}))

    return write_rows


def read(inputs, tmp_path, weighing):
    catalogue, _ = encode_catalogue(inputs, spec=SPEC, vocabularies=VOCABULARIES)
    how = {"catalogue": catalogue, "spec": SPEC, "vocabularies": VOCABULARIES, "until": date(2026, 3, 1), "zone": "UTC"}
    return read_sequences(inputs, **how, engine=Engine(tmp_path / "scratch", "200MB", 1), weighing=weighing)


@pytest.mark.parametrize(
    ("weighing", "expected"),
    [
        (None, None),
        (Weighing(column=True), [4.0, 2.0, 8.0, 0.5, 1.0]),
        (Weighing(kinds={"buy": 3.0, "view": 0.0}), [0.0, 1.0, 3.0, 0.0, 1.0]),
        (Weighing(column=True, kinds={"buy": 3.0, "view": 0.5}), [2.0, 6.0, 8.0, 0.25, 1.0]),
    ],
)
def test_weights_lie_beside_their_events(write, tmp_path, weighing, expected):
    """Oldest first; of two events that differ in their weight alone, the lighter comes first."""
    found = read(write(), tmp_path, weighing)

    assert found.items.tolist() == [1, 2, 2, 0, 1]
    assert (found.weights is None) if expected is None else (found.weights.tolist() == expected)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0, 1.0, -2.0, 1.0, 1.0], "expected weights of 0 and more, found -2.0; correct it"),
        ([1.0, None, 1.0, 1.0, 1.0], "expected weights of 0 and more, found None"),
        ([1.0, float("inf"), 1.0, 1.0, 1.0], "expected weights of 0 and more, found inf"),
        (["a", "b", "c", "d", "e"], "expected numbers as weights, found string"),
    ],
)
def test_a_weight_that_is_none_is_named_with_file_and_column(write, tmp_path, weights, said):
    """Only who asks for weights has to have them right; a night reads none."""
    inputs = write(weights)

    with pytest.raises(InputError, match=rf"events\.parquet: column worth of interactions: {said}"):
        read(inputs, tmp_path, Weighing(column=True))
    assert read(inputs, tmp_path, None).weights is None


@pytest.mark.parametrize("kinds", [[[1]] * 5, [b"\xff"] * 5])
def test_kinds_that_are_no_text_are_named_with_file_and_column(write, tmp_path, kinds):
    """A list, or bytes that no text has: one line, and nothing is guessed."""
    inputs = write()
    path = tmp_path / "events.parquet"
    events = pq.read_table(path)
    pq.write_table(events.set_column(events.schema.get_field_index("kind"), "kind", pa.array(kinds)), path)

    with pytest.raises(
        InputError, match=r"events\.parquet: column kind of interactions: expected kinds .* cast it first"
    ):
        read(inputs, tmp_path, Weighing(kinds={"buy": 2.0}))


@pytest.mark.parametrize(
    ("weighing", "declared", "said"),
    [
        (Weighing(column=True), ("event",), r"sample_weight needs a column; name it in \[inputs.interactions\] weight"),
        (Weighing(kinds={"buy": 2.0}), ("weight",), "event_weights needs a column; name it in .* event"),
        (Weighing(kinds={"bui": 2.0}), ("event",), "event_weights: no event is a bui; did you mean buy"),
        (Weighing(kinds={"x": 2.0}), ("event",), "event_weights: no event is a x; there are buy, gift, view"),
    ],
)
def test_weights_of_nothing_are_refused(write, tmp_path, weighing, declared, said):
    """A column that is not declared, and a kind that no event is of, are said before anything is read."""
    with pytest.raises(UsageError, match=rf"^\[train\] {said}"):
        read(write(declared=declared), tmp_path, weighing)
