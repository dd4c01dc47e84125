"""Properties of what reads the files and words of others: what comes out is right, or it is a named error."""

import copy
import json
import shutil
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from artifacts.bundle import Bundle, read_bundle
from artifacts.canary import read_canary, write_canary
from artifacts.documents import read_json, write_sealed
from artifacts.errors import CorruptError, NightrecError, UsageError
from artifacts.layout import BundleLayout, RunLayout, sidecar_of
from artifacts.run import Run, parse_group, parse_shards, run_key_of
from artifacts.tables import Sidecar, read_sidecar
from features.vocabulary import fit_vocabulary, load_vocabulary, save_vocabulary
from nightrec.config import Config, read_config
from tests.night.conftest import shop
from tests.night.shop import Shop

__all__ = ["shop"]

PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4), st.sampled_from(["put", "in", "cut"])
    ),
    min_size=1,
    max_size=6,
)


def edited(content: bytes, edits: list[tuple[float, bytes, str]]) -> bytes:
    """Overwrite, insert and cut off at random places."""
    for share, some, how in edits:
        place = int(share * len(content))
        rest = {"put": content[place + len(some) :], "in": content[place:], "cut": b""}[how]
        content = content[:place] + some + rest
    return content


def places_of(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, the keys of its objects and the positions of its lists."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in inner for place in places_of(value, (*path, key)))][bool(not path) :]


def changed_at(document: dict[str, Any], place: tuple[Any, ...], value: Any, *, drop: bool) -> dict[str, Any]:
    """Put *value* at a place, or remove what is there."""
    document = copy.deepcopy(document)
    target: Any = document
    for key in place[:-1]:
        target = target[key]
    if drop:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return document


def sealed_with(path: Path, document: dict[str, Any]) -> bool:
    """Write a document with a right digest, so that only its content is wrong; False if JSON has no word for it."""
    plain = {key: value for key, value in document.items() if key not in {"digest", "format"}}
    try:
        write_sealed(path, plain, version=1)
    except (ValueError, UnicodeEncodeError):
        return False
    return True


def right_or_named(read: Callable[[], Any]) -> Any:
    """What *read* gives, or None if it raised an error of ours; any other error comes through."""
    with suppress(NightrecError):
        return read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parsers")


@PROPERTY
@given(edits=EDITS)
def test_a_config_of_other_bytes(shop: Shop, folder: Path, edits: list[tuple[float, bytes, str]]) -> None:
    """Whatever bytes a config has, it is a config or a wrong usage."""
    path = shop.config(folder / "config")
    path.write_bytes(edited(path.read_bytes(), edits))

    found = right_or_named(lambda: read_config(path))

    assert found is None or isinstance(found, Config)


@PROPERTY
@given(data=st.data(), value=VALUES)
def test_a_config_of_other_values(shop: Shop, folder: Path, data: st.DataObject, value: Any) -> None:
    """Any value anywhere is taken or refused by its key."""
    document = tomllib.loads(shop.config(folder / "config").read_text())
    place = data.draw(st.sampled_from(places_of(document)))
    other = changed_at(document, place, value, drop=False)
    with suppress(ValidationError, UsageError):
        assert Config.model_validate(other, context={"folder": folder}).night.shards >= 1


NUMBERS = st.integers(-3, 12).map(str) | st.text("0123456789-/ _+.eE\u0661", max_size=6)


@PROPERTY
@given(first=NUMBERS, second=NUMBERS, total=NUMBERS, words=st.text(max_size=12), shards=st.integers(1, 12))
def test_a_group_of_shards(first: str, second: str, total: str, words: str, shards: int) -> None:
    """What is read lies within the run's shards; all else is a wrong usage."""
    for text in (f"{first}/{total}", f"{first}-{second}/{total}", words):
        for parse in (parse_shards, parse_group):
            found = right_or_named(lambda text=text, parse=parse: parse(text, shards))
            assert found is None or set(found) <= set(range(shards))


@PROPERTY
@given(groups=st.integers(1, 30), shards=st.integers(1, 30))
def test_groups_cover_all_shards_once(groups: int, shards: int) -> None:
    """Whatever the number of groups, each shard is in one of them, and they are even."""
    found = [parse_group(f"{group}/{groups}", shards) for group in range(groups)]

    assert [shard for group in found for shard in group] == list(range(shards))
    assert max(map(len, found)) - min(map(len, found)) <= 1


SIDECAR = {"size": 10, "sha256": "a" * 64, "rows": 3, "inputs": "b" * 64}


@PROPERTY
@given(data=st.data(), value=VALUES, drop=st.booleans())
def test_a_sidecar_of_other_values(folder: Path, data: st.DataObject, value: Any, drop: bool) -> None:
    """A sidecar has numbers where numbers belong, or it is corrupt."""
    place = data.draw(st.sampled_from([*places_of(SIDECAR), ("more",)]))
    path = folder / "table.arrow"
    if not sealed_with(sidecar_of(path), changed_at({**SIDECAR, "more": 1}, place, value, drop=drop)):
        return

    found = right_or_named(lambda: read_sidecar(path))

    assert found is None or (isinstance(found, Sidecar) and found.size >= 0 and found.rows >= 0)


@PROPERTY
@given(edits=EDITS)
def test_a_sidecar_of_other_bytes(folder: Path, edits: list[tuple[float, bytes, str]]) -> None:
    """No changed byte of a sidecar is read."""
    path = folder / "table.arrow"
    Sidecar(10, "a" * 64, 3, "b" * 64).write(path)
    whole = sidecar_of(path).read_bytes()
    other = edited(whole, edits)
    sidecar_of(path).write_bytes(other)

    if other == whole:
        assert read_sidecar(path).rows == 3
    else:
        with pytest.raises(CorruptError):
            read_sidecar(path)


@PROPERTY
@given(data=st.data(), value=VALUES, drop=st.booleans())
def test_a_contract_of_other_values(shop: Shop, folder: Path, data: st.DataObject, value: Any, drop: bool) -> None:
    """A bundle's contract with any other value is taken with its meaning, or refused by its field."""
    bundle = folder / "bundle"
    if not bundle.exists():
        shutil.copytree(shop.folder / "bundles" / "ranker", bundle)
    layout = BundleLayout(bundle)
    whole = read_json(shop.folder / "bundles" / "ranker" / "bundle.json")
    places = [place for place in places_of(whole) if place[0] not in {"digest", "format"}]
    if not sealed_with(layout.contract, changed_at(whole, data.draw(st.sampled_from(places)), value, drop=drop)):
        return

    found = right_or_named(lambda: read_bundle(bundle))

    assert found is None or (isinstance(found, Bundle) and found.spec.item_features[0] == "item_id")


RUN = {
    "date": "2026-03-31",
    "now": 1_774_994_400,
    "inputs": "c" * 64,
    "user_id": "int64",
    "item_id": "string",
    "shards": 3,
    "item_shards": 2,
    "bundles": {"item": {"model_id": "m", "bundle_id": "b"}},
    "semantic": {"timezone": "UTC"},
    "profile": {"device": "cpu"},
    "counts": {"users": 7},
}


@PROPERTY
@given(data=st.data(), value=VALUES, drop=st.booleans())
def test_a_run_of_other_values(folder: Path, data: st.DataObject, value: Any, drop: bool) -> None:
    """A run.json with any other value is a run with shards and types, or corrupt."""
    key = run_key_of(RUN["inputs"], RUN["bundles"], RUN["semantic"], RUN["profile"])  # type: ignore[arg-type]
    whole = {**RUN, "run_key": key}
    document = changed_at(whole, data.draw(st.sampled_from(places_of(whole))), value, drop=drop)
    if not sealed_with(RunLayout(folder).run, document):
        return

    found = right_or_named(lambda: Run.read(folder))

    assert found is None or (found.shards >= 1 and str(found.user_type) in {"int64", "uint64", "string"})


@PROPERTY
@given(edits=EDITS)
def test_json_of_other_bytes(folder: Path, edits: list[tuple[float, bytes, str]]) -> None:
    """Whatever bytes a document has, it is an object or corrupt."""
    path = folder / "any.json"
    path.write_bytes(edited(json.dumps(RUN).encode(), edits))

    found = right_or_named(lambda: read_json(path))

    assert found is None or isinstance(found, dict)


@PROPERTY
@given(edits=EDITS, text=st.booleans())
@example(edits=[(0.9638854024895281, b"\x00", "put")], text=False)  # whole numbers of 0 bits, which Arrow has not
def test_a_vocabulary_of_other_bytes(folder: Path, edits: list[tuple[float, bytes, str]], text: bool) -> None:
    """Whatever bytes a vocabulary has, its values ascend, or it is corrupt."""
    path = folder / "values.arrow"
    values = pa.array([f"value {number}" for number in range(50)]) if text else pa.array(range(50), pa.int64())
    save_vocabulary(fit_vocabulary("x", values), path)
    path.write_bytes(edited(path.read_bytes(), edits))

    found = right_or_named(lambda: load_vocabulary("x", path))

    if found is not None:
        known = found.values.to_pylist()
        assert known == sorted(set(known))


@PROPERTY
@given(edits=EDITS)
def test_canary_rows_of_other_bytes(folder: Path, edits: list[tuple[float, bytes, str]]) -> None:
    """Whatever bytes canary rows have, they are tensors of as many rows, or corrupt."""
    path = folder / "canary.arrow"
    tensors = {"item_id": np.arange(8, dtype=np.int32), "vector": np.ones((8, 3), np.float32)}
    write_canary(path, tensors)
    path.write_bytes(edited(path.read_bytes(), edits))

    found = right_or_named(lambda: read_canary(path))

    if found is not None:
        assert len({len(tensor) for tensor in found.values()}) == 1
