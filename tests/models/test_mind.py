import hashlib
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from artifacts.bundle import FeatureSpec
from artifacts.errors import UsageError
from features.vocabulary import Vocabulary, fit_vocabulary
from models.mind import ItemTower, Mind, MindConfig, UserTower, interest_thresholds, start_logits

Array = NDArray[np.float64]

LENGTH = 12
IDS = [7, 19, 100, 101, 4_000_000_000, -3, 12, 55, 56, 57, 58, 59, 60]
SPEC = FeatureSpec(("item_id", "category"), ("gender", "age"), history_length=LENGTH)
CONFIG = MindConfig(width=8, interests=4, start_rows=32, hidden=(10,), profile_width=3, normalise=False, seed=11)
VOCABULARIES = {
    "item_id": fit_vocabulary("item_id", pa.array(IDS)),
    "category": fit_vocabulary("category", pa.array(["a", "b", "c"])),
    "gender": fit_vocabulary("gender", pa.array(["F", "M"])),
    "age": fit_vocabulary("age", pa.array([18, 25, 35])),
}
LENGTHS = [0, 1, 2, 3, 4, 8, LENGTH]


def build(config: MindConfig = CONFIG, spec: FeatureSpec = SPEC) -> Mind:
    return Mind(config, spec, VOCABULARIES).eval()


def make_inputs(lengths: list[int], spec: FeatureSpec = SPEC, *, unknown: bool = False) -> list[torch.Tensor]:
    """Draw histories of the given lengths, padded to L, and profiles."""
    rng = np.random.default_rng(2)
    inputs = []
    for name in spec.item_features:
        rows = rng.integers(1, VOCABULARIES[name].size, size=(len(lengths), spec.history_length))
        rows = np.ones_like(rows) if unknown else rows
        rows[np.arange(spec.history_length) >= np.array(lengths)[:, None]] = 0
        inputs.append(torch.from_numpy(rows.astype(np.int32)))
    for name in spec.profile_features:
        rows = rng.integers(1, VOCABULARIES[name].size, size=len(lengths))
        inputs.append(torch.from_numpy(rows.astype(np.int32)))
    return inputs


def slow_start(item_row: int, config: MindConfig) -> Array:
    """Look up the start logits of one behaviour by its raw id."""
    table = np.random.default_rng(config.seed).standard_normal((config.start_rows + 1, config.interests))
    if item_row == 1:
        return config.sigma * table[config.start_rows]
    digest = hashlib.md5(str(sorted(IDS)[item_row - 2]).encode()).digest()
    return config.sigma * table[int.from_bytes(digest[:8], "little") % config.start_rows]


def slow_interests(mind: Mind, history: list[list[int]], profile: list[int]) -> tuple[Array, Array]:
    """Compute one user's active interests and weights [behaviours, K'] from the formulas, behaviour by behaviour."""
    w = {name: value.double().numpy() for name, value in mind.state_dict().items()}
    config = mind.config
    real = [features for features in zip(*history, strict=True) if features[0] != 0]
    n = len(real)
    k = max(1, min(config.interests, n.bit_length() - 1))
    e = [np.mean([w[f"item_tables.{f}.weight"][row] for f, row in enumerate(item)], axis=0) for item in real]
    h = [w["shared.weight"] @ vector for vector in e]
    b = [slow_start(item[0], config)[:k].copy() for item in real]
    u = np.zeros((k, config.width))
    weights = np.zeros((n, k))
    for _ in range(config.rounds):
        for i in range(n):
            weights[i] = np.exp(b[i]) / np.exp(b[i]).sum()
        for j in range(k):
            z = sum((weights[i, j] * h[i] for i in range(n)), np.zeros(config.width))
            square = float(z @ z)
            u[j] = z * math.sqrt(square + 1e-9) / (1 + square)
        for i in range(n):
            b[i] += u @ h[i]
    known = [w[f"profile_tables.{f}.weight"][row] for f, row in enumerate(profile)]
    v = []
    for j in range(k):
        x = np.concatenate([u[j], *known])
        for layer in range(len(config.hidden)):
            x = np.maximum(w[f"head.{layer}.0.weight"] @ x + w[f"head.{layer}.0.bias"], 0)
        x = w[f"head.{len(config.hidden)}.weight"] @ x + w[f"head.{len(config.hidden)}.bias"]
        v.append(x / np.linalg.norm(x) / config.temperature if config.normalise else x)
    return np.array(v), weights


