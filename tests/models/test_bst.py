import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from artifacts.bundle import FeatureSpec
from artifacts.errors import UsageError
from features.vocabulary import fit_vocabulary
from models.bst import Bst, BstConfig, feature_widths

Array = NDArray[np.float64]

LENGTH = 9
SPEC = FeatureSpec(
    ("item_id", "category", "shop"),
    ("gender", "age"),
    history_length=LENGTH,
    gap_edges=(0, 3600, 86_400),
    cross_features=("times_had", "retrieval_score"),
)
CONFIG = BstConfig(
    width=12, gap_width=3, heads=3, ffn_width=10, profile_width=2, mlp=(14, 11, 7), dropout=0.5, residual=False, seed=4
)
VOCABULARIES = {
    "item_id": fit_vocabulary("item_id", pa.array(range(40))),
    "category": fit_vocabulary("category", pa.array(["a", "b", "c"])),
    "shop": fit_vocabulary("shop", pa.array([1, 2])),
    "gender": fit_vocabulary("gender", pa.array(["F", "M"])),
    "age": fit_vocabulary("age", pa.array([18, 25, 35])),
}
LENGTHS = [0, 1, 2, 3, 8, LENGTH]


def build(config: BstConfig = CONFIG, spec: FeatureSpec = SPEC) -> Bst:
    """Build a network whose every weight counts: none is near 0, and no bias, norm or last layer starts at 0 or 1."""
    bst = Bst(config, spec, VOCABULARIES).eval()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, weight in bst.named_parameters():
            if "table" in name:
                weight.mul_(30)
            else:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.4)
    return bst


def make_inputs(
    lengths: list[int], candidates: int = 4, spec: FeatureSpec = SPEC, *, unknown: bool = False
) -> list[torch.Tensor]:
    """Draw histories of the given lengths, padded to L, their gaps, profiles, candidates and cross features."""
    rng = np.random.default_rng(2)
    padded = np.arange(spec.history_length) >= np.array(lengths)[:, None]

    def draw(size: int, *shape: int) -> NDArray[np.int32]:
        return rng.integers(1, 2 if unknown else size, size=(len(lengths), *shape)).astype(np.int32)

    history = [draw(VOCABULARIES[name].size, spec.history_length) for name in spec.item_features]
    history.append(draw(len(spec.gap_edges) + 2, spec.history_length))
    arrays = [np.where(padded, 0, rows) for rows in history]
    arrays += [draw(VOCABULARIES[name].size) for name in spec.profile_features]
    arrays += [draw(VOCABULARIES[name].size, candidates) for name in spec.item_features]
    if spec.cross_features:
        arrays.append(rng.normal(size=(len(lengths), candidates, len(spec.cross_features))).astype(np.float32))
    return [torch.from_numpy(array) for array in arrays]


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weight + bias


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.01 * x)


def slow_block(w: dict[str, Array], e: list[Array], heads: int) -> list[Array]:
    """Run a block on a sequence without padding, row by row and head by head."""
    d = len(e[0]) // heads
    query, key, value = ([w[f"{name}.weight"] @ x for x in e] for name in ("query", "key", "value"))
    rows = []
    for i, x in enumerate(e):
        mixed = []
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            logits = np.array([query[i][part] @ k[part] / math.sqrt(d) for k in key])
            weights = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            mixed.append(sum(a * v[part] for a, v in zip(weights, value, strict=True)))
        s = layer_norm(x + w["out.weight"] @ np.concatenate(mixed), w["attended.weight"], w["attended.bias"])
        fed = w["feed.2.weight"] @ leaky(w["feed.0.weight"] @ s + w["feed.0.bias"]) + w["feed.2.bias"]
        rows.append(layer_norm(s + fed, w["fed.weight"], w["fed.bias"]))
    return rows


