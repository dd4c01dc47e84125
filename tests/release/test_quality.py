"""A new model is judged by what people really did on the data date, and the same model by what it says of yesterday."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from artifacts.errors import CorruptError, RefusedError
from artifacts.run import Run, replay_of
from release.check import check
from release.publish import publish
from release.quality import Hits
from release.verdicts import State, Verdict

Make = Callable[..., Run]
USERS = list(range(100, 400))


def root_of(run: Run):
    return run.folder.parents[2]


def released(run: Run) -> None:
    check(run, root_of(run), threads=1)
    publish(run, root_of(run))


def judged(run: Run, **options: Any) -> tuple[dict[str, Verdict], dict[str, float]]:
    """Check *run*; give its verdicts and its figures."""
    with suppress(RefusedError):
        check(run, root_of(run), threads=1, **options)
    document = json.loads(run.layout.record.gates.read_text())
    return {v["name"]: Verdict(**{**v, "state": State(v["state"])}) for v in document["verdicts"]}, document["figures"]


def did(at: Callable[[int], list[int]]) -> dict[int, list[int]]:
    """Each user's catalogue rows on the data date, relative to where the list of a night without a shift begins."""
    return {user: sorted((user + place) % 40 for place in at(user)) for user in USERS}


def test_new_model_that_finds_as_much_passes_and_says_how_much(night: Make) -> None:
    """Both lists hold the first of each user's two events and neither the second: the rates are a half."""
    released(night(users=USERS))
    run = night(date="2026-03-02", users=USERS, model="2", shift=5, replayed_shift=0, replayed=did(lambda u: [3, 20]))
    verdicts, figures = judged(run)
    assert verdicts["hit_rate_lost"].state is State.PASS
    assert verdicts["hit_rate_lost"].value == 0
    assert "hit rate 0.5000 before, 0.5000 now, of 600 events of 300 users" in verdicts["hit_rate_lost"].why
    assert (figures["hit_rate"], figures["hit_rate_earlier"]) == (0.5, 0.5)


def test_new_model_that_finds_less_is_refused(night: Make) -> None:
    """The old lists held the events of all users, the new ones those of two thirds: nearly a third is lost for sure."""
    released(night(users=USERS))
    happened = did(lambda user: [9] if user % 3 else [0])  # the new lists begin one further on, and end one further on
    run = night(date="2026-03-02", users=USERS, model="2", replayed_shift=1, replayed=happened)
    verdict = judged(run)[0]["hit_rate_lost"]
    each = np.where(np.array(USERS) % 3, 0, -1)
    error = np.sqrt(len(USERS) * each.var(ddof=1))
    assert verdict.state is State.FAIL
    assert verdict.value == pytest.approx((100 - 1.644854 * error) / 300)


def test_new_model_that_finds_more_passes(night: Make) -> None:
    """What is gained is no loss."""
    released(night(users=USERS))
    run = night(date="2026-03-02", users=USERS, model="2", replayed_shift=5, replayed=did(lambda user: [12]))
    verdicts, figures = judged(run)
    assert (verdicts["hit_rate_lost"].state, verdicts["hit_rate_lost"].value) == (State.SKIP, None)
    assert (figures["hit_rate"], figures["hit_rate_earlier"]) == (1, 0)


def test_only_users_of_both_are_compared(night: Make) -> None:
    """Whom the earlier release did not know cannot speak for or against it."""
    released(night(users=USERS[:200]))
    run = night(date="2026-03-02", users=USERS[:300], model="2", replayed=did(lambda user: [3, 20]))
    assert "of 400 events" in judged(run)[0]["hit_rate_lost"].why


@pytest.mark.parametrize(
    ("changes", "options", "why"),
    [
        ({"model": "1"}, {}, "the models are those of the earlier release"),
        ({}, {"trained_through": {"user": "2026-03-02", "item": ""}}, "were trained on the day that would judge them"),
        ({"replayed": {100: [21], 101: [3]}}, {}, "too little to compare hits by: 1 of 2 events of 2 users"),
        ({"replayed": {}}, {}, "too little to compare hits by: 0 of 0 events of 0 users"),
    ],
)
def test_where_quality_cannot_be_judged_the_verdict_says_why(
    night: Make, changes: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    """Each declared reason is the verdict's own."""
    released(night(users=USERS))
    asked = {"model": "2", "replayed": did(lambda user: [3, 20]), **changes}
    verdict = judged(night(date="2026-03-02", users=USERS, **asked), **options)[0]["hit_rate_lost"]
    assert verdict.state is State.SKIP
    assert why in verdict.why


def test_older_release_is_said_to_be_at_a_disadvantage(night: Make) -> None:
    """Where a day lies between, the verdict says whom that favours, and the replay is not compared with it."""
    released(night(users=USERS))
    run = night(date="2026-03-03", users=USERS, model="2", replayed=did(lambda user: [3, 20]))
    assert "1 days older than the replay, which favours tonight" in judged(run)[0]["hit_rate_lost"].why
    same = night(date="2026-03-03", users=USERS, replayed=did(lambda user: [3, 20]), shift=1)
    assert judged(same)[0]["replay_churn"].state is State.SKIP


def test_same_model_must_say_the_same_of_yesterday(night: Make) -> None:
    """However much people have moved on, what is made of them as they stood is compared with what was made of them."""
    released(night(users=USERS))
    happened = did(lambda user: [3])
    moved = night(date="2026-03-02", users=USERS, shift=7, replayed_shift=0, replayed=happened)
    verdicts, _ = judged(moved)
    assert (verdicts["churn"].value, verdicts["replay_churn"].value) == (pytest.approx(0.7), 0)
    otherwise = night(date="2026-03-02", users=USERS, shift=1, replayed_shift=4, replayed=happened)
    verdict = judged(otherwise)[0]["replay_churn"]
    assert (verdict.state, verdict.value) == (State.FAIL, pytest.approx(0.4))


def test_changed_byte_of_the_replay_is_found(night: Make) -> None:
    """The lists of the replay are verified before they are believed."""
    released(night(users=USERS))
    run = night(date="2026-03-02", users=USERS, replayed=did(lambda user: [3]))
    path = replay_of(run).layout.scores(0, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="replay"):
        check(run, root_of(run), threads=1)


def test_loss_is_counted_only_as_far_as_it_is_sure() -> None:
    """Ten hits fewer of a hundred are no sure loss with an error of ten, and are one with an error of one."""
    assert Hits(50, 1000, 100, 90, error=10).certain_loss == 0
    assert Hits(50, 1000, 100, 90, error=1).certain_loss == pytest.approx((10 - 1.644854) / 100)
