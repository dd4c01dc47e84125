"""More pointers than one: what a night is compared with, and what its verdict is good for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.errors import RefusedError
from artifacts.layout import RootLayout
from artifacts.run import Run
from release.check import check
from release.pointer import earlier_release, read_pointer
from release.publish import Published, publish

Make = Callable[..., Run]


def released(run: Run, root: Path, channel: str = "LATEST") -> Published:
    check(run, root, channel=channel, threads=1)
    return publish(run, root, channel=channel)


def test_a_channel_is_compared_with_its_own_earlier_release(night: Make, tmp_path: Path) -> None:
    """Each channel has its own first night, and after it the release of its own that lies before."""
    first = released(night(), tmp_path)
    shadow = night(date="2026-03-02", shift=1)
    assert check(shadow, tmp_path, channel="shadow", threads=1).earlier is None
    one = publish(shadow, tmp_path, channel="shadow")
    later = night(date="2026-03-03", shift=1)
    assert check(later, tmp_path, channel="shadow", threads=1).earlier == one.version
    assert check(later, tmp_path, threads=1).earlier == first.version


def test_a_release_of_another_channel_is_no_yardstick(night: Make, tmp_path: Path) -> None:
    """What only readers of another channel have had is passed over, though it is the newest before the date."""
    first = released(night(), tmp_path)
    released(night(date="2026-03-02", shift=5), tmp_path, "shadow")
    released(night(date="2026-03-03", shift=1), tmp_path)
    found = earlier_release(tmp_path, "2026-03-03")
    assert found is not None
    assert found.version == first.version


def test_a_verdict_for_one_channel_is_none_for_another(night: Make, tmp_path: Path) -> None:
    """A first night of the shadow is compared with nothing; that does not bless it for readers of LATEST."""
    first = released(night(), tmp_path)
    run = night(date="2026-03-02", shift=1)
    released(run, tmp_path, "shadow")
    with pytest.raises(RefusedError, match=rf"no earlier release.*{first.version}.*check --date 2026-03-02`"):
        publish(run, tmp_path)
    before = read_pointer(tmp_path)
    assert before is not None
    assert before.version == first.version
    moved = released(run, tmp_path)
    assert (moved.moved, moved.stored) == (True, False)


def test_a_lost_latest_makes_no_first_night(night: Make, tmp_path: Path) -> None:
    """Without the pointer the newest stored release of an earlier date is compared with, and a bad night is refused."""
    released(night(), tmp_path)
    newest = released(night(date="2026-03-02", shift=1), tmp_path)
    RootLayout(tmp_path).latest.unlink()
    few = night(date="2026-03-03", shift=1, users=[100, 101, 102])
    with pytest.raises(RefusedError, match=rf"users_lost.*{newest.version}"):
        check(few, tmp_path, threads=1)
    with pytest.raises(RefusedError, match="refused by the gates"):
        publish(few, tmp_path)
    assert released(night(date="2026-03-03", shift=2), tmp_path).sequence == 1
