"""Tonight's catalogue: every item, encoded, ascending by id; and the vocabularies that a model is given."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artifacts import schemas
from artifacts.bundle import FeatureSpec
from artifacts.errors import InputError, UsageError
from features.inputs import Inputs, Source, check_schemas, files_of, read_batches
from features.types import widen, widened
from features.vocabulary import UNKNOWN, Vocabulary, fit_vocabulary


def encode_catalogue(
    inputs: Inputs, *, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary], groups: Sequence[str] = ()
) -> tuple[pa.Table, dict[str, int]]:
    """Encode the items that are not excluded as ``schemas.catalogue``, ascending by id.

    Args:
        inputs: Where the items are.
        spec: Names of the item features.
        vocabularies: By feature.
        groups: Names of what the shop's rules limit: each an item feature's column or a column ``group_NAME``.

    Returns:
        The catalogue, and counts: ``items`` (in it), ``items_excluded``, ``items_ineligible``, ``items_unknown`` (no
        feature is known: no signal), ``items_id_unknown``, ``items_NAME_unknown`` of each other feature (null or never
        seen in training), and ``items_untitled`` where titles are declared.

    Raises:
        InputError: If an id is null or there twice, ``eligible`` is null, a type is not the vocabulary's, or every item
            is excluded.
        UsageError: If a feature or a group has no column.
    """
    source = inputs.items
    table, excluded = _kept_items(inputs, [*spec.item_features, *(_group_column(source, name) for name in groups)])
    columns = {"item_id": table.column("item_id").combine_chunks()}
    for name in spec.item_features:
        columns[f"feature_{name}"] = pa.array(vocabularies[name].encode(table.column(name)))
    for name in groups:
        values = table.column(_group_column(source, name))
        columns[f"group_{name}"] = pa.array(fit_vocabulary(name, values).encode(values) - np.int32(UNKNOWN + 1))
    rows = np.stack([columns[f"feature_{name}"].to_numpy() for name in spec.item_features])
    signal = (rows != UNKNOWN).any(axis=0)
    columns["eligible"] = _eligible(source, table)
    columns["signal"] = pa.array(signal)
    columns["title"] = _title(table)
    schema = schemas.catalogue(columns["item_id"].type, spec.item_features, groups)
    catalogue = pa.table([columns[name] for name in schema.names], schema=schema)
    unknown = {
        name: int(np.count_nonzero(columns[f"feature_{name}"].to_numpy() == UNKNOWN)) for name in spec.item_features
    }
    return catalogue, {
        "items": len(catalogue),
        "items_excluded": excluded,
        "items_ineligible": len(catalogue) - int(pc.sum(columns["eligible"], min_count=0).as_py()),
        "items_unknown": int(np.count_nonzero(~signal)),
        "items_id_unknown": unknown.pop("item_id"),
        **{f"items_{name}_unknown": count for name, count in unknown.items()},
        **({"items_untitled": columns["title"].null_count} if "title" in source.names else {}),
    }


def fit_feature_vocabularies(inputs: Inputs, *, spec: FeatureSpec) -> dict[str, Vocabulary]:
    """Fit a vocabulary for each item feature on the items that are not excluded, and for each profile feature on users.

    Raises:
        InputError: If an item id is null or there twice, or a column of the users is missing or of a wrong type.
        UsageError: If a feature has no column.
    """
    table, _ = _kept_items(inputs, spec.item_features)
    fitted = {name: fit_vocabulary(name, table.column(name)) for name in spec.item_features}
    source = require_columns("users", inputs.users, spec.profile_features)
    if source is not None and spec.profile_features:
        kinds = check_schemas("users", source, files_of(source))
        for name in spec.profile_features:
            fitted[name] = fit_vocabulary(name, _profile_values(source, name, kinds[name]))
    return fitted


def require_columns(table: str, source: Source | None, names: Sequence[str]) -> Source | None:
    """Refuse features that no column is declared for.

    Raises:
        UsageError: If one of *names* has none.
    """
    for name in names:
        if source is None or name not in source.names:
            raise UsageError(f"[inputs.{table}] declares no column for the feature {name}, which the model takes")
    return source


def read_excluded(source: Source | None, kind: pa.DataType) -> pa.Array:
    """Read the ids of an exclude table, ascending and each once; none if there is no table.

    Raises:
        InputError: If one is null: whoever was to be gone would stay.
    """
    if source is None:
        return pa.array([], kind)
    parts = []
    for path, batch in read_batches(source, ["id"]):
        if batch.column("id").null_count:
            raise InputError(f"{path}: column {source.columns['id']} has nulls; expected the id that is to be gone")
        parts.append(widen(batch.column("id")))
    return fit_vocabulary("id", pa.chunked_array(parts, kind)).values


def _kept_items(inputs: Inputs, names: Sequence[str]) -> tuple[pa.Table, int]:
    """Read the declared columns of all items that are not excluded, ascending by id; types are widened."""
    source = inputs.items
    require_columns("items", source, names)
    wanted = [name for name in source.names if name in ("item_id", "title", "eligible", *names)]
    parts = []
    for path, batch in read_batches(source, wanted):
        if batch.column("item_id").null_count:
            raise InputError(
                f"{path}: column {source.columns['item_id']} of items has nulls; expected an id in each row"
            )
        columns = {
            name: column if name == "eligible" else widen(column)
            for name, column in zip(wanted, batch.columns, strict=True)
        }
        parts.append(pa.table(columns))
    if not sum(len(part) for part in parts):
        raise InputError(f"{source.path}: expected items, found no rows")
    table = pa.concat_tables(parts).combine_chunks().sort_by("item_id")
    ids = table.column("item_id").combine_chunks()
    twice = pc.equal(ids[1:], ids[:-1])
    if pc.any(twice).as_py():
        raise InputError(
            f"{source.path}: item id {ids[pc.index(twice, True).as_py()]} is there more than once in column "
            f"{source.columns['item_id']}; keep one row of each item"
        )
    gone = pc.is_in(ids, value_set=read_excluded(inputs.exclude_items, ids.type))
    if inputs.exclude_items is not None and pc.all(gone).as_py():
        raise InputError(
            f"{inputs.exclude_items.path}: every item of {source.path} is excluded; expected some to be left"
        )
    return table.filter(pc.invert(gone)), int(pc.sum(gone, min_count=0).as_py())


def _group_column(source: Source, name: str) -> str:
    return f"group_{name}" if f"group_{name}" in source.names else name


def _eligible(source: Source, table: pa.Table) -> pa.Array:
    if "eligible" not in table.column_names:
        return pa.array(np.ones(len(table), np.bool_))
    eligible = table.column("eligible").combine_chunks()
    if eligible.null_count:
        first = table.column("item_id")[pc.index(pc.is_null(eligible), True).as_py()]
        raise InputError(
            f"{source.path}: column {source.columns['eligible']} is null for item {first}; expected true or false"
        )
    return eligible


def _title(table: pa.Table) -> pa.Array:
    if "title" in table.column_names:
        return table.column("title").combine_chunks()
    return pa.nulls(len(table), pa.string())


def _profile_values(source: Source, name: str, kind: pa.DataType) -> pa.Array:
    """Collect the distinct values of a column of type *kind*; none, of the widened type, if there are no rows."""
    distinct = pa.array([], widened(kind))
    for _, batch in read_batches(source, [name]):
        distinct = pc.unique(pa.concat_arrays([distinct, pc.unique(widen(batch.column(name)))]))
    return distinct
