"""A night on a GPU: whole, the same bytes twice, and beside a night on a CPU. Skipped where no GPU can be used."""

from pathlib import Path

import numpy as np
import pytest

from artifacts.run import find_run
from artifacts.tables import read_table
from tests.gpus import NEED_GPU
from tests.night.shop import DATE, Shop, content_of, only_release, run_nightrec

SHARDS = 3


pytestmark = NEED_GPU


@pytest.fixture(scope="module")
def nights(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two nights on the GPU, the second with two workers."""
    folders = []
    for workers in (1, 2):
        folder = tmp_path_factory.mktemp(f"gpu-{workers}")
        config = shop.config(folder, workers=workers)
        config.write_text(config.read_text().replace("[night]", '[night]\ndevice = "gpu"'))
        finished = run_nightrec("run", "--config", config, "--date", DATE)
        assert finished.returncode == 0, finished.stderr
        folders.append(folder)
    return folders[0], folders[1]


def test_two_nights_give_the_same_bytes(nights: tuple[Path, Path]) -> None:
    """All files of a release are equal, whatever the number of workers."""
    one, other = (content_of(only_release(folder / "store")) for folder in nights)
    assert one == other


def test_vectors_are_those_of_a_night_on_a_cpu(nights: tuple[Path, Path], plain: Path) -> None:
    """Interests and item vectors are equal to the tolerance of parity; users and counts are the same."""
    gpu, cpu = (find_run(folder / "store", DATE) for folder in (nights[0], plain))
    pairs = [(run.layout.interests(shard, SHARDS) for run in (gpu, cpu)) for shard in range(SHARDS)]
    pairs += [(run.layout.items(shard, 2) for run in (gpu, cpu)) for shard in range(2)]
    for paths in pairs:
        one, other = (read_table(path) for path in paths)
        for name in one.column_names:
            left, right = (table[name].combine_chunks() for table in (one, other))
            while hasattr(left, "flatten") and str(left.type).find("list") >= 0:
                left, right = left.flatten(), right.flatten()
            if str(left.type) == "float":
                np.testing.assert_allclose(left.to_numpy(), right.to_numpy(), rtol=1e-4, atol=1e-5)
            else:
                assert left.equals(right), name


def test_lists_are_those_of_a_night_on_a_cpu(nights: tuple[Path, Path], plain: Path) -> None:
    """Of the items that are recommended at least 99 in 100 are the same."""
    gpu, cpu = (find_run(folder / "store", DATE) for folder in (nights[0], plain))
    same = total = 0
    for shard in range(SHARDS):
        one, other = (read_table(run.layout.scores(shard, SHARDS)).to_pydict() for run in (gpu, cpu))
        pairs = [set(zip(table["user_id"], table["item_id"], strict=True)) for table in (one, other)]
        same, total = same + len(pairs[0] & pairs[1]), total + len(pairs[1])
    assert total > 0
    assert same >= 0.99 * total
