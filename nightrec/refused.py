"""A night that is refused before its gates could judge it: its page stands until the night is done after all."""

from collections.abc import Iterator
from contextlib import contextmanager

from artifacts.errors import InputError, NightrecError, RefusedError
from artifacts.layout import RootLayout
from artifacts.store import remove_file
from nightrec.config import Config
from nightrec.terminal import say


@contextmanager
def keeping_refusal(config: Config, date: str, step: str, channel: str) -> Iterator[None]:
    """Leave a page about the night of *date* if the block refuses it; the refusal itself goes on as it is.

    What is not there yet, a wrong config and a machine that fails refuse no night.

    Args:
        config: The surface.
        date: The data date, ISO.
        step: What the block does of the night.
        channel: Whose readers the page speaks of.
    """
    try:
        yield
    except (RefusedError, InputError) as error:
        _keep(config, date, step, error, channel)
        raise


def _keep(config: Config, date: str, step: str, error: NightrecError, channel: str) -> None:
    """Write the page; a refusal is worth more than a page about it, so what goes wrong is said and no more."""
    try:
        from release.refusal import write_refusal

        troubles = write_refusal(config.root, date, step, error, channel=channel)
    except Exception as trouble:
        say(f"nightrec: the page about the refusal could not be made; {type(trouble).__name__}: {trouble}")
        return
    for line in troubles:
        say(f"nightrec: the page about the refusal lacks a part; {line}")
    say(f"nightrec: `nightrec report {date}` says where a page lies that shows why the night is refused")


def forget_refusal(config: Config, date: str) -> None:
    """Remove the page of an earlier try, which the night has put right; what goes wrong is said and no more."""
    try:
        remove_file(RootLayout(config.root).refusal(date))
    except (NightrecError, OSError) as trouble:
        say(f"nightrec: the page of an earlier refusal stays; {type(trouble).__name__}: {trouble}")
