"""Every Arrow schema that we write: what the columns of a bundle's, a run's and a release's tables are."""

from collections.abc import Sequence

import pyarrow as pa

ID_TYPES = (pa.int64(), pa.uint64(), pa.string())

SOURCE_RANKED = 0  # `source` of a row that the ranker scored
SOURCE_FALLBACK = 1  # `source` of a row that fills a cold user's or a short list


def _column(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


def rows_of(kind: pa.DataType) -> pa.DataType:
    """The list type whose elements cannot be null."""
    return pa.list_(_column("item", kind))


def vector_of(width: int) -> pa.DataType:
    """A float32 vector of *width* numbers, none of them null."""
    return pa.list_(_column("item", pa.float32()), width)


def vocabulary(id_type: pa.DataType) -> pa.Schema:
    """One value a row: the row of a value in the model is its row here plus 2 (0 padding, 1 unknown)."""
    return pa.schema([_column("value", id_type)])


def catalogue(item_id: pa.DataType, item_features: Sequence[str], groups: Sequence[str] = ()) -> pa.Schema:
    """Tonight's items, ascending by id; an item's *catalogue row* is its row here.

    ``feature_NAME`` is the vocabulary row of each item feature. ``signal`` is false where every one is unknown.
    ``group_NAME`` numbers the values of a column that the shop's rules limit, ascending from 0; -1 is no value.
    """
    return pa.schema(
        [
            _column("item_id", item_id),
            *(_column(f"feature_{name}", pa.int32()) for name in item_features),
            *(_column(f"group_{name}", pa.int32()) for name in groups),
            _column("eligible", pa.bool_()),
            _column("signal", pa.bool_()),
            _column("title", pa.string(), nullable=True),
        ]
    )


def histories(user_id: pa.DataType, item_features: Sequence[str], profile_features: Sequence[str]) -> pa.Schema:
    """What the models are told about each user, ascending by id.

    The lists hold the newest behaviours first, as vocabulary rows (``history_NAME``) and gap buckets (``gap``), at
    most L of them; ``history_length`` is how many. ``profile_NAME`` is the vocabulary row of a profile feature.
    """
    return pa.schema(
        [
            _column("user_id", user_id),
            *(_column(f"history_{name}", rows_of(pa.int32())) for name in item_features),
            _column("gap", rows_of(pa.int32())),
            *(_column(f"profile_{name}", pa.int32()) for name in profile_features),
            _column("history_length", pa.int32()),
        ]
    )


def seen(user_id: pa.DataType) -> pa.Schema:
    """All that each user has had, ascending by id; the lists ascend by catalogue row and are aligned.

    ``items`` are catalogue rows, ``times`` how often, ``last_gap`` seconds from the last time to the data date's end.
    Items that are not in tonight's catalogue are left out: they cannot be recommended.
    """
    return pa.schema(
        [
            _column("user_id", user_id),
            _column("items", rows_of(pa.int32())),
            _column("times", rows_of(pa.int32())),
            _column("last_gap", rows_of(pa.int64())),
        ]
    )


def happened(user_id: pa.DataType) -> pa.Schema:
    """What the users of the replay did on the data date, ascending by id: catalogue rows, ascending, each once."""
    return pa.schema([_column("user_id", user_id), _column("items", rows_of(pa.int32()))])


def popular(item_id: pa.DataType) -> pa.Schema:
    """Items by their events in the last days, most first, ties ascending by id; items without events are left out."""
    return pa.schema([_column("item_id", item_id), _column("item", pa.int32()), _column("events", pa.int64())])


def carried_items(item_id: pa.DataType) -> pa.Schema:
    """Every item of an event, ascending."""
    return pa.schema([_column("item_id", item_id)])


def carried_users(user_id: pa.DataType) -> pa.Schema:
    """Every user who did something and how many events are kept of it, by shard, then id."""
    return pa.schema([_column("user_id", user_id), _column("events", pa.int64())])


def carried_events() -> pa.Schema:
    """Events user after user, newest first: the item's row in ``carried_items``, and microseconds since 1970, UTC."""
    return pa.schema([_column("item", pa.int32()), _column("time_us", pa.int64())])


def items(item_id: pa.DataType, width: int) -> pa.Schema:
    """Item vectors, ascending by id."""
    return pa.schema([_column("item_id", item_id), _column("vector", vector_of(width))])


def index_items(item_id: pa.DataType) -> pa.Schema:
    """From FAISS row (the row here) to item id, ascending, and to its catalogue row."""
    return pa.schema([_column("item_id", item_id), _column("item", pa.int32())])


def interests(user_id: pa.DataType, width: int) -> pa.Schema:
    """Interest vectors, ascending by user id: only the active ones; none for a cold user."""
    return pa.schema(
        [
            _column("user_id", user_id),
            _column("vectors", rows_of(vector_of(width))),
            _column("history_length", pa.int32()),
            _column("cold", pa.bool_()),
        ]
    )


def scores(user_id: pa.DataType, item_id: pa.DataType) -> pa.Schema:
    """What each user is recommended, ascending by user id, then rank (from 1).

    The last three columns are null where ``source`` is ``SOURCE_FALLBACK``.
    """
    return pa.schema(
        [
            _column("user_id", user_id),
            _column("item_id", item_id),
            _column("rank", pa.uint16()),
            _column("source", pa.uint8()),
            _column("score", pa.float32(), nullable=True),
            _column("retrieval_score", pa.float32(), nullable=True),
            _column("interest", pa.uint8(), nullable=True),
        ]
    )
