"""Every key of the config with its type, default, bounds and meaning, as the fields that declare it have them."""

import inspect
import itertools
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import date
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from artifacts.errors import UsageError
from nightrec.config import Config
from nightrec.mistakes import did_you_mean
from nightrec.values import Words

NETWORKS = ("train.mind", "train.bst")  # tables whose keys the networks declare, which takes torch to read
_PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text", date: "day as YYYY-MM-DD"}
_NO_BOUND = 2**31 - 1  # of a whole number that nothing else limits


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        path: Where it stands: ``"night.shards"``; in each of a list of tables ``"score.rules[].group"``.
        kind: What it takes, in words.
        default: What holds where it is not given, as TOML or in words; ``"required"`` where it must be given.
        bounds: What a number keeps, in words; empty without bounds.
        meaning: What it is for.
    """

    path: str
    kind: str
    default: str
    bounds: str
    meaning: str


def known_keys() -> list[Key]:
    """Give all keys but those of ``NETWORKS``, in the order in which the tables declare them."""
    return [*_keys_of(Config, ""), *_gates()]


def network_keys() -> list[Key]:
    """Give the keys of ``[train.mind]`` and ``[train.bst]``.

    Raises:
        ModuleNotFoundError: Without torch, which the networks are declared with.
    """
    from models.bst import BstConfig
    from models.fit import BST_OPTIONS, MIND_OPTIONS
    from models.mind import MindConfig

    declared = zip(NETWORKS, ((MindConfig(), MIND_OPTIONS), (BstConfig(), BST_OPTIONS)), strict=True)
    keys = [key for at, both in declared for one in both for key in _keys_of_dataclass(one, at)]
    return list({key.path: key for key in reversed(keys)}.values())[::-1]  # a seed is of both, and said once


def tables() -> dict[str, str]:
    """Give what each table of the config is for, by its path."""
    return {path: _plain(inspect.getdoc(model) or "") for path, model in _tables_of(Config, "")}


def find_keys(asked: str, keys: Sequence[Key]) -> list[Key]:
    """Find what *asked* names: a key by its path or by its last part, or the keys of a table.

    Raises:
        UsageError: If there is none; the message has the nearest.
    """
    path = re.sub(r"[\[\]\s]+", ".", asked.replace("[]", "")).strip(".")
    bare = {key.path.replace("[]", ""): key for key in keys}
    found = [key for one, key in bare.items() if one == path or one.startswith(f"{path}.")]
    found = found or [key for one, key in bare.items() if one.endswith(f".{path}")]
    if not found:
        lasts = {one.rpartition(".")[2] for one in bare}
        near = did_you_mean(path, itertools.chain(bare, lasts, tables()))
        raise UsageError(f"no key or table {asked!r} is known{near or '; `nightrec config explain` lists all tables'}")
    return found


def toml_of(value: object) -> str:
    """Write a value as TOML does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, dict):
        pairs = ", ".join(
            f"{name if _is_bare(name) else toml_of(name)} = {toml_of(one)}" for name, one in value.items()
        )
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_of, value))}]"
    return str(value)


def _is_bare(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None


def _tables_of(model: type[BaseModel], at: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        table, listed = _table_in(field.annotation)
        if table is not None:
            path = f"{at}{name}{'[]' if listed else ''}"
            yield path, table
            yield from _tables_of(table, f"{path}.")


def _keys_of(model: type[BaseModel], at: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        table, listed = _table_in(field.annotation)
        if table is None or listed:
            yield Key(f"{at}{name}", _kind(field), _default(field), _bounds(field.metadata), _plain(_said(field)))
        if table is not None:
            yield from _keys_of(table, f"{at}{name}{'[]' if listed else ''}.")


def _said(field: FieldInfo) -> str:
    return field.description or ""


def _table_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Find the model that a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in get_args(annotation):
        table, _ = _table_in(part)
        if table is not None:
            return table, get_origin(annotation) is tuple
    return None, False


def _kind(field: FieldInfo) -> str:
    said = next((one.said for one in reversed(field.metadata) if isinstance(one, Words)), None)
    return said or _words(field.annotation)


def _words(annotation: Any) -> str:
    """Say what a type takes."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    metadata = getattr(annotation, "__metadata__", ())
    if metadata:
        return next((one.said for one in metadata if isinstance(one, Words)), _words(arguments[0]))
    if origin is Literal:
        return " or ".join(toml_of(one) for one in arguments)
    if origin in {Union, types.UnionType}:
        return " or ".join(_words(one) for one in arguments if one is not type(None))
    if origin is tuple:
        return f"list, each: {_words(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    return _PLAIN.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "not set" if value is None else toml_of(value)


def _bounds(metadata: Iterable[object]) -> str:
    """Say which numbers are taken, by the tightest of the declared bounds."""
    low: list[tuple[Any, str]] = [(one.ge, "at least") for one in metadata if isinstance(one, Ge)]
    low += [(one.gt, "above") for one in metadata if isinstance(one, Gt)]
    high: list[tuple[Any, str]] = [(one.le, "at most") for one in metadata if isinstance(one, Le)]
    high += [(one.lt, "below") for one in metadata if isinstance(one, Lt)]
    low.sort(key=lambda one: (one[0], one[1] == "above"))  # of two at one number, the strict one
    high.sort(key=lambda one: (one[0], one[1] != "below"))
    tightest = [*low[-1:], *high[:1]]
    return ", ".join(f"{words} {bound:,}" for bound, words in tightest if bound != _NO_BOUND)


def _gates() -> Iterator[Key]:
    from release.gates import GATES

    kind = "number, or table of bound, action (fail or warn) and against (absolute, last or median)"
    for gate in GATES:
        says = f"{gate.side} {gate.bound:g}, against {gate.against}; else {gate.action}"
        yield Key(f"gates.{gate.name}", "fixed" if gate.fixed else kind, says, "", f"{gate.meaning}.")


def _keys_of_dataclass(one: Any, at: str) -> Iterator[Key]:
    hints, meanings = get_type_hints(type(one)), attribute_meanings(type(one))
    for field in fields(one):
        value = getattr(one, field.name, MISSING)
        default = "not set" if value is None else toml_of(value)
        yield Key(f"{at}.{field.name}", _words(hints[field.name]), default, "", _plain(meanings[field.name]))


def attribute_meanings(declared: type) -> dict[str, str]:
    """Read what the section ``Attributes:`` of a class's docstring says of each field."""
    _, _, section = (inspect.getdoc(declared) or "").partition("\nAttributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _plain(text: str) -> str:
    """Write what is said in docstrings for a terminal: in one line, code in single backticks."""
    return " ".join(re.sub(r":\w+:`(.+?)`", r"`\1`", text).replace("``", "`").split())
