"""A person's mistakes in words: which key, what was expected, what was found, and what was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "date_type": "a day as YYYY-MM-DD",
    "finite_number": "a finite number",
    "string_too_short": "text that is not empty",
}
_PATTERNS = {
    "^[a-z][a-z0-9_]*$": "a name of lower-case letters, digits and _, a letter first",
    r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B$": "a size such as '4GB' or '512MiB'",
}
_LIMITS = {
    "greater_than_equal": ("of at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("of at most", "le"),
    "less_than": ("below", "lt"),
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'shards'?"`` where one of *known* is near *word*, else nothing."""
    near = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def mistakes_of(error: ValidationError, model: type[BaseModel], *, at: str = "") -> str:
    """Say in one line what is wrong with a document that is no *model*: the first mistake, and how many follow.

    *at* is the path of the table that *model* reads, where it is not the whole file.
    """
    first, *others = all_mistakes(error, model, at=at)
    return first + (f" (and {len(others)} more)" if others else "")


def all_mistakes(error: ValidationError, model: type[BaseModel], *, at: str = "") -> list[str]:
    """Say each mistake in one line.

    A key that is not known comes first: a misspelt one is also missing under its right name.
    """
    found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    return [_mistake(one, model, at) for one in found]


def _mistake(found: Any, model: type[BaseModel], at: str) -> str:
    *tables, key = [part for part in found["loc"] if part != "[key]"] or [""]
    where = _where(at, tables)
    if found["type"] == "extra_forbidden":
        known = _keys_at(tables, model)
        near = did_you_mean(str(key), known) or f"; it has {', '.join(sorted(known))}"
        return f"{where}no key {key!r} is known here{near}"
    if found["type"] == "missing":
        return f"{where}the key {key!r} is missing"
    if not found["loc"] or (found["type"] == "value_error" and isinstance(found["input"], dict)):
        return f"{_where(at, found['loc'])}expected {_expected(found)}"
    return f"{where}{key}: expected {_expected(found)}, found {_shown(found['input'])}{_meant(found)}"


def _where(at: str, tables: Iterable[object]) -> str:
    path = ".".join(str(table) for table in (at, *tables) if table != "")
    return f"[{path}] " if path else ""


def _keys_at(tables: Iterable[object], model: type[BaseModel]) -> list[str]:
    """List the keys of the table at *tables* under *model*; positions in a list are passed over."""
    for table in tables:
        if isinstance(table, str) and table in model.model_fields:
            model = _model_in(model.model_fields[table].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)


def _expected(found: Any) -> str:
    kind, context = found["type"], found.get("ctx") or {}
    if kind == "value_error":
        return str(context["error"].args[0])
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        return f"a number {words} {context[limit]:g}"
    return _KINDS.get(kind, str(found["msg"]))


def _meant(found: Any) -> str:
    word, context = found["input"], found.get("ctx") or {}
    if not isinstance(word, str):
        return ""
    if found["type"] == "literal_error":
        return did_you_mean(word, context["expected"].replace(" or ", ", ").replace("'", "").split(", "))
    if found["type"] == "value_error" and len(context["error"].args) > 1:
        return did_you_mean(word, context["error"].args[1])
    return ""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return f"the text {value!r}" if isinstance(value, str) else str(value)
