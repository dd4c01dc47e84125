"""A night that is published to a shadow, and promoted when it has proved itself."""

import json
import shutil
from pathlib import Path

from tests.night.shop import DATE, Shop, only_release, run_nightrec


def test_a_night_fills_the_shadow_and_is_promoted(shop: Shop, plain: Path, tmp_path: Path) -> None:
    """``--channel`` moves that pointer alone; ``promote`` then lets LATEST name the same release."""
    shutil.copytree(plain / "store" / "runs", tmp_path / "store" / "runs")
    config = shop.config(tmp_path)
    version = only_release(plain / "store").name

    night = run_nightrec("run", "--config", config, "--date", DATE, "--channel", "shadow", "--json")
    assert night.returncode == 0, night.stderr
    assert json.loads(night.stdout)["release"] == version
    assert not (tmp_path / "store" / "LATEST").exists()

    promoted = run_nightrec("releases", "promote", version, "--config", config, "--reason", "a week of clicks")
    assert promoted.returncode == 0, promoted.stderr
    latest, shadow = (json.loads((tmp_path / "store" / name).read_text()) for name in ("LATEST", "channels/shadow"))
    assert latest["version"] == shadow["version"] == version
    assert latest["reason"].endswith("a week of clicks")

    again = run_nightrec("publish", "--config", config, "--date", DATE, "--channel", "../LATEST")
    assert again.returncode == 2
    assert "letters, digits" in again.stderr


def test_an_erased_user_is_gone_from_a_real_night(shop: Shop, plain: Path, tmp_path: Path) -> None:
    """A revised release of a whole night is whole, has the item and the user no more, and answers the others."""
    shutil.copytree(plain / "store", tmp_path / "store")
    config = shop.config(tmp_path)
    (tmp_path / "users.txt").write_text("17\n")
    (tmp_path / "items.csv").write_text("item-0006\nitem-0019\n")  # the second is not eligible

    revised = run_nightrec(
        *("releases", "revise", "--config", config, "--reason", "erasure", "--json"),
        *("--drop-users", tmp_path / "users.txt", "--drop-items", tmp_path / "items.csv"),
    )
    assert revised.returncode == 0, revised.stderr
    told = json.loads(revised.stdout)
    assert (told["taken_out"]["users"], told["taken_out"]["items"], told["moved"]) == (1, 2, ["LATEST"])
    assert run_nightrec("releases", "verify", "--config", config).returncode == 0
    gone = run_nightrec("recommend", "17", "--config", config)
    assert gone.returncode == 2
    assert "user 17" in gone.stderr
    other = run_nightrec("recommend", "18", "--config", config, "--json")
    assert other.returncode == 0, other.stderr
    items = json.loads(other.stdout)["items"]
    assert [item["rank"] for item in items] == list(range(1, len(items) + 1))
    assert not {"item-0006", "item-0019"} & {item["item_id"] for item in items}

    changes = run_nightrec("releases", "diff", told["revised_from"], told["version"], "--config", config, "--json")
    counts = json.loads(changes.stdout)["counts"]
    assert (counts["users"]["went"], counts["items"]["went"], counts["indexed"]["went"]) == (1, 2, 1)
