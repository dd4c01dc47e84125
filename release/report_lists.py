"""The report on retrieval and scores: how well the index finds, what people's interests bring, how scores lie."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from artifacts.store import fetched
from artifacts.tables import verify_file
from release.charts import bars, colour, drawn, hover, name, number
from release.evidence import QUANTILES, Calibration, Lists, calibrate, interests_by_user
from release.page import Chart, Note, Part, Table
from release.subject import Subject

TONIGHT, BEFORE = "tonight", "last release"
_LEAST_HITS = 30  # events that came true; with fewer, chance draws the curve
_SIZES = 20  # bins of list sizes


def retrieval(subject: Subject) -> list[Part]:
    """What the index finds, how it is cut, and what each interest brings."""
    lists = subject.lists
    sizes = list_sizes(subject)
    cut = [_list_sizes(sizes, subject.parameters["imbalance"])] if len(sizes) > 1 else []
    return [_recall(subject), *cut, _interests(subject, lists), _by_interest(lists)]


def _recall(subject: Subject) -> Chart | str:
    said = subject.parameters
    k, chosen = said["recall_k"], said["nprobe"]
    says = (
        f"Lists searched: {chosen:,} of {said['nlist']:,}. Recall@{k} against exact search on users who did not choose "
        f"that: {_reported(said)}. The target is {said['recall_target']:g}."
    )
    if said["nlist"] == 1:
        return f"The index is one list of {said['items']:,} items: so small a catalogue is searched exactly. {says}"
    curve = [(int(nprobe), float(recall)) for nprobe, recall in said["curve"]]
    rows = [(nprobe, recall, "chosen" if nprobe == chosen else "") for nprobe, recall in curve]
    spec = {"height": 220, "layer": _curve(said, curve)}
    return Chart(f"Recall@{k} by the number of lists searched", says, spec, Table(("nprobe", "recall", ""), rows))


def _reported(said: Mapping[str, Any]) -> str:
    if said["recall"] is None:
        return "too few users have a history to report it"
    low, high = said["recall_interval"]
    return f"{said['recall']:.4f}, 95 % interval {low:.4f} to {high:.4f}, of {said['recall_users']:,} users"


def _curve(said: Mapping[str, Any], curve: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    """Draw the curve, the target and the chosen point with its interval."""
    target, interval = said["recall_target"], said["recall_interval"] or ()
    least = min([recall for _, recall in curve] + [target, *interval]) - 0.01
    x = number("nprobe", "lists searched (nprobe)", log=True)
    x["scale"]["domain"] = [0.9, said["nlist"] * 1.1]
    y = {**number("recall", f"recall@{said['recall_k']}"), "scale": {"domain": [max(0.0, least), 1.0]}}
    points = [{"nprobe": nprobe, "recall": recall} for nprobe, recall in curve]
    tooltip = hover(("nprobe", "nprobe", ","), ("recall", "recall", ".4f"))
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": points},
            "mark": {"type": "line", "point": True},
            "encoding": {"x": x, "y": y, "tooltip": tooltip},
        },
        {
            "data": {"values": [{"recall": target}]},
            "mark": {"type": "rule", "strokeDash": [5, 4]},
            "encoding": {"y": y},
        },
    ]
    if interval:
        data = {
            "values": [{"nprobe": said["nprobe"], "recall": said["recall"], "low": interval[0], "high": interval[1]}]
        }
        mark, span = {"color": "#dd7f2f"}, {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
        told = [*tooltip, *hover(("low", "from", ".4f"), ("high", "to", ".4f"))]
        layers += [
            {"data": data, "mark": {"type": "rule", "strokeWidth": 3, **mark}, "encoding": span},
            {
                "data": data,
                "mark": {"type": "point", "filled": True, "size": 110, **mark},
                "encoding": {"x": x, "y": y, "tooltip": told},
            },
        ]
    return layers


def list_sizes(subject: Subject) -> np.ndarray:
    """Read how many items each list of the index holds, without reading the items."""
    import faiss  # a machine that only judges and publishes need not have it: this part is missing there

    path = subject.layout.index.ivf
    index: Any = faiss.read_index(str(fetched(path, verify_file(path).sha256)), faiss.IO_FLAG_MMAP)
    return np.array([index.invlists.list_size(number) for number in range(index.nlist)], np.int64)


def _list_sizes(sizes: np.ndarray, imbalance: float) -> Chart:
    edges = np.unique(np.linspace(0, sizes.max() + 1, min(_SIZES, int(sizes.max()) + 1) + 1).astype(np.int64))
    counts, _ = np.histogram(sizes, edges)
    rows = [
        {"from": int(low), "to": int(high) - 1, "lists": int(count)}
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    says = (
        f"{len(sizes):,} lists hold {int(np.median(sizes)):,} items in the middle, {int(sizes.min()):,} at least and "
        f"{int(sizes.max()):,} at most; {int(np.count_nonzero(sizes == 0)):,} are empty. "
        f"Imbalance is {imbalance:.3g}, where 1 is even."
    )
    spec = drawn(
        rows,
        "bar",
        height=150,
        x={**number("from", "items in a list"), "bin": {"binned": True}},
        x2={"field": "to"},
        y=number("lists", "lists", form="d"),
        tooltip=hover(("from", "items from", ","), ("to", "to", ","), ("lists", "lists", ",")),
    )
    return Chart(
        "Sizes of the index's lists", says, spec, Table(("from", "to", "lists"), [tuple(row.values()) for row in rows])
    )


def _interests(subject: Subject, lists: Lists) -> Chart:
    counts = interests_by_user(subject.run, len(lists.sampled.paths))
    users = int(counts.sum())
    rows = [
        {"interests": str(number_), "users": int(count), "share": count / max(1, users)}
        for number_, count in enumerate(counts)
    ]
    mean = float((counts * np.arange(len(counts))).sum() / max(1, users - int(counts[:1].sum())))
    says = f"Users with a history have {mean:.2f} interests on average; those with none are cold. Of {users:,} users."
    spec = bars(
        rows,
        value=number("share", "share of users", form=".0%"),
        of=name("interests", "interests", order=[str(row["interests"]) for row in rows]),
        tooltip=hover(("interests", "interests", ""), ("users", "users", ","), ("share", "share", ".1%")),
    )
    table = Table(
        ("interests", "users", "share"), [(row["interests"], row["users"], f"{row['share']:.2%}") for row in rows]
    )
    return Chart("Interests of a user", says, spec, table)


def _by_interest(lists: Lists) -> Chart | Note:
    ranked = int(lists.by_interest.sum())
    if not ranked:
        return Note("No row was found by an interest.", "warn")
    rows = [
        {"interest": str(place), "rows": int(count), "share": count / ranked}
        for place, count in enumerate(lists.by_interest)
    ]
    first = max(rows, key=lambda row: row["rows"])
    says = (
        f"Interest {first['interest']} found the most rows, {first['share']:.1%} of those that were ranked. "
        f"Of {lists.sampled.words()}."
    )
    spec = bars(
        rows,
        value=number("share", "share of ranked rows", form=".0%"),
        of=name("interest", "interest", order=[row["interest"] for row in rows]),
        tooltip=hover(("interest", "interest", ""), ("rows", "rows", ","), ("share", "share", ".1%")),
    )
    table = Table(
        ("interest", "rows", "share"), [(row["interest"], row["rows"], f"{row['share']:.2%}") for row in rows]
    )
    return Chart("Recommendations by the interest that found them", says, spec, table)


def scores(subject: Subject) -> list[Part]:
    """How scores lie, beside the last release, by rank, and against what came true."""
    return [_distribution(subject), _by_rank(subject), *_calibration(subject)]


def _distribution(subject: Subject) -> Chart:
    now, before = subject.lists, subject.lists_before
    labels = _labels(now.edges)
    nights = [(TONIGHT, now.bins)] + ([(BEFORE, before.bins)] if before is not None and before.bins.sum() else [])
    there = np.flatnonzero(sum(bins for _, bins in nights))
    span = range(int(there[0]), int(there[-1]) + 1) if len(there) else range(0)
    rows = [
        {"at": place, "score": labels[place], "share": bins[place] / max(1, int(bins.sum())), "night": night}
        for night, bins in nights
        for place in span
    ]
    psi = subject.verdict.figures.get("score_psi")
    compared = (
        "" if psi is None else f" Their stability index is {psi:.4f}: below 0.1 nothing moved, above 0.25 much did."
    )
    lone = "" if before is not None else " There is no release with the same kind of scores to compare with."
    says = f"Shares of the ranked rows by score, of {now.sampled.words()}.{compared}{lone}"
    spec = drawn(
        rows,
        {"type": "line", "interpolate": "step", "point": len(span) < 2},
        height=200,
        x={
            "field": "score",
            "type": "ordinal",
            "sort": [labels[place] for place in span],
            "title": "score, up to",
            "axis": {"labelAngle": -45, "labelOverlap": True},
        },
        y=number("share", "share of ranked rows", form=".0%"),
        color=colour("night", [night for night, _ in nights]),
        strokeDash={"field": "night", "type": "nominal", "scale": {"domain": [night for night, _ in nights]}},
        tooltip=hover(("score", "score up to", ""), ("share", "share", ".2%"), ("night", "night", "")),
    )
    columns = ("score up to", *(night for night, _ in nights))
    table = Table(
        columns,
        [(labels[place], *(f"{bins[place] / max(1, int(bins.sum())):.3%}" for _, bins in nights)) for place in span],
    )
    return Chart("Scores", says, spec, table)


def _labels(edges: np.ndarray) -> list[str]:
    return [*(f"{edge:.3g}" for edge in edges), "more"]


def _by_rank(subject: Subject) -> Chart | Note:
    nights = {TONIGHT: subject.lists} | ({BEFORE: subject.lists_before} if subject.lists_before else {})
    rows: list[dict[str, Any]] = [
        {"rank": rank, "low": low, "score": middle, "high": high, "night": night}
        for night, lists in nights.items()
        for rank, (low, middle, high) in lists.by_rank.items()
    ]
    if not rows:
        return Note("No row was ranked by a model.", "warn")
    own = list(subject.lists.by_rank.items())
    first, last = own[0], own[-1]
    says = (
        f"The middle score goes from {first[1][1]:.4g} at rank {first[0]} to {last[1][1]:.4g} at rank {last[0]}. "
        f"Bands hold the middle {QUANTILES[2] - QUANTILES[0]:.0%} of users."
    )
    x = number("rank", "rank", log=True)
    hues = colour("night", list(nights))
    values = {"values": rows}
    layers = [
        {
            "data": values,
            "mark": {"type": "area", "opacity": 0.2},
            "encoding": {"x": x, "y": number("low", "score", zero=False), "y2": {"field": "high"}, "color": hues},
        },
        {
            "data": values,
            "mark": {"type": "line", "point": True},
            "encoding": {
                "x": x,
                "y": number("score", "score", zero=False),
                "color": hues,
                "tooltip": hover(
                    ("rank", "rank", ","),
                    ("score", "middle", ".4g"),
                    ("low", "lowest tenth", ".4g"),
                    ("high", "highest tenth", ".4g"),
                    ("night", "night", ""),
                ),
            },
        },
    ]
    table = Table(
        ("night", "rank", "lowest tenth", "middle", "highest tenth"),
        [(row["night"], row["rank"], row["low"], row["score"], row["high"]) for row in rows],
    )
    return Chart("Scores by rank", says, {"height": 220, "layer": layers}, table)


def _calibration(subject: Subject) -> list[Part]:
    if not subject.ranked:
        return ["No calibration: without a ranker, scores are inner products and no probabilities."]
    found = calibrate(subject.run, subject.catalogue.ids)
    hits, rows = int(found.happened.sum()), int(found.rows.sum())
    about = f"Of {rows:,} recommendations to the replay's users, {hits:,} came true on the data date"
    if hits < _LEAST_HITS:
        return [f"No calibration: {about[0].lower()}{about[1:]}, and fewer than {_LEAST_HITS} show nothing."]
    age = subject.verdict.figures.get("model_age")
    seen = " The models have been trained on that day, so this flatters them." if age is not None and age <= 0 else ""
    return [_calibrated(found, f"{about}: the day before, tonight's models would have given them.{seen}")]


def _calibrated(found: Calibration, about: str) -> Chart:
    shares = found.happened / found.rows
    rows = []
    for predicted, share, count, hits in zip(found.predicted, shares, found.rows, found.happened, strict=True):
        off = 1.96 * math.sqrt(max(share * (1 - share), 1e-12) / count)
        rows.append(
            {
                "predicted": float(predicted),
                "share": float(share),
                "low": float(max(0.0, share - off)),
                "high": float(share + off),
                "rows": int(count),
                "hits": int(hits),
            }
        )
    most = max(max(row["predicted"], row["high"]) for row in rows)
    ratio = float(found.happened.sum() / max(1e-12, (found.predicted * found.rows).sum()))
    says = (
        f"{about} For each that was expected, {ratio:.2f} came true. On the line, scores are what happens; "
        "a ranker may order well and be far from it."
    )
    x, y = number("predicted", "mean score", form=".2~g"), number("share", "share that came true", form=".2~g")
    line = [{"predicted": 0.0, "share": 0.0}, {"predicted": most, "share": most}]
    tooltip = hover(
        ("predicted", "mean score", ".4f"), ("share", "came true", ".4f"), ("hits", "events", ","), ("rows", "of", ",")
    )
    layers = [
        {
            "data": {"values": line},
            "mark": {"type": "line", "strokeDash": [5, 4], "color": "#8a8f98"},
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"values": rows},
            "mark": "rule",
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "data": {"values": rows},
            "mark": {"type": "point", "filled": True, "size": 60},
            "encoding": {"x": x, "y": y, "tooltip": tooltip},
        },
    ]
    table = Table(
        ("mean score", "came true", "recommendations", "share that came true"),
        [(row["predicted"], row["hits"], row["rows"], row["share"]) for row in rows],
    )
    return Chart("Calibration: scores against what came true", says, {"height": 240, "layer": layers}, table)
