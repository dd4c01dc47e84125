"""The fields of our JSON documents: each is of the type and form that it must have, or a ``ValueError`` says so."""

import re
from collections.abc import Mapping
from reprlib import repr as shown
from typing import Any

_LARGEST = 2**63 - 1

WORD = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,1000}")
PROSE = re.compile(r"[^\ud800-\udfff]+")  # what a person said; half of a surrogate pair is not to be written
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SHA256 = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{12}")
_INNER = re.compile(r"(?![.]+(/|\Z))[A-Za-z0-9._-]{1,200}(/(?![.]+(/|\Z))[A-Za-z0-9._-]{1,200})*")


def text(document: Mapping[str, Any], key: str, form: re.Pattern[str] = WORD) -> str:
    """Give the text at *key*, which must be whole of a *form*.

    Raises:
        ValueError: If it is missing, no text, or of another form.
    """
    found = document.get(key)
    if not isinstance(found, str) or not form.fullmatch(found):
        raise _wrong(key, f"text of the form {form.pattern}", found)
    return found


def whole(document: Mapping[str, Any], key: str, *, least: int = 0) -> int:
    """Give the whole number at *key*, which is at least *least* and fits into 64 bits.

    Raises:
        ValueError: If it is missing, no such number, or out of these limits.
    """
    found = document.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= _LARGEST:
        raise _wrong(key, f"a whole number of at least {least}", found)
    return found


def table(document: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """Give the object at *key*, each of whose values is an object itself.

    Raises:
        ValueError: If it is missing, or something else.
    """
    found = mapping(document, key)
    for name, value in found.items():
        if not isinstance(value, dict):
            raise _wrong(f"{key}, {shown(name)}", "an object", value)
    return found


def mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Give the object at *key*.

    Raises:
        ValueError: If it is missing, or something else.
    """
    found = document.get(key)
    if not isinstance(found, dict):
        raise _wrong(key, "an object", found)
    return found


def listing(document: Mapping[str, Any], key: str) -> list[Any]:
    """Give the list at *key*.

    Raises:
        ValueError: If it is missing, or something else.
    """
    found = document.get(key)
    if not isinstance(found, list):
        raise _wrong(key, "a list", found)
    return found


def only(document: Mapping[str, Any], *known: str) -> None:
    """Refuse a document that has other keys than the *known* ones.

    Raises:
        ValueError: Naming the first of them.
    """
    if strange := sorted(document.keys() - set(known)):
        raise ValueError(f"expected the keys {', '.join(known)}, found {shown(strange[0])}")


def inner(name: str) -> str:
    """Give *name* back if it is the path of a file inside a folder, made of plain characters.

    Raises:
        ValueError: If it leads out of the folder, or has a character that no name of ours has.
    """
    if not _INNER.fullmatch(name):
        raise ValueError(f"{shown(name)} is not the path of a file inside")
    return name


def _wrong(key: str, expected: str, found: object) -> ValueError:
    return ValueError(f"{key}: expected {expected}, found {shown(found)}")
