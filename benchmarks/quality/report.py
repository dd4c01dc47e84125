"""The tables of docs/quality.md, out of ``build/quality.json``; what lies around them is written by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN = "<!-- tables by make quality: what lies from here to the end mark is written anew -->"
END = "<!-- end of the tables -->"
TITLES = {
    "online_retail": "Online Retail",
    "complete_journey": "Complete Journey",
    "ml100k": "MovieLens-100K",
    "ml100k_last_day": "MovieLens-100K, by each user's last day",
}
SYSTEMS = {
    "mind": "MIND, up to 4 interests",
    "mind_one": "MIND, one interest",
    "two_tower": "two towers, mean of the history",
    "torch_rechub": "torch-rechub's MIND",
    "popular": "most popular of some days",
    "own_items": "the user's own items, then popular ones",
    "item_knn": "item-kNN",
    "bst": "BST",
    "retrieval": "retrieval score (MIND)",
    "wdl": "wide and deep, no history",
    "wdl_sequence": "wide and deep, mean of the history",
    "din": "DIN",
    "retrieve": "retrieval (MIND)",
    "retrieve_rank": "retrieval, then BST",
    "item": "the item (ours)",
    "position": "the place in the history",
    "random": "chance",
}
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "retrieval": ("retrieval", ("new.hr@50", "new.ndcg@50", "new.ndcg@10", "all.hr@50", "all.ndcg@10")),
    "ranking": ("order of MIND's candidates", ("auc", "gauc", "ndcg@10")),
    "chain": ("what is published", ("all.ndcg@10", "new.ndcg@10")),
    "steady": ("routing starts by", ("overlap@50",)),
    "findings": ("one change of MIND's setting", ("new.hr@50", "new.ndcg@50", "all.hr@50")),
}


def cell(metric: Sequence[float]) -> str:
    """Show [mean, deviation], the deviation where there is one."""
    mean, deviation = metric
    return f"{mean:.3f} ± {deviation:.3f}" if deviation else f"{mean:.3f}"


def table(part: str, systems: dict[str, dict[str, Sequence[float]]]) -> list[str]:
    """Set the systems of a part under each other; the best mean of a column is bold."""
    title, metrics = PARTS[part]
    shown = [metric for metric in metrics if all(metric in row for row in systems.values())]
    best = {metric: max(row[metric][0] for row in systems.values()) for metric in shown}
    lines = [f"| {title} | {' | '.join(shown)} |", f"|---|{'---|' * len(shown)}"]
    for name in [*SYSTEMS, *(system for system in systems if system not in SYSTEMS)]:
        if name in systems:
            row = systems[name]
            cells = [f"**{cell(row[m])}**" if row[m][0] == best[m] else cell(row[m]) for m in shown]
            lines.append(f"| {SYSTEMS.get(name, name)} | {' | '.join(cells)} |")
    return lines


def tables(found: dict[str, Any], made: str) -> str:
    """Write every table; *made* says when, of which commit and by which command."""
    lines = [BEGIN, "", f"Measured {made}; mean ± deviation over seeds.", ""]
    for name in [*TITLES, *sorted(set(found) - set(TITLES))]:
        if name not in found:
            continue
        lines += [f"### {TITLES.get(name, name)}", ""]
        parts = {part: dict(systems) for part, systems in found[name].items()}
        if "chain" in parts:
            others = parts.get("retrieval", {})
            parts["chain"] |= {
                floor: others[floor] for floor in ("own_items", "item_knn", "popular") if floor in others
            }
        for part in PARTS:
            if parts.get(part):
                lines += [*table(part, parts[part]), ""]
    return "\n".join([*lines, END])


def write(page: Path, found: dict[str, Any], made: str) -> None:
    """Put the tables between the marks of *page*.

    Raises:
        SystemExit: If the page lacks the marks.
    """
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{page}: expected the two marks of the tables once each; put them back")
    before, rest = text.split(BEGIN)
    page.write_text(before + tables(found, made) + rest.split(END)[1])
