"""Digests of files and documents: lower-case sha256, and the one JSON form that has a digest."""

import hashlib
import json
from pathlib import Path
from typing import Any


def canonical_json(document: Any) -> bytes:
    """Write *document* as JSON with sorted keys and a final newline; NaN and Inf are errors."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def document_digest(document: Any) -> str:
    """Digest *document* through its canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def file_digest(path: Path) -> str:
    """Digest the bytes of the file at *path*."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