def slow_logit(bst: Bst, history: Array, profile: Array, candidate: Array, cross: Array) -> float:
    """Score one pair from the formulas: history [features and gap, L], candidate [features]; padding is cut off."""
    w = {name: value.double().numpy() for name, value in bst.state_dict().items()}
    config, spec = bst.config, bst.spec

    def embed(rows: Array) -> Array:
        known = [w[f"item_tables.{f}.weight"][int(row)] for f, row in enumerate(rows[:-1])]
        return np.concatenate([*known, w["gap_table.weight"][int(rows[-1])]])

    zero_gap = 1 + sum(edge <= 0 for edge in spec.gap_edges)
    x_c = embed(np.append(candidate, zero_gap))
    f = [embed(rows) for rows in history.T if rows[0] != 0] + [x_c]
    for block in range(config.blocks):
        name = f"blocks.{block}."
        f = slow_block({key[len(name) :]: v for key, v in w.items() if key.startswith(name)}, f, config.heads)
    padding = [np.zeros(config.width)] * (spec.history_length + 1 - len(f))
    passed = f[-1:] if config.output == "target" else f[:-1] + padding + f[-1:]
    known = [w[f"profile_tables.{i}.weight"][int(row)] for i, row in enumerate(profile)]
    first = [w["head.first_user.weight"]] if known else []
    weight = np.concatenate([*first, w["head.first.weight"]], axis=1)
    x = leaky(weight @ np.concatenate([*known, x_c, cross, *passed]) + w["head.first.bias"])
    for layer in range(1, len(config.mlp)):
        x = leaky(w[f"head.deeper.{layer}.0.weight"] @ x + w[f"head.deeper.{layer}.0.bias"])
    start = w["head.wide"] @ cross if "head.wide" in w else 0.0
    return float(w["head.last.weight"][0] @ x + w["head.last.bias"][0] + start)


