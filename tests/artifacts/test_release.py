"""The manifest and the record: read as written, sealed against any change."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artifacts.digest import document_digest, file_digest
from artifacts.errors import CorruptError
from artifacts.layout import RecordLayout, ReleaseLayout
from artifacts.release import (
    ContentFile,
    Manifest,
    manifest_digest,
    read_record,
    record_problems,
    verify_content_file,
    verify_record_file,
    verify_release,
    write_record,
)
from artifacts.tables import Sidecar

FILES = {"scores/a.arrow": ContentFile(3, "0" * 64, 7), "items/a.arrow": ContentFile(4, "1" * 64, 2)}
MANIFEST = Manifest("2026-01-02", "k", {"item": {"model_id": "m", "bundle_id": "b"}}, None, FILES)


def test_overrides_are_kept_and_are_no_content(tmp_path: Path) -> None:
    """What was overridden reads back, and the version is that of the same content without it."""
    said = replace(MANIFEST, overrides=({"rule": "the gates", "found": "recall 0.5", "reason": "a sale starts"},))
    said.write(tmp_path / "manifest.json")
    assert Manifest.read(tmp_path / "manifest.json") == said
    assert said.version == MANIFEST.version
    for strange in ("a reason", [1], [{"rule": "r", "found": "f"}], [{"rule": "r", "found": "f", "reason": 1}]):
        reseal(tmp_path / "manifest.json", overrides=strange)
        with pytest.raises(CorruptError, match=r"override|reason"):
            Manifest.read(tmp_path / "manifest.json")


def reseal(path: Path, **changes: Any) -> None:
    """Change a sealed document as its writer would: with the digest that belongs to the change."""
    document = {**json.loads(path.read_text()), **changes}
    del document["digest"]
    document["digest"] = document_digest(document)
    path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def test_a_content_file_is_what_was_recorded_of_it() -> None:
    """Size, digest and rows are those of the sidecar, which was written with the file."""
    assert ContentFile.of(Sidecar(3, "0" * 64, 7, "i", "k")) == FILES["scores/a.arrow"]


def test_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """A manifest survives its file, and the same manifest gives the same bytes."""
    path = tmp_path / "manifest.json"
    for parent in (None, "2026-01-01-000000000000"):
        manifest = replace(MANIFEST, parent=parent)
        manifest.write(path)
        first = path.read_bytes()
        assert Manifest.read(path) == manifest
        replace(manifest, files=dict(reversed(FILES.items()))).write(path)
        assert path.read_bytes() == first
    assert (MANIFEST.rows("scores"), MANIFEST.rows("none"), MANIFEST.size) == (7, 0, 7)


def test_version_is_date_and_content_whatever_the_parent() -> None:
    """Each field but the parent enters the version."""
    assert MANIFEST.version.startswith("2026-01-02-")
    assert replace(MANIFEST, parent="2026-01-01-000000000000").version == MANIFEST.version
    others = [
        replace(MANIFEST, date="2026-01-03"),
        replace(MANIFEST, run_key="l"),
        replace(MANIFEST, bundles={}),
        replace(MANIFEST, files={**FILES, "items/a.arrow": ContentFile(4, "2" * 64, 2)}),
        replace(MANIFEST, files={"scores/b.arrow": FILES["scores/a.arrow"], "items/a.arrow": FILES["items/a.arrow"]}),
    ]
    digests = {manifest.content_digest for manifest in [MANIFEST, *others]}
    assert len(digests) == 6


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "", "a\\b", ".."])
def test_listed_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """A manifest or record that lists a path outside is refused, though its seal is right."""
    path = tmp_path / "manifest.json"
    MANIFEST.write(path)
    reseal(path, files={name: {"size": 1, "sha256": "0", "rows": 1}})
    with pytest.raises(CorruptError, match=r"manifest\.json"):
        Manifest.read(path)
    record = RecordLayout(tmp_path / "record")
    write_record(record, {})
    reseal(record.contents, files={name: {"size": 1, "sha256": "0"}})
    with pytest.raises(CorruptError, match=r"record\.json"):
        read_record(record)


@pytest.mark.parametrize(
    "changes", [{"format": 2}, {"more": 1}, {"files": []}, {"files": {"a": 3}}, {"files": {"a": {"size": 1}}}]
)
def test_foreign_manifest_is_corrupt(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A manifest of another format or with other fields is an error that names it, though its seal is right."""
    path = tmp_path / "manifest.json"
    MANIFEST.write(path)
    reseal(path, **changes)
    with pytest.raises(CorruptError, match=r"manifest\.json"):
        Manifest.read(path)