def check_against_slow(mind: Mind, inputs: list[torch.Tensor]) -> None:
    interests, counts, weights = (output.detach().numpy() for output in mind.interests(*inputs))
    items = len(mind.spec.item_features)
    assert counts.dtype == np.int32
    for user in range(len(counts)):
        history = [rows[user].tolist() for rows in inputs[:items]]
        v, w = slow_interests(mind, history, [int(rows[user]) for rows in inputs[items:]])
        assert counts[user] == len(v)
        np.testing.assert_allclose(interests[user, : len(v)], v, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(weights[user, : len(v), : len(w)], w.T, atol=1e-5)
        assert not interests[user, len(v) :].any()
        assert not weights[user, len(v) :].any()
        assert not weights[user, :, len(w) :].any()


@pytest.mark.parametrize("interests", [1, 2, 4, 20])
@pytest.mark.parametrize("rounds", [1, 3])
def test_interests_follow_the_formulas(interests: int, rounds: int) -> None:
    """For every length of history, one interest or more interests than items, interests are the formulas'."""
    mind = build(replace(CONFIG, interests=interests, rounds=rounds))
    check_against_slow(mind, make_inputs(LENGTHS))


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        (replace(CONFIG, hidden=()), SPEC),
        (replace(CONFIG, hidden=(9, 7), sigma=3.0), FeatureSpec(("item_id",), history_length=LENGTH)),
        (replace(CONFIG, normalise=True, temperature=0.1), SPEC),
        (replace(CONFIG, sigma=0.0), SPEC),
    ],
    ids=["linear head", "ids alone", "unit length", "even start"],
)
def test_interests_follow_the_formulas_in_other_shapes(config: MindConfig, spec: FeatureSpec) -> None:
    """Heads of no or two hidden layers, no profile, unit lengths: still the formulas'."""
    check_against_slow(build(config, spec), make_inputs(LENGTHS, spec))


def test_interests_of_unknown_items_follow_the_formulas() -> None:
    """A history of nothing but unknown items is a history: it counts, and its start logits are the unknown row's."""
    inputs = make_inputs(LENGTHS, unknown=True)
    check_against_slow(build(), inputs)
    assert build().interests(*inputs)[1].tolist() == [1, 1, 1, 1, 2, 3, 3]


def test_the_number_of_interests_is_exact_at_powers_of_two() -> None:
    """K' is max(1, min(K, floor(log2 n))) in integers, up to the largest history."""
    for interests in (1, 2, 4, 30, 256):
        thresholds = interest_thresholds(interests)
        assert len(thresholds) == interests
        for n in [*range(70), *(2**j + d for j in range(3, 30) for d in (-1, 0, 1))]:
            assert sum(n >= t for t in thresholds) == max(1, min(interests, n.bit_length() - 1))


@pytest.mark.parametrize("values", [pa.array([5, 90, -1]), pa.array([5, 2**63], pa.uint64()), pa.array(["é", "b"])])
def test_start_logits_are_keyed_by_the_raw_id(values: pa.Array) -> None:
    """The start of an id is G's row at its MD5 modulo M, whatever its type; padding has none, unknown its own."""
    vocabulary = fit_vocabulary("item_id", values)
    logits = start_logits(vocabulary, CONFIG)
    table = np.random.default_rng(CONFIG.seed).standard_normal((33, 4)).astype(np.float32)
    assert not logits[0].any()
    np.testing.assert_array_equal(logits[1], table[32])
    for row, value in enumerate(vocabulary.values.to_pylist(), start=2):
        digest = hashlib.md5(str(value).encode()).digest()
        np.testing.assert_array_equal(logits[row], table[int.from_bytes(digest[:8], "little") % 32])


def test_start_logits_do_not_know_the_vocabulary() -> None:
    """An id that gets another row in a larger vocabulary starts as before."""
    larger = fit_vocabulary("item_id", pa.array([*IDS, 1, 2, 3, 8, 99]))
    before, after = start_logits(VOCABULARIES["item_id"], CONFIG), start_logits(larger, CONFIG)
    np.testing.assert_array_equal(
        before[VOCABULARIES["item_id"].encode(pa.array(IDS))], after[larger.encode(pa.array(IDS))]
    )


def test_the_start_is_part_of_the_state() -> None:
    """Loading a state restores the start logits of the model that was saved, whatever this one was seeded with."""
    other = build(replace(CONFIG, seed=99))
    other.load_state_dict(build().state_dict())
    inputs = make_inputs(LENGTHS)
    torch.testing.assert_close(other.interests(*inputs), build().interests(*inputs), rtol=0, atol=0)


def test_interests_do_not_depend_on_the_order_of_clicks() -> None:
    """The same behaviours in another order make the same interests."""
    inputs = make_inputs([LENGTH] * 3)
    order = torch.from_numpy(np.random.default_rng(1).permutation(LENGTH))
    shuffled = [rows[:, order] if rows.ndim == 2 else rows for rows in inputs]
    torch.testing.assert_close(build().interests(*shuffled)[0], build().interests(*inputs)[0], atol=1e-6, rtol=0)


def test_interests_do_not_depend_on_padding_or_neighbours() -> None:
    """A user alone, with less padding, gets what the user gets in a batch."""
    mind, inputs = build(), make_inputs(LENGTHS)
    together = mind.interests(*inputs)[0]
    for user, n in enumerate(LENGTHS[1:], start=1):
        alone = [rows[user : user + 1, :n] if rows.ndim == 2 else rows[user : user + 1] for rows in inputs]
        torch.testing.assert_close(mind.interests(*alone)[0][0], together[user], atol=1e-6, rtol=0)


