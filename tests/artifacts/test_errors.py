"""What the machine lacks is an error of ours, in words; a mistake of the program is not."""

import errno

import pytest

from artifacts.errors import NightrecError, trouble_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/store/x"), "/store/x: no space left on device; what is"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only file system; what is finished stays"),
        (OSError(errno.EMFILE, "Too many open files", "/store/y"), "/store/y: too many open files"),
        (PermissionError(errno.EACCES, "Permission denied", "/store/z"), "/store/z: permission denied"),
        (MemoryError(), r"memory does not suffice \(an allocation failed\)"),
        (RuntimeError("can't start new thread"), r"threads allowed, does not suffice \(can't start new thread\)"),
    ],
)
def test_what_the_machine_lacks_may_be_tried_again(error: Exception, words: str) -> None:
    """Disk, rights, descriptors, memory and threads are named in one line, with code 1."""
    trouble = trouble_of(error)

    assert isinstance(trouble, NightrecError)
    assert trouble.exit_code == 1
    with pytest.raises(NightrecError, match=words):
        raise trouble


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("x"), OSError("of another"), FileNotFoundError(errno.ENOENT, "no")]
)
def test_a_mistake_of_ours_is_no_trouble_of_the_machine(error: Exception) -> None:
    """What nobody foresaw is told as such."""
    assert trouble_of(error) is None
