"""What earlier releases say of a night: the last one, the median of several, and each segment of the users."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from artifacts.errors import CorruptError, RefusedError
from artifacts.run import Run
from release.check import check
from release.gates import configured_gates
from release.history import past_nights
from release.publish import Published, publish
from release.segments import Segments
from release.verdicts import State, Verdict

Make = Callable[..., Run]
COUNTRIES = Segments({"country": ("de", "fr")}, least_users=20)


def root_of(run: Run):
    return run.folder.parents[2]


def verdicts_of(run: Run, **options: Any) -> dict[str, Verdict]:
    """Check *run* and give what was said by name, whether it was refused or not."""
    with suppress(RefusedError):
        check(run, root_of(run), threads=1, **options)
    document = json.loads(run.layout.record.gates.read_text())
    return {v["name"]: Verdict(**{**v, "state": State(v["state"])}) for v in document["verdicts"]}


def failed(run: Run, **options: Any) -> list[str]:
    return [name for name, verdict in verdicts_of(run, **options).items() if verdict.state is State.FAIL]


def released(run: Run, **options: Any) -> Published:
    check(run, root_of(run), threads=1, **options)
    return publish(run, root_of(run))


def days(count: int) -> list[str]:
    return [f"2026-03-{day:02d}" for day in range(1, count + 1)]


def test_ids_that_were_changed_are_found_though_no_count_moves(night: Make) -> None:
    """Other users in equal number leave no churn to measure: all of the earlier ones are gone."""
    released(night())
    run = night(date="2026-03-02", users=list(range(500, 560)))
    found = verdicts_of(run)
    assert found["users_lost"].state is State.PASS
    assert found["churn"].state is State.SKIP
    assert (found["users_gone"].state, found["users_gone"].value) == (State.FAIL, 1)


def test_ids_of_another_type_are_all_gone(night: Make) -> None:
    """Numbers that became text are no ids of the earlier release."""
    released(night())
    run = night(date="2026-03-02", users=[str(user) for user in range(100, 160)], user_type="string")
    verdict = verdicts_of(run)["users_gone"]
    assert (verdict.state, verdict.value) == (State.FAIL, 1)
    assert "user_id was int64 and is string now" in verdict.why


def test_users_who_are_given_others_histories_are_found(night: Make) -> None:
    """Whoever has less of a history than before is counted: what was done does not become undone."""
    released(night())
    run = night(date="2026-03-02", cold=tuple(range(100, 109)))
    found = verdicts_of(run, gates=configured_gates({"cold_rise": 0.5}))
    assert [name for name, verdict in found.items() if verdict.state is State.FAIL] == ["histories_shorter"]
    assert found["histories_shorter"].value == pytest.approx(9 / 60)


def test_items_that_were_renumbered_are_gone(night: Make) -> None:
    """Half of the catalogue under new ids is counted, though the catalogue is as large as before."""
    released(night())
    run = night(date="2026-03-02", items=list(range(1020, 1060)))
    verdict = verdicts_of(run)["items_gone"]
    assert (verdict.state, verdict.value) == (State.FAIL, 0.5)


def test_catalogue_growth_passes_and_says_why(night: Make) -> None:
    """More items within the bound are growth, and the verdict names both counts."""
    released(night())
    verdict = verdicts_of(night(date="2026-03-02", items=list(range(1000, 1050))))["items_gained"]
    assert (verdict.state, verdict.value, verdict.why) == (State.PASS, 0.25, "40 before, 50 now")


@pytest.mark.parametrize(("events", "gate"), [(85, "events_lost"), (160, "events_gained")])
def test_events_that_came_or_went_are_refused(night: Make, events: int, gate: str) -> None:
    """A lost and a doubled partition show in the count of events, whatever the lists look like."""
    released(night())
    counts = {"interactions": events, "interactions_read": events + 10}
    assert failed(night(date="2026-03-02", counts=counts)) == [gate]


def test_rows_are_lost_where_lists_are_cut_short(night: Make) -> None:
    """Lists of half the length keep every law of a night, and are refused for what is missing."""
    released(night())

    def halve(table: pa.Table) -> pa.Table:
        return table.filter(pc.less_equal(table["rank"], 5))

    assert failed(night(date="2026-03-02", scores=halve)) == ["rows_lost"]


QUARTER = 21_600
NOW = 1000 * 86_400


def had(seconds_ago: Callable[[Any], int]) -> Callable[[Any], list[tuple[int, int]]]:
    return lambda user: [(0, seconds_ago(user))]


def test_times_that_were_shifted_are_found(night: Make) -> None:
    """A day later, each event lies a day further back; one hour off, a sixth of them change their quarter of a day."""

    def ago(user: int) -> int:
        return 86_400 + (user - 100) % 6 * 3600 + 60  # one user in each hour of a quarter

    released(night(now=NOW, seen=had(ago)))
    ordinary = night(date="2026-03-02", now=NOW + 86_400, seen=had(lambda user: ago(user) + 86_400))
    assert verdicts_of(ordinary)["recent_changed"].value == 0
    shifted = night(date="2026-03-02", shift=1, now=NOW + 86_400, seen=had(lambda user: ago(user) + 86_400 + 3600))
    verdict = verdicts_of(shifted)["recent_changed"]
    assert verdict.state is State.FAIL
    assert verdict.value == pytest.approx(2 / 6)  # a sixth went, and came where none was
    unmoved = night(date="2026-03-02", shift=2, now=NOW + 86_400, seen=had(ago))  # all happened a day later
    assert verdicts_of(unmoved)["recent_changed"].value == 2


def test_popular_items_that_are_popular_no_more_are_counted(night: Make) -> None:
    """Where events are given to other items, nobody's count of events moves, and the popular items do."""
    many = list(range(1000, 1400))
    released(night(items=many, popular=many[:120]))
    fell = [*many[:4], *many[110:300]]  # of the forty, a tenth of all, four are still among the first eighty
    verdict = verdicts_of(night(date="2026-03-02", items=many, popular=fell))["popular_gone"]
    assert (verdict.state, verdict.value) == (State.FAIL, pytest.approx(0.9))
    moved = [*many[40:80], *many[:40]]  # all of them are the last of the eighty
    verdict = verdicts_of(night(date="2026-03-02", items=many, popular=moved, shift=1))["popular_gone"]
    assert (verdict.state, verdict.value) == (State.PASS, 0)


