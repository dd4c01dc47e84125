"""Everything that is read back may have been written by anybody: it is what it must be, or a named error."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from artifacts.digest import canonical_json, document_digest
from artifacts.errors import CorruptError, NightrecError
from artifacts.fields import inner
from artifacts.layout import RootLayout
from artifacts.release import Manifest, read_record, verify_release
from release.pins import Pin, read_pin
from release.pointer import Hold, Pointer, follow, pointer_path, read_pointer
from release.publish import Published
from release.releases import list_releases, verify

VERSION = "2026-03-01-" + "a" * 12
MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    scalars | st.sampled_from([VERSION, "2026-03-01", "a" * 64, 2**63, 10**15, -1, "\x00", "../x", "\ud800"]),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
)

MANIFEST = {
    "date": "2026-03-01",
    "run_key": "0123456789abcdef",
    "bundles": {"item": {"model_id": "m", "bundle_id": "b"}},
    "parent": None,
    "files": {"scores/a.arrow": {"size": 3, "sha256": "0" * 64, "rows": 7}},
}
RECORD = {"files": {"gates.json": {"size": 3, "sha256": "0" * 64}}}
POINTER = Pointer(VERSION, "0" * 64, 3, "2026-03-01", Hold("me", "why", VERSION), "reason").document()
PIN = Pin(VERSION, "me", "why").document()


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key of a document, at any depth."""
    found = []
    for key, value in document.items():
        found.append((*at, key))
        if isinstance(value, dict):
            found += places(value, (*at, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """The document with a value changed, a key taken out, renamed or added; or something else altogether."""
    if draw(st.integers(0, 9)) == 0:
        return draw(values)
    changed: Any = copy.deepcopy(document)
    for place in draw(st.lists(st.sampled_from(places(document)), min_size=1, max_size=2)):
        holder = changed
        for key in place[:-1]:
            holder = holder.get(key, {}) if isinstance(holder, dict) else {}
        if not isinstance(holder, dict):
            continue
        how = draw(st.sampled_from(["change", "take out", "rename", "add"]))
        value = holder.get(place[-1]) if how in {"change", "add"} else holder.pop(place[-1], None)
        if how == "change":
            holder[place[-1]] = draw(values)
        elif how != "take out":
            holder[draw(st.text(max_size=12) | st.sampled_from(["../a", "a\x00b", "/etc/passwd", "record/x"]))] = value
    return changed


def sealed(document: Any) -> bytes:
    """What a writer who knows our seal would make of a document."""
    if not isinstance(document, dict):
        return as_text(document)
    try:
        said = {"format": 1, **document}
        return canonical_json({**said, "digest": document_digest(said)})
    except ValueError:
        return as_text(document)


def as_text(document: Any) -> bytes:
    return json.dumps(document).encode()


def read_or_named(read: Callable[[], Any], path: Path) -> Any:
    """What *read* gives; an error must be one of ours, and name the file in one line of bearable length."""
    said = ""
    try:
        return read()
    except NightrecError as error:
        said = str(error)
    assert path.name in said
    assert len(said) < 1500
    return None


@given(content=mutated(MANIFEST).map(sealed) | st.binary(max_size=200) | mutated(MANIFEST).map(as_text))
@example(content=b"[" * 200_000)
@example(content=b'{"a":' * 50_000)
@example(content=sealed({**MANIFEST, "files": {"a": {"size": 10**15 * 10**10, "sha256": "0" * 64, "rows": 1}}}))
@MANY
def test_a_manifest_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in it, all that is used of a manifest has its type, and its names lie inside."""
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    manifest = read_or_named(lambda: Manifest.read(path), path)
    if manifest is not None:
        assert manifest.size >= 0
        assert manifest.rows("scores") >= 0
        assert manifest.version.startswith(manifest.date)
        for name in manifest.files:
            assert (tmp_path / name).resolve().is_relative_to(tmp_path.resolve())
            assert not name.startswith(("record/", "manifest.json"))


@given(content=mutated(RECORD).map(sealed) | st.binary(max_size=200))
@MANY
def test_a_record_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """The list of the record gives sizes and digests of files inside, or the message names it."""
    record = RootLayout(tmp_path).release(VERSION).record
    record.folder.mkdir(parents=True, exist_ok=True)
    record.contents.write_bytes(content)
    for name, file in (read_or_named(lambda: read_record(record), record.contents) or {}).items():
        assert (record.folder / name).resolve().is_relative_to(record.folder.resolve())
        assert file.size >= 0


@given(content=mutated(POINTER).map(sealed) | st.binary(max_size=200) | mutated(POINTER).map(as_text))
@example(content=sealed(POINTER))
@MANY
def test_a_pointer_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """A pointer leads to a release's name and nowhere else."""
    path = pointer_path(tmp_path)
    path.write_bytes(content)
    pointer = read_or_named(lambda: read_pointer(tmp_path), path)
    if pointer is not None:
        assert pointer.sequence >= 1
        assert RootLayout(tmp_path).release(pointer.version).folder.parent == tmp_path / "releases"
        with pytest.raises(CorruptError, match="missing"):
            follow(tmp_path)


@given(content=mutated(PIN).map(as_text) | st.binary(max_size=200))
@MANY
def test_a_pin_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """A pin says who and why in words, or the message names it."""
    path = RootLayout(tmp_path).pin(VERSION)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    pin = read_or_named(lambda: read_pin(tmp_path, VERSION), path)
    if pin is not None:
        assert isinstance(pin.who, str)
        assert isinstance(pin.why, str)


@pytest.mark.parametrize("name", ["scores/00000-of-00001.arrow", "a", "a.b-c_d/e", "index/ivf.faiss", "a..b"])
def test_names_of_ours_are_paths_inside(name: str) -> None:
    """What we write ourselves is a path inside."""
    assert inner(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/a", "a/", "a//b", "a/../b", "./a", "a/.", "...", "a/..", "~/a", "C:/a"),
        *("a\\b", "a\x00b", "a\nb", "ä", "\ud800", "a b", "a" * 300),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    """Whatever leads out of the folder, or is written in other than plain characters, is no name of a file."""
    with pytest.raises(ValueError, match="not the path of a file inside"):
        inner(name)


@pytest.mark.parametrize("what", ["file", "folder", "record", "release"])
def test_a_symbolic_link_is_refused(released: Callable[..., Published], tmp_path: Path, what: str) -> None:
    """The same bytes behind a link are not the release's own: verify names the link, quick or not."""
    folder = released().folder
    inside = {
        "file": folder / "scores" / "00000-of-00002.arrow",
        "folder": folder / "scores",
        "record": folder / "record" / "gates.json",
        "release": folder,
    }[what]
    elsewhere = tmp_path / "elsewhere"
    inside.rename(elsewhere)
    inside.symlink_to(elsewhere, target_is_directory=elsewhere.is_dir())
    for quick in (False, True):
        with pytest.raises(CorruptError, match=rf"{inside.name}: (a symbolic link|lies behind a symbolic link)"):
            verify_release(folder, quick=quick)


def test_a_loop_of_links_is_refused(released: Callable[..., Published]) -> None:
    """A link to the folder it lies in is named, and followed nowhere."""
    folder = released().folder
    (folder / "scores" / "again").symlink_to(folder)
    with pytest.raises(CorruptError, match="again: a symbolic link"):
        verify_release(folder)


def test_quick_compares_sizes_and_lists(released: Callable[..., Published], tmp_path: Path) -> None:
    """A file of another size, a missing and an unlisted one are found without reading; a flipped byte is not."""
    folder = released().folder
    path = folder / "index" / "ivf.faiss"
    whole = path.read_bytes()
    assert verify(tmp_path, quick=True) == verify(tmp_path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    verify(tmp_path, quick=True)
    with pytest.raises(CorruptError, match=r"ivf\.faiss"):
        verify(tmp_path)
    path.write_bytes(whole[:-1])
    with pytest.raises(CorruptError, match=f"expected {len(whole)} bytes by manifest.json, found {len(whole) - 1}"):
        verify(tmp_path, quick=True)
    path.unlink()
    (folder / "index" / "more").touch()
    with pytest.raises(CorruptError, match=r"missing\n.*more: not listed"):
        verify(tmp_path, quick=True)


def test_a_document_of_a_petabyte_is_not_read(tmp_path: Path) -> None:
    """A file that only claims to be huge is refused by its size, before there is memory for it."""
    path = tmp_path / "manifest.json"
    path.touch()
    os.truncate(path, 1 << 42)
    with pytest.raises(CorruptError, match=f"expected a document of at most .* found {1 << 42}"):
        Manifest.read(path)


def test_strange_folders_are_no_releases(released: Callable[..., Published], tmp_path: Path) -> None:
    """Only names of ours are listed, whatever else lies there."""
    version = released().version
    for name in ("2026-03-01", "\uff12\uff10\uff12\uff16-03-01-" + "a" * 12, VERSION.upper(), f"{VERSION}.old", "\n"):
        (tmp_path / "releases" / name).mkdir()
    assert [one.version for one in list_releases(tmp_path)] == [version]
