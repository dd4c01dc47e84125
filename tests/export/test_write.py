"""Bundles on disk: whole, alike in every process, and refused once a byte of them changes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from artifacts.bundle import Bundle, FileRecord, Role, read_bundle, require_one_model
from artifacts.canary import read_canary
from artifacts.documents import read_sealed, write_sealed
from artifacts.errors import CorruptError, UsageError
from artifacts.layout import BundleLayout
from export.parity import CANARY_ROWS
from export.write import export, model_id_of


@pytest.fixture(scope="module")
def exported(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    out = tmp_path_factory.mktemp("bundles")
    return export([*small.make_towers(trained_through="2026-01-31"), small.make_source(Role.RANKER)], out)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_holds_what_it_lists(exported: list[Bundle], small: ModuleType) -> None:
    """A bundle read back is the one that was written, and holds its files, its contract and nothing else."""
    for bundle in exported:
        assert read_bundle(bundle.folder) == bundle
        names = [f"vocabularies/{name}.arrow" for name in small.SPEC.features]
        assert sorted(files_of(bundle.folder)) == sorted(["bundle.json", "canary.arrow", "model.onnx", *names])
        assert files_of(bundle.folder).keys() - {"bundle.json"} == bundle.files.keys()
    assert sorted(path.name for path in exported[0].folder.parent.iterdir()) == [".lock", "item", "ranker", "user"]


def test_contract(exported: list[Bundle], small: ModuleType) -> None:
    """The contract says what the graph takes and gives, on which axes any number is welcome, and what the gate saw."""
    item, user, ranker = exported
    assert [(t.name, t.type, t.shape) for t in user.inputs] == [
        ("history_item_id", "int32", ("users", 5)),
        ("history_category", "int32", ("users", 5)),
        ("profile_gender", "int32", ("users",)),
    ]
    assert [(t.name, t.type, t.shape) for t in user.outputs] == [
        ("interests", "float32", ("users", small.K, small.D)),
        ("count", "int32", ("users",)),
    ]
    assert [t.shape for t in item.outputs] == [("items", small.D)]
    assert ranker.inputs[-1].shape == ("users", "candidates", 2)
    assert [t.shape for t in ranker.outputs] == [("users", "candidates")]
    assert [(b.width, b.interests) for b in exported] == [(small.D, 0), (small.D, small.K), (0, 0)]
    assert [b.trained_through for b in exported] == ["2026-01-31", "2026-01-31", ""]
    assert user.about["opset"] == 18
    assert {"all padding", "batch of 257", "shuffled rows", "run twice"} <= set(user.about["parity"]["cases"])


def test_canary_is_what_the_runtime_gives(exported: list[Bundle]) -> None:
    """The canary's 64 rows hold padding, unknown ids and full histories, with ONNX Runtime's outputs for them."""
    for bundle in exported:
        canary = read_canary(bundle.layout.canary)
        session = ort.InferenceSession(str(bundle.layout.graph))
        inputs = {tensor.name: canary[tensor.name] for tensor in bundle.inputs}
        for tensor, output in zip(bundle.outputs, session.run(None, inputs), strict=True):
            assert np.array_equal(canary[tensor.name], output)
            assert len(output) == CANARY_ROWS
        ids = inputs[bundle.inputs[0].name].reshape(CANARY_ROWS, -1)
        assert (ids == 0).all(axis=1).any()
        assert (ids == 1).all(axis=1).any()
        assert (ids > 1).all(axis=1).any()


def test_graph_tells_no_tales(exported: list[Bundle]) -> None:
    """Nothing in a graph names a file, a folder or a version of this machine."""
    for bundle in exported:
        model = onnx.load(str(bundle.layout.graph))
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")
        for word in ("/", ".py", "stack", "torch", torch.__version__, "namespace"):
            assert word not in str(model)
        onnx.checker.check_model(str(bundle.layout.graph))


def test_same_bytes_in_another_process(exported: list[Bundle], tmp_path: Path) -> None:
    """A process with another hash seed and another working directory writes the same bundles, byte for byte."""
    script = (
        "import importlib.util, sys; from pathlib import Path; from artifacts.bundle import Role\n"
        "spec = importlib.util.spec_from_file_location('small', sys.argv[1])\n"
        "small = importlib.util.module_from_spec(spec); spec.loader.exec_module(small)\n"
        "from export.write import export\n"
        "small.torch.set_num_threads(1)\n"
        "sources = [*small.make_towers(trained_through='2026-01-31'), small.make_source(Role.RANKER)]\n"
        "export(sources, Path(sys.argv[2]))\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(Path(__file__).with_name("conftest.py")), str(tmp_path)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)},
    )
    assert files_of(tmp_path) == files_of(exported[0].folder.parent)


def test_one_model(exported: list[Bundle], small: ModuleType, tmp_path: Path) -> None:
    """Towers of one model share a model id, other weights give another, and bundles of two models are not mixed."""
    item, user, ranker = exported
    assert item.model_id == user.model_id != ranker.model_id
    assert len({item.bundle_id, user.bundle_id, ranker.bundle_id}) == 3
    other = export(small.make_towers(seed=5), tmp_path)
    assert other[0].model_id == other[1].model_id != item.model_id
    require_one_model(exported)
    with pytest.raises(UsageError, match=f"model_id is {item.model_id} in the one and {other[1].model_id}"):
        require_one_model([item, other[1]])


def test_model_id_sees_everything_learnt(small: ModuleType) -> None:
    """Another bit of one weight, another vocabulary and another spec give another model id; the role gives none."""
    record = FileRecord(1, "a" * 64)
    files = {f"vocabularies/{name}.arrow": record for name in small.SPEC.features}
    towers = small.make_towers()
    first = model_id_of(towers, files)
    assert model_id_of(towers[::-1], files) == model_id_of(towers[:1], files) == first
    longer = small.make_source(Role.ITEM, towers[0].module, spec=replace(small.SPEC, history_length=6))
    renamed = {**files, "vocabularies/gender.arrow": replace(record, sha256="b" * 64)}
    changed = small.make_towers()
    with torch.no_grad():
        changed[0].module.tables.mix.bias[0] *= 1 + 2**-23
    ids = {first, model_id_of([longer], files), model_id_of(towers, renamed), model_id_of(changed, files)}
    assert len(ids) == 4


def test_int64_and_any_length(small: ModuleType, tmp_path: Path) -> None:
    """A source may take int64 and histories of any length; its contract says so, and the gate tries other lengths."""
    source = small.make_source(Role.USER, integers="int64", dynamic_length=True)
    bundle = export([source], tmp_path)[0]
    assert [(t.type, t.shape) for t in bundle.inputs] == [
        ("int64", ("users", "length")),
        ("int64", ("users", "length")),
        ("int64", ("users",)),
    ]
    assert {"padded to 1", "padded to 8", "7 more of padding"} <= set(bundle.about["parity"]["cases"])


def test_again_is_a_no_op(exported: list[Bundle], small: ModuleType) -> None:
    """Exporting the same model into the same folder leaves every file as it is."""
    item = exported[0]
    before = {path: path.stat().st_mtime_ns for path in item.folder.rglob("*")}
    again = export([small.make_towers(trained_through="2026-01-31")[0]], item.folder.parent)
    assert again[0].bundle_id == item.bundle_id
    assert {path: path.stat().st_mtime_ns for path in item.folder.rglob("*")} == before


def test_replaces(small: ModuleType, tmp_path: Path) -> None:
    """Another model under the same name takes its place whole, also where a file of the old one was broken."""
    first = export([small.make_source(Role.ITEM)], tmp_path)[0]
    second = export([small.make_source(Role.ITEM, seed=1)], tmp_path)[0]
    assert read_bundle(tmp_path / "item") == second
    assert second.bundle_id != first.bundle_id
    second.layout.graph.write_bytes(b"broken")
    export([small.make_source(Role.ITEM, seed=1)], tmp_path)
    assert read_bundle(tmp_path / "item") == second
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "item"]


def test_names_in_use(small: ModuleType, tmp_path: Path) -> None:
    """A folder that is no bundle, or a file, is never replaced by one."""
    (tmp_path / "item").mkdir()
    (tmp_path / "item" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="item exists and is no bundle"):
        export([small.make_source(Role.ITEM)], tmp_path)
    with pytest.raises(UsageError, match="expected a folder for bundles, found a file"):
        export([small.make_source(Role.ITEM)], tmp_path / "item" / "thesis.txt")
    assert (tmp_path / "item" / "thesis.txt").read_text() == "years of work"


def test_failed_swap_is_undone(small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk refuses the second of two bundles, the first is taken back and the old ones stand again."""
    old = export(small.make_towers(), tmp_path)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if target == tmp_path / "user" and path.name == "user":
            raise OSError("no space left on device")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(OSError, match="no space left"):
            export(small.make_towers(seed=1), tmp_path)
    assert [read_bundle(bundle.folder) for bundle in old] == old
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "item", "user"]


