"""The shared ranker beside the plain pairwise graph, and beside matrix products of its shapes.

``python -m benchmarks.ranker`` prints ``ranker_shared_vs_pairwise_target`` and ``..._all`` (wide layers in int8),
``..._target_fp32``, ``..._all_fp32`` and ``ranker_share_of_gemm_limit`` as JSON. Both sides use the same threads, as
the step ``score`` does: one call of one thread for each core. The pairwise graph is a BST of one candidate a row,
which is given a row for each pair, in the quickest of several sizes of batch.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import torch

from artifacts.bundle import Role
from benchmarks.made import CATEGORIES, SPEC
from benchmarks.ratio import Ratio, in_turn
from export.graph import to_onnx
from export.narrow import write_narrow
from export.sample import FULL, draw_rows
from export.source import Source
from features.vocabulary import fit_vocabulary
from models.bst import Bst, BstConfig

ITEMS = 200_000
CANDIDATES = 100
USERS = 64  # lists of a batch, as in the night
BATCHES = 4  # for each core
PAIRS = (200, 400, 800, 1600)  # rows of a pairwise batch, of which the quickest counts

Output = Literal["target", "all"]
Arrays = dict[str, np.ndarray]
Shape = tuple[int, int, int, int]


class WholeBlocks(Bst):
    """A BST as most would write it: every block computes all rows of a pair's sequence; ``target`` takes the last."""

    def shared_rows(self, x: torch.Tensor, real: torch.Tensor, x_c: torch.Tensor) -> torch.Tensor:
        """Run every block on all rows of every pair; arguments and result as in :class:`Bst`."""
        history = x.unsqueeze(1).expand(-1, x_c.shape[1], -1, -1)
        e = torch.cat([history, x_c.unsqueeze(2)], dim=2)
        present = torch.cat([real, torch.ones_like(real[:, :1])], dim=1).unsqueeze(1)
        for block in self.blocks:
            e = block(e, present, 0)
        if self.config.output == "target":
            return e[:, :, -1]
        return torch.where(present.unsqueeze(-1), e, 0.0).flatten(-2)


def pairwise_form(source: Source) -> Source:
    """The same weights in the plain form."""
    plain = WholeBlocks(source.module.config, source.spec, source.vocabularies)  # type: ignore[arg-type]
    plain.load_state_dict(source.module.state_dict())
    return replace(source, module=plain)


def ranker(output: Output) -> Source:
    """Make a BST of the size that the night is measured with: L = 20, d = 64, 8 heads, 1024-512-256."""
    vocabularies = {
        "item_id": fit_vocabulary("item_id", pa.array(np.arange(ITEMS))),
        "category": fit_vocabulary("category", pa.array(np.arange(CATEGORIES))),
        "country": fit_vocabulary("country", pa.array(["de", "fr", "it"])),
    }
    config = BstConfig(width=64, heads=8, mlp=(1024, 512, 256), output=output)
    bst = Bst(config, SPEC, vocabularies)
    with torch.no_grad():  # a network that was never trained adds nothing to the retrieval score
        torch.nn.init.normal_(bst.head.last.weight, std=0.05, generator=torch.Generator().manual_seed(2))
    return Source(Role.RANKER, bst, SPEC, vocabularies)


def as_pairs(inputs: Arrays) -> Arrays:
    """Repeat each user's part for each candidate: inputs of [users, C] become rows of one candidate each."""
    per_pair = {name for name in inputs if name == "cross" or name.startswith("candidate_")}
    candidates = inputs[next(iter(per_pair))].shape[1]
    return {
        name: array.reshape(-1, 1, *array.shape[2:]) if name in per_pair else np.repeat(array, candidates, axis=0)
        for name, array in inputs.items()
    }


def session(source: Source, folder: Path) -> Callable[[Arrays], np.ndarray]:
    """Write the graph of *source*, and give a function that runs it in one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    to_onnx(source, path)
    return opened(path)


def opened(path: Path) -> Callable[[Arrays], np.ndarray]:
    """Give a function that runs a graph in one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    runtime = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda arrays: np.asarray(runtime.run(["score"], arrays)[0])


def compare(output: Output) -> dict[str, Ratio]:
    """Time the shared graph, in int8 and in fp32, over the pairwise one.

    Raises:
        AssertionError: If they do not score alike.
    """
    cores, source = len(os.sched_getaffinity(0)), ranker(output)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(cores) as pool:
        shared = session(source, Path(folder) / "shared")
        plain = session(pairwise_form(source), Path(folder) / "pairwise")
        ready = [draw_rows(source, [FULL] * USERS, candidates=CANDIDATES, seed=seed) for seed in range(BATCHES * cores)]
        pairs = [as_pairs(inputs) for inputs in ready]
        np.testing.assert_allclose(shared(ready[0]).reshape(-1, 1), plain(pairs[0]), rtol=1e-4, atol=1e-5)
        narrowed = Path(folder) / "narrowed.onnx"
        write_narrow(source, Path(folder) / "shared" / "model.onnx", narrowed, ready[0])
        short = opened(narrowed)
        cuts = {rows: [part for inputs in pairs for part in _cut(inputs, rows)] for rows in PAIRS}
        spent = {rows: _seconds(partial(_all, pool, plain, cut)) for rows, cut in cuts.items()}
        rows = min(spent, key=spent.__getitem__)
        limit = partial(_all, pool, plain, cuts[rows])
        name = f"ranker_shared_vs_pairwise_{output}"
        ways = {name: short, f"{name}_fp32": shared}
        return {key: in_turn(partial(_all, pool, run, ready), limit) for key, run in ways.items()}


