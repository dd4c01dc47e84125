"""A bundle is verified before it is loaded: whatever was changed in its folder is found and named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts.bundle import (
    OUTPUT_NAMES,
    Bundle,
    FeatureSpec,
    Role,
    Tensor,
    bundle_id_of,
    feature_of,
    input_names,
    read_bundle,
    record_files,
    require_one_model,
    write_bundle,
)
from artifacts.documents import write_sealed
from artifacts.errors import CorruptError, UsageError
from artifacts.layout import BundleLayout

SPEC = FeatureSpec(("item_id", "brand"), ("country",), 5, (60, 3600), ("retrieval_score",))


def make_bundle(folder: Path, *, role: Role = Role.USER, model: str = "a", spec: FeatureSpec = SPEC) -> Bundle:
    """Write a bundle whose graph is some bytes."""
    layout = BundleLayout(folder)
    (folder / "vocabularies").mkdir(parents=True)
    layout.graph.write_bytes(f"graph of {role} {model}".encode())
    layout.external_data.write_bytes(b"w" * 100)
    layout.canary.write_bytes(b"canary")
    for feature in spec.features:
        layout.vocabulary(feature).write_bytes(f"values of {feature} {model}".encode())
    files = record_files(folder)
    bundle = Bundle(
        folder=folder,
        role=role,
        model_id=model * 64,
        bundle_id=bundle_id_of(files, spec),
        inputs=tuple(Tensor(name, "int32", ("users", 5)) for name in input_names(role, spec)),
        outputs=tuple(Tensor(name, "float32", ("users", 4, 8)) for name in OUTPUT_NAMES[role]),
        spec=spec,
        metric="inner_product",
        width=0 if role is Role.RANKER else 8,
        interests=4 if role is Role.USER else 0,
        trained_through="2026-01-01",
        files=files,
        about={"opset": 20},
    )
    write_bundle(bundle)
    return bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Write a whole bundle."""
    return make_bundle(tmp_path / "user")


def test_what_was_written_is_read(bundle: Bundle) -> None:
    """A whole bundle reads back equal to what was written."""
    assert read_bundle(bundle.folder) == bundle


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_flipped_byte_of_any_file_is_found(bundle: Bundle, data: st.DataObject) -> None:
    """A changed byte of contract, graph, weights, canary or vocabulary is named before anything is loaded."""
    name = data.draw(st.sampled_from(["bundle.json", *sorted(bundle.files)]))
    path = bundle.folder / name
    whole = path.read_bytes()
    place, change = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
    try:
        with pytest.raises(CorruptError, match=f"{name}: " + ("" if name == "bundle.json" else "expected sha256")):
            read_bundle(bundle.folder)
    finally:
        path.write_bytes(whole)


def test_every_changed_byte_of_the_contract_is_found(bundle: Bundle) -> None:
    """Rule 13 holds for bundle.json itself: each of its bytes is sealed, those that no digest of files covers too."""
    path = bundle.layout.contract
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptError, match=r"bundle\.json: "):
            read_bundle(bundle.folder)
    path.write_bytes(whole.replace(b"2026-01-01", b"2025-01-01"))
    with pytest.raises(CorruptError, match=r"its own digest differs\); export it anew"):
        read_bundle(bundle.folder)


def reseal(bundle: Bundle, document: dict[str, Any]) -> None:
    """Write a contract that was changed on purpose, so that only its content is wrong."""
    del document["digest"]
    version = document.pop("format", 0)
    write_sealed(bundle.layout.contract, document, version=version)


def truncate(bundle: Bundle) -> str:
    bundle.layout.external_data.write_bytes(b"w" * 99)
    return r"model\.onnx\.data: expected 100 bytes by bundle\.json, found 99"


def remove(bundle: Bundle) -> str:
    bundle.layout.vocabulary("brand").unlink()
    return r"brand\.arrow: listed in bundle\.json, but missing"


def add(bundle: Bundle) -> str:
    (bundle.folder / "vocabularies" / "more.arrow").write_bytes(b"")
    return r"more\.arrow: not listed in bundle\.json"


def swap(bundle: Bundle) -> str:
    other = make_bundle(bundle.folder.with_name("other"), model="b")
    shutil.copyfile(other.layout.graph, bundle.layout.graph)
    return r"model\.onnx: expected sha256"


def swap_with_its_record(bundle: Bundle) -> str:
    """Swap the weights and the contract's word on them, but not the digest over all."""
    bundle.layout.external_data.write_bytes(b"v" * 100)
    document = json.loads(bundle.layout.contract.read_text())
    document["files"]["model.onnx.data"]["sha256"] = record_files(bundle.folder)["model.onnx.data"].sha256
    reseal(bundle, document)
    return r"bundle\.json: bundle_id is"


def change_the_spec(bundle: Bundle) -> str:
    document = json.loads(bundle.layout.contract.read_text())
    document["spec"]["gap_edges"] = [60, 3601]
    reseal(bundle, document)
    return r"bundle\.json: bundle_id is"


def take_another_contract(bundle: Bundle) -> str:
    other = make_bundle(bundle.folder.with_name("other"), model="b")
    shutil.copyfile(other.layout.contract, bundle.layout.contract)
    return "expected sha256"