def test_median_of_seven_is_of_seven_releases(night: Make) -> None:
    """One bad night that was published does not become the yardstick: the median is."""
    users = dict.fromkeys(days(8), 60) | {"2026-03-01": 10, "2026-03-08": 45}
    gates = configured_gates({"users_lost": {"against": "median"}})
    for shift, (date, count) in enumerate(users.items()):
        run = night(date=date, users=list(range(100, 100 + count)), shift=shift)
        with suppress(RefusedError):
            check(run, root_of(run), gates=gates, threads=1)
        publish(run, root_of(run), override="a test")
    tonight = night(date="2026-03-09", users=list(range(100, 148)))
    verdict = verdicts_of(tonight, gates=gates)["users_lost"]
    assert verdict.value == pytest.approx(1 - 48 / 60)
    assert verdict.against == "the median of the last 7 nights"
    assert [past.release.manifest.date for past in past_nights(root_of(tonight), "2026-03-09")] == days(8)[:0:-1]


def test_too_few_nights_for_a_median_are_measured_against_the_last(night: Make) -> None:
    """Two nights make no median, and the verdict says what it took instead."""
    gates = configured_gates({"users_lost": {"against": "median"}})
    for date, users in (("2026-03-01", 80), ("2026-03-02", 76)):
        last = released(night(date=date, users=list(range(100, 100 + users))), gates=gates)
    verdict = verdicts_of(night(date="2026-03-03", users=list(range(100, 171))), gates=gates)["users_lost"]
    assert verdict.value == pytest.approx(5 / 76)
    assert verdict.against == f"{last.version} (fewer than 3 nights for a median)"


def test_level_against_the_last_release_is_a_rise(night: Make) -> None:
    """A gate about a level, told to compare, judges the difference."""
    gates = configured_gates({"recall": {"against": "last", "bound": -0.02}})
    released(night(parameters={"recall": 0.98}), gates=gates)
    run = night(date="2026-03-02", parameters={"recall": 0.95})
    verdict = verdicts_of(run, gates=gates)["recall"]
    assert verdict.state is State.FAIL
    assert verdict.value == pytest.approx(-0.03)


def test_record_is_verified_before_it_is_believed(night: Make) -> None:
    """A changed byte in what was recorded of an earlier night stops the check and is named."""
    first = released(night())
    released(night(date="2026-03-02", shift=1))
    path = first.folder / "record" / "gates.json"
    path.write_text(path.read_text().replace('"users": 60', '"users": 10'))
    run = night(date="2026-03-03", shift=2)
    with pytest.raises(CorruptError, match=r"gates\.json"):
        check(run, root_of(run), threads=1)


