"""How a process ends that was told to stop: in order where it can, and in any case within ten seconds."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 8.0  # seconds until a process that cannot end in order is ended
_asked: list[int] = []  # the signal that told this process to stop


class Stopped(BaseException):
    """A signal asked us to stop; no part of the program may catch this and go on."""

    def __init__(self, number: int) -> None:
        """Remember the signal's *number*."""
        super().__init__(number)
        self.number = number


def catch_signals(*numbers: int, farewell: Callable[[int], None]) -> None:
    """Raise :class:`Stopped` in the main thread when one of the signals *numbers* comes, unless it is ignored.

    Python hears of a signal between two steps of its own: not in a long query, training or run of a graph. So a
    thread of its own watches: if the process has not ended ``GRACE`` seconds later, it is ended where it stands.
    Nothing is lost by that, since files are staged, and only named when they are whole.

    Args:
        numbers: Signals.
        farewell: Told the signal before the process is ended by force.
    """
    caught = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]

    def stop(number: int, frame: FrameType | None) -> None:
        for other in caught:
            signal.signal(other, signal.SIG_IGN)  # what must be tidied up is not interrupted by a second one
        _asked.append(number)
        raise Stopped(number)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # written to by the system's handler, at once
    for number in caught:
        signal.signal(number, stop)

    def watch() -> None:
        while (number := os.read(reading, 1)[0]) not in caught:
            pass
        end_by_force(number, farewell)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def stopping_as_itself() -> Iterator[None]:
    """Let :class:`Stopped` leave the block as itself, where a library has made another error of it on its way."""
    try:
        yield
    except BaseException as error:
        if _asked and not isinstance(error, Stopped):
            raise Stopped(_asked[0]) from error
        raise


def end_by_force(number: int, farewell: Callable[[int], None] = lambda number: None) -> None:
    """Give this process ``GRACE`` seconds to end by itself, then end it with the exit code of the signal *number*."""
    time.sleep(GRACE)
    speaker = threading.Thread(target=farewell, args=(number,), daemon=True)  # whom nobody need listen to any more
    speaker.start()
    speaker.join(1)
    os._exit(128 + number)
