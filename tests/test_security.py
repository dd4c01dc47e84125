"""Nothing that is read can run code, lead out of its folder, or take all memory before it is looked at."""

import ast
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from artifacts import schemas
from artifacts.bundle import read_bundle
from artifacts.canary import read_canary
from artifacts.documents import read_json, write_json, write_sealed
from artifacts.errors import CorruptError, NightrecError, UsageError
from artifacts.layout import BundleLayout, RootLayout, sidecar_of
from artifacts.run import Run, find_run
from artifacts.tables import opening_arrow, read_table, writing_table
from batch.indexed import read_ivf
from batch.session import open_session
from features.vocabulary import load_vocabulary
from models.checkpoint import load_checkpoint
from tests.faults.external import give_external_data
from tests.faults.ground import Ground, copy_of, say
from tests.faults.models import folder_of
from tests.night.conftest import plain, shop
from tests.night.shop import DATE, Shop

__all__ = ["plain", "shop"]

ROOT = Path(__file__).parents[1]
FOLDERS = ("artifacts", "features", "models", "export", "batch", "release", "nightrec", "dags")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "imp", "runpy"}
RUNNERS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {
    "os.system",
    "os.popen",
    "torch.load",
    "torch.jit.load",
    "keras.models.load_model",
}
MARK = "nightrec-was-run"


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path: Path) -> None:
    """No module of ours unpickles, evaluates or imports by a name that it was given, but the one that a user names."""
    tree = ast.parse(path.read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    called = dict(_calls(tree))

    assert not imported & LOADERS
    assert not called.keys() & (RUNNERS | METHODS)
    for name, call in _calls(tree):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name in {"np.load", "numpy.load"}:
            assert options.get("allow_pickle") == "False"
        if name.endswith("load_model"):
            assert options.get("safe_mode") == "True"
        assert options.get("shell", "False") == "False"
        if name.endswith("import_module"):
            assert path == ROOT / "export" / "source.py"


class Hostile:
    """What unpickles into a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


READERS = {
    "a JSON document": read_json,
    "canary rows": read_canary,
    "a vocabulary": lambda path: load_vocabulary("x", path),
    "an index": read_ivf,
    "a finished table": read_table,
    "a bundle": lambda path: read_bundle(path.parent),
    "a run": lambda path: Run.read(path.parent),
    "a checkpoint": lambda path: load_checkpoint(path.parent),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_file_runs_nothing(tmp_path: Path, reader: str) -> None:
    """A pickle that would run a command is refused by every reader, and the command is not run."""
    mark = tmp_path / MARK
    hostile = pickle.dumps(Hostile(mark))
    names = ("model.json", "weights.npz", "bundle.json", "run.json", "model.onnx", "canary.arrow", "file")
    for name in names:
        (tmp_path / name).write_bytes(hostile)

    with pytest.raises(NightrecError):
        READERS[reader](tmp_path / "file")
    assert not mark.exists()


@pytest.fixture
def ground(shop: Shop, tmp_path: Path) -> Ground:
    """A copy of the shop."""
    return copy_of(shop, tmp_path / "ground")


def test_external_data_inside_the_folder_is_taken(ground: Ground) -> None:
    """Weights beside the graph, listed in the contract, are what the graph computes with."""
    folder = folder_of(ground, "item")
    give_external_data(folder)

    assert open_session(read_bundle(folder), rows=4, threads=1).bundle.folder == folder


@pytest.mark.parametrize("location", ["../weights", "vocabularies/../../weights", "/proc/self/environ", "{absolute}"])
def test_external_data_outside_the_folder_is_refused(ground: Ground, tmp_path: Path, location: str) -> None:
    """A graph cannot read a file of this machine into its weights."""
    folder = folder_of(ground, "item")
    give_external_data(folder, location.format(absolute=tmp_path / "weights"))

    with pytest.raises(CorruptError, match=r"model\.onnx.*External data path"):
        open_session(read_bundle(folder), rows=4, threads=1)


def test_a_link_in_a_bundle_is_refused(ground: Ground, tmp_path: Path) -> None:
    """What was verified is what is loaded: no link leads out of a bundle, whatever it leads to."""
    graph = BundleLayout(folder_of(ground, "item")).graph
    shutil.move(graph, tmp_path / "elsewhere.onnx")
    graph.symlink_to(tmp_path / "elsewhere.onnx")

    with pytest.raises(CorruptError, match=r"model\.onnx: a symbolic link"):
        read_bundle(graph.parent)


@pytest.mark.parametrize("name", ["../item/model.onnx", "/etc/passwd", "a/../../b", ".", "..", "a\\b", ""])
def test_a_contract_lists_no_file_outside(ground: Ground, name: str) -> None:
    """A listed name stays in the bundle's folder."""
    layout = BundleLayout(folder_of(ground, "item"))
    document = read_json(layout.contract)
    document["files"][name] = document["files"]["model.onnx"]
    del document["digest"]
    write_sealed(layout.contract, {key: value for key, value in document.items() if key != "format"}, version=1)

    with pytest.raises(CorruptError, match="is not the path of a file inside"):
        read_bundle(layout.folder)


@pytest.mark.parametrize("key", ["../../../etc", "..", "", "0" * 15, "0123456789ABCDEF", "/abs", "a/b"])
def test_a_run_is_named_by_a_key_alone(tmp_path: Path, key: str) -> None:
    """Neither the command line nor a document leads to a run elsewhere."""
    with pytest.raises(UsageError, match="16 hex digits"):
        find_run(tmp_path, DATE, key)
    write_json(RootLayout(tmp_path).current_run(DATE), {"run_key": key})
    with pytest.raises(CorruptError, match="expected the key of a run"):
        find_run(tmp_path, DATE)


@pytest.mark.parametrize("name", ["../LATEST", "..", "a/b", "/etc/passwd", ".hidden", "a b", "a\x00b", ""])
def test_a_channel_is_a_plain_name(ground: Ground, name: str) -> None:
    """No channel leads out of the root."""
    said = say("releases", "show", "--config", ground.config, "--channel", name)

    assert said.code == 2, said.text
    assert "channel" in said.text


@pytest.mark.parametrize("name", ["../../etc", "..", "2026-03-31-0123456789ab/../x", "/etc"])
def test_a_release_is_one_of_those_that_there_are(ground: Ground, name: str) -> None:
    """No version leads out of the root."""
    said = say("releases", "verify", name, "--config", ground.config)

    assert said.code == 2, said.text
    assert "there is none of that name" in said.text


def test_a_dictionary_in_a_table_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """None of our tables has one, and a small file can hold an endless one."""
    path = tmp_path / "values.arrow"
    column = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["x" * 1_000_000]))
    schema = pa.schema([pa.field("value", column.type)], {b"format": b"1"})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as stream:
        stream.write_batch(pa.record_batch([column], schema=schema))

    with pytest.raises(CorruptError, match="expected plain columns, found a dictionary"), opening_arrow(path):
        pass


