"""Models as other teams have them, each from its own files through the whole job to a release."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from tests.blocks import ROOT, blocks_for, commands_in
from tests.night.shop import DATE, ITEMS, NIGHTREC, Shop, only_release, write_data

OWN = ROOT / "examples" / "own"
RECHUB = ROOT / ".venv-peers" / "torch-rechub" / "bin" / "python"
WORDS = {"MIND", "BST"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The data that the models are trained on, and that the nights read; no bundles."""
    made = Shop(tmp_path_factory.mktemp("shop"))
    write_data(made.data)
    return made


@pytest.fixture(scope="module")
def trained(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the plain two-tower model's training leaves."""
    folder = tmp_path_factory.mktemp("two_tower")
    run("python", "-m", "examples.own.two_tower", str(shop.data), str(folder), cwd=ROOT)
    return folder


def run(program: str, *arguments: str, cwd: Path) -> str:
    """Run a program of this environment; give what it said on standard output."""
    programs = {"python": sys.executable, "nightrec": str(NIGHTREC)}
    finished = subprocess.run(
        [programs.get(program, program), *arguments],
        cwd=cwd,
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def released(shop: Shop, models: Path, names: Sequence[str], folder: Path, *, without: Sequence[str]) -> Path:
    """Export what the TOML files *names* say of the files in *models*, and run a night; give its release.

    The config is that of the shop, but for the lines that begin with one of *without*.
    """
    for name in names:
        shutil.copy(OWN / f"{name}.toml", models / "model.toml")
        run("nightrec", "export", "--spec", str(models / "model.toml"), "--out", str(folder / "bundles"), cwd=ROOT)
    config = shop.config(folder)
    lines = config.read_text().replace(f"{shop.folder}/bundles", f"{folder}/bundles").splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith(tuple(without))))
    run("nightrec", "run", "--config", str(config), "--date", DATE, cwd=folder)
    return only_release(folder / "store")


def table(release: Path, name: str) -> pa.Table:
    """All shards of one of a release's tables."""
    parts = []
    for path in sorted((release / name).glob("*.arrow")):
        with pa.ipc.open_file(path) as reader:
            parts.append(reader.read_all())
    return pa.concat_tables(parts)


def test_the_page_runs_from_top_to_bottom(shop: Shop, tmp_path: Path) -> None:
    """docs/bring-your-own.md: two towers and DIN in plain torch, which know nothing of nightrec, to a release."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "data").symlink_to(shop.data)
    config = shop.config(tmp_path)
    config.write_text(config.read_text().replace(f"{shop.folder}/bundles", "bundles"))
    commands = [command for block in blocks_for(__file__) if block.language == "sh" for command in commands_in(block)]

    assert len(commands) >= 5
    for command in commands:
        run(*command.words, cwd=tmp_path)

    scores = table(only_release(tmp_path / "store"), "scores")
    ranked = scores.filter(pc.equal(scores["source"], 0))
    assert ranked.num_rows > 1_000
    assert 0 < pc.min(ranked["score"]).as_py() < pc.max(ranked["score"]).as_py() < 1


def test_functional_keras_models(shop: Shop, trained: Path, tmp_path: Path) -> None:
    """Their vectors have length 1, as a cosine asks for; histories are padded to whatever the night pads them to."""
    run("python", "-m", "examples.own.keras_towers", str(trained), cwd=ROOT)

    release = released(shop, trained, ["keras_towers"], tmp_path, without=["ranker"])

    items = np.stack(table(release, "items")["vector"].combine_chunks().to_pylist())
    assert items.shape == (ITEMS - 1, 16)  # one was taken down
    assert np.linalg.norm(items, axis=1) == pytest.approx(1, abs=1e-5)
    assert table(release, "scores").num_rows > 1_000


def test_a_pair_of_finished_files(shop: Shop, trained: Path, tmp_path: Path) -> None:
    """They give what the model gives that they were made from, under its other names."""
    run("python", "-m", "examples.own.onnx_pair", str(trained), cwd=ROOT)

    files = released(shop, trained, ["onnx_pair"], tmp_path / "files", without=["ranker"])
    module = released(shop, trained, ["two_tower"], tmp_path / "module", without=["ranker"])

    one, other = (np.stack(table(release, "items")["vector"].to_pylist()) for release in (files, module))
    assert one == pytest.approx(other, abs=1e-6)
    columns = ["user_id", "item_id", "rank"]
    same = [a == b for a, b in zip(*(rows(release, "scores", columns) for release in (files, module)), strict=True)]
    assert np.mean(same) > 0.99


def rows(release: Path, name: str, columns: list[str]) -> list[dict[str, Any]]:
    """The rows of a table, sorted by *columns*."""
    found = table(release, name).select(columns)
    listed: list[dict[str, Any]] = found.sort_by([(column, "ascending") for column in columns]).to_pylist()
    return listed


def test_a_checkpoint_from_elsewhere(shop: Shop, tmp_path: Path) -> None:
    """Its rows, its padding and its order of a history: users' vectors are those that its own code computes."""
    from examples.own import elsewhere

    models = tmp_path / "models"
    run("python", "-m", "examples.own.elsewhere", str(shop.data), str(models), cwd=ROOT)

    release = released(shop, models, ["elsewhere"], tmp_path, without=["ranker"])

    row = json.loads((models / "item2row.json").read_text())
    events = pq.read_table(shop.data / "interactions.parquet").to_pylist()
    tower = elsewhere.user_tower(models)
    found = {one["user_id"]: one["vectors"] for one in table(release, "interests").to_pylist() if not one["cold"]}
    compared = 0
    for user in sorted(found)[:50]:
        own = sorted((one["time"], one["item_id"]) for one in events if one["user_id"] == user)
        if len({time for time, _ in own}) < len(own):
            continue  # what happened at once has no order of its own
        history = [row[item] for _, item in own if item != "item-0000"][-8:]  # one item was taken down
        with torch.no_grad():
            wanted = tower(torch.tensor([[len(row)] * (8 - len(history)) + history]))
        assert np.array(found[user]) == pytest.approx(wanted.numpy(), abs=1e-5), user
        compared += 1
    assert compared > 40