@pytest.mark.parametrize(
    "harm",
    [truncate, remove, add, swap, swap_with_its_record, change_the_spec, take_another_contract],
    ids=lambda harm: harm.__name__,
)
def test_changed_folder_is_refused_by_name(bundle: Bundle, harm: Callable[[Bundle], str]) -> None:
    """Whatever is done to a bundle's folder, the message names the file and what is wrong with it."""
    message = harm(bundle)
    with pytest.raises(CorruptError, match=message):
        read_bundle(bundle.folder)


FOREIGN: dict[str, Callable[[dict[str, object]], object]] = {
    "another format": lambda document: document.update(format=2),
    "no format": lambda document: document.pop("format"),
    "an unknown role": lambda document: document.update(role="judge"),
    "a field too many": lambda document: document.update(more=1),
    "a field missing": lambda document: document.pop("model_id"),
    "files as a list": lambda document: document.update(files=[]),
    "a number as spec": lambda document: document.update(spec=3),
    "half a tensor": lambda document: document.update(inputs=[{"name": "x"}]),
}


@pytest.mark.parametrize("change", FOREIGN)
def test_foreign_contract_is_corrupt(bundle: Bundle, change: str) -> None:
    """A contract of another format, or with fields missing, strange or too many, is an error that names it."""
    document = json.loads(bundle.layout.contract.read_text())
    FOREIGN[change](document)
    reseal(bundle, document)
    with pytest.raises(CorruptError, match=r"bundle\.json"):
        read_bundle(bundle.folder)


def test_folder_without_a_contract_is_no_bundle(tmp_path: Path) -> None:
    """Pointing at another folder is a wrong usage, and says how a bundle is made."""
    with pytest.raises(UsageError, match="nightrec export"):
        read_bundle(tmp_path)


def test_canary_rows_do_not_enter_the_bundle_id(bundle: Bundle) -> None:
    """Another canary gives the same bundle id; another vocabulary or spec does not."""
    bundle.layout.canary.write_bytes(b"other rows")
    assert bundle_id_of(record_files(bundle.folder), SPEC) == bundle.bundle_id
    assert bundle_id_of(bundle.files, replace(SPEC, history_length=6)) != bundle.bundle_id
    bundle.layout.vocabulary("item_id").write_bytes(b"other values")
    assert bundle_id_of(record_files(bundle.folder), SPEC) != bundle.bundle_id


def test_two_models_are_never_mixed(tmp_path: Path) -> None:
    """Item and user bundles of two models are refused; the message names both folders and both values."""
    item, user = make_bundle(tmp_path / "item", role=Role.ITEM), make_bundle(tmp_path / "user", model="b")
    with pytest.raises(UsageError, match=r"model_id is a+ in the one and b+ in the other"):
        require_one_model([item, user])
    same = make_bundle(tmp_path / "user2")
    require_one_model([item, same])
    for name, value in (("width", 16), ("metric", "cosine")):
        with pytest.raises(UsageError, match=name):
            require_one_model([item, replace(same, **{name: value})])


def test_ranker_must_share_vocabularies_and_features(tmp_path: Path) -> None:
    """A ranker may be another model, but not with another vocabulary or other item features."""
    item = make_bundle(tmp_path / "item", role=Role.ITEM)
    ranker = make_bundle(tmp_path / "ranker", role=Role.RANKER, model="b")
    with pytest.raises(UsageError, match="vocabulary of"):
        require_one_model([item, ranker])
    shared = replace(ranker, files={**ranker.files, **{n: f for n, f in item.files.items() if "vocabularies" in n}})
    require_one_model([item, shared])
    with pytest.raises(UsageError, match="item features"):
        require_one_model([item, replace(shared, spec=replace(SPEC, item_features=("brand", "item_id")))])


def test_inputs_are_named_in_the_order_of_forward() -> None:
    """The names of a graph's inputs follow from role and spec alone."""
    assert input_names(Role.ITEM, SPEC) == ("item_id", "brand")
    assert input_names(Role.USER, SPEC) == ("history_item_id", "history_brand", "profile_country")
    ranker = ("history_item_id", "history_brand", "gap", "profile_country", "candidate_item_id", "candidate_brand")
    assert input_names(Role.RANKER, SPEC) == (*ranker, "cross")
    assert input_names(Role.RANKER, replace(SPEC, cross_features=())) == ranker
    assert FeatureSpec.from_document(json.loads(json.dumps(SPEC.document()))) == SPEC


def test_an_input_is_stripped_of_one_prefix_only() -> None:
    """The feature of an input is found again whatever it is called: profile_kind, history_id, gap."""
    spec = FeatureSpec(("item_id", "candidate_of", "cross"), ("profile_kind", "history_id", "gap"), 5)
    items, profiles = spec.item_features, spec.profile_features
    assert [feature_of(Role.ITEM, name) for name in input_names(Role.ITEM, spec)] == [*items]
    assert [feature_of(Role.USER, name) for name in input_names(Role.USER, spec)] == [*items, *profiles]
    found = [feature_of(Role.RANKER, name) for name in input_names(Role.RANKER, replace(spec, cross_features=("x",)))]
    assert found == [*items, None, *profiles, *items, None]