@pytest.mark.parametrize("claimed", [1 << 50, (1 << 63) - 1, -5])
def test_a_table_that_claims_a_petabyte_is_refused(tmp_path: Path, claimed: int) -> None:
    """A compressed buffer says how large it becomes; no more than there is memory for is believed."""
    path = tmp_path / "values.arrow"
    with writing_table(path, schemas.vocabulary(pa.int64()), metadata={}, inputs="") as writer:
        writer.write(pa.table({"value": pa.array(range(5_000))}, schema=schemas.vocabulary(pa.int64())))
    sidecar_of(path).unlink()
    content = path.read_bytes()
    honest = (5_000 * 8).to_bytes(8, "little")
    assert content.count(honest) == 1
    path.write_bytes(content.replace(honest, claimed.to_bytes(8, "little", signed=True)))

    with pytest.raises(NightrecError, match=r"values\.arrow"):
        load_vocabulary("x", path)


def test_a_document_of_endless_depth_is_refused(tmp_path: Path) -> None:
    """Brackets without end are no recursion without end."""
    path = tmp_path / "run.json"
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)

    with pytest.raises(CorruptError, match=r"run\.json"):
        read_json(path)


def test_a_file_that_grew_is_not_read(ground: Ground) -> None:
    """Sizes are compared before bytes are: a file of a terabyte of nothing costs no time."""
    path = BundleLayout(folder_of(ground, "item")).graph
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a hole: it takes no disk

    with pytest.raises(CorruptError, match="1099511627776"):
        read_bundle(path.parent)


def test_a_factory_is_imported_only_if_it_is_named(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """No config and no bundle can name code: a module beside them is not imported."""
    module = ground.folder / "hostile_factory.py"
    module.write_text(f"from pathlib import Path\nPath({str(ground.folder / MARK)!r}).touch()\n")
    monkeypatch.syspath_prepend(str(ground.folder))
    ground.edit("[score]", '[train]\nuntil = 2026-03-01\nmind = { factory = "hostile_factory:make" }\n[score]')

    assert say("prepare", "--config", ground.config, "--date", DATE).code == 0
    assert say("fit", "mind", "--config", ground.config).code == 2
    assert not (ground.folder / MARK).exists()