WHOLE_FILE = {"size": 1, "sha256": "0" * 64, "rows": 1}
WHOLE_SAYING = {"rule": "r", "found": "f", "reason": "a sale"}


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        ("date", {"date": "today"}),
        ("run_key", {"run_key": ""}),
        ("'model'", {"bundles": {"item": {"model_id": "m", "bundle_id": "b", "model": 1}}}),
        ("model_id", {"bundles": {"item": {"bundle_id": "b"}}}),
        ("bundle_id", {"bundles": {"item": {"model_id": "m", "bundle_id": ""}}}),
        ("bundles, 'item'", {"bundles": {"item": "m"}}),
        ("parent", {"parent": "2026-01-01"}),
        ("size", {"files": {"a": {**WHOLE_FILE, "size": -1}}}),
        ("sha256", {"files": {"a": {**WHOLE_FILE, "sha256": "0" * 63}}}),
        ("rows", {"files": {"a": {**WHOLE_FILE, "rows": 1.0}}}),
        ("'link'", {"files": {"a": {**WHOLE_FILE, "link": "b"}}}),
        ("'manifest.json' is no place for content", {"files": {"manifest.json": WHOLE_FILE}}),
        ("'record/a' is no place for content", {"files": {"record/a": WHOLE_FILE}}),
        ("overrides", {"overrides": {}}),
        ("override", {"overrides": ["a sale"]}),
        ("'who'", {"overrides": [{**WHOLE_SAYING, "who": "me"}]}),
        *((key, {"overrides": [{**WHOLE_SAYING, key: ""}]}) for key in WHOLE_SAYING),
        ("'more'", {"more": 1}),
    ],
)
def test_a_strange_field_of_a_manifest_is_named(tmp_path: Path, names: str, changes: dict[str, Any]) -> None:
    """A field that is missing, of another form or not ours is an error that names it, though the seal is right."""
    path = tmp_path / "manifest.json"
    MANIFEST.write(path)
    reseal(path, files={"a": WHOLE_FILE}, overrides=[{**WHOLE_SAYING, "reason": "a sale,\nfrom \t today"}])
    assert Manifest.read(path).files == {"a": ContentFile(1, "0" * 64, 1)}
    reseal(path, **changes)
    with pytest.raises(CorruptError, match=rf"^{path}: expected the fields of a manifest \(.*{names}"):
        Manifest.read(path)


def test_a_manifest_names_its_parent_or_none(tmp_path: Path) -> None:
    """Without the field nobody knows what came before, so a manifest without it is not ours."""
    path = tmp_path / "manifest.json"
    MANIFEST.write(path)
    document = json.loads(path.read_text())
    del document["parent"]
    document["digest"] = document_digest({key: value for key, value in document.items() if key != "digest"})
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    with pytest.raises(CorruptError, match="parent: expected text"):
        Manifest.read(path)


@pytest.mark.parametrize(
    ("names", "file"),
    [("size", {"size": -1}), ("sha256", {"sha256": "0"}), ("'rows'", {"rows": 1}), ("'more'", None)],
)
def test_a_strange_field_of_a_record_is_named(tmp_path: Path, names: str, file: dict[str, Any] | None) -> None:
    """The record's list has names, sizes and digests, and nothing else."""
    record = RecordLayout(tmp_path)
    write_record(record, {record.gates: {"passed": True}})
    strange = {"more": 1} if file is None else {"files": {"a.json": {"size": 1, "sha256": "0" * 64, **file}}}
    reseal(record.contents, **strange)
    with pytest.raises(CorruptError, match=rf"^{record.contents}: expected the fields of a record \(.*{names}"):
        read_record(record)