def _cut(inputs: Arrays, rows: int) -> list[Arrays]:
    total = len(next(iter(inputs.values())))
    return [{name: array[start : start + rows] for name, array in inputs.items()} for start in range(0, total, rows)]


def _all(pool: ThreadPoolExecutor, run: Callable[[Any], object], batches: Sequence[Any]) -> None:
    list(pool.map(run, batches))


def _seconds(work: Callable[[], object]) -> float:
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def products(source: Source, users: int, candidates: int) -> list[Shape]:
    """Shapes of all matrix products of the shared graph for a batch, as (how many, rows, inner, columns).

    They are those of ``Bst.shared_rows`` with one block, and of the layers behind it.
    """
    config, spec = source.module.config, source.spec  # type: ignore[union-attr]
    d, heads, length, ffn = config.width, config.heads, spec.history_length, config.ffn_width
    pairs, behaviours, w = users * candidates, users * length, d // heads
    every = config.output == "all"
    rows = (length + 1) if every else 1
    profile = config.profile_width * len(spec.profile_features)
    per_pair = d + len(spec.cross_features) + d * rows
    shapes = [
        (2, behaviours, d, d),  # keys and values of the history
        (3, pairs, d, d),  # query, key and value of the candidates
        (users * heads, candidates, w, length),
        (users * heads, candidates, length, w),
        (1, pairs * rows, d, d),  # out
        (1, pairs * rows, d, ffn),
        (1, pairs * rows, ffn, d),
        (1, users, profile, config.mlp[0]),
        (1, pairs, per_pair, config.mlp[0]),
        *((1, pairs, a, b) for a, b in zip(config.mlp, (*config.mlp[1:], 1), strict=True)),
    ]
    if every:
        shapes += [(1, behaviours, d, d), (users * heads, length, w, length), (users * heads, length, length, w)]
        shapes += [(users * heads, candidates, w, length)]
    return shapes


def pairwise_flops(source: Source) -> int:
    """Floating-point operations of the pairwise graph's matrix products for one pair."""
    config, spec = source.module.config, source.spec  # type: ignore[union-attr]
    d, n = config.width, spec.history_length + 1
    profile = config.profile_width * len(spec.profile_features)
    widths = (profile + d + len(spec.cross_features) + d * (n if config.output == "all" else 1), *config.mlp, 1)
    block = n * (4 * d * d + 2 * n * d + 2 * d * config.ffn_width)
    return 2 * (block + sum(a * b for a, b in pairwise(widths)))


def flops(shapes: Sequence[Shape]) -> int:
    """Floating-point operations of matrix products: two for each multiplication and addition."""
    return sum(2 * many * a * b * c for many, a, b, c in shapes)


def against_products(output: Output) -> tuple[Ratio, list[Shape]]:
    """Time the shared graph over plain matrix products of the same shapes, by torch, in one thread each."""
    cores, source = len(os.sched_getaffinity(0)), ranker(output)
    shapes = products(source, USERS, CANDIDATES)
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(1)
    factors = [
        (torch.randn(many, a, b, generator=rng), torch.randn(many, b, c, generator=rng)) for many, a, b, c in shapes
    ]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(cores) as pool:
        shared = session(source, Path(folder))
        ready = [draw_rows(source, [FULL] * USERS, candidates=CANDIDATES, seed=seed) for seed in range(cores)]

        def multiply(_batch: Arrays) -> None:
            for left, right in factors:
                torch.bmm(left, right)

        return in_turn(partial(_all, pool, shared, ready), partial(_all, pool, multiply, ready)), shapes


def main() -> None:
    """Print the figures."""
    figures: dict[str, Any] = {}
    outputs: tuple[Output, ...] = ("target", "all")
    for output in outputs:
        figures |= {key: ratio.document() for key, ratio in compare(output).items()}
    for output in outputs:
        ratio, shapes = against_products(output)
        name = "ranker_share_of_gemm_limit" + ("" if output == "target" else "_all")
        per_pair = {"shared": round(flops(shapes) / (USERS * CANDIDATES)), "pairwise": pairwise_flops(ranker(output))}
        figures[name] = ratio.document(flops_a_pair=per_pair)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
