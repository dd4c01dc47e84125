"""What a shell completes by itself: keys of the config, and releases, where they are known without asking a store."""

from pathlib import Path
from typing import Any

import typer

from artifacts.errors import NightrecError
from nightrec.night import CONFIG, configured


def complete_key(incomplete: str) -> list[str]:
    """Give the keys and tables of the config that begin so."""
    from nightrec.keys import known_keys, tables

    names = {name.replace("[]", "") for name in (*tables(), *(key.path for key in known_keys()))}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_release(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the stored releases that begin so, of a config that can be read and whose root is a folder."""
    from artifacts.layout import RootLayout

    said: Any = ctx.params.get("config") or CONFIG
    try:
        root = configured(Path(said)).surface.root
    except NightrecError:
        return []
    if "://" in root:
        return []
    folder = RootLayout(Path(root)).releases
    names = (path.name for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    return sorted((name for name in names if name.startswith(incomplete)), reverse=True)
