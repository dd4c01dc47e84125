"""JSON documents under a root: written in one form, sealed with their own digest, and swapped safely."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from artifacts.digest import canonical_json, document_digest
from artifacts.errors import ConflictError, CorruptError
from artifacts.mirror import mirror_of
from artifacts.store import MOST_BYTES, exclusive, read_bytes, staged_file, sweep_staged_files


def write_json(path: Path, document: Any) -> None:
    """Write *document* under *path* whole or not at all, the same bytes for the same document."""
    write_whole(path, canonical_json(document))


def write_whole(path: Path, content: bytes) -> None:
    """Write *content* under *path* whole or not at all."""
    if mirror := mirror_of(path):
        mirror.remote.write(mirror.key(path), content)
        return
    with staged_file(path) as file:
        file.write(content)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptError: If the file is missing, is not JSON, or holds something else than an object.
    """
    return _parse(path, read_bytes(path))


def find_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object as :func:`read_json` does; None if there is no such file."""
    content = _find_bytes(path)
    return None if content is None else _parse(path, content)


def _find_bytes(path: Path) -> bytes | None:
    if mirror := mirror_of(path):
        found = mirror.remote.read(mirror.key(path), most=MOST_BYTES)
        return found[0] if found else None
    return read_bytes(path) if path.is_file() else None


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path}: expected JSON, found something else ({error})") from error
    if not isinstance(document, dict):
        raise CorruptError(f"{path}: expected a JSON object, found a {type(document).__name__}")
    return document


def write_sealed(path: Path, document: dict[str, Any], *, version: int) -> None:
    """Write *document* with its format *version* and its own digest, so that no byte of it can change unnoticed."""
    write_json(path, sealed(document, version))


def amend_sealed(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], *, version: int) -> None:
    """Put *change* of what a sealed document says, of nothing if there is none, in its place.

    Whoever does the same at the same time, on this machine or another, is heard too: then *change* is asked again.

    Raises:
        CorruptError: If the document was changed otherwise.
    """
    while True:
        known = find_sealed(path, version=version, remedy="remove it")
        before = None if known is None else sealed(known, version)
        with suppress(ConflictError):
            swap_json(path, expected=before, document=sealed(change(known or {}), version))
            return


def sealed(document: dict[str, Any], version: int) -> dict[str, Any]:
    """Give *document* with its format *version* and its own digest."""
    whole = {"format": version, **document}
    return {**whole, "digest": document_digest(whole)}


def require_format(path: Path, found: object, version: int) -> None:
    """Refuse a document of another format than *version*.

    Raises:
        CorruptError: Naming both; what a newer format needs is a newer nightrec.
    """
    if found != version:
        newer = isinstance(found, int) and found > version
        remedy = "; a newer nightrec wrote it, and one as new is needed to read it" if newer else ""
        raise CorruptError(f"{path}: expected format {version}, found {shown(found)}{remedy}")


def read_sealed(path: Path, *, version: int, remedy: str = "") -> dict[str, Any]:
    """Read what :func:`write_sealed` wrote, without format and digest.

    Args:
        path: Where it lies.
        version: The format that it must have.
        remedy: What to do if it was changed; ends the message.

    Raises:
        CorruptError: If it is missing, changed in any byte, or of another format.
    """
    return _unsealed(path, read_bytes(path), version, remedy)


def find_sealed(path: Path, *, version: int, remedy: str = "") -> dict[str, Any] | None:
    """Read a sealed document as :func:`read_sealed` does; None if there is no such file."""
    content = _find_bytes(path)
    return None if content is None else _unsealed(path, content, version, remedy)


def _unsealed(path: Path, content: bytes, version: int, remedy: str) -> dict[str, Any]:
    document = _parse(path, content)
    try:
        canonical = canonical_json(document) == content
    except (ValueError, RecursionError):  # NaN, which JSON has no word for, half of a surrogate pair, a deep nest
        canonical = False
    digest = document.pop("digest", None)
    require_format(path, document.get("format"), version)
    if not canonical or digest != document_digest(document):
        ending = f"; {remedy}" if remedy else ""
        raise CorruptError(f"{path}: its bytes are not those that were written (its own digest differs){ending}")
    del document["format"]
    return document


def swap_json(path: Path, *, expected: dict[str, Any] | None, document: dict[str, Any]) -> None:
    """Replace the document at *path* if it still is *expected* (``None``: if there is none).

    Raises:
        ConflictError: If another document stands there.
    """
    lost = f"{path} was changed by someone else meanwhile; look at it and try again"
    if mirror := mirror_of(path):
        mirror.require_swaps()
        found = mirror.remote.read(key := mirror.key(path), most=MOST_BYTES)
        content, version = (_parse(path, found[0]), found[1].version) if found else (None, None)
        if content != expected or not mirror.remote.swap(key, canonical_json(document), version):
            raise ConflictError(lost)
        return
    with exclusive(path.with_name(f".{path.name}.lock")):
        if find_json(path) != expected:
            raise ConflictError(lost)
        sweep_staged_files(path)
        write_json(path, document)
