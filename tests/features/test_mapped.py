"""Arrays in nameless files: only past what a process holds, zeros until they are written, gone with the array."""

import mmap

import numpy as np
import pytest

from artifacts.errors import NightrecError
from features import mapped
from features.mapped import zeros


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
