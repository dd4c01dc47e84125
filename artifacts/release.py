"""A release's manifest and the record beside it: written, read, and checked byte by byte."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from artifacts.bundle import FileRecord
from artifacts.digest import canonical_json, document_digest, file_digest
from artifacts.documents import read_sealed, write_sealed, write_whole
from artifacts.errors import CorruptError
from artifacts.fields import DAY, PROSE, SHA256, VERSION, inner, listing, mapping, only, table, text, whole
from artifacts.layout import RecordLayout, ReleaseLayout
from artifacts.store import fetched, files_on_disk, files_under, is_there, read_bytes, size_of
from artifacts.tables import Sidecar

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ContentFile:
    """A content file of a release: what its bytes must be.

    Attributes:
        size: Bytes on disk.
        sha256: Digest taken while the file was first written.
        rows: Rows of a table, 0 of another file.
    """

    size: int
    sha256: str
    rows: int

    @classmethod
    def of(cls, sidecar: Sidecar) -> Self:
        """Take over what was recorded when the file was written."""
        return cls(sidecar.size, sidecar.sha256, sidecar.rows)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Read what JSON says of a file.

        Raises:
            ValueError: If a field is missing, strange or of another type.
        """
        only(document, "size", "sha256", "rows")
        return cls(whole(document, "size"), text(document, "sha256", SHA256), whole(document, "rows"))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a release holds and where it comes from; the content of ``manifest.json``.

    Attributes:
        date: The data date, ISO.
        run_key: The run that the content was computed by.
        bundles: Role to ``{"model_id": ..., "bundle_id": ...}``.
        parent: Version that readers had of an earlier date when this release was made; None at first.
        files: Path within the release to what its bytes must be.
        overrides: Each rule of publishing that was overridden: ``rule``, what was ``found``, and the ``reason`` given.
    """

    date: str
    run_key: str
    bundles: dict[str, dict[str, str]]
    parent: str | None
    files: dict[str, ContentFile]
    overrides: tuple[dict[str, str], ...] = ()

    @property
    def content_digest(self) -> str:
        """Digest of all but parent and overrides: the same night gives the same, whatever came before and was said."""
        document = asdict(self)
        del document["parent"], document["overrides"]
        return document_digest({"format": FORMAT, **document})

    @property
    def version(self) -> str:
        """The release's name: its date and the first 12 hex digits of its content digest."""
        return f"{self.date}-{self.content_digest[:12]}"

    def rows(self, folder: str) -> int:
        """Rows of all tables under *folder*, such as ``"scores"``."""
        return sum(file.rows for name, file in self.files.items() if PurePosixPath(name).parts[0] == folder)

    @property
    def size(self) -> int:
        """Bytes of all content files."""
        return sum(file.size for file in self.files.values())

    def write(self, path: Path) -> None:
        """Write the manifest to *path*, sealed with its own digest."""
        write_sealed(path, asdict(self), version=FORMAT)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the manifest at *path*.

        Raises:
            CorruptError: If it is missing, changed in any byte, or of another format.
        """
        document = read_sealed(path, version=FORMAT)
        try:
            return cls.from_document(document)
        except ValueError as error:
            raise CorruptError(f"{path}: expected the fields of a manifest ({error})") from error

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Read what JSON says of a release.

        Raises:
            ValueError: If a field is missing, strange or of another type, or a file would lie outside of the release.
        """
        only(document, "date", "run_key", "bundles", "parent", "files", "overrides")
        return cls(
            date=text(document, "date", DAY),
            run_key=text(document, "run_key"),
            bundles={role: _ids(said) for role, said in table(document, "bundles").items()},
            parent=None if document.get("parent", "") is None else text(document, "parent", VERSION),
            files={_content(name): ContentFile.from_document(file) for name, file in table(document, "files").items()},
            overrides=tuple(_override(said) for said in listing(document, "overrides")),
        )


def _override(said: Any) -> dict[str, str]:
    document = {"override": said}
    said = mapping(document, "override")
    only(said, "rule", "found", "reason")
    return {name: text(said, name, PROSE) for name in ("rule", "found", "reason")}


def verify_release(folder: Path, *, quick: bool = False) -> Manifest:
    """Check every byte of the release in *folder*: content, manifest and record.

    Args:
        folder: Where it lies.
        quick: Only read manifest and record's list; of the files they name, only ask the size.

    Raises:
        CorruptError: If anything is missing, unlisted, changed or a symbolic link; one line for each such file.
    """
    layout = ReleaseLayout(folder)
    manifest = Manifest.read(layout.manifest)
    problems = [
        *_links(folder),
        *_content_problems(layout, manifest, quick=quick),
        *record_problems(layout.record, quick=quick),
    ]
    if problems:
        raise CorruptError("\n".join(problems))
    return manifest


def verify_content_file(layout: ReleaseLayout, manifest: Manifest, name: str) -> Path:
    """Check one content file of a release before it is used, and give its path.

    Raises:
        CorruptError: If it is not listed, missing or changed.
    """
    if name not in manifest.files:
        raise CorruptError(f"{layout.folder / name}: not listed in {layout.manifest.name}")
    expected = manifest.files[name]
    if problem := _problem_of(layout.folder / name, expected.size, expected.sha256, layout.manifest.name):
        raise CorruptError(problem)
    return layout.folder / name


def _links(folder: Path) -> Iterator[str]:
    for path in (folder, *files_on_disk(folder)):
        if path.is_symlink():
            yield f"{path}: a symbolic link, which is not followed; a release holds its own bytes"


