"""The report's flow, from interactions to rows: what was kept, what was set apart, what was left out and why."""

from collections.abc import Mapping, Sequence

from release.charts import Part as Share
from release.charts import flow
from release.page import Chart, Heading, Part, Table
from release.subject import Subject

GONE_INTERACTIONS = {
    "interactions_future": "after the data date",
    "interactions_null": "without an id or time",
    "interactions_of_excluded_users": "of excluded users",
    "interactions_with_excluded_items": "with excluded items",
}
GONE_ITEMS = {
    "ineligible": "not eligible",
    "no_signal": "without a signal",
    "nan_vectors": "vector not finite",
    "zero_vectors": "vector of zeros",
}
COUNTED = {
    "interactions_uncatalogued": "interactions with an item that tonight's catalogue does not have; models see them",
    "interactions_before_1970": "interactions before 1970",
    "gaps_negative": "interactions after the data date's end that were counted as just then",
    "hidden_files": "hidden files that were skipped",
    "items_id_unknown": "items whose id the models do not know",
    "items_unknown": "items of which the models know nothing",
    "items_untitled": "items without a title",
}
SCORED = {
    "seen_dropped": "candidates dropped since the user has had them",
    "short_lists": "users with a history and fewer candidates than asked for",
    "unfilled": "users with fewer recommendations than asked for",
}


def flows(subject: Subject) -> list[Part]:
    """Where interactions, users and items went."""
    counts, figures = subject.run.counts, subject.verdict.figures
    parts: list[Part] = []
    if "interactions_read" in counts:
        parts.append(_flow("Interactions", "interaction", _interactions(counts, figures)))
    parts.append(_flow("Users", "user", _users(counts, figures)))
    parts.append(_flow("Rows of recommendations", "row", _rows(figures)))
    parts.append(_flow("Items", "item", _items(subject, counts, figures)))
    scored = dict.fromkeys(SCORED, 0)
    for entry in subject.timings.get("score", ()):
        for name in scored:
            scored[name] += entry.get("counts", {}).get(name, 0)
    rows = [(words, counts[name]) for name, words in COUNTED.items() if name in counts]
    rows += [(words, scored[name]) for name, words in SCORED.items()] if subject.timings.get("score") else []
    return [*parts, Heading("Counted besides"), Table(("what", "how many"), rows)]


def _flow(title: str, one: str, stages: Sequence[Sequence[Share]]) -> Chart:
    rows = [
        (stages[place - 1][0].name if place else "", share.name, share.count, share.count / max(1, stages[0][0].count))
        for place, stage in enumerate(stages)
        for share in stage
    ]
    total = stages[0][0]
    splits = "; ".join(
        f"of {stages[place - 1][0].name}: "
        + ", ".join(f"{share.count:,} {share.name}" for share in stage if share.count)
        for place, stage in enumerate(stages)
        if place and stages[place - 1][0].count
    )
    table = Table(("of", "what", f"{one}s", "share of all"), [(a, b, c, f"{d:.2%}") for a, b, c, d in rows])
    says = f"{total.count:,} {total.name}." + (f" {splits[:1].upper()}{splits[1:]}." if splits else "")
    return Chart(title, says, flow(stages), table)


def _interactions(counts: Mapping[str, int], figures: Mapping[str, float]) -> list[list[Share]]:
    kept, told = counts["interactions"], int(figures.get("behaviours", 0))
    gone = [Share(words, counts.get(name, 0), "gone") for name, words in GONE_INTERACTIONS.items()]
    older = Share("older ones", max(0, kept - told), "apart")
    return [
        [Share("read", counts["interactions_read"])],
        [Share("kept", kept), *gone],
        [Share("told to models", min(kept, told)), older],
    ]


def _users(counts: Mapping[str, int], figures: Mapping[str, float]) -> list[list[Share]]:
    users, cold, excluded = counts["users"], int(figures.get("users_cold", 0)), counts.get("users_excluded", 0)
    empty = round(figures.get("users_empty", 0.0) * users)
    apart = [Share("cold: popular items", cold, "apart"), Share("excluded", excluded, "gone")]
    return [
        [Share("users", users + excluded)],
        [Share("with a history", users - cold), *apart],
        [Share("given a list", users - cold - empty), Share("have had all", empty, "gone")],
    ]


def _rows(figures: Mapping[str, float]) -> list[list[Share]]:
    rows, fallback = int(figures.get("rows", 0)), int(figures.get("rows_fallback", 0))
    return [[Share("rows", rows)], [Share("ranked", rows - fallback), Share("popular items", fallback, "apart")]]


def _items(subject: Subject, counts: Mapping[str, int], figures: Mapping[str, float]) -> list[list[Share]]:
    said: Mapping[str, int] = subject.parameters["counts"]
    excluded, indexed = counts.get("items_excluded", 0), said["indexed"]
    recommended = min(indexed, int(figures.get("items_recommended", 0)))
    gone = [Share(words, said.get(name, 0), "gone") for name, words in GONE_ITEMS.items()]
    return [
        [Share("items", counts["items"] + excluded)],
        [Share("indexed", indexed), *gone, Share("excluded", excluded, "gone")],
        [Share("recommended", recommended), Share("to nobody", indexed - recommended, "apart")],
    ]
