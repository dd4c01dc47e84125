"""Arrays in nameless files: only past what a process holds, zeros until they are written, gone with the array."""

import mmap
import resource

import numpy as np
import pytest

from artifacts.errors import NightrecError
from features import mapped
from features.mapped import blocks, drawn, joined, zeros


@pytest.mark.parametrize("more", [False, True])
def test_what_is_more_than_is_held_lies_in_a_file(monkeypatch, tmp_path, more):
    """12 rows of 5 float32 are 240 bytes: with as many held it is memory, with a byte less a file without a name."""
    monkeypatch.setattr(mapped, "HELD", 240 - more)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    array = zeros((12, 5), np.float32)

    assert array.shape == (12, 5)
    assert array.dtype == np.float32
    assert not array.any()
    array[3, 4] = 2.5
    assert array.sum() == 2.5
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap) == more
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_said(tmp_path):
    """An array that no disk can hold is refused with its size before anything is written to it."""
    with pytest.raises(NightrecError, match=r"expected room for 4,611,686,018,427,387,904 bytes, found less"):
        mapped.mapped((2**62,), np.int8, tmp_path)
    assert mapped.mapped((0, 3), np.int8, tmp_path).shape == (0, 3)


def test_parts_are_joined_as_numpy_does_in_files_without_a_name(monkeypatch, tmp_path):
    """Columns of different kinds, widths and lengths, parts of none too; what comes is an array that may be changed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    random = np.random.default_rng(1)
    parts = [
        (
            random.integers(0, 9, rows),
            random.random((2 * rows, 3)).astype(np.float32)[:, ::-1],
            random.random(rows) < 0.5,
        )
        for rows in (3, 0, 5, 1)
    ]

    columns = joined(iter(parts))

    for column, pieces in zip(columns, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(column, np.concatenate(pieces))
        assert column.dtype == pieces[0].dtype
    columns[0].sort()
    assert list(tmp_path.iterdir()) == []
    assert [(one.shape, one.dtype) for one in joined([(np.zeros((0, 4), np.int8), np.zeros((2, 0), np.int16))])] == [
        ((0, 4), np.int8),
        ((2, 0), np.int16),
    ]


def test_parts_for_which_there_is_no_room_are_refused(monkeypatch, tmp_path):
    """The message names the folder and what it had to hold; a file may be of 10 bytes here, and gets 16."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(NightrecError, match=f"{tmp_path}: expected room for 16 bytes, found less"):
            joined([(np.zeros(8, np.int8),), (np.zeros(4, np.int16),)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_numbers_are_drawn_as_at_once(monkeypatch):
    """In the same order, whatever the blocks; what is drawn next follows them."""
    monkeypatch.setattr(mapped, "ROWS", 4)
    random, expected = np.random.default_rng(3), np.random.default_rng(3)
    for shape in ((5, 3), (0,), (9,)):
        np.testing.assert_array_equal(drawn(random, shape), expected.random(shape))


def test_rows_are_cut_into_blocks(monkeypatch):
    """All of them once, in order; none are one block of none."""
    monkeypatch.setattr(mapped, "ROWS", 3)
    assert list(blocks(7)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(blocks(3)) == [slice(0, 3)]
    assert list(blocks(0)) == [slice(0, 0)]


@pytest.mark.parametrize(
    "make", [lambda: mapped.mapped((5,), np.int8), lambda: joined([[np.zeros(5)]])], ids=["mapped", "joined"]
)
def test_where_no_temporary_file_can_be_made_the_variable_to_set_is_named(make, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(NightrecError, match=r"expected to make a file there, .*No such file.*TMPDIR"):
        make()