def _content_problems(layout: ReleaseLayout, manifest: Manifest, *, quick: bool) -> Iterator[str]:
    folder = layout.folder
    if folder.name != manifest.version:
        yield f"{layout.manifest}: speaks of version {manifest.version}, but lies in {folder.name}"
    for name, file in sorted(manifest.files.items()):
        if problem := _problem_of(folder / name, file.size, file.sha256, layout.manifest.name, quick=quick, anew=True):
            yield problem
    record = layout.record.folder
    for path in files_under(folder):
        name = path.relative_to(folder).as_posix()
        if path != layout.manifest and record not in path.parents and name not in manifest.files:
            yield f"{path}: not listed in {layout.manifest.name}"


def write_record(
    record: RecordLayout, documents: Mapping[Path, Any], *, listed: Mapping[str, FileRecord] | None = None
) -> None:
    """Write *documents* (path in the record to bytes, or to what JSON shall say), and list all that it then holds.

    What was listed before keeps the checksum that it was listed with: a fresh hash is never taken for the truth.

    Args:
        record: Where.
        documents: Path in the record to what it shall hold.
        listed: What the record holds already, if its list is to be taken from elsewhere than from the record.

    Raises:
        CorruptError: If the record's list cannot be read.
    """
    if listed is None:
        listed = read_record(record) if is_there(record.contents) else {}
    listed = dict(listed)
    for path, document in documents.items():
        content = document if isinstance(document, bytes) else canonical_json(document)
        write_whole(path, content)
        listed[path.name] = FileRecord(len(content), hashlib.sha256(content).hexdigest())
    files = {name: asdict(file) for name, file in listed.items()}
    write_sealed(record.contents, {"files": files}, version=FORMAT)


def read_record(record: RecordLayout) -> dict[str, FileRecord]:
    """Read which files the record holds and what their bytes must be.

    Raises:
        CorruptError: If the list is missing, changed in any byte, or of another format.
    """
    document = read_sealed(record.contents, version=FORMAT)
    try:
        only(document, "files")
        return {inner(name): _recorded(file) for name, file in table(document, "files").items()}
    except ValueError as error:
        raise CorruptError(f"{record.contents}: expected the fields of a record ({error})") from error


def record_problems(record: RecordLayout, *, quick: bool = False) -> Iterator[str]:
    """Name every file of the record that is missing, unlisted or changed; if *quick*, only in size.

    Raises:
        CorruptError: If the record's own list cannot be read.
    """
    listed = read_record(record)
    for name, file in sorted(listed.items()):
        if problem := _problem_of(
            record.folder / name, file.size, file.sha256, record.contents.name, quick=quick, anew=True
        ):
            yield problem
    for path in files_under(record.folder):
        name = path.relative_to(record.folder).as_posix()
        if path != record.contents and name not in listed:
            yield f"{path}: not listed in {record.contents.name}"


def verify_record_file(record: RecordLayout, path: Path) -> Path:
    """Check one file of the record before it is believed, and give its path.

    Raises:
        CorruptError: If it is not listed, missing or changed.
    """
    listed = read_record(record)
    if path.name not in listed:
        raise CorruptError(f"{path}: not listed in {record.contents.name}")
    expected = listed[path.name]
    if problem := _problem_of(path, expected.size, expected.sha256, record.contents.name):
        raise CorruptError(problem)
    return path


def manifest_digest(layout: ReleaseLayout) -> str:
    """Digest the manifest file of a release, as it is now.

    Raises:
        CorruptError: If it is missing.
    """
    return hashlib.sha256(read_bytes(layout.manifest)).hexdigest()


def _problem_of(
    path: Path, size: int, sha256: str, listed_in: str, *, quick: bool = False, anew: bool = False
) -> str | None:
    if path.is_symlink() or path.parent.is_symlink():
        return f"{path}: lies behind a symbolic link, which is not followed; a release holds its own bytes"
    if (found := size_of(path)) is None:
        return f"{path}: listed in {listed_in}, but missing"
    if found != size:
        asked, why = f"{size} bytes", "was it cut short, or one of the two swapped?"
        return f"{path}: expected {asked} by {listed_in}, found {found}; {why}"
    return None if quick else _changed(path, sha256, listed_in, anew=anew)


def _changed(path: Path, sha256: str, listed_in: str, *, anew: bool) -> str | None:
    try:
        digest = file_digest(fetched(path, sha256, anew=anew))
    except CorruptError as error:
        return str(error)
    except FileNotFoundError:
        return f"{path}: went missing while it was read; was the release pruned?"
    if digest != sha256:
        asked, why = f"sha256 {sha256}", "was it changed, or one of the two swapped?"
        return f"{path}: expected {asked} by {listed_in}, found {digest}; {why}"
    return None


def _ids(document: dict[str, Any]) -> dict[str, str]:
    only(document, "model_id", "bundle_id")
    return {name: text(document, name) for name in ("model_id", "bundle_id")}


def _recorded(document: dict[str, Any]) -> FileRecord:
    only(document, "size", "sha256")
    return FileRecord(whole(document, "size"), text(document, "sha256", SHA256))


def _content(name: str) -> str:
    """Refuse a listed name that lies outside of the release, or where the manifest and the record lie."""
    release = ReleaseLayout(Path())
    if Path(inner(name)).parts[0] in {release.manifest.name, release.record.folder.name}:
        raise ValueError(f"{name!r} is no place for content")
    return name
