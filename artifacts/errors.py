"""Everything that goes wrong on purpose, and the exit code each kind ends with.

* NightrecError          1  failed, may be tried again
  - UsageError           2  wrong usage or config
  - RefusedError         3  a gate, or a rule of publishing, said no
  - InputError           4  the input is wrong; trying again changes nothing
    + CorruptError       4  a file is missing, or its bytes are not those that were written
  - ConflictError        4  someone else published meanwhile
  - NotReadyError        5  the input is not there yet
  - ParityError          1  an exported graph does not do what its source does
  - DeviceError          1  the device asked for is not what we got
  - StoreError           1  the object store cannot be reached, or fails
    + RefusedByStoreError 1 it refuses us, which no waiting changes
  - StaleRunError        1  a step was asked of a run that another step has not finished, or on another profile
"""

import errno
import traceback
from collections.abc import Sequence


class NightrecError(Exception):
    """Base of every error raised on purpose: one message for a person, and an exit code."""

    exit_code = 1


class UsageError(NightrecError):
    """The command line or the config asks for something that cannot be."""

    exit_code = 2


class RefusedError(NightrecError):
    """A gate refused the night, or a rule of publishing refused the release."""

    exit_code = 3

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        """Say the whole *message*; *reasons* are the lines of it that stand for one gate each."""
        super().__init__(message)
        self.reasons = tuple(reasons)


class InputError(NightrecError):
    """Data given to us is wrong: the message names file, column, row or key."""

    exit_code = 4


class CorruptError(InputError):
    """A file is missing, or holds other bytes than were recorded when it was written."""


class ConflictError(NightrecError):
    """Someone else moved a pointer or wrote a version meanwhile."""

    exit_code = 4


class NotReadyError(NightrecError):
    """The day's input is not there yet, its files or its events; try again later."""

    exit_code = 5


class ParityError(NightrecError):
    """An exported graph differs from its source; the message says in which case and by how much."""


class DeviceError(NightrecError):
    """The device asked for is missing, or the runtime silently chose another."""


class StoreError(NightrecError):
    """The object store cannot be reached, refuses us, or does not do what pointers rest on."""


class RefusedByStoreError(StoreError):
    """What no waiting changes: our credentials, our rights, or that there is no such bucket."""


class StaleRunError(NightrecError):
    """A step needs what an earlier step has not finished, or the run was made under another profile."""


_MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EIO}
    | {errno.ENOMEM, errno.ESTALE, errno.ENOTDIR, errno.EISDIR}
)


def trouble_of(error: Exception) -> NightrecError | None:
    """Say in our words what the machine lacks: memory, threads, disk, rights, descriptors; None for another *error*."""
    again = "what is finished stays: put that right and run the same command again"
    no_thread = isinstance(error, RuntimeError) and str(error) == "can't start new thread"  # it has no kind of its own
    if isinstance(error, MemoryError) or no_thread:
        lacking = "memory, or the number of threads allowed," if no_thread else "memory"
        return NightrecError(
            f"{lacking} does not suffice ({str(error) or 'an allocation failed'}); {again}, or with less at once"
        )
    if isinstance(error, OSError) and error.errno in _MACHINE:
        where = f"{error.filename}: " if error.filename else ""
        return NightrecError(f"{where}{(error.strerror or '').lower()}; {again}")
    return None


def told_by_worker(error: Exception) -> Exception:
    """Make of an *error* what any other process can read: as it was where it is ours, else its traceback as text."""
    if isinstance(error, NightrecError):
        return error
    text = "".join(traceback.format_exception(error))
    return trouble_of(error) or RuntimeError(f"in a worker process:\n{text}")