@pytest.fixture(scope="module")
def external(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Two versions of a bundle whose weights lie outside the graph, as beyond 2 GB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.graph.EXTERNAL_OVER", 100)
        return [
            export([small.make_source(Role.ITEM, seed=seed)], tmp_path_factory.mktemp("external"))[0] for seed in (0, 1)
        ]


def test_external_weights(external: list[Bundle], exported: list[Bundle]) -> None:
    """Weights outside the graph lie in one listed file beside it, and compute the same."""
    bundle = external[0]
    assert "model.onnx.data" in bundle.files
    assert bundle.layout.graph.stat().st_size < exported[0].layout.graph.stat().st_size
    assert bundle.model_id == exported[0].model_id
    assert bundle.bundle_id != exported[0].bundle_id
    one, two = (read_canary(each.layout.canary) for each in (bundle, exported[0]))
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "vocabularies/item_id.arrow", "canary.arrow"])
def test_truncated(external: list[Bundle], tmp_path: Path, name: str) -> None:
    """A file that was cut short is refused by name."""
    copy = copy_of(external[0], tmp_path)
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(
        CorruptError, match=f"{name}: expected {external[0].files[name].size} bytes by bundle.json, found"
    ):
        read_bundle(copy)


def test_swapped_weights(external: list[Bundle], tmp_path: Path) -> None:
    """A weights file of another version, of the same size, is refused by name."""
    copy = copy_of(external[0], tmp_path)
    (copy / "model.onnx.data").write_bytes(external[1].layout.external_data.read_bytes())
    with pytest.raises(
        CorruptError, match=r"model.onnx.data: expected sha256 \w+ by bundle\.json, found \w+; was it changed"
    ):
        read_bundle(copy)


