"""Networks that each break one rule of the gate."""

from pathlib import Path
from types import ModuleType

import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from artifacts.bundle import Role
from artifacts.errors import NightrecError, ParityError, UsageError
from batch.session import open_session
from export.graph import to_onnx
from export.parity import check_parity, open_graph
from export.write import export


class Broken(nn.Module):
    """An item tower whose last step is wrong."""

    def __init__(self) -> None:
        """Draw weights from a fixed seed."""
        super().__init__()
        self.item, self.category = nn.Embedding(22, 6), nn.Embedding(4, 6)
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, item: Tensor, category: Tensor) -> Tensor:
        return self.wrong(self.item(item) + self.category(category), item)

    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        raise NotImplementedError


class DrawsNoise(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return vector + 1e-9 * torch.rand_like(vector)


class DrawsInBranch(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        noisy, plain = lambda v: v + torch.rand_like(v), lambda v: v + 0.0
        chosen: Tensor = torch.cond(item.sum() > 0, noisy, plain, (vector,))
        return chosen


class DropsAlways(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return nn.functional.dropout(vector, 0.1, training=True)


class BakesInput(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return torch.stack([vector[row] for row in range(vector.shape[0])])


class BakesOutput(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return self.item.weight[:11] * 2


class DividesByZero(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return vector / (item != 0).unsqueeze(-1)


class GivesNan(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return vector * (item - 0.5).unsqueeze(-1).sqrt()


class LooksAtBatch(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return vector + 1e-6 * vector.mean(dim=0, keepdim=True)


class LooksAtNeighbour(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return vector + torch.cumsum(vector, dim=0) * 1e-6


class LooksAtPlace(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return vector + torch.arange(vector.shape[0]).unsqueeze(-1)


class BranchesOnData(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return vector * 2 if bool(item.sum() > 3) else vector


class Counts(Broken):
    """Gives another result each time it runs, but for the tracer it is a constant."""

    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return vector + self.calls


class DropsRows(Broken):
    def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
        return vector[1:]


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (DrawsNoise, r"case no random operator: found RandomUniformLike"),
        (DrawsInBranch, r"case no random operator: found RandomUniformLike"),
        (DropsAlways, r"case no random operator: found Dropout"),
        (BakesInput, r"case no baked batch size: item_id has 11 items for ever"),
        (BakesOutput, r"case no baked batch size: vector has 11 items for ever"),
        (
            DividesByZero,
            r"case all padding: vector\[0, 0\]: the source gives -?inf, expected a finite number; .* at least 1",
        ),
        (GivesNan, r"case all padding: vector\[0, 0\]: the source gives nan, expected a finite number"),
        (LooksAtBatch, r"case other neighbours: vector\[0, 0\]: expected -?\d.* bit for bit, found -?\d.*, off by \d"),
        (
            LooksAtNeighbour,
            r"case other neighbours: .* a row's result must depend on that row only, so take means, norms",
        ),
        (LooksAtPlace, r"case shuffled rows: vector\[\d+, \d\]: .* off by \d.*, relative"),
        (BranchesOnData, r"torch cannot make an ONNX graph of it: Could not guard on data-dependent"),
        (Counts, r"case all padding: the source itself gave vector\[0, 0\] = .*, then .*; .* draw nothing in forward"),
        (DropsRows, r"case all padding: vector: expected the shape \[7, None\], found \[6, 6\]"),
    ],
)
def test_refuses(small: ModuleType, tmp_path: Path, network: type[Broken], said: str) -> None:
    """A network that breaks a rule is refused with the case and how far off it is, and leaves nothing behind."""
    out = tmp_path / "deep" / "bundles"
    with pytest.raises(ParityError, match=said) as caught:
        export([small.make_source(Role.ITEM, network())], out)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "deep").exists()


def test_all_or_nothing(small: ModuleType, tmp_path: Path) -> None:
    """When one role fails, the bundles of the others don't appear and those that were there stay as they were."""
    good = export([small.make_source(Role.ITEM)], tmp_path)[0]
    before = {path: path.read_bytes() for path in good.folder.rglob("*") if path.is_file()}
    item, user = small.make_towers(seed=2)
    with pytest.raises(ParityError):
        export([user, small.make_source(Role.ITEM, LooksAtBatch())], tmp_path)
    with pytest.raises(ParityError):
        export([item, small.make_source(Role.RANKER, dynamic_length=True)], tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"} == before.keys()
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_cosine_is_an_inner_product_for_unit_vectors_alone(small: ModuleType, tmp_path: Path) -> None:
    """Vectors that were compared by their cosine must have length 1, or the index would rank others first."""

    class Directions(Broken):
        def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
            return nn.functional.normalize(vector, dim=-1)

    class Plain(Broken):
        def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
            return vector

    (bundle,) = export([small.make_source(Role.ITEM, Directions(), similarity="cosine")], tmp_path / "unit")
    assert bundle.about["parity"]["cases"][-1] == "unit length"
    said = r"case unit length: vector\[0\] has the length [\d.]+, expected 1; .* divide by the length in forward"
    with pytest.raises(ParityError, match=said):
        export([small.make_source(Role.ITEM, Plain(), similarity="cosine")], tmp_path / "any")


def test_counts_are_checked(small: ModuleType, tmp_path: Path) -> None:
    """An interest count outside 1 to K is refused, since the night would read beyond the vectors."""

    class Endless(small.User):  # type: ignore[misc,name-defined]
        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            interests, count = super().forward(*inputs)
            return interests, count + (count == 2) * 2  # a full history of 5 has 2

    with pytest.raises(ParityError, match=r"case full history: count\[0\]: expected 1 to 3, found 4"):
        export([small.make_source(Role.USER, Endless(small.Tables()))], tmp_path)


def test_more_interests_than_a_night_publishes(small: ModuleType, tmp_path: Path) -> None:
    """A user network of 257 interests is refused: the number of an interest is published in one byte."""

    class Wide(small.User):  # type: ignore[misc,name-defined]
        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            interests, count = super().forward(*inputs)
            return torch.nn.functional.pad(interests, (0, 0, 0, 257 - small.K)), count

    with pytest.raises(UsageError, match="expected at most 256 interests a user, found 257"):
        export([small.make_source(Role.USER, Wide(small.Tables()))], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_graph_is_set_as_the_night_sets_it(small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option that bits depend on is the same in the gate's session and in the night's on a CPU."""
    bundle = export([small.make_source(Role.ITEM)], tmp_path)[0]
    seen = []
    load = ort.InferenceSession

    def spy(path: str, options: ort.SessionOptions, **said: object) -> ort.InferenceSession:
        seen.append(options)
        return load(path, options, **said)

    monkeypatch.setattr(ort, "InferenceSession", spy)
    open_graph(bundle.layout.graph)
    open_session(bundle, rows=8)
    names = ("intra_op_num_threads", "inter_op_num_threads", "execution_mode", "use_deterministic_compute")
    gate, night = ({name: getattr(options, name) for name in names} for options in seen)
    assert gate == night
    assert gate["intra_op_num_threads"] == 1


def test_inactive_are_zero(small: ModuleType, tmp_path: Path) -> None:
    """Interests beyond the count are zero, or the export is refused."""

    class Leaks(small.User):  # type: ignore[misc,name-defined]
        def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            interests, count = super().forward(*inputs)
            return interests + 1, count

    with pytest.raises(ParityError, match=r"case all padding: interests\[0, 1, 0\]: expected 0 beyond count"):
        export([small.make_source(Role.USER, Leaks(small.Tables()))], tmp_path)


def test_candidates_are_independent(small: ModuleType, tmp_path: Path) -> None:
    """A candidate's score that depends on the user's other candidates is refused."""

    class Listwise(small.Ranker):  # type: ignore[misc,name-defined]
        def forward(self, *inputs: Tensor) -> Tensor:
            score = super().forward(*inputs)
            return score - 1e-6 * score.max(dim=1, keepdim=True).values

    with pytest.raises(ParityError, match=r"case other candidates: score\[\d+, \d+\]"):
        export([small.make_source(Role.RANKER, Listwise(small.Tables()))], tmp_path)


def test_padding_length_is_tried(small: ModuleType, tmp_path: Path) -> None:
    """Where L is a dynamic axis, a result that depends on how far a history is padded is refused."""
    with pytest.raises(ParityError, match=r"case 1 more of padding: score\[\d+, \d+\]: .*leave row 0 out of means"):
        export([small.make_source(Role.RANKER, dynamic_length=True)], tmp_path)  # its history is a mean over L


def test_other_weights_are_noticed(small: ModuleType, tmp_path: Path) -> None:
    """A graph that is close to its source, but not of it, fails with both numbers."""
    source, other = small.make_source(Role.USER), small.make_source(Role.USER)
    with torch.no_grad():
        other.module.tables.mix.bias[0] += 1e-3
    to_onnx(other, tmp_path / "model.onnx")
    with pytest.raises(ParityError, match=r"interests\[\d, 0, 0\]: the source gives -?[\d.]+, the graph -?[\d.]+: off"):
        check_parity(source, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (lambda v: (v, v), "expected the outputs vector, found 2"),
        (lambda v: v.double(), r"output vector: expected torch.float32, found torch.float64"),
        (lambda v: v.sum(dim=-1), r"output vector: expected 2 axes .* found the shape \(11,\)"),
        (lambda v: {"vector": v}, "output vector: expected a tensor, found dict"),
    ],
)
def test_outputs_are_the_roles(small: ModuleType, tmp_path: Path, outputs: object, said: str) -> None:
    """A module that gives other outputs than its role has is told which were expected."""

    class Other(Broken):
        def wrong(self, vector: Tensor, item: Tensor) -> Tensor:
            return outputs(vector)  # type: ignore[operator,no-any-return]

    with pytest.raises(UsageError, match=said):
        export([small.make_source(Role.ITEM, Other())], tmp_path)


def test_inputs_are_the_roles(small: ModuleType, tmp_path: Path) -> None:
    """A module that takes other inputs than its role has, or fewer rows than its vocabulary, is told so."""
    with pytest.raises(ParityError, match=r"failed on 11 rows of the inputs item_id, category: .*positional arguments"):
        export([small.make_source(Role.ITEM, nn.Embedding(22, 6))], tmp_path)
    short = Broken()
    short.item = nn.Embedding(21, 6)
    with pytest.raises(NightrecError, match="index out of range"):
        export([small.make_source(Role.ITEM, short)], tmp_path)
