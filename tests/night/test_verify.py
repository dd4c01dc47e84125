"""One changed byte anywhere in a release is found, and named, by `releases verify`."""

import shutil
from pathlib import Path

import pytest

from tests.night.shop import Shop, content_of, only_release, run_nightrec

KINDS = [
    "scores/00001-of-00003.arrow",
    "interests/00000-of-00003.arrow",
    "items/00000-of-00002.arrow",
    "index/ivf.faiss",
    "index/items.arrow",
    "index/index.json",
    "manifest.json",
]


@pytest.fixture
def copy(shop: Shop, plain: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the ordinary night's store, to be damaged: its config and its release."""
    shutil.copytree(plain / "store", tmp_path / "store")
    return shop.config(tmp_path), only_release(tmp_path / "store")


def test_an_untouched_release_is_whole(copy: tuple[Path, Path]) -> None:
    """What nobody touched passes."""
    config, release = copy

    finished = run_nightrec("releases", "verify", release.name, "--config", config)

    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_is_named(copy: tuple[Path, Path], kind: str) -> None:
    """A flipped byte in the middle of a file ends in exit 4, one line, and that file's name."""
    config, release = copy
    path = release / kind
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    finished = run_nightrec("releases", "verify", release.name, "--config", config)

    assert finished.returncode == 4, finished.stderr
    assert kind in finished.stderr.replace("\n", "")
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("damage", ["missing", "extra"])
def test_a_missing_or_foreign_file_is_named(copy: tuple[Path, Path], damage: str) -> None:
    """A release with a file too few or too many is not whole."""
    config, release = copy
    path = release / sorted(content_of(release))[3]
    path.unlink() if damage == "missing" else (release / "scores" / "more.arrow").write_bytes(b"x")

    finished = run_nightrec("releases", "verify", release.name, "--config", config)

    assert finished.returncode == 4, finished.stderr
    assert (path.name if damage == "missing" else "more.arrow") in finished.stderr.replace("\n", "")