def test_missing_and_unlisted(external: list[Bundle], tmp_path: Path) -> None:
    """A file that is missing, and one that nobody listed, are refused by name."""
    copy = copy_of(external[0], tmp_path)
    (copy / "notes.txt").write_text("hello")
    with pytest.raises(CorruptError, match=r"notes.txt: not listed"):
        read_bundle(copy)
    (copy / "notes.txt").unlink()
    (copy / "model.onnx.data").unlink()
    with pytest.raises(CorruptError, match=r"model.onnx.data: listed in bundle.json, but missing"):
        read_bundle(copy)


def test_contract_is_held_to_the_files(external: list[Bundle], tmp_path: Path) -> None:
    """A contract rewritten to fit swapped files no longer fits its own bundle id."""
    copy = copy_of(external[0], tmp_path)
    contract = BundleLayout(copy).contract
    document = read_sealed(contract, version=1)
    other = external[1].files["model.onnx.data"]
    (copy / "model.onnx.data").write_bytes(external[1].layout.external_data.read_bytes())
    document["files"]["model.onnx.data"] = {"size": other.size, "sha256": other.sha256}
    write_sealed(contract, document, version=1)
    with pytest.raises(CorruptError, match="bundle_id is"):
        read_bundle(copy)


def copy_of(bundle: Bundle, folder: Path) -> Path:
    for name, content in files_of(bundle.folder).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_sources_that_do_not_go_together(small: ModuleType, tmp_path: Path) -> None:
    """Nothing, two of one role, or towers that were told different things are refused before any work."""
    item = small.make_source(Role.ITEM)
    later = small.make_source(Role.USER, trained_through="2026-02-01")
    fewer = {**small.VOCABULARIES, "gender": type(small.VOCABULARIES["gender"])("gender", small.pa.array(["f"]))}
    for sources, said in (
        ([], "found no source"),
        ([item, item], "expected one item source, found 2"),
        ([item, later], "their trained_through is  and 2026-02-01"),
        ([item, small.make_source(Role.USER, vocabularies=fewer)], "their vocabularies of gender differ"),
    ):
        with pytest.raises(UsageError, match=said):
            export(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_over_two_gigabytes(small: ModuleType, tmp_path: Path) -> None:
    """A model that no protobuf can hold goes through the same gate, with its weights beside the graph."""
    rows = 2_200_000_000 // (256 * 4)
    ids = small.pa.array(range(rows - 2), small.pa.int64())
    vocabulary = type(small.VOCABULARIES["item_id"])("item_id", ids)
    spec = small.FeatureSpec(item_features=("item_id",), history_length=5)
    table = torch.nn.Embedding(rows, 256, _weight=torch.linspace(-1, 1, 256).expand(rows, 256).clone())
    table.weight.requires_grad_(False)[-1] = 3
    source = small.make_source(Role.ITEM, table, spec=spec, vocabularies={"item_id": vocabulary})
    bundle = export([source], tmp_path)[0]
    assert read_bundle(bundle.folder).files["model.onnx.data"].size > 2**31
    session = ort.InferenceSession(str(bundle.layout.graph))
    assert (session.run(None, {"item_id": np.array([rows - 1], np.int32)})[0] == 3).all()
    with bundle.layout.external_data.open("r+b") as file:
        file.truncate(2**31)
    with pytest.raises(CorruptError, match=r"model.onnx.data: expected \d+ bytes by bundle\.json, found 2147483648"):
        read_bundle(bundle.folder)