def test_record_of_another_night_is_not_believed(night: Make) -> None:
    """A whole record that speaks of another run is an error, as a swapped file is."""
    first = released(night())
    second = released(night(date="2026-03-02", shift=1))
    for name in ("gates.json", "record.json", "run.json"):
        (second.folder / "record" / name).write_bytes((first.folder / "record" / name).read_bytes())
    run = night(date="2026-03-03", shift=2)
    with pytest.raises(CorruptError, match="speaks of run"):
        check(run, root_of(run), threads=1)


def test_release_without_a_report_is_compared_by_its_tables(night: Make) -> None:
    """What can be counted in the tables is; of the rest the verdict says that nothing was recorded."""
    unchecked = night()
    last = publish(unchecked, root_of(unchecked), override="a test")
    found = verdicts_of(night(date="2026-03-02", users=list(range(100, 130))))
    assert found["users_lost"].value == 0.5
    assert (found["events_lost"].state, found["events_lost"].why) == (State.SKIP, f"{last.version} has no record of it")


def country(user: int) -> int:
    return 2 + user % 2  # even: de, odd: fr


def test_ordinary_night_is_judged_by_segment(night: Make) -> None:
    """Each gate about users says how it stands with every country."""
    released(night(country=country), segments=COUNTRIES)
    run = night(date="2026-03-02", country=country, shift=1)
    found = verdicts_of(run, segments=COUNTRIES)
    assert all(verdict.state is not State.FAIL for verdict in found.values())
    assert found["churn[country=de]"].value == pytest.approx(0.1)
    assert found["users_lost[country=fr]"].value == 0
    assert "score_psi[country=fr]" in found
    assert "recall[country=de]" not in found


def test_night_without_a_country_is_refused_by_its_name(night: Make) -> None:
    """A night that is good for everybody else and has lost one country is refused for that country."""
    users = list(range(100, 300))

    def mostly_german(user: int) -> int:
        return 3 if user % 10 == 1 else 2

    released(night(users=users, country=mostly_german), segments=COUNTRIES)
    left = [user for user in users if mostly_german(user) == 2]
    run = night(date="2026-03-02", users=left, country=mostly_german)
    assert failed(run) == []
    assert failed(run, segments=COUNTRIES) == ["users_lost[country=fr]", "rows_lost[country=fr]"]


def test_country_that_became_unknown_is_refused(night: Make) -> None:
    """All users are there, and what was known of some is not."""
    released(night(country=country), segments=COUNTRIES)
    run = night(date="2026-03-02", country=lambda user: 1 if country(user) == 3 else 2)
    found = failed(run, segments=COUNTRIES)
    assert found == ["users_lost[country=fr]", "rows_lost[country=fr]", "profiles_rise"]


def test_country_with_a_shuffled_list_is_refused(night: Make) -> None:
    """Churn is computed for the users of a segment alone: one country moves, the other stays."""

    def move(table: pa.Table) -> pa.Table:
        french = pc.equal(pc.bit_wise_and(table["user_id"], 1), 1)
        other = pc.add(pc.bit_wise_and(pc.add(pc.subtract(table["item_id"], 1000), 16), 31), 1000)
        return table.set_column(1, table.schema.field("item_id"), pc.if_else(french, other, table["item_id"]))

    few = {"items": list(range(1000, 1032)), "country": country}
    released(night(**few), segments=COUNTRIES)
    run = night(date="2026-03-02", scores=move, **few)
    assert failed(run, segments=COUNTRIES) == ["churn[country=fr]"]
    assert verdicts_of(run)["churn"].value == pytest.approx(0.5)


def test_segments_do_not_depend_on_shards(night: Make) -> None:
    """Another cut of the users gives the same figures of every segment."""
    released(night(country=country), segments=COUNTRIES)
    one = verdicts_of(night(date="2026-03-02", country=country, shift=3), segments=COUNTRIES)
    other = verdicts_of(night(date="2026-03-02", country=country, shift=3, shards=3), segments=COUNTRIES)
    assert other == one
    assert one["churn[country=de]"].value == pytest.approx(0.3)


def test_small_segment_is_not_judged(night: Make) -> None:
    """Of fewer users than declared, chance decides; they still count among all."""
    segments = Segments({"country": ("de", "fr")}, least_users=31)
    found = verdicts_of(night(country=country), segments=segments)
    assert not [name for name in found if "[" in name]


def test_cold_half_of_a_country_is_refused(night: Make) -> None:
    """A rise of cold users within one country is found though it is small among all."""
    users = list(range(100, 300))

    def some(user: int) -> int:
        return 3 if user % 5 == 0 else 2

    released(night(users=users, country=some), segments=COUNTRIES)
    cold = tuple(user for user in users if user % 10 == 0)
    run = night(date="2026-03-02", users=users, country=some, cold=cold)
    assert failed(run, segments=COUNTRIES) == ["cold_rise[country=fr]"]
