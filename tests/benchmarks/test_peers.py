"""What is not measurement in ``benchmarks/peers``: the environments, the conversation, and what is made of answers."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from batch.recall import take_sample
from benchmarks.peers import conversation, environment, index, mind


@pytest.fixture
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "FOLDER", tmp_path / "environments")
    monkeypatch.setattr(environment, "PINS", tmp_path)
    monkeypatch.setattr(conversation, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(conversation, "ROOT", tmp_path)


@pytest.mark.usefixtures("_own_folders")
def test_an_environment_is_made_once_and_anew_when_its_pins_change(tmp_path: Path) -> None:
    """What was installed is compared with the pins, to the byte."""
    pins = tmp_path / "peer.txt"
    pins.write_text("")

    python = environment.interpreter_of("peer")
    assert python is not None
    kept = python.parents[1] / "kept"
    kept.touch()
    assert environment.interpreter_of("peer") == python
    assert kept.exists()

    pins.write_text("# another\n")
    assert environment.interpreter_of("peer") == python
    assert not kept.exists()


@pytest.mark.usefixtures("_own_folders")
def test_a_peer_that_cannot_be_installed_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And gives no interpreter."""
    (tmp_path / "peer.txt").write_text(f"{tmp_path}/not-there.whl\n")

    assert environment.interpreter_of("peer") is None
    said = capsys.readouterr().err
    assert said.startswith("peer cannot be installed, and so is not measured: ERROR")
    assert said.count("\n") == 1


@pytest.mark.usefixtures("_own_folders")
def test_an_environment_beside_ours_finds_our_torch_after_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the very files of ours; what the environment has itself comes first."""
    monkeypatch.setattr(environment, "WITH_OUR_TORCH", {"peer"})
    (tmp_path / "peer.txt").write_text("")
    python = environment.interpreter_of("peer")

    find = "import importlib.util as u; print(u.find_spec('torch').origin, u.find_spec('pip').origin)"
    torch, pip = subprocess.check_output([str(python), "-c", find], text=True).split()

    assert torch == importlib.util.find_spec("torch").origin  # type: ignore[union-attr]
    assert Path(pip).is_relative_to(tmp_path)


@pytest.mark.usefixtures("_own_folders")
def test_answers_are_kept_apart_from_what_libraries_print(tmp_path: Path) -> None:
    """A peer may print what it likes, in Python or below: answers come one for each question."""
    root = Path(__file__).parents[2]
    (tmp_path / "peer.py").write_text(
        f"import os, sys\nsys.path.append({str(root)!r})\n"
        "from benchmarks.peers.conversation import answer\n"
        "print('before')\n"
        "def double(number):\n    print('within')\n    os.write(1, b'below')\n    return [2 * number]\n"
        "answer({'double': double, 'end': lambda: os._exit(3)})\n"
    )

    with conversation.started(Path(sys.executable), "peer") as ask:
        assert [ask("double", 4), ask("double", 5)] == [[8], [10]]

        with pytest.raises(SystemExit, match=r"peer ended without an answer; .*peer\.log has what it said"):
            ask("end")

    assert "below" in (tmp_path / "logs" / "peer.log").read_text()


def test_recall_counts_by_score_and_not_what_is_missing() -> None:
    """An item as good as the k-th counts; -1, which would be the last item, does not."""
    items = np.array([[1, 0], [2, 0], [2, 0], [3, 0], [9, 0]], np.float32)
    sample = take_sample(items, np.array([[1, 0]], np.float32), np.array([1]), k=3)  # 9, 3 and one of the 2

    assert index.recall_of(np.array([[4, 3, 1]]), sample, items) == 1
    assert index.recall_of(np.array([[4, 3, 2]]), sample, items) == 1
    assert index.recall_of(np.array([[3, 0, -1]]), sample, items) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("needed", "found"), [(16, 16), (17, 17), (1000, 1000), (10**6, index.PARAMETERS[-1])])
def test_the_least_parameter_that_reaches_the_recall(needed: int, found: int) -> None:
    """Bisection ends at it, and at the greatest where none does."""
    assert index.least_that(lambda value: value >= needed) == found


def test_made_vectors_have_groups_that_an_index_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users lie where items lie: most of the best items of an interest belong to its nearest few of many lists."""
    monkeypatch.setattr(index, "ITEMS", 4_000)
    monkeypatch.setattr(index, "GROUPS", 40)
    items, tuned_on, held_out = index.made()

    assert items.shape == (4_000, index.WIDTH)
    assert not np.array_equal(tuned_on[: len(held_out)], held_out)
    ivf = faiss.index_factory(index.WIDTH, "IVF40,Flat", faiss.METRIC_INNER_PRODUCT)
    ivf.train(items)
    ivf.add(items)
    ivf.nprobe = 4
    sample = take_sample(items, held_out[:64], np.full(64, 1), k=20)
    assert index.recall_of(ivf.search(held_out[:64], 20)[1], sample, items) > 0.8


def test_parts_are_compared_round_by_round() -> None:
    """A ratio is of one round, and the median is over rounds: 4, 2 and 3 times here."""
    ours = [{"items": 1.0}, {"items": 2.0}, {"items": 1.0}]
    peers = [{"items": 4.0}, {"items": 4.0}, {"items": 3.0}]

    assert mind.by_part(ours, peers)["items"].median == 3
