"""The report on the catalogue: what of it is recommended, what moved, and how its vectors lie."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.tables import opening_arrow, verify_file
from release.charts import bars, colour, drawn, hover, name, number
from release.evidence import titles_of
from release.page import Cell, Chart, Facts, Note, Part, Table
from release.subject import Subject

_MOVERS = 10  # each way
_MAP_ITEMS = 1200
_MAP_BATCHES = 8  # record batches that vectors are read from
_MAP_NAMES = 9  # categories with a colour of their own
_LEAST_MOVED = 20  # rows of an item, then and now together; with fewer, chance moves it
_TITLE = 60  # characters of a title in a chart

# The most popular items first: up to which share of the eligible ones.
_PARTS = ((0.01, "top 1 %"), (0.05, "to 5 %"), (0.2, "to 20 %"), (0.5, "to 50 %"), (1.0, "the rest"))


def catalogue(subject: Subject) -> list[Part]:
    """Coverage, popularity, what moved, and the map."""
    return [_coverage(subject), _popularity(subject), _movers(subject), _map(subject)]


def shortened(title: object) -> str:
    """Cut a title to what a chart has room for."""
    words = str(title)
    return words if len(words) <= _TITLE else f"{words[: _TITLE - 3]}..."


def _coverage(subject: Subject) -> Facts:
    figures, before = subject.verdict.figures, (subject.past[0].report if subject.past else None)

    def said(key: str, form: str) -> Cell:
        if key not in figures:
            return "not measured"
        was = before.figures.get(key) if before else None
        return format(figures[key], form) + (f" (last release: {format(was, form)})" if was is not None else "")

    return Facts(
        [
            ("Items recommended at least once", said("items_recommended", ",.0f")),
            ("Coverage: share of eligible items", said("coverage", ".2%")),
            ("Share of recommendations that the top 1 % of items have", said("exposure_top", ".2%")),
            ("Eligible items", said("items_eligible", ",.0f")),
        ]
    )


def _popularity(subject: Subject) -> Chart | Note:
    items, lists = subject.catalogue, subject.lists
    eligible = np.flatnonzero(items.eligible)
    ordered = eligible[np.argsort(-items.events[eligible], kind="stable")]
    events, exposure = items.events[ordered], lists.exposure[ordered]
    if not events.sum() or not exposure.sum():
        return Note("No eligible item has events in the last days: there is no popularity to compare with.", "warn")
    kinds = ("events", "recommendations")
    rows: list[dict[str, Any]] = []
    table: list[Sequence[Cell]] = []
    start = 0
    for share, words in _PARTS:
        stop = max(start, -(-round(share * len(ordered) * 1000) // 1000))
        shares = [float(of[start:stop].sum() / of.sum()) for of in (events, exposure)]
        rows += [{"items": words, "of": kind, "share": value} for kind, value in zip(kinds, shares, strict=True)]
        table.append((words, stop - start, *(f"{value:.2%}" for value in shares)))
        start = stop
    days = subject.run.semantic["history"]["popular_days"]
    says = (
        f"The most popular 1 % of the eligible items have {rows[0]['share']:.1%} of the events of the last {days} days "
        f"and {rows[1]['share']:.1%} of the recommendations. Of {lists.sampled.words()}."
    )
    spec = bars(
        rows,
        value=number("share", "share", form=".0%"),
        of=name("items", "items, by their events", order=[words for _, words in _PARTS]),
        beside=colour("of", kinds),
        tooltip=hover(("items", "items", ""), ("of", "of", ""), ("share", "share", ".1%")),
    )
    return Chart(
        "What is recommended, and what is popular",
        says,
        spec,
        Table(("eligible items, by their events", "items", *kinds), table),
    )


def _movers(subject: Subject) -> Chart | Note:
    now, before = subject.lists, subject.lists_before
    if before is None or not before.exposure.sum() or not now.exposure.sum():
        return Note("Movers are not known: there is no earlier release with the same kind of scores.")
    old, new = (lists.exposure / max(1, lists.rows) for lists in (before, now))
    moved = np.where(now.exposure + before.exposure >= _LEAST_MOVED, new - old, 0.0)
    order = np.argsort(-moved, kind="stable")
    up = [int(row) for row in order[:_MOVERS] if moved[row] > 0]
    down = [int(row) for row in order[::-1][:_MOVERS] if moved[row] < 0]
    if not up and not down:
        return Note("No item moved: each is recommended as often as in the last release.", "good")
    titles = titles_of(subject.run, [*up, *down])
    changed = [*up, *reversed(down)]
    names = _told_apart([shortened(titles[row]["title"]) for row in changed])
    rows = [
        {
            "item": title,
            "change": float(moved[row]) * 1000,
            "was": float(old[row]) * 1000,
            "is": float(new[row]) * 1000,
            "way": "up" if moved[row] > 0 else "down",
        }
        for row, title in zip(changed, names, strict=True)
    ]
    most = rows[0]
    says = (
        f"Of every 1,000 recommendations, {most['item']} has {most['is']:.3g}; it had {most['was']:.3g} in the last "
        f"release. Of {now.sampled.words()}."
    )
    spec = bars(
        rows,
        value=number("change", "more or fewer of 1,000 recommendations", form="+.2~f"),
        of=name("item", order=names),
        color={**colour("way", ("up", "down"), ("#4c84c4", "#dd7f2f")), "legend": None},
        tooltip=hover(("item", "item", ""), ("was", "was", ".3f"), ("is", "is", ".3f")),
    )
    table = Table(
        ("item", "of 1,000 it had", "it has", "change"),
        [(row["item"], row["was"], row["is"], row["change"]) for row in rows],
    )
    return Chart("What moved most", says, spec, table)


def _told_apart(titles: Sequence[str]) -> list[str]:
    """Number the titles that are there more than once."""
    seen: Counter[str] = Counter()
    found = []
    for title in titles:
        seen[title] += 1
        found.append(title if seen[title] == 1 else f"{title} ({seen[title]})")
    return found


def _map(subject: Subject) -> Chart | Note:
    found, vectors = _sampled_vectors(subject)
    if len(found) < 3:
        return Note("Fewer than three items have a vector: there is nothing to map.", "warn")
    places, explained = project(vectors)
    category = subject.category
    column = f"feature_{category.feature}" if category else ""
    titles = titles_of(subject.run, found.tolist(), [column] if column else [])
    kinds = [category.name(int(str(titles[row][column]))) if category else "items" for row in found.tolist()]
    common = [kind for kind, _ in sorted(Counter(kinds).items(), key=lambda pair: (-pair[1], pair[0]))]
    named = common[: _MAP_NAMES + (len(common) == _MAP_NAMES + 1)]
    rows: list[dict[str, Any]] = [
        {
            "title": shortened(titles[row]["title"]),
            "kind": kind if kind in named else "other",
            "true": kind,
            "x": round(float(x), 3),
            "y": round(float(y), 3),
        }
        for row, kind, (x, y) in zip(found.tolist(), kinds, places, strict=True)
    ]
    domain = [*named, "other"] if len(named) < len(common) else named
    of = f", coloured by {category.feature}" if category else ""
    says = (
        f"{len(rows):,} of {len(subject.catalogue.ids):,} items, evenly spaced in the catalogue{of}. The two "
        f"directions in which their vectors differ most hold {explained:.0%} of how they differ: what is far apart "
        "here is far apart, what is close may not be."
    )
    plain = {"axis": {"labels": False, "ticks": False, "domain": False}, "scale": {"zero": False}, "title": None}
    spec = drawn(
        rows,
        {"type": "point", "filled": True, "size": 34, "opacity": 0.75},
        height=420,
        x={**number("x"), **plain},
        y={**number("y"), **plain},
        color=colour("kind", domain, title=category.feature) if category else {"value": "#4c84c4"},
        tooltip=hover(("title", "item", ""), *([("true", "category", "")] if category else [])),
    )
    table = Table(
        ("item", category.feature if category else "", "x", "y"),
        [(str(row["title"]), str(row["true"]), row["x"], row["y"]) for row in rows],
    )
    return Chart("A map of the items' vectors", says, spec, table)


def _sampled_vectors(subject: Subject) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Read the vectors of evenly spaced items that may be recommended; gives catalogue rows [n] and vectors [n, d]."""
    run = subject.run
    eligible = np.flatnonzero(subject.catalogue.eligible)
    wanted = (
        eligible[np.unique(np.linspace(0, len(eligible) - 1, _MAP_ITEMS).astype(np.int64))]
        if len(eligible)
        else eligible
    )
    rows: list[npt.NDArray[np.int64]] = []
    vectors: list[npt.NDArray[np.float64]] = []
    start = 0
    for shard in range(run.item_shards):
        path = run.layout.items(shard, run.item_shards)
        verify_file(path)
        with opening_arrow(path, columns=["vector"]) as reader:
            for place in range(reader.num_record_batches):
                batch = reader.get_batch(place)
                mine = wanted[(wanted >= start) & (wanted < start + batch.num_rows)]
                if len(mine):
                    width = batch.column(0).type.list_size
                    matrix = batch.column(0).flatten().to_numpy().reshape(-1, width)[mine - start].astype(np.float64)
                    good = np.isfinite(matrix).all(axis=1)
                    rows.append(mine[good])
                    vectors.append(matrix[good])
                start += batch.num_rows
    return np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate(vectors) if vectors else np.empty((0, 1))


def project(vectors: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Place *vectors* [n, d] on the plane of their first two principal components.

    Returns:
        Places [n, 2], and the share of the variance that they hold. The greatest weight of a direction is positive, so
        that the same vectors give the same picture.
    """
    centred = vectors - vectors.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, ::-1][:, :2]
    chosen = chosen * np.where(chosen[np.abs(chosen).argmax(axis=0), range(chosen.shape[1])] < 0, -1.0, 1.0)
    places = centred @ chosen
    if places.shape[1] < 2:
        places = np.hstack([places, np.zeros((len(places), 1))])
    total = float(values.sum())
    return places, float(values[::-1][:2].sum() / total) if total > 0 else 1.0
