"""The report's first words: is the night good, and what has changed since the last release?"""

from collections.abc import Sequence

from release.charts import colour, drawn, heat, hover, name, number
from release.content import index_parameters_of
from release.diff import differing, made_with, semantic_of
from release.gates import GATES
from release.history import NIGHTS
from release.page import Cell, Chart, Folded, Heading, Kind, Mark, Note, Part, Table
from release.subject import Subject
from release.verdicts import GateReport, State, Verdict

KIND: dict[State, Kind] = {State.PASS: "good", State.WARN: "warn", State.FAIL: "bad", State.SKIP: "none"}
WORD = {State.PASS: "holds", State.WARN: "warns", State.FAIL: "fails", State.SKIP: "does not apply"}
COLOURS = {State.PASS: "#4c84c4", State.WARN: "#dd7f2f", State.FAIL: "#d45c62", State.SKIP: "#8a8f98"}

# What people want to see of a release beside the one before, in this order.
COMPARED = {
    "users": "users",
    "users_cold": "cold users",
    "events": "interactions",
    "behaviours": "behaviours told to models",
    "items": "items",
    "items_eligible": "eligible items",
    "items_indexed": "indexed items",
    "items_recommended": "items recommended",
    "rows": "recommendations",
    "rows_fallback": "popular items instead",
    "interest_vectors": "interest vectors",
    "coverage": "coverage",
    "exposure_top": "share of the top 1 %",
    "recall": "recall of the index",
    "unknown_share": "unknown behaviours",
}
BETWEEN = {
    "churn": "of the first 10 of each user's list that changed",
    "users_gone": "of the users of the last release that are gone",
    "items_gone": "of its items that are gone",
    "histories_shorter": "of the users of both whose history is shorter now",
    "popular_gone": "of its most popular items that are not popular now",
    "recent_changed": "of the pairs of user and item of the last weeks that changed",
}


def verdict_of(subject: Subject) -> Note:
    """Say in one sentence whether the gates let the night pass; what publish made of that comes later."""
    verdict = subject.verdict
    if verdict.failed:
        names = ", ".join(one.name for one in verdict.failed)
        return Note(f"Refused, by {len(verdict.failed)} of {len(verdict.verdicts)} verdicts: {names}.", "bad")
    if verdict.warned:
        names = ", ".join(one.name for one in verdict.warned)
        return Note(f"The gates let it pass, with a warning: {names}.", "warn")
    return Note(f"The gates let it pass: all {len(verdict.verdicts)} verdicts hold or do not apply.", "good")


def verdict(subject: Subject) -> list[Part]:
    """Why the night is published or refused: every gate with bound and value, and the last seven nights."""
    report = subject.verdict
    parts: list[Part] = []
    if report.failed:
        parts.append(
            "What the gates refuse is not published, unless somebody gives a reason (publish --override), which the "
            "release then carries, and this page: readers keep what they have."
        )
    else:
        parts.append(
            "Whether it was published, and what readers have, changes after this page was made: "
            f"`nightrec report {subject.run.date}` says it at any time."
        )
    parts += [Note(one.line(), "bad") for one in report.failed] + [Note(one.line(), "warn") for one in report.warned]
    return [*parts, *([_nights(subject)] if subject.past else _first_night(report)), _all_gates(report)]


def _value(verdict: Verdict | None) -> Cell:
    if verdict is None or verdict.state is State.SKIP:
        return None
    return "not a number" if verdict.value is None else float(verdict.value)


def _of_all_users(report: GateReport) -> list[Verdict]:
    """Give the verdicts about all users, and of those about segments the ones that matter."""
    return [one for one in report.verdicts if "[" not in one.name or one.state in {State.FAIL, State.WARN}]


def _first_night(report: GateReport) -> list[Part]:
    """Show the gates that a night without one before it has: a picture of a single column would tell less."""
    shown = [one for one in _of_all_users(report) if one.state is not State.SKIP]
    skipped = sum(one.state is State.SKIP for one in report.verdicts)
    rows = [(one.name, Mark(WORD[one.state], KIND[one.state]), _value(one), one.side, one.bound) for one in shown]
    says = f"A first night has these gates; {skipped} more do not apply to it, each for the reason that stands below."
    return [says, Table(("gate", "tonight", "value", "expected", "bound"), rows, "The gates of a first night")]