def check_against_slow(bst: Bst, inputs: list[torch.Tensor]) -> None:
    arrays = [value.numpy() for value in inputs]
    items, profiles = len(bst.spec.item_features), len(bst.spec.profile_features)
    users, candidates = arrays[items + 1 + profiles].shape
    expected = np.zeros((users, candidates))
    for user in range(users):
        history = np.stack([rows[user] for rows in arrays[: items + 1]])
        profile = np.array([rows[user] for rows in arrays[items + 1 : items + 1 + profiles]])
        for c in range(candidates):
            candidate = np.array([rows[user, c] for rows in arrays[items + 1 + profiles : 2 * items + 1 + profiles]])
            cross = arrays[-1][user, c] if bst.spec.cross_features else np.zeros(0)
            expected[user, c] = slow_logit(bst, history, profile, candidate, cross)
    with torch.no_grad():
        np.testing.assert_allclose(bst.logits(*inputs), expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(bst.logits(*inputs, slow=True), expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(bst(*inputs), 1 / (1 + np.exp(-expected)), atol=1e-5)
    assert expected.std() > 0.02  # the candidates differ, so that equal means something


@pytest.mark.parametrize("output", ["target", "all"])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_scores_follow_the_formulas(output: str, blocks: int) -> None:
    """For every length of history, shared or pairwise, scores are those of the formulas."""
    bst = build(replace(CONFIG, output=output, blocks=blocks))  # type: ignore[arg-type]
    check_against_slow(bst, make_inputs(LENGTHS))


@pytest.mark.parametrize("output", ["target", "all"])
@pytest.mark.parametrize(
    ("config", "spec"),
    [
        (replace(CONFIG, heads=1, mlp=(5,)), SPEC),
        (replace(CONFIG, heads=12), FeatureSpec(("item_id",), history_length=LENGTH)),
        (replace(CONFIG, residual=True), SPEC),
        (replace(CONFIG, residual=True), replace(SPEC, cross_features=("popularity",), gap_edges=(60, 600))),
        (replace(CONFIG, residual=True), replace(SPEC, cross_features=())),
    ],
    ids=["one head and layer", "ids alone", "residual", "no retrieval score", "nothing to start from"],
)
def test_scores_follow_the_formulas_in_other_shapes(output: str, config: BstConfig, spec: FeatureSpec) -> None:
    """One head or as many as numbers, no profile, no cross features, a start from retrieval: still the formulas'."""
    bst = build(replace(config, output=output), spec)  # type: ignore[arg-type]
    check_against_slow(bst, make_inputs([0, 3, LENGTH], spec=spec))


@pytest.mark.parametrize("output", ["target", "all"])
def test_scores_of_unknown_items_follow_the_formulas(output: str) -> None:
    """Unknown behaviours, candidates and profiles are rows like others; only the cross features tell pairs apart."""
    check_against_slow(build(replace(CONFIG, output=output)), make_inputs(LENGTHS, unknown=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("output", ["target", "all"])
def test_the_shared_form_is_the_pairwise_one(output: str) -> None:
    """At the default size, too, and for sharp attention, both forms agree, fully padded histories among them."""
    bst = Bst(BstConfig(output=output, mlp=(32, 16), residual=False), SPEC, VOCABULARIES).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for table in [*bst.item_tables, bst.gap_table]:
            table.weight.mul_(100)
        inputs = make_inputs(LENGTHS * 3, candidates=30)
        torch.testing.assert_close(bst.logits(*inputs), bst.logits(*inputs, slow=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("output", ["target", "all"])
def test_both_forms_learn_alike(output: str) -> None:
    """The shared form has the gradients of the pairwise one, all of them finite, and the padding rows never learn."""
    bst, inputs = build(replace(CONFIG, output=output)), make_inputs([0, 0, *LENGTHS])  # type: ignore[arg-type]
    weights = dict(bst.named_parameters())
    found, expected = (
        torch.autograd.grad(bst.logits(*inputs, slow=slow).square().sum(), list(weights.values()))
        for slow in (False, True)
    )
    for name, one, other in zip(weights, found, expected, strict=True):
        assert one.isfinite().all(), name
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        assert "item_tables" not in name or not one[0].any()


@pytest.mark.parametrize("output", ["target", "all"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_padding_is_masked_whatever_its_row_holds(output: str, blocks: int) -> None:
    """The padding rows are zero, and scores would not change if they were not."""
    bst, inputs = build(replace(CONFIG, output=output, blocks=blocks)), make_inputs(LENGTHS)  # type: ignore[arg-type]
    with torch.no_grad():
        before = bst(*inputs)
        for table in [*bst.item_tables, bst.gap_table]:
            assert not table.weight[0].any()
            table.weight[0] = 1e4
        torch.testing.assert_close(bst(*inputs), before, rtol=0, atol=0)


def test_a_score_depends_on_its_own_pair() -> None:
    """A pair alone gets the score that it gets among other users and candidates."""
    bst, inputs = build(), make_inputs(LENGTHS)
    together = bst(*inputs)
    for user in range(len(LENGTHS)):
        alone = [rows[user : user + 1] for rows in inputs]
        alone[-4:] = [rows[:, 2:3] for rows in alone[-4:]]
        torch.testing.assert_close(bst(*alone)[0, 0], together[user, 2], atol=1e-6, rtol=0)


def test_the_order_of_a_history_counts_only_through_gaps() -> None:
    """Behaviours that change places together with their gaps change no score."""
    bst, inputs = build(), make_inputs([LENGTH] * 3)
    order = torch.from_numpy(np.random.default_rng(1).permutation(LENGTH))
    shuffled = [rows[:, order] if at < 4 else rows for at, rows in enumerate(inputs)]
    torch.testing.assert_close(bst(*shuffled), bst(*inputs), atol=1e-6, rtol=0)
    moved = [rows[:, order] if at < 3 else rows for at, rows in enumerate(inputs)]
    assert not torch.allclose(bst(*moved), bst(*inputs), atol=1e-4)


def test_an_untrained_residual_keeps_the_order_of_retrieval() -> None:
    """With a residual the logit starts as the retrieval score itself."""
    bst, inputs = Bst(replace(CONFIG, residual=True), SPEC, VOCABULARIES), make_inputs(LENGTHS)
    torch.testing.assert_close(bst.logits(*inputs), inputs[-1][..., 1], rtol=0, atol=0)


def test_equal_items_attend_to_each_other_from_the_start() -> None:
    """Keys start as queries, so a row's largest expected logit is its own: q . k is a square."""
    block = Bst(CONFIG, SPEC, VOCABULARIES).blocks[0]
    assert torch.equal(block.query.weight, block.key.weight)
    assert not torch.equal(block.query.weight, block.value.weight)


@pytest.mark.parametrize("blocks", [1, 2])
def test_what_the_blocks_pass_on_starts_as_small_as_an_embedding(blocks: int) -> None:
    """The head is told rows of a history no louder than the candidate beside them, however many blocks there are."""
    bst, inputs = Bst(replace(CONFIG, blocks=blocks), SPEC, VOCABULARIES).eval(), make_inputs(LENGTHS)
    told = []
    bst.head.first.register_forward_pre_hook(lambda _, arrays: told.append(arrays[0]))
    bst.logits(*inputs)
    passed = told[0][..., -CONFIG.width :]
    assert passed.std().item() == pytest.approx(bst.deviation, rel=0.1)


def test_dropout_is_for_training_alone() -> None:
    """Scores repeat in evaluation and vary in training."""
    bst, inputs = build(), make_inputs(LENGTHS)
    assert torch.equal(bst(*inputs), bst(*inputs))
    bst.train()
    assert not torch.equal(bst(*inputs), bst(*inputs))


def test_one_seed_gives_one_network() -> None:
    """Start weights come from the config's seed alone, and drawing them moves no other random numbers."""
    state = torch.get_rng_state()
    first = Bst(CONFIG, SPEC, VOCABULARIES).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    for name, value in Bst(CONFIG, SPEC, VOCABULARIES).state_dict().items():
        assert torch.equal(value, first[name])
    other = Bst(replace(CONFIG, seed=5), SPEC, VOCABULARIES).state_dict()
    assert not torch.equal(other["blocks.0.query.weight"], first["blocks.0.query.weight"])


@pytest.mark.parametrize(("output", "blocks"), [("target", 1), ("all", 1), ("all", 2)])
def test_the_network_traces_with_free_batches(output: str, blocks: int) -> None:
    """It is traced whole, with free numbers of users and candidates, int32 inputs and no random op."""
    bst = build(replace(CONFIG, output=output, blocks=blocks))  # type: ignore[arg-type]
    users, candidates = torch.export.Dim("users"), torch.export.Dim("candidates")
    shapes = ({0: users},) * 6 + ({0: users, 1: candidates},) * 4
    program = torch.export.export(bst, tuple(make_inputs([0, 3, 8])), dynamic_shapes={"inputs": shapes})
    assert not [n for n in program.graph.nodes if "rand" in str(n.target)]
    assert not any(n.args[2] for n in program.graph.nodes if "dropout" in str(n.target))  # there, but switched off
    for inputs in (make_inputs(LENGTHS, candidates=7), make_inputs([2], candidates=1)):
        torch.testing.assert_close(program.module()(*inputs), bst(*inputs))


@pytest.mark.parametrize(
    ("width", "gap", "features", "expected"),
    [(64, 8, 1, [56]), (64, 8, 2, [28, 28]), (64, 8, 4, [29, 9, 9, 9]), (12, 3, 3, [5, 2, 2])],
)
def test_widths_of_features_sum_to_the_width(width: int, gap: int, features: int, expected: list[int]) -> None:
    """item_id gets half of what the gap leaves and the rounding, the other features equal parts of the rest."""
    assert feature_widths(replace(CONFIG, width=width, gap_width=gap, heads=1), features) == expected
    assert sum(expected) + gap == width


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("heads", 5),
        ("blocks", 0),
        ("output", "some"),
        ("mlp", ()),
        ("mlp", (8, 0)),
        ("dropout", 1.0),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(field: str, value: object) -> None:
    """The message names the field and what was found."""
    with pytest.raises(UsageError, match=rf"bst\.{field}: expected .*found"):
        replace(CONFIG, **{field: value})  # type: ignore[arg-type]


def test_a_width_without_room_is_refused() -> None:
    """The message says what the width has to hold."""
    with pytest.raises(
        UsageError, match=r"bst\.width: expected room for 3 item features beside gap_width 10, found 12"
    ):
        Bst(replace(CONFIG, gap_width=10), SPEC, VOCABULARIES)