@pytest.mark.skipif(not RECHUB.exists(), reason="torch-rechub has no environment here: `make peers` makes it")
def test_what_another_projects_exporter_writes(shop: Shop, tmp_path: Path) -> None:
    """torch-rechub's MIND draws in every call and is refused for it; a routing that starts alike is released."""
    drawn, fixed = tmp_path / "drawn", tmp_path / "fixed"
    for folder, options in ((drawn, ["--drawn"]), (fixed, [])):
        run(str(RECHUB), "-m", "examples.own.rechub", str(shop.data), str(folder), *options, cwd=ROOT)
    shutil.copy(OWN / "rechub.toml", drawn)
    command = [NIGHTREC, "export", "--spec", drawn / "rechub.toml", "--out", tmp_path / "refused"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)

    assert refused.returncode == 1
    assert re.search(r"random|Random", refused.stderr), refused.stderr
    assert not list((tmp_path / "refused").rglob("*.onnx"))

    release = released(shop, fixed, ["rechub"], tmp_path, without=["ranker"])

    warm = [one["vectors"] for one in table(release, "interests").to_pylist() if not one["cold"]]
    assert {len(vectors) for vectors in warm} == {3}
    assert np.linalg.norm(np.array(warm), axis=2) == pytest.approx(1, abs=1e-5)
    assert table(release, "scores").num_rows > 1_000


@pytest.mark.parametrize("spec", sorted(OWN.glob("*.toml")), ids=lambda path: path.stem)
def test_twenty_lines_are_enough(spec: Path) -> None:
    """A model is brought by a TOML file of at most 20 lines, and by no code that knows us."""
    assert len(spec.read_text().splitlines()) <= 20
    code = spec.with_suffix(".py").read_text()
    assert not [line for line in code.splitlines() if line.startswith(("import ", "from ")) and "nightrec" in line]
    assert not [part for part in ("artifacts", "features", "models.", "export.") if f"from {part}" in code]


@pytest.mark.parametrize("package", ["artifacts", "features", "batch", "release"])
def test_the_night_does_not_know_which_models_it_runs(package: str) -> None:
    """No word of MIND or BST, in code or comments: what is said of them is said by the bundle."""
    files = sorted((ROOT / package).rglob("*.py"))

    assert files
    assert [file.name for file in files if WORDS & set(re.findall(r"\w+", file.read_text().upper()))] == []
