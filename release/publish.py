"""The step ``publish``: a judged run becomes a release, whole or not at all, and LATEST moves to it."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifacts.documents import read_sealed
from artifacts.errors import ConflictError, CorruptError, RefusedError
from artifacts.layout import RecordLayout, ReleaseLayout, RootLayout
from artifacts.release import (
    ContentFile,
    Manifest,
    manifest_digest,
    read_record,
    verify_record_file,
    verify_release,
    write_record,
)
from artifacts.run import Run, recording
from artifacts.store import fetched, is_there, require_swaps, staged_folder, sweep_staged_folders
from artifacts.tables import sidecar_within
from release.content import content_files, judged_digest
from release.page import Note, told
from release.pointer import (
    LATEST,
    Pointer,
    Release,
    earlier_release,
    follow,
    move_pointer,
    point_at,
    read_pointer,
    require_words,
)
from release.verdicts import GateReport

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did.

    Attributes:
        version: The release.
        folder: Where it lies.
        manifest_sha256: Digest of its manifest file.
        stored: Whether it was written now; False if it was there already, with equal content.
        moved: Whether the pointer moved to it now.
        current: Whether the pointer names it, since now or before.
        held: Whether the pointer is held by a rollback.
        sequence: The pointer's, afterwards.
        note: One sentence on what was done, for people.
    """

    version: str
    folder: Path
    manifest_sha256: str
    stored: bool
    moved: bool
    current: bool
    held: bool
    sequence: int
    note: str


def publish(
    run: Run,
    root: Path,
    *,
    override: str | None = None,
    supersede: str | None = None,
    channel: str = LATEST,
) -> Published:
    """Store *run* as a release and let *channel* name it.

    The pointer moves forward in data date only: a release of an older date is stored, and the pointer stays. Under a
    hold it stays too. Publishing again what is published is a no-op; publishing again what was only stored moves the
    pointer, if it may move now.

    Args:
        run: Checked, and all its steps finished.
        root: The surface's root.
        override: Reason to publish what the gates did not bless; recorded.
        supersede: Reason to replace other content of the same date; recorded.
        channel: Which pointer moves.

    Raises:
        UsageError: If a reason is given without a word in it.
        RefusedError: If the run is not blessed and there is no reason, or other content of its date is published and
            there is no reason, or there is no row to publish.
        StaleRunError: If a step is not finished.
        CorruptError: If a file is not what was recorded when it was written.
        ConflictError: If someone else stored this version or moved the pointer meanwhile.
    """
    require_words("publish", override=override, supersede=supersede)
    require_swaps(root)
    pointer = read_pointer(root, channel)  # first of all: who moves it from now on, moves it under us, and is found out
    earlier = earlier_release(root, run.date, channel)
    objection = _objection(run, earlier.version if earlier else None, channel)
    if objection and override is None:
        raise RefusedError(f"{objection}; to publish all the same, give --override REASON")
    manifest = manifest_of(run, earlier)
    if not manifest.rows(ReleaseLayout(run.folder).scores.name):
        raise RefusedError(f"{run.folder}: no user has a recommendation; zero rows are never published")
    layout = RootLayout(root).release(manifest.version)
    moves, note = _may_move(root, pointer, manifest, channel, supersede)
    overrides: list[dict[str, str]] = []
    if objection and override is not None:
        overrides.append({"rule": "the gates bless the run", "found": objection, "reason": override})
    if moves and supersede is not None and pointer is not None and pointer.date == manifest.date:
        overrides.append({"rule": "one content of a date", "found": pointer.version, "reason": supersede})

    stored = _store(run, replace(manifest, overrides=tuple(overrides)), layout)
    if moves and not stored:
        verify_release(layout.folder)
    release = Release(layout, Manifest.read(layout.manifest))
    if moves:
        reason = "; ".join(f"{entry['rule']}: {entry['reason']}" for entry in overrides)
        pointer, moves = _move(root, channel, pointer, point_at(release, pointer, reason=reason))
    return Published(
        version=release.version,
        folder=layout.folder,
        manifest_sha256=manifest_digest(layout),
        stored=stored,
        moved=moves,
        current=pointer is not None and pointer.version == release.version,
        held=pointer is not None and pointer.hold is not None,
        sequence=pointer.sequence if pointer else 0,
        note=f"{'stored' if stored else 'equal content was stored before, nothing is written'}; {note}",
    )


def outdated(run: Run, root: Path, channel: str = LATEST) -> str:
    """Say why the verdict that was given on *run* stands no longer; ``""`` if it stands, or none was given.

    Raises:
        StaleRunError: If a step is not finished.
        CorruptError: If the verdict, or the release to compare with, is changed.
    """
    report = _verdict(run)
    earlier = earlier_release(root, run.date, channel)
    return _outdated(report, run, earlier.version if earlier else None, channel) if report else ""


def _objection(run: Run, earlier: str | None, channel: str) -> str:
    """Say why the run is not blessed for readers of *channel*, who have had *earlier*; ``""`` if it is."""
    report = _verdict(run)
    if report is None:
        return f"{run.folder}: not checked yet; run `nightrec check --date {run.date}` first"
    if objection := _outdated(report, run, earlier, channel):
        return f"{objection}; {_again(run, channel)}"
    if report.failed:
        return f"{run.date}: refused by the gates {', '.join(verdict.name for verdict in report.failed)}"
    return ""


def _verdict(run: Run) -> GateReport | None:
    record = run.layout.record
    return GateReport.read(record, remedy="run `nightrec check`") if is_there(record.gates) else None