def _nights(subject: Subject) -> Chart:
    """Show the gates of tonight beside those of the last nights."""
    shown = _of_all_users(subject.verdict)
    nights = [(past.release.manifest.date, past.report) for past in reversed(subject.past[:NIGHTS])]
    nights.append((subject.run.date, subject.verdict))
    by_night = {date: {one.name: one for one in report.verdicts} if report else {} for date, report in nights}
    dates = list(by_night)
    fields = [
        {"gate": one.name, "night": date, "says": WORD[found.state], "value": found.value, "bound": found.bound}
        for one in shown
        for date in dates
        if (found := by_night[date].get(one.name))
    ]
    rows = [
        (
            one.name,
            Mark(WORD[one.state], KIND[one.state]),
            one.side,
            one.bound,
            *(_value(by_night[date].get(one.name)) for date in dates),
        )
        for one in shown
    ]
    states = ", ".join(
        f"{count} {WORD[state]}"
        for state in State
        if (count := sum(one.state is state for one in subject.verdict.verdicts))
    )
    says = (
        f"Tonight: {states}. Each row is a gate, each column a night, tonight the last one; those before it are the "
        "last releases that readers have had."
    )
    order = [WORD[state] for state in State]
    spec = heat(
        fields,
        across={**name("night", "data date", order=dates), "axis": {"labelExpr": "slice(datum.value, 5)"}},
        down=name("gate", order=[one.name for one in shown]),
        colour=colour("says", order, [COLOURS[state] for state in State]),
        tooltip=hover(
            ("gate", "gate", ""),
            ("night", "night", ""),
            ("says", "says", ""),
            ("value", "value", ".4g"),
            ("bound", "bound", ".4g"),
        ),
    )
    table = Table(("gate", "tonight", "expected", "bound", *dates), rows, "value of each gate, by data date")
    return Chart("The gates, tonight and on the nights before", says, spec, table)


def _all_gates(report: GateReport) -> Folded:
    meaning = {gate.name: gate.meaning for gate in GATES}
    rows = [
        (
            one.name,
            Mark(WORD[one.state], KIND[one.state]),
            _value(one),
            one.side,
            one.bound,
            one.against,
            "; ".join(
                part
                for part in (meaning.get(one.name.partition("[")[0], ""), one.why if one.state is State.SKIP else "")
                if part
            ),
        )
        for one in report.verdicts[:500]
    ]
    columns = ("gate", "says", "value", "expected", "bound", "against", "what it is")
    return Folded(f"All {len(report.verdicts)} verdicts, with what they are measured against", [Table(columns, rows)])


def changes(subject: Subject) -> list[Part]:
    """What is different from the last release."""
    if subject.last is None:
        return ["This is the first night: there is no release of an earlier date to compare with."]
    before, now = subject.past[0].report, subject.verdict.figures
    version = subject.last.version
    parts: list[Part] = []
    if before is None:
        parts.append(Note(f"{version} was published without a verdict: its numbers are not known.", "warn"))
    else:
        parts.append(_levels(subject, before, version))
    between = [(f"share {words}", now[key]) for key, words in BETWEEN.items() if key in now]
    if "score_psi" in now:
        between.append(
            ("stability index of the scores (below 0.1: the same; above 0.25: another distribution)", now["score_psi"])
        )
    if between:
        parts.append(Table(("between the two", "value"), between))
    return [*parts, Heading("What it was made with"), *_made_otherwise(subject)]


def _levels(subject: Subject, before: GateReport, version: str) -> Part:
    now = subject.verdict.figures
    rows = [
        (words, old, new, (new - old) / old if old else None)
        for key, words in COMPARED.items()
        if (old := before.figures.get(key)) is not None and (new := now.get(key)) is not None
    ]
    moved = [{"what": words, "change": round(change, 5)} for words, _, _, change in rows if change is not None]
    table = Table(
        ("what", "before", "now", "change"),
        [(words, old, new, None if change is None else f"{change:+.2%}") for words, old, new, change in rows],
    )
    most = max(moved, key=lambda row: abs(float(str(row["change"]))), default=None)
    says = f"Compared with {version}. " + (
        f"Most changed: {most['what']}, by {most['change']:+.2%}."
        if most and most["change"]
        else "Nothing has changed."
    )
    spec = drawn(
        moved,
        {"type": "bar"},
        height=len(moved) * 20 + 10,
        x=number("change", "change", form="+.1%"),
        y={**name("what", order=[str(row["what"]) for row in moved]), "axis": {"labelLimit": 170}},
        tooltip=hover(("what", "what", ""), ("change", "change", "+.2%")),
    )
    return Chart(f"Tonight against {version}", says, spec, table)


def _made_otherwise(subject: Subject) -> Sequence[Part]:
    last = subject.last
    if last is None:
        return []
    semantic = semantic_of(last)
    old = made_with(index_parameters_of(last.layout, last.manifest), last.manifest.bundles, semantic)
    new = made_with(subject.parameters, subject.run.bundles, subject.run.semantic if semantic is not None else None)
    measured = {"index.recall", "index.recall_interval", "index.recall_users", "index.imbalance", "index.items"}
    rows = [(key, _said(was), _said(says)) for key, (was, says) in differing(old, new) if key not in measured]
    if not rows:
        return [f"The same models, index and config as {last.version}."]
    return [Table(("key", "before", "now"), rows)]


def _said(value: object) -> str:
    return "not set" if value is None else str(value)
