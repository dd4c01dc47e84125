"""The manifest and the record: read as written, sealed against any change."""

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
    read_record,
    record_problems,
    verify_content_file,
    verify_record_file,
    verify_release,
    write_record,
)

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
