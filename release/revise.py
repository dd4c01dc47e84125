"""Revising: a stored release without some users and items, as a release of its own, in minutes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from artifacts.documents import read_json
from artifacts.errors import ConflictError, CorruptError, RefusedError, UsageError
from artifacts.layout import RecordLayout, ReleaseLayout, RootLayout
from artifacts.release import ContentFile, Manifest, read_record, verify_release, write_record
from artifacts.store import fetched, is_there, scratch_folder, staged_folder, sweep_staged_folders
from artifacts.tables import opening_arrow
from release.ids import read_ids
from release.pointer import (
    LATEST,
    Release,
    channels,
    find_release,
    move_pointer,
    point_at,
    read_pointer,
    require_words,
    versions,
)
from release.publish import copy_verified
from release.without import Gone, concerns, ids_in, lists_emptied, rows_gone, write_index_without, write_rows_without

FORMAT = 1
AT_MOST = 0.1


@dataclass(frozen=True, slots=True)
class TakenOut:
    """What was taken out of a release, counted; the ids themselves are written nowhere.

    Attributes:
        users: Users.
        items: Items.
        rows: Recommendations.
        emptied: Users who stay, and have no recommendation left.
        unknown_users: Ids given that are no user of the release.
        unknown_items: Ids given that are no item of the release.
    """

    users: int
    items: int
    rows: int
    emptied: int
    unknown_users: int
    unknown_items: int


@dataclass(frozen=True, slots=True)
class Revised:
    """What revising did.

    Attributes:
        version: The release without the ids; the old one, where none of them was in it.
        revised_from: The release that it comes from.
        taken_out: What was taken out.
        stored: Whether it was written now; False if there was nothing to do, or equal content was there already.
        moved: Channels that named the old release, and name the new one now.
        others: Other stored releases, which were not looked into and may hold the same ids; oldest first.
    """

    version: str
    revised_from: str
    taken_out: TakenOut
    stored: bool
    moved: tuple[str, ...]
    others: tuple[str, ...]


def revise(
    root: Path,
    version: str | None = None,
    *,
    who: str,
    why: str,
    drop_users: Path | None = None,
    drop_items: Path | None = None,
    at_most: float = AT_MOST,
    channel: str = LATEST,
    threads: int = 1,
) -> Revised:
    """Derive a release without some users and items from a stored one, and let all channels that name that name it.

    The new release has the old one's date, run and parent; its record names the release that it comes from, and holds
    no report of that. The same ids give the same bytes. The old release stays until it is pruned.

    Args:
        root: The surface's root.
        version: The release; the one that *channel* names if None.
        who: Who asks; recorded.
        why: The reason; recorded, also as that for which the pointers move to other content of the date.
        drop_users: File of user ids, read by :func:`release.ids.read_ids`.
        drop_items: File of item ids.
        at_most: Share of the users, and of the items, that may go: more is rather a wrong file of ids.
        channel: Which pointer to follow where no version is given.
        threads: Files that are written at a time; each takes some 100 MB.

    Raises:
        UsageError: If no ids, name or reason are given, or there is no such release.
        InputError: If a file of ids holds something else.
        RefusedError: If more than *at_most* of the users or items would go, or no row or no item would be left.
        CorruptError: If the release is not whole.
        ConflictError: If someone else moved a pointer meanwhile, also one that was followed here.
    """
    require_words("revise", who=who, reason=why)
    if drop_users is None and drop_items is None:
        raise UsageError("revise: expected --drop-users or --drop-items, or both; found neither")
    release = find_release(root, version, channel)
    verify_release(release.layout.folder)
    recorded = sorted(release.manifest.files.items())
    paths = {name: fetched(release.layout.folder / name, file.sha256) for name, file in recorded}
    given = _given(release, list(paths.values()), drop_users, drop_items)
    gone = Gone(
        ids_in(_inside(paths, release.layout.interests), "user_id", given.users),
        ids_in(_inside(paths, release.layout.items), "item_id", given.items),
    )
    if len(gone.users) + len(gone.items) == 0:
        nothing = TakenOut(0, 0, 0, 0, len(given.users), len(given.items))
        return Revised(release.version, release.version, nothing, False, (), _others(root, release.version))
    _require_few(release, gone, at_most)
    sweep_staged_folders(RootLayout(root).releases)
    with scratch_folder(RootLayout(root).releases) as work:
        files = _write(release, ReleaseLayout(work), paths, gone, threads)
        old = release.manifest
        manifest = Manifest(old.date, old.run_key, old.bundles, old.parent, files, old.overrides)
        taken_out = _counted(release, manifest, paths, given, gone)
        stored = _store(root, release, manifest, work, {"who": who, "why": why, **asdict(taken_out)})
    moved = _move(root, release, manifest, channel, f"revised from {release.version} by {who}: {why}")
    if version is None and channel not in moved:
        raise ConflictError(
            f"{channel} has gone on from {release.version} meanwhile, and what it names now may hold the same ids; "
            "revise that too"
        )
    others = _others(root, release.version, manifest.version)
    return Revised(manifest.version, release.version, taken_out, stored, moved, others)


def _require_few(release: Release, gone: Gone, at_most: float) -> None:
    layout, manifest = release.layout, release.manifest
    for what, folder, ids in (("users", layout.interests, gone.users), ("items", layout.items, gone.items)):
        total = manifest.rows(folder.name)
        if len(ids) > at_most * total:
            raise RefusedError(
                f"{release.version}: {len(ids)} of {total} {what} would go, expected at most {at_most:g} of them; "
                "is it the right file? If it is, give --at-most"
            )


def _inside(paths: dict[str, Path], folder: Path) -> list[Path]:
    return [path for path in paths.values() if path.parent == folder]


def _others(root: Path, *but: str) -> tuple[str, ...]:
    return tuple(version for version in versions(root) if version not in but)


def _given(release: Release, paths: Sequence[Path], users: Path | None, items: Path | None) -> Gone:
    """Read the files of ids, each of the type that the release has."""
    scores = [path for path in paths if path.parent == release.layout.scores]
    if not scores:
        raise CorruptError(f"{release.layout.manifest}: expected a table of scores, found none")
    with opening_arrow(scores[0]) as reader:
        kinds = (reader.schema.field("user_id").type, reader.schema.field("item_id").type)
    read = [
        read_ids(path, kind) if path else pa.array([], kind) for path, kind in zip((users, items), kinds, strict=True)
    ]
    return Gone(*read)


def _write(
    release: Release, target: ReleaseLayout, paths: dict[str, Path], gone: Gone, threads: int
) -> dict[str, ContentFile]:
    """Write the content without what is *gone*; a file that it does not concern is copied as it is."""
    source, old = release.layout, release.manifest.files

    def copy(name: str) -> ContentFile:
        copy_verified(paths[name], target.folder / name, old[name].size, old[name].sha256)
        return old[name]

    def write(name: str) -> ContentFile:
        return (
            write_rows_without(paths[name], target.folder / name, gone) if concerns(paths[name], gone) else copy(name)
        )

    of_index = [name for name, path in paths.items() if path.parent == source.index.folder]
    tables = [name for name in paths if name not in of_index]
    pool = ThreadPoolExecutor(threads)
    try:
        files = dict(zip(tables, pool.map(write, tables), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
    rows = rows_gone(_inside(paths, source.items), gone)
    if not rows.any():
        return files | {name: copy(name) for name in of_index}
    if rows_gone([source.index.items], gone).all():
        raise RefusedError(f"{release.version}: no item of its index would be left; zero items are never published")
    index = write_index_without(source.index, target.index, gone, rows)
    return files | {f"{source.index.folder.name}/{name}": file for name, file in index.items()}


def _counted(release: Release, manifest: Manifest, paths: dict[str, Path], given: Gone, gone: Gone) -> TakenOut:
    scores = release.layout.scores
    if not manifest.rows(scores.name):
        raise RefusedError(f"{release.version}: no recommendation would be left; zero rows are never published")
    return TakenOut(
        users=len(gone.users),
        items=len(gone.items),
        rows=release.manifest.rows(scores.name) - manifest.rows(scores.name),
        emptied=sum(lists_emptied(path, gone) for path in _inside(paths, scores)) if len(gone.items) else 0,
        unknown_users=len(given.users) - len(gone.users),
        unknown_items=len(given.items) - len(gone.items),
    )


def _store(root: Path, release: Release, manifest: Manifest, work: Path, said: dict[str, object]) -> bool:
    """Give the content in *work* its place and its record; verify it, or what has stood there before."""
    layout = RootLayout(root).release(manifest.version)
    stored = not is_there(layout.manifest)
    if stored:
        with staged_folder(layout.folder) as folder:
            staged = ReleaseLayout(folder)
            for part in sorted(work.iterdir()):
                part.rename(folder / part.name)
            _write_record(release.layout.record, staged.record, {"revised_from": release.version, **said})
            manifest.write(staged.manifest)
    verify_release(layout.folder)
    return stored


def _write_record(old: RecordLayout, staged: RecordLayout, said: dict[str, object]) -> None:
    """Take over the record, but for the report, which may tell of people; add where the release comes from, and why."""
    staged.folder.mkdir()
    listed = {name: file for name, file in read_record(old).items() if name != old.report.name}
    for name, file in listed.items():
        copy_verified(fetched(old.folder / name), staged.folder / name, file.size, file.sha256)
    before = read_json(old.revision).get("revisions", []) if old.revision.name in listed else []
    listed.pop(old.revision.name, None)
    document = {"format": FORMAT, "revisions": [*before, said]}
    write_record(staged, {staged.revision: document}, listed=listed)


def _move(root: Path, release: Release, manifest: Manifest, followed: str, reason: str) -> tuple[str, ...]:
    """Let every channel that names the old release name the new one; a hold stays.

    The channel that was *followed* comes last: as long as one of the others waits, asking again leads here.
    """
    revised = Release(RootLayout(root).release(manifest.version), manifest)
    moved = []
    for channel in sorted(channels(root), key=lambda name: (name == followed, name)):
        before = read_pointer(root, channel)
        if before is not None and before.version == release.version:
            after = point_at(revised, before, hold=before.hold, reason=reason)
            move_pointer(root, channel, expected=before, pointer=after)
            moved.append(channel)
    return tuple(moved)
