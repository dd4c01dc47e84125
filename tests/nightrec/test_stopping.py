"""A process that is told to stop ends as stopped, wherever it stands: real processes inside calls of real libraries."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DATE = "2026-03-10"
DEADLINE = 300  # seconds until what does not come about is a failure

PROGRAM = """
import os, signal, sys
from pathlib import Path
import nightrec.stopping
from nightrec import main, steps
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
nightrec.stopping.GRACE = {grace}

def here():
    Path({gate!r}).write_text("here")

{inside}

steps.require_all = inside
main.main()
"""

# Each writes to the gate right before, or inside, a call that would last for minutes.
QUERY = """
def inside(*arguments):
    import duckdb
    here()
    duckdb.sql("SELECT sum(a.range * b.range) FROM range(100000000) a, range(1000000) b").fetchall()
"""
STREAM = """
def inside(*arguments):
    import duckdb, time, pyarrow as pa
    def batches():
        here()
        while True:
            time.sleep(0.01)
            yield pa.record_batch({"a": [1]})
    stream = pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches())
    duckdb.sql("SELECT sum(a) FROM stream").fetchall()
"""
TRAINING = """
def inside(*arguments):
    import faiss, numpy as np
    vectors = np.random.default_rng(1).random((200_000, 64), np.float32)
    means = faiss.Kmeans(64, 2_000, niter=10_000, max_points_per_centroid=1_000)
    here()
    means.train(vectors)
"""
GRAPH = """
def inside(*arguments):
    import numpy as np, onnx, onnxruntime
    from onnx import TensorProto, helper
    real, integer = TensorProto.FLOAT, TensorProto.INT64
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("MatMul", ["a", "a"], ["b"])],
        "body",
        [info("i", integer, []), info("go", TensorProto.BOOL, []), info("a", real, [500, 500])],
        [info("goes", TensorProto.BOOL, []), info("b", real, [500, 500])],
    )
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)
    graph = helper.make_graph(
        [loop], "g", [info("times", integer, []), info("x", real, [500, 500])], [info("y", real, [500, 500])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    here()
    session.run(None, {"times": np.array(10**9), "x": np.zeros((500, 500), np.float32)})
"""
DEAF = """
def inside(*arguments):
    import hashlib
    here()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
SWALLOWED = """
def inside(*arguments):
    import time
    while True:
        try:
            here()
            time.sleep(60)
        except BaseException:
            pass
"""
FILLS = """
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(2, True)
"""
WORKERS = """
def inside(*arguments):
    from deaf import deaf
    from nightrec.workers import run_groups
    run_groups(deaf, [[0], [1]], lambda rows: None)
"""
DEAF_WORKER = """
import hashlib, os
from pathlib import Path
import nightrec.stopping
def deaf(group, advance):
    nightrec.stopping.GRACE = 1.0
    with open({gate!r}, "a") as file:
        file.write(f"{{os.getpid()}} ")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@contextmanager
def program(folder: Path, config: Path, inside: str, *, grace: float) -> Iterator[subprocess.Popen[str]]:
    """Start ``nightrec run``, and wait until it is *inside*."""
    gate = folder / "gate"
    text = PROGRAM.format(grace=grace, gate=str(gate), inside=inside)
    arguments = ["run", "--config", str(config), "--date", DATE, "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until(lambda: gate.exists() or process.poll() is not None)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("inside", "forced"),
    # DuckDB hears of a stop between tasks of the calling thread: not while it waits for another thread's, and one that
    # comes while it asks for the next batch of a stream may be lost in there.
    [(QUERY, True), (STREAM, True), (TRAINING, False), (GRAPH, True), (DEAF, True), (SWALLOWED, True)],
    ids=["query", "stream", "training", "graph", "deaf", "swallowed"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_as_stopped_inside_any_call(
    tmp_path: Path, surface: Path, inside: str, *, forced: bool, number: signal.Signals
) -> None:
    """A library may make another error of the stop, or hear nothing of it: the code and the one line are the same."""
    with program(tmp_path, surface, inside, grace=1.0 if forced else 600.0) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE)

    assert process.returncode == 128 + number, err
    assert out.count("\n") == 1
    said = json.loads(out)
    assert (said["kind"], said["exit_code"]) == ("Stopped", 128 + number)
    assert forced or " by force" not in said["error"]  # the signal may come just before the call: then it is heard
    assert err.count("stopped by") == 1
    assert f"To go on: nightrec run --config {surface} --date {DATE}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("reader", ["gone", "asleep"])
def test_nobody_need_hear_it(tmp_path: Path, surface: Path, reader: str) -> None:
    """A pipe that is closed, or full, does not keep the process."""
    fills = "" if reader == "gone" else FILLS
    with program(tmp_path, surface, fills + DEAF, grace=1.0) as process:
        assert process.stderr
        if reader == "gone":
            process.stderr.close()
        process.terminate()
        assert process.wait(DEADLINE) == 143


def test_workers_inside_a_call_end_too(tmp_path: Path, surface: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever computes for a process that was told to stop does not go on computing."""
    said = tmp_path / "workers"
    (tmp_path / "deaf.py").write_text(DEAF_WORKER.format(gate=str(said)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with program(tmp_path, surface, "here()" + WORKERS, grace=60.0) as process:
        wait_until(lambda: said.exists() and len(said.read_text().split()) == 2)
        process.terminate()
        out, err = process.communicate(timeout=DEADLINE)

    assert process.returncode == 143, err
    assert json.loads(out)["kind"] == "Stopped"
    assert not [pid for pid in said.read_text().split() if Path(f"/proc/{pid}").exists()]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