@pytest.fixture
def release(tmp_path: Path) -> ReleaseLayout:
    """A whole release of two files of content and a record of one."""
    folder = tmp_path / "making"
    files = {}
    for name, content in (("scores/a.arrow", b"abc"), ("items/a.arrow", b"defg")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
        files[name] = ContentFile(len(content), hashlib.sha256(content).hexdigest(), 1)
    manifest = replace(MANIFEST, files=files)
    layout = ReleaseLayout(folder.rename(tmp_path / manifest.version))
    manifest.write(layout.manifest)
    write_record(layout.record, {layout.record.gates: {"passed": True}})
    return layout


def problems_of(layout: ReleaseLayout, *, quick: bool = False) -> list[str]:
    with pytest.raises(CorruptError) as raised:
        verify_release(layout.folder, quick=quick)
    return str(raised.value).splitlines()


def test_every_fault_of_a_release_has_a_line(release: ReleaseLayout) -> None:
    """What is changed, cut, missing or unlisted, in the content and in the record, is each named in one line."""
    folder, record = release.folder, release.record
    manifest = verify_release(folder)
    assert verify_content_file(release, manifest, "items/a.arrow") == folder / "items/a.arrow"
    assert manifest_digest(release) == hashlib.sha256(release.manifest.read_bytes()).hexdigest()

    (folder / "items/a.arrow").write_bytes(b"defh")
    (folder / "scores/b.arrow").write_bytes(b"")
    (folder / "scores/a.arrow").write_bytes(b"ab")
    record.gates.write_bytes(record.gates.read_bytes().replace(b"true", b"True"))
    (record.folder / "report.html").write_bytes(b"<p>")
    changed = ["items/a.arrow: expected sha256 ", "record/gates.json: expected sha256 "]
    others = [
        "scores/a.arrow: expected 3 bytes by manifest.json, found 2; was it cut short, or one of the two swapped?",
        "scores/b.arrow: not listed in manifest.json",
        "record/report.html: not listed in record.json",
    ]

    for quick, expected in ((False, [*others, *changed]), (True, others)):
        found = [line.removeprefix(f"{folder}/") for line in problems_of(release, quick=quick)]
        assert len(found) == len(expected)
        assert all(any(line.startswith(start) for line in found) for start in expected)
    with pytest.raises(CorruptError, match=r"by manifest\.json, found [0-9a-f]{64}; was it changed, or one of"):
        verify_content_file(release, manifest, "items/a.arrow")
    with pytest.raises(CorruptError, match=r"^.*gates\.json: expected sha256"):
        verify_record_file(record, record.gates)


def test_files_that_are_gone_are_each_named(release: ReleaseLayout) -> None:
    """A missing file is said with the list that names it."""
    manifest = verify_release(release.folder)
    (release.folder / "scores/a.arrow").unlink()
    release.record.gates.unlink()

    with pytest.raises(CorruptError, match=r"scores/a\.arrow: listed in manifest\.json, but missing"):
        verify_content_file(release, manifest, "scores/a.arrow")
    with pytest.raises(CorruptError, match=r"record/gates\.json: listed in record\.json, but missing"):
        verify_record_file(release.record, release.record.gates)
    assert problems_of(release) == problems_of(release, quick=True)
    assert [line.removeprefix(f"{release.folder}/") for line in problems_of(release)] == [
        "scores/a.arrow: listed in manifest.json, but missing",
        "record/gates.json: listed in record.json, but missing",
    ]


def test_a_release_lies_in_the_folder_of_its_version(release: ReleaseLayout) -> None:
    """A release that was renamed speaks of another version than its folder, and both are named."""
    moved = release.folder.rename(release.folder.with_name("2026-01-02-000000000000"))

    (problem,) = problems_of(ReleaseLayout(moved))

    assert problem == f"{moved}/manifest.json: speaks of version {release.folder.name}, but lies in {moved.name}"


@pytest.mark.parametrize("name", ["items/a.arrow", "items", "record/gates.json", ""])
def test_no_symbolic_link_is_followed(release: ReleaseLayout, tmp_path: Path, name: str) -> None:
    """A file, folder or whole release that lies elsewhere is found, even if its bytes are the right ones."""
    path = release.folder / name
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)

    problems = problems_of(release)

    assert f"{path}: a symbolic link, which is not followed; a release holds its own bytes" in problems
    behind = {"items": "items/a.arrow", "": None}.get(name, name)
    said = f"{release.folder / behind}: lies behind a symbolic link, which is not followed" if behind else ""
    assert any(line.startswith(said) for line in problems)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"a": NaN}', '{"a": "\\ud800"}'])
