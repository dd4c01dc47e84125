"""Shell completion: the verbs by typer, keys and releases by what is there."""

import os
import subprocess
import sys
from pathlib import Path

NIGHTREC = Path(sys.executable).with_name("nightrec")


def completed(words: str, folder: Path) -> list[str]:
    """Complete the last of the *words* as bash asks for it."""
    environment = {
        **os.environ,
        "_NIGHTREC_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    finished = subprocess.run([NIGHTREC], env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return finished.stdout.split()


def test_verbs_keys_and_releases_are_completed(surface: Path) -> None:
    """Releases are those of the config in this folder, newest first; what is being staged is none."""
    for name in ("2026-03-09-aa", "2026-03-10-bb", ".staging"):
        (surface.parent / "store/releases" / name).mkdir(parents=True)

    assert completed("nightrec rel", surface.parent) == ["releases"]
    assert completed("nightrec config explain night.sh", surface.parent) == ["night.shards"]
    assert completed("nightrec releases show ", surface.parent) == ["2026-03-10-bb", "2026-03-09-aa"]
    assert completed("nightrec releases show 2026-03-09", surface.parent) == ["2026-03-09-aa"]
    assert completed("nightrec why 3 4 --release 2026-03-1", surface.parent) == ["2026-03-10-bb"]
    assert completed("nightrec recommend 3 --release ", surface.parent) == ["2026-03-10-bb", "2026-03-09-aa"]


def test_without_a_config_or_beside_a_store_nothing_is_completed(surface: Path) -> None:
    """Completion never fails in somebody's shell, and asks no store."""
    surface.write_text(surface.read_text().replace('root = "store"', 'root = "s3://bucket/shop"'))

    assert completed("nightrec releases show ", surface.parent) == []
    assert completed("nightrec releases show ", surface.parent / "data") == []