def test_padding_is_masked_whatever_its_row_holds() -> None:
    """The padding row is zero, and interests would not change if it were not."""
    mind, inputs = build(), make_inputs(LENGTHS)
    before = mind.interests(*inputs)
    with torch.no_grad():
        for table in mind.item_tables:
            assert not table.weight[0].any()
            table.weight[0] = 1e6
        mind.start[0] = 1e6
    torch.testing.assert_close(mind.interests(*inputs), before, rtol=0, atol=0)


def test_inactive_interests_take_no_part() -> None:
    """A larger K changes nothing for a user whose history is too short to use it: same start columns, same vectors."""
    inputs = make_inputs([3, 4, 5, 7])
    few, many = build(replace(CONFIG, interests=2)), build()
    many.load_state_dict({**few.state_dict(), "start": torch.cat([few.start, torch.full_like(few.start, 50.0)], dim=1)})
    torch.testing.assert_close(many.interests(*inputs)[0][:, :2], few.interests(*inputs)[0], rtol=0, atol=0)


def test_an_item_is_the_average_of_its_features() -> None:
    """Item vectors are the mean of the embeddings of the item's features, of the tables that histories use."""
    mind = build()
    ids, categories = torch.tensor([2, 1, 9], dtype=torch.int32), torch.tensor([4, 1, 2], dtype=torch.int32)
    tables = [table.weight.detach().numpy() for table in mind.item_tables]
    expected = (tables[0][ids.numpy()] + tables[1][categories.numpy()]) / 2
    np.testing.assert_allclose(mind.item_vectors(ids, categories).detach(), expected, atol=1e-6)
    np.testing.assert_allclose(ItemTower(mind)(ids, categories).detach(), expected, atol=1e-6)


def test_unit_lengths_keep_the_inner_product() -> None:
    """With unit lengths the inner product of the two towers is the cosine over the temperature."""
    config = replace(CONFIG, normalise=True, temperature=0.2)
    plain, unit = build(), build(config)
    inputs, item = make_inputs([8]), [torch.tensor([3], dtype=torch.int32), torch.tensor([2], dtype=torch.int32)]
    v, e = plain.interests(*inputs)[0][0, 0], plain.item_vectors(*item)[0]
    found = UserTower(unit)(*inputs)[0][0, 0] @ ItemTower(unit)(*item)[0]
    assert found.item() == pytest.approx((torch.cosine_similarity(v, e, dim=0) / 0.2).item(), abs=1e-5)
    assert ItemTower(unit)(*item)[0].norm().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_gradients_are_finite(normalise: bool) -> None:
    """Empty and unknown histories send no NaN back, and the padding row never learns."""
    mind = Mind(replace(CONFIG, normalise=normalise), SPEC, VOCABULARIES)
    mind.interests(*make_inputs([0, 0, *LENGTHS]))[0].square().sum().backward()
    for name, weight in mind.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    assert not mind.item_tables[0].weight.grad[0].any()


def test_one_seed_gives_one_network() -> None:
    """Start weights come from the config's seed alone, and drawing them moves no other random numbers."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build()
    assert torch.rand(1) == expected
    for name, value in build().state_dict().items():
        assert torch.equal(value, first.state_dict()[name])
    assert not torch.equal(build(replace(CONFIG, seed=12)).shared.weight, first.shared.weight)


def test_towers_trace_with_free_batches() -> None:
    """Both towers are traced whole, with a free number of rows, int32 inputs and no random op."""
    mind = build()
    users, items = torch.export.Dim("users"), torch.export.Dim("items")
    inputs = make_inputs([0, 3, 8])
    shapes = tuple({0: users} for _ in inputs)
    user = torch.export.export(UserTower(mind, with_weights=True), tuple(inputs), dynamic_shapes={"inputs": shapes})
    rows = (torch.tensor([2, 3, 4], dtype=torch.int32), torch.tensor([1, 2, 3], dtype=torch.int32))
    item = torch.export.export(ItemTower(mind), rows, dynamic_shapes={"inputs": ({0: items}, {0: items})})
    more = make_inputs(LENGTHS)
    torch.testing.assert_close(user.module()(*more), mind.interests(*more))
    torch.testing.assert_close(item.module()(*(r[:1] for r in rows)), mind.item_vectors(*(r[:1] for r in rows)))
    for program in (user, item):
        assert not [n for n in program.graph.nodes if "rand" in str(n.target) or "dropout" in str(n.target)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("interests", 0),
        ("interests", 257),
        ("rounds", 0),
        ("power", math.nan),
        ("power", 0.0),
        ("temperature", -1.0),
        ("hidden", (8, 0)),
        ("sigma", math.inf),
        ("attention", "both"),
        ("unknown_rate", 1.0),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(field: str, value: object) -> None:
    """The message names the field and what was found."""
    with pytest.raises(UsageError, match=rf"mind\.{field}: expected .*found"):
        replace(CONFIG, **{field: value})  # type: ignore[arg-type]


def test_a_feature_without_vocabulary_is_refused() -> None:
    """The message names the feature."""
    only: dict[str, Vocabulary] = {"item_id": VOCABULARIES["item_id"]}
    with pytest.raises(UsageError, match=r"feature category: expected a vocabulary"):
        Mind(CONFIG, SPEC, only)
