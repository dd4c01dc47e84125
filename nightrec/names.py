"""What the name of a table or column says of it: which words people use for users, items, moments and lists."""

import re
from collections.abc import Iterable

from nightrec.look import Column
from nightrec.values import RESERVED, RESERVED_PREFIXES

NAMES = {
    "user_id": "user customer client visitor member account buyer shopper reviewer viewer listener reader person "
    "subscriber player guest uid session",
    "item_id": "item product article sku stock movie asin video track song book isbn listing offer content post news "
    "show game recipe ad goods media document",
    "time": "time timestamp datetime date ts when created at day dt dat",
    "title": "title name description label headline",
    "event": "event action behavior behaviour interaction",
    "weight": "weight rating stars quantity qty score strength",
}  # words that columns are named by, the likelier first
_ID_WORDS = {"id", "ids", "code", "no", "nr", "number", "key", "uuid", "idx"}
OTHER_WORDS = {"price", "cost", "amount", "url", "image", "email", "phone", "count", "total", "lat", "lon", "zip"}
_GONE_WORDS = {
    "exclude",
    "excluded",
    "exclusion",
    "erase",
    "erased",
    "erasure",
    "takedown",
    "block",
    "blocked",
    "banned",
}


def by_name(name: str, columns: Iterable[Column]) -> list[Column]:
    """Give the columns whose names say that they are *name*, the clearest first; far worse ones are left out."""
    scored = [(score_of(name, column.name), column) for column in columns]
    best = max((score for score, _ in scored), default=0)
    near = [(score, column) for score, column in scored if score > 0 and score >= best - 10]
    return [column for _, column in sorted(near, key=lambda one: -one[0])]


def score_of(role: str, name: str) -> float:
    """Say how clearly a column's *name* is one of *role*, from 0 for not at all; each word more makes it less so."""
    words, known = words_of(name), NAMES[role].split()
    hits = [known.index(word) for word in words if word in known]
    if not hits or set(words) & OTHER_WORDS:
        return 0.0
    more = [word for word in words if word not in known and word not in _ID_WORDS]
    is_id = role.endswith("_id") and bool(_ID_WORDS & {*words})
    return 100.0 - min(hits) - 25 * len(more) + 5 * is_id


def words_of(name: str) -> list[str]:
    """Cut a column's name into lower-case words: ``"CustomerID"``, ``"customerid"`` and ``"Customer ID"`` into two."""
    known = {word for words in NAMES.values() for word in words.split()}
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    found: list[str] = []
    for word in re.findall(r"[^\W_]+", parted.lower()):
        joined = re.fullmatch(r"(.+)(id|code|name|time|stamp|date)", word)
        found += joined.groups() if joined and joined[1] in known and word not in known else (word,)
    return found


def names_gone(name: str, columns: Iterable[str]) -> str:
    """Say whose ids a list is of that must be gone, ``"user_id"`` or ``"item_id"``: its *name* says so, or its columns.

    Returns ``""`` for a table that is no such list, or where it is not clear whose: one of users with items is none.
    """
    words = [word.removesuffix("s") for word in words_of(name)]
    by_columns = _of_whom(word for column in columns for word in words_of(column))
    of = by_columns if len(by_columns) > 1 else _of_whom(words) or by_columns
    return of[0] if len(of) == 1 and _GONE_WORDS & {*words} else ""


def _of_whom(words: Iterable[str]) -> list[str]:
    said = {*words}
    return [role for role in ("user_id", "item_id") if said & {*NAMES[role].split()}]


def feature_name(column: str, taken: Iterable[str]) -> str:
    """Make a feature's name of a column's: lower case, and none that we use ourselves."""
    name = "_".join(re.findall(r"[a-z0-9]+", "_".join(words_of(column)).encode("ascii", "ignore").decode())) or "kind"
    name = name if name[0].isalpha() else f"kind_{name}"
    if name in RESERVED or name.startswith(RESERVED_PREFIXES):
        name = f"kind_{name}"
    while name in taken:
        name += "_too"
    return name
