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
    "rechub_bst": "torch-rechub's BST",
    "retrieve": "retrieval (MIND)",
    "retrieve_rank": "retrieval, then BST",
    "item": "one event more, routing starts by the item (ours)",
    "position": "one event more, by the place in the history",
    "random": "one event more, by chance",
    "warm": "fitted a day later, warm, one epoch",
    "cold": "fitted a day later, from nothing",
    "exact": "exact search",
    "ivf": "the index as tuned, recall 0.95",
    "ivf_98": "the index, recall 0.98",
}
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "retrieval": ("retrieval", ("new.hr@50", "new.ndcg@50", "new.ndcg@10", "all.hr@50", "all.ndcg@10")),
    "ranking": ("order of MIND's candidates", ("auc", "gauc", "ndcg@10")),
    "variants": ("one change of BST, all told 20 behaviours", ("auc", "gauc", "ndcg@10")),
    "chain": ("what is published", ("all.ndcg@10", "new.ndcg@10")),
    "index": ("MIND's vectors, asked of one night", ("all.hr@50", "all.hr@100", "new.hr@50", "new.hr@100", "lists")),
    "steady": ("the best 50, before and after", ("overlap@50", "new.hr@50")),
    "cold": ("of whom or what nothing is known", ("share", "hr@50", "above")),
    "findings": ("one change of MIND's setting", ("new.hr@50", "new.ndcg@50", "all.hr@50")),
}
PLAIN = ("index", "cold")  # rows that are no rivals


def cell(metric: Sequence[float]) -> str:
    """Show [mean, deviation], the deviation where there is one."""
    mean, deviation = metric
    return f"{mean:.3f} ± {deviation:.3f}" if deviation else f"{mean:.3f}"


def marked(metric: Sequence[float], best: float | None) -> str:
    """Show a metric, in bold if it is the best."""
    return f"**{cell(metric)}**" if metric[0] == best else cell(metric)


def table(part: str, systems: dict[str, dict[str, Sequence[float]]]) -> list[str]:
    """Set the systems of a part under each other; the best mean of a column is bold."""
    title, metrics = PARTS[part]
    shown = [metric for metric in metrics if any(metric in row for row in systems.values())]
    best = {}
    for metric in shown:
        means = [row[metric][0] for row in systems.values() if metric in row]
        best[metric] = max(means) if part not in PLAIN else None
    lines = [f"| {title} | {' | '.join(shown)} |", f"|---|{'---|' * len(shown)}"]
    for name in [*SYSTEMS, *(system for system in systems if system not in SYSTEMS)]:
        if name in systems:
            row = systems[name]
            cells = [marked(row[m], best[m]) if m in row else "" for m in shown]
            lines.append(f"| {SYSTEMS.get(name, name)} | {' | '.join(cells)} |")
    return lines


def searched(trials: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Set what was tried for each system under each other: of the best epoch HitRate@50 ``new`` / ``all``."""
    systems = [name for name in SYSTEMS if name in trials]
    counts = ", ".join(f"{len(trials[name])} of {SYSTEMS[name]}" for name in systems)
    lines = [
        f"Tried on the validation part, seed 1: {counts}. HitRate@50 `new` / `all` of the best epoch, and which:",
        "",
    ]
    lines += [f"| tried | {' | '.join(SYSTEMS[name] for name in systems)} |", f"|---|{'---|' * len(systems)}"]
    best = {name: max(trials[name].values(), key=lambda row: row["new.hr@50"] + row["all.hr@50"]) for name in systems}
    for lever in dict.fromkeys(lever for name in systems for lever in trials[name]):
        rows = [(trials[name].get(lever), best[name]) for name in systems]
        lines.append(f"| {lever} | {' | '.join(trial(row, row is most) for row, most in rows)} |")
    return lines


def trial(row: dict[str, float] | None, best: bool) -> str:
    """Show one trial; nothing where a system has no such lever."""
    if row is None:
        return ""
    shown = f"{row['new.hr@50']:.3f} / {row['all.hr@50']:.3f}, {row['epoch']:.0f}"
    return f"**{shown}**" if best else shown


def tables(found: dict[str, Any], made: str, trials: dict[str, Any] | None = None) -> str:
    """Write every table; *made* says when, of which commit and by which command, *trials* what the search tried."""
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
        if trials and name in trials:
            lines += [*searched(trials[name]), ""]
    return "\n".join([*lines, END])


def write(page: Path, found: dict[str, Any], made: str, trials: dict[str, Any] | None = None) -> None:
    """Put the tables between the marks of *page*.

    Raises:
        SystemExit: If the page lacks the marks.
    """
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{page}: expected the two marks of the tables once each; put them back")
    before, rest = text.split(BEGIN)
    page.write_text(before + tables(found, made, trials) + rest.split(END)[1])
