"""``nightrec recommend``: what a release recommends to one user, with titles."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightrec.completion import complete_release
from nightrec.night import ConfigPath, Json, configured
from nightrec.terminal import answer, say, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nightrec.config import Config

ReleaseAsked = Annotated[
    str | None,
    typer.Option(
        "--release",
        help="By default the one that the channel names.",
        autocompletion=complete_release,
        show_default=False,
    ),
]


def recommend(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    *,
    config: ConfigPath,
    release: ReleaseAsked = None,
    channel: Annotated[str, typer.Option("--channel", help="The pointer that readers follow.")] = "LATEST",
    top: Annotated[int, typer.Option("--top", min=1, help="How many.")] = 10,
    json: Json = False,
) -> None:
    """Show what a user is recommended."""
    from artifacts.schemas import SOURCE_FALLBACK
    from release.read import recommendations

    read = configured(config)
    found = recommendations(read.root, user, version=release, channel=channel)
    rows: list[dict[str, Any]] = found.rows.slice(0, top).to_pylist()
    titles = titles_of(read, [row["item_id"] for row in rows])
    for row in rows:
        row["title"] = titles.get(row["item_id"])
        row["source"] = "popular" if row["source"] == SOURCE_FALLBACK else "ranked"
    shown = ("rank", "item_id", "title", "source", "score", "retrieval_score", "interest")
    show(
        f"For user {found.user}, from release {found.version}",
        shown,
        [[str(row[name]) if name == "item_id" else row[name] for name in shown] for row in rows],
        needed=3,
    )
    if json:
        items = [{name: row[name] for name in shown} for row in rows]
        answer({"user": found.user, "release": found.version, "date": found.date, "items": items})


def titles_of(config: "Config", item_ids: "Sequence[int | str]") -> dict[int | str, str]:
    """Look up what some items are called in the items input; those without a title are left out.

    An answer is worth more than its titles: where the input cannot be read, that is said, and there are none.
    """
    if config.inputs.items.title is None:
        return {}
    from artifacts.errors import InputError, NotReadyError

    try:
        return dict(_titles(config, item_ids))
    except (InputError, NotReadyError) as error:
        say(f"nightrec: titles are not told; {error}")
        return {}


def _titles(config: "Config", item_ids: "Sequence[int | str]") -> "Iterator[tuple[int | str, str]]":
    import pyarrow as pa
    import pyarrow.compute as pc

    from features.inputs import read_batches
    from features.types import widen
    from nightrec.inputs import inputs_of

    for _, batch in read_batches(inputs_of(config).items, ["item_id", "title"]):
        ids = widen(batch.column("item_id"))
        mine = batch.filter(pc.is_in(ids, value_set=pa.array(item_ids, ids.type)))
        pairs = zip(mine.column("item_id").to_pylist(), mine.column("title").to_pylist(), strict=True)
        yield from ((item, title) for item, title in pairs if title is not None)
