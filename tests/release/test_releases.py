"""The verbs on stored releases, and reading one user's recommendations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts.errors import CorruptError, UsageError
from artifacts.run import Run
from release.pointer import versions
from release.publish import Published
from release.read import recommendations
from release.releases import list_releases, rollback, show, verify

Make = Callable[..., Run]


def test_list_tells_what_there_is(released: Callable[..., Published], tmp_path: Path) -> None:
    """Each release is listed once, oldest first, with its rows, its parent and the pointers that name it."""
    assert list_releases(tmp_path) == []
    first, second = released(), released(date="2026-03-02", shift=1)
    (tmp_path / "releases" / ".staging-dead").mkdir()
    found = list_releases(tmp_path)
    assert [one.version for one in found] == [first.version, second.version]
    assert [one.channels for one in found] == [(), ("LATEST",)]
    assert [(one.users, one.items, one.rows, one.parent) for one in found] == [
        (60, 40, 600, None),
        (60, 40, 600, first.version),
    ]
    rollback(tmp_path, first.version, who="me", why="a drill")
    assert [one.held for one in list_releases(tmp_path)] == [("LATEST",), ()]


def test_unreadable_release_is_listed_with_its_problem(released: Callable[..., Published], tmp_path: Path) -> None:
    """One broken manifest does not hide the other releases."""
    first, second = released(), released(date="2026-03-02", shift=1)
    (first.folder / "manifest.json").write_text("{")
    broken, whole = list_releases(tmp_path)
    assert "manifest.json" in broken.problem
    assert (whole.version, whole.problem) == (second.version, "")


def test_show_tells_manifest_index_and_verdict(released: Callable[..., Published], tmp_path: Path) -> None:
    """What is shown comes from manifest, index and record, and can be written as JSON."""
    published = released()
    told = show(tmp_path)
    assert told["version"] == published.version
    assert told["gates"]["passed"] is True
    assert told["overrides"] == []
    assert told["index"]["recall"] == 0.99
    assert told["pointers"]["LATEST"]["sequence"] == 1
    assert (told["users"], told["items"], told["rows"]) == (60, 40, 600)
    json.dumps(told)
    with pytest.raises(UsageError, match=f"did you mean {published.version}"):
        show(tmp_path, published.version[:-1])


def test_any_changed_byte_is_found_by_name(released: Callable[..., Published], tmp_path: Path) -> None:
    """Verify passes on a whole release and fails by name after any one byte of any of its files is changed."""
    published = released()
    assert verify(tmp_path).version == published.version
    paths = sorted(path for path in published.folder.rglob("*") if path.is_file())
    assert len(paths) == 12

    @given(path=st.sampled_from(paths), place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def changed(path: Path, place: float, change: int) -> None:
        whole = path.read_bytes()
        data = bytearray(whole)
        data[int(place * len(data))] ^= change
        path.write_bytes(data)
        try:
            with pytest.raises(CorruptError, match=path.name):
                verify(tmp_path, published.version)
        finally:
            path.write_bytes(whole)

    changed()
    verify(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "record/record.json", "record/gates.json"])
def test_every_byte_of_the_small_files_counts(released: Callable[..., Published], tmp_path: Path, name: str) -> None:
    """No byte of manifest or record can change unnoticed, the digits of its own digest and its spaces included."""
    path = released().folder / name
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 100)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptError, match=path.name):
            verify(tmp_path, versions(tmp_path)[0])


def test_missing_unlisted_truncated_and_swapped_files_are_all_named(
    released: Callable[..., Published], tmp_path: Path
) -> None:
    """One call names everything that is wrong, a line for each file."""
    published = released()
    scores = published.folder / "scores"
    (published.folder / "index" / "ivf.faiss").unlink()
    (published.folder / "scores" / "more.arrow").write_bytes(b"")
    (published.folder / "record" / "note.txt").write_text("hello")
    one, two = scores / "00000-of-00002.arrow", scores / "00001-of-00002.arrow"
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(b)
    two.write_bytes(a)
    items = published.folder / "items" / "00000-of-00001.arrow"
    items.write_bytes(items.read_bytes()[:-1])
    with pytest.raises(CorruptError) as error:
        verify(tmp_path)
    lines = str(error.value).splitlines()
    for name in ("ivf.faiss", "more.arrow", "note.txt", one.name, two.name, "items/00000"):
        assert sum(name in line for line in lines) == 1, name
    assert len(lines) == 6


def test_renamed_release_is_found(released: Callable[..., Published], tmp_path: Path) -> None:
    """A folder under another release's name is found, though each of its bytes is whole."""
    published = released()
    other = published.folder.with_name("2026-03-01-000000000000")
    published.folder.rename(other)
    with pytest.raises(CorruptError, match="000000000000"):
        verify(tmp_path, other.name)


def test_recommendations_of_every_user_are_read_back(released: Callable[..., Published], tmp_path: Path) -> None:
    """Each user's rows come out as they went in, in order of rank."""
    published = released(users=list(range(-20, 30)))
    for user in range(-20, 30):
        found = recommendations(tmp_path, str(user))
        assert (found.version, found.user) == (published.version, user)
        assert found.rows["item_id"].to_pylist() == [1000 + (user + rank) % 40 for rank in range(10)]
        assert found.rows["rank"].to_pylist() == list(range(1, 11))
        assert set(found.rows["user_id"].to_pylist()) == {user}


def test_rows_of_a_user_across_record_batches_are_all_found(
    released: Callable[..., Published], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user whose rows lie in several record batches has them all."""
    monkeypatch.setattr("artifacts.tables.BATCH_ROWS", 4)
    released()
    for user in (100, 101, 130, 158, 159):
        assert recommendations(tmp_path, str(user)).rows.num_rows == 10


@pytest.mark.parametrize(
    ("kind", "users", "unknown", "near"),
    [
        ("int64", list(range(100, 160)), "99", "100, 101"),
        ("int64", list(range(100, 160)), "1000", "159, 158"),
        ("uint64", [2**64 - 3, 2**64 - 1], str(2**64 - 2), str(2**64 - 3)),
        ("string", ["anna", "annika", "bob"], "anne", "anna, annika"),
    ],
)
def test_unknown_user_is_told_the_nearest(
    released: Callable[..., Published], tmp_path: Path, kind: str, users: list[Any], unknown: str, near: str
) -> None:
    """An unknown id is one message that names the release and the nearest ids, for each type of id."""
    released(users=users, user_type=kind)
    assert recommendations(tmp_path, str(users[0])).user == users[0]
    with pytest.raises(UsageError, match=f"user {unknown}: .*the nearest are {near}"):
        recommendations(tmp_path, unknown)


@pytest.mark.parametrize("user", ["anna", "1.5", "", str(2**63), "-1e3"])
def test_id_of_another_type_is_a_usage_error(released: Callable[..., Published], tmp_path: Path, user: str) -> None:
    """Text that is no id of the release's type says which type it has."""
    released()
    with pytest.raises(UsageError, match="int64"):
        recommendations(tmp_path, user)


def test_changed_shard_gives_no_rows(released: Callable[..., Published], tmp_path: Path) -> None:
    """A user is never read from a shard that was changed, nor called unknown by one."""
    published = released()
    for shard in (0, 1):
        path = published.folder / "scores" / f"0000{shard}-of-00002.arrow"
        whole = path.read_bytes()
        data = bytearray(whole)
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptError, match=path.name):
            recommendations(tmp_path, str(100 + shard))
        with pytest.raises(CorruptError, match=path.name):
            recommendations(tmp_path, "5")
        path.write_bytes(whole)