def _outdated(report: GateReport, run: Run, earlier: str | None, channel: str) -> str:
    gates = run.layout.record.gates
    if report.run_key != run.run_key or report.judged != judged_digest(run):
        return f"{gates}: judges other content than the run has now"
    if report.earlier != earlier:
        judged, had = report.earlier or "no earlier release", earlier or "none of an earlier date"
        return f"{gates}: compares with {judged}, but readers of {channel} have had {had}"
    return ""


def _again(run: Run, channel: str) -> str:
    return f"run `nightrec check --date {run.date}{'' if channel == LATEST else f' --channel {channel}'}` again"


def manifest_of(run: Run, earlier: Release | None) -> Manifest:
    """Say what *run* would be as a release, after *earlier*; overrides come to it when it is published.

    Raises:
        StaleRunError: If a step is not finished.
    """
    files = {
        name: ContentFile.of(sidecar_within(path, run.run_key)) for name, path in sorted(content_files(run).items())
    }
    ids = ("model_id", "bundle_id")
    bundles = {role: {name: said[name] for name in ids} for role, said in sorted(run.bundles.items())}
    return Manifest(run.date, run.run_key, bundles, earlier.version if earlier else None, files)


def _may_move(
    root: Path, pointer: Pointer | None, manifest: Manifest, channel: str, supersede: str | None
) -> tuple[bool, str]:
    """Say whether the pointer moves to a release, and why or why not."""
    if pointer is None:
        return True, f"{channel} names it, the first"
    if pointer.version == manifest.version:
        follow(root, channel)
        return False, f"{channel} names it already"
    if stays := _stays(pointer, manifest, channel):
        return False, stays
    if pointer.date < manifest.date:
        return True, f"{channel} names it, after {pointer.version}"
    if supersede is None:
        raise RefusedError(
            f"{channel} names {pointer.version}, other content of {manifest.date} than {manifest.version}; "
            "to replace it, give --supersede REASON"
        )
    return True, f"{channel} names it, in place of {pointer.version}"


def _stays(pointer: Pointer, manifest: Manifest, channel: str) -> str:
    """Say why a pointer does not move to a release, whatever reason is given; ``""`` if it may."""
    if pointer.hold:
        held = f"{channel} is held at {pointer.version} by {pointer.hold.who} ({pointer.hold.why})"
        return f"{held} until `nightrec releases resume`"
    if manifest.version in pointer.withdrawn:
        return (
            f"{channel} stays at {pointer.version}: a rollback took {manifest.version} back; "
            f"`nightrec releases promote {manifest.version}` gives it to readers again"
        )
    return f"{channel} stays at {pointer.version}, which is of a later date" if pointer.date > manifest.date else ""


def _store(run: Run, manifest: Manifest, layout: ReleaseLayout) -> bool:
    """Store a release; False if its equal is there already, or was stored by someone else meanwhile."""
    if is_there(layout.manifest):
        return False
    sweep_staged_folders(layout.folder.parent)
    try:
        with staged_folder(layout.folder) as folder:
            staged = ReleaseLayout(folder)
            for name, path in content_files(run).items():
                copy_verified(path, folder / name, manifest.files[name].size, manifest.files[name].sha256)
            _store_record(run, staged.record)
            _tell(staged.record, manifest)
            manifest.write(staged.manifest)
    except ConflictError:
        if not is_there(layout.manifest):
            raise
        return False
    if manifest.overrides and is_there(run.layout.record.contents):
        with recording(run) as record:
            _tell(record, manifest)
    return True


def _move(root: Path, channel: str, before: Pointer | None, pointer: Pointer) -> tuple[Pointer, bool]:
    """Move a pointer; give what it says then, and False if someone else moved it to this very release meanwhile."""
    try:
        move_pointer(root, channel, expected=before, pointer=pointer)
    except ConflictError:
        now = read_pointer(root, channel)
        if now is None or now.version != pointer.version:
            raise
        return now, False
    return pointer, True


def _store_record(run: Run, staged: RecordLayout) -> None:
    """Take over what was recorded of the run and what it was made with."""
    with recording(run) as of_run:
        listed = read_record(of_run) if is_there(of_run.contents) else {}
        for name, file in listed.items():
            copy_verified(of_run.folder / name, staged.folder / name, file.size, file.sha256)
    documents: dict[Path, Any] = {staged.run: run.document()}
    if is_there(run.layout.timings):
        with suppress(CorruptError):  # cut short as the power went: a release is worth more than how long it took
            documents[staged.timings] = read_sealed(run.layout.timings, version=1)
    write_record(staged, documents, listed=listed)


def _tell(record: RecordLayout, manifest: Manifest) -> None:
    """Say on a recorded report, which tells what the gates said, that rules were overridden, which and why."""
    if not manifest.overrides or record.report.name not in read_record(record):
        return
    page = fetched(verify_record_file(record, record.report)).read_text("utf-8")
    for entry in manifest.overrides:
        said = f"Published all the same, as {manifest.version}. Reason given: {entry['reason']}."
        page = told(page, Note(f'{said} Overridden: "{entry["rule"]}" ({entry["found"]}).', "warn"))
    write_record(record, {record.report: page.encode()})


def copy_verified(source: Path, target: Path, size: int, sha256: str) -> None:
    """Copy a file, and compare what is copied with what was recorded when it was written.

    Raises:
        CorruptError: If it is missing, or its bytes are others.
    """
    fetched(source, sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, copied = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(_CHUNK):
            digest.update(chunk)
            copied += len(chunk)
            writing.write(chunk)
    if copied != size or digest.hexdigest() != sha256:
        raise CorruptError(
            f"{source}: expected {size} bytes with sha256 {sha256}, found {copied} with {digest.hexdigest()}; "
            "its bytes were changed after it was written: remove it and run its step again"
        )
