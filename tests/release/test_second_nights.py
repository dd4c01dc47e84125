"""The gates over a night that has another before it: what is compared with what, and what a new model excuses."""

import pytest

from artifacts.errors import CorruptError, RefusedError
from release.check import check
from release.gates import GATES
from release.verdicts import State
from tests.release.judged import Make, flip, refused, released, root_of, states, with_column


def test_second_night_is_compared_with_the_first(night: Make) -> None:
    """A night much like the last one passes, and every comparison has its number worked out by hand."""
    first = released(night)
    run = night(date="2026-03-02", shift=1, users=list(range(100, 157)))
    report = check(run, root_of(run), threads=1)
    values = {v.name: v.value for v in report.verdicts}
    assert report.earlier == first.version
    assert values["churn"] == pytest.approx(0.1)  # each list moved on by one of ten
    assert values["users_lost"] == pytest.approx(3 / 60)
    assert values["users_gained"] == 0
    assert values["cold_rise"] == 0
    assert states(report)["score_psi"] is State.SKIP  # 600 rows say too little


def test_other_shard_count_gives_the_same_churn(night: Make) -> None:
    """Churn does not depend on how the users are cut into shards."""
    released(night)
    run = night(date="2026-03-02", shift=3, shards=3)
    values = {v.name: v.value for v in check(run, root_of(run), threads=1).verdicts}
    assert values["churn"] == pytest.approx(0.3)


def test_shifted_night_is_refused_with_number_bound_and_remedy(night: Make) -> None:
    """A night whose lists all changed and whose users halved is refused, one line for each gate."""
    first = released(night)
    run = night(date="2026-03-02", shift=20, users=list(range(100, 130)))
    with pytest.raises(RefusedError) as error:
        check(run, root_of(run), threads=1)
    text = str(error.value)
    assert f"users_lost: 0.5, expected at most 0.2 against {first.version}" in text
    assert f"churn: 1, expected at most 0.8 against {first.version}" in text
    assert error.value.exit_code == 3


def test_many_rows_have_their_score_distribution_compared(night: Make) -> None:
    """With enough rows, scores that moved are refused by the stability index, and equal ones give zero."""
    many = list(range(100, 300))
    released(night, users=many)
    same = night(date="2026-03-02", users=many, shift=1)
    values = {v.name: v.value for v in check(same, root_of(same), threads=1).verdicts}
    assert values["score_psi"] == 0
    shrunk = night(date="2026-03-03", users=many, scores=lambda t: with_column(t, "score", lambda v: v.__imul__(0.1)))
    assert list(refused(shrunk)) == ["score_psi"]


def test_model_change_is_a_declared_reason(night: Make) -> None:
    """With another model, churn and score shift do not apply and say so; counts still do."""
    released(night, popular=[1003, 1001])
    run = night(date="2026-03-02", shift=20, model="2", popular=[1001])
    report = check(run, root_of(run), threads=1)
    skipped = {v.name: v.why for v in report.verdicts if v.state is State.SKIP}
    changing = {gate.name for gate in GATES if gate.of_model}
    assert set(skipped) == {*changing, "model_age", "hit_rate_lost"}
    assert all("another model" in skipped[name] for name in ("score_psi", "churn"))


def test_same_date_is_never_the_yardstick(night: Make) -> None:
    """A night is compared with an earlier date, not with what was published of its own date."""
    first = released(night)
    released(night, date="2026-03-02", shift=1)
    again = night(date="2026-03-02", shift=2)
    assert check(again, root_of(again), threads=1).earlier == first.version


def test_changed_byte_of_the_earlier_release_is_found(night: Make) -> None:
    """What a night is compared with is verified too."""
    first = released(night)
    flip(first.folder / "scores" / "00001-of-00002.arrow")
    run = night(date="2026-03-02")
    with pytest.raises(CorruptError, match="00001-of-00002"):
        check(run, root_of(run), threads=1)