def test_unsealed_document_is_corrupt(tmp_path: Path, text: str) -> None:
    """What carries no digest of its own, or cannot have one, is refused."""
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(CorruptError, match=r"manifest\.json"):
        Manifest.read(path)


def test_record_keeps_the_checksums_it_had(tmp_path: Path) -> None:
    """Adding to a record does not bless a file that was changed since it was listed."""
    record = RecordLayout(tmp_path / "record")
    write_record(record, {record.gates: {"passed": False}})
    record.gates.write_text('{"passed": true}')
    write_record(record, {record.timings: {"score": 3}})
    assert list(read_record(record)) == ["gates.json", "timings.json"]
    (problem,) = record_problems(record)
    assert "gates.json" in problem
    with pytest.raises(CorruptError, match=r"gates\.json"):
        verify_record_file(record, record.gates)
    assert verify_record_file(record, record.timings) == record.timings
    write_record(record, {record.gates: {"passed": True}})
    assert list(record_problems(record)) == []
    with pytest.raises(CorruptError, match="not listed"):
        verify_record_file(record, record.report)


def test_release_without_a_record_is_not_whole(tmp_path: Path) -> None:
    """A release whose record was removed is found, and so is a file that the manifest does not list."""
    manifest = replace(MANIFEST, files={})
    layout = ReleaseLayout(tmp_path / manifest.version)
    manifest.write(layout.manifest)
    with pytest.raises(CorruptError, match=r"record\.json"):
        verify_release(layout.folder)
    write_record(layout.record, {})
    assert verify_release(layout.folder) == manifest
    with pytest.raises(CorruptError, match="not listed"):
        verify_content_file(layout, manifest, "scores/a.arrow")


@pytest.mark.parametrize("lives", range(4))
def test_a_release_that_goes_while_it_is_read_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: int
) -> None:
    """However far the reading has come when a prune removes the folder: it is missing, and nothing unexpected."""
    folder = tmp_path / MANIFEST.version
    for name, file in FILES.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"x" * file.size)
    whole = {name: replace(file, sha256=file_digest(folder / name)) for name, file in FILES.items()}
    folder = (folder.rename(tmp_path / replace(MANIFEST, files=whole).version)).absolute()
    replace(MANIFEST, files=whole).write(folder / "manifest.json")
    record = RecordLayout(folder / "record")
    write_record(record, {record.gates: {"said": "yes"}})
    verify_release(folder)

    left = [lives]

    def remove_when_due(path: Path) -> str:
        if left[0] == 0:
            shutil.rmtree(folder, ignore_errors=True)
        left[0] -= 1
        return file_digest(path)

    monkeypatch.setattr("artifacts.release.file_digest", remove_when_due)
    if lives < 3:  # two files of content and one of the record are digested
        with pytest.raises(CorruptError, match=r"missing|cannot be read"):
            verify_release(folder)
    else:
        verify_release(folder)
