"""What a bundle's contract may say: each field of ``bundle.json`` is looked at before anything is made of it."""

from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from typing import Any

from artifacts.fields import DAY, SHA256, inner, mapping, only, table, text, whole

MOST_INTERESTS = 256  # of a user: the number of an interest is published as uint8
MOST_BEHAVIOURS = 100_000  # of a history, and of the edges of its gaps
CROSS_FEATURES = ("retrieval_score", "times_had", "days_since", "popularity")
METRICS = ("inner_product",)
_NUMBERS = ("int32", "int64", "float32")
_KEYS = (
    *("role", "model_id", "bundle_id", "inputs", "outputs", "spec", "metric", "width", "interests"),
    *("trained_through", "files", "about"),
)


def require_contract(document: dict[str, Any]) -> None:
    """Refuse a contract whose fields are not what a bundle can have; *document* is without format and digest.

    Raises:
        ValueError: Naming the field, what was expected and what was found.
    """
    only(document, *_KEYS)
    role = _one_of(document, "role", ("item", "user", "ranker"))
    for key in ("model_id", "bundle_id"):
        text(document, key)
    _one_of(document, "metric", METRICS)
    _between(document, "width", *((0, 0) if role == "ranker" else (1, 65_535)))
    _between(document, "interests", *((1, MOST_INTERESTS) if role == "user" else (0, 0)))
    if document.get("trained_through") != "":
        date.fromisoformat(text(document, "trained_through", DAY))
    mapping(document, "about")
    _require_spec(mapping(document, "spec"))
    for side in ("inputs", "outputs"):
        _require_tensors(side, document.get(side))
    for name, record in table(document, "files").items():
        inner(name)
        only(record, "size", "sha256")
        whole(record, "size")
        text(record, "sha256", SHA256)


def _require_spec(spec: dict[str, Any]) -> None:
    only(spec, "item_features", "profile_features", "history_length", "gap_edges", "cross_features")
    items, profile, cross = (_names(spec, key) for key in ("item_features", "profile_features", "cross_features"))
    if items[:1] != ["item_id"]:
        raise ValueError(f"spec, item_features: expected item_id first, found {items}")
    if len(set(items + profile)) < len(items + profile):
        raise ValueError(f"spec, features: expected each name once, found {items + profile}")
    if strange := sorted(set(cross) - set(CROSS_FEATURES)):
        raise ValueError(f"spec, cross_features: expected some of {', '.join(CROSS_FEATURES)}, found {strange[0]!r}")
    _between(spec, "history_length", 1, MOST_BEHAVIOURS)
    _require_edges(spec.get("gap_edges"))


def _names(spec: dict[str, Any], key: str) -> list[str]:
    found = spec.get(key)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"spec, {key}: expected a list of names, found {found!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"spec, {key}: expected each name once, found {found}")
    for name in found:
        if "/" in inner(name):
            raise ValueError(f"spec, {key}: expected names of features, found {name!r}")
    return found


def _require_edges(edges: object) -> None:
    if not isinstance(edges, list) or len(edges) > MOST_BEHAVIOURS:
        raise ValueError("spec, gap_edges: expected a list of seconds")
    for edge in edges:
        whole({"gap_edges": edge}, "gap_edges")
    if any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"spec, gap_edges: expected ascending seconds, found {edges[:20]}")


def _require_tensors(side: str, tensors: object) -> None:
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise ValueError(f"{side}: expected a list of tensors")
    for tensor in tensors:
        only(tensor, "name", "type", "shape")
        text(tensor, "name")
        _one_of(tensor, "type", _NUMBERS)
        shape = tensor.get("shape")
        if not isinstance(shape, list) or not all(isinstance(size, str | int) for size in shape):
            raise ValueError(f"{side}, {tensor['name']}: expected a shape of sizes and names, found {shape!r}")


def _one_of(document: dict[str, Any], key: str, words: Sequence[str]) -> str:
    found = document.get(key)
    if found not in words:
        raise ValueError(f"{key}: expected {' or '.join(words)}, found {found!r}")
    return str(found)


def _between(document: dict[str, Any], key: str, least: int, most: int) -> None:
    if whole(document, key, least=least) > most:
        raise ValueError(f"{key}: expected at most {most}, found {document[key]}")
