from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from artifacts.bundle import FeatureSpec
from features.vocabulary import fit_vocabulary
from models.folded import FoldedUserTower
from models.mind import Mind, MindConfig

LENGTH = 9
SPEC = FeatureSpec(("item_id", "category"), ("gender", "age"), history_length=LENGTH)
CONFIG = MindConfig(width=8, interests=4, start_rows=32, hidden=(10,), profile_width=3, seed=11)
VOCABULARIES = {
    "item_id": fit_vocabulary("item_id", pa.array(range(30))),
    "category": fit_vocabulary("category", pa.array(["a", "b", "c"])),
    "gender": fit_vocabulary("gender", pa.array(["F", "M"])),
    "age": fit_vocabulary("age", pa.array([18, 25, 35])),
}


def histories(spec: FeatureSpec) -> list[torch.Tensor]:
    """Draw a user for every length of history from 0 to L, unknown ids among them, and profiles."""
    drawn = torch.Generator().manual_seed(4)
    kept = torch.arange(LENGTH) < torch.arange(LENGTH + 1).unsqueeze(1)
    rows = [torch.randint(1, VOCABULARIES[name].size, kept.shape, generator=drawn) for name in spec.item_features]
    profiles = [
        torch.randint(VOCABULARIES[name].size, kept.shape[:1], generator=drawn) for name in spec.profile_features
    ]
    return [*(row * kept for row in rows), *profiles]


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        (CONFIG, SPEC),
        (replace(CONFIG, hidden=()), SPEC),
        (replace(CONFIG, hidden=(10, 6), normalise=True, temperature=0.1), SPEC),
        (replace(CONFIG, interests=1, rounds=1), SPEC),
        (replace(CONFIG, interests=7, rounds=2, sigma=20.0), replace(SPEC, item_features=("item_id",))),
        (replace(CONFIG, hidden=()), replace(SPEC, profile_features=())),
        (CONFIG, replace(SPEC, profile_features=("age",))),
    ],
    ids=["default", "linear H", "two layers, normalised", "one", "far starts", "no profile", "one profile feature"],
)
def test_it_computes_what_the_network_does(config: MindConfig, spec: FeatureSpec) -> None:
    """For histories of every length interests, counts and weights are the network's, but for the last bits."""
    mind = Mind(config, spec, VOCABULARIES).eval()
    with torch.no_grad():
        for parameter in mind.head.parameters():
            parameter.add_(0.05)  # a bias that is not near 0
        inputs = histories(spec)
        expected, found = mind.interests(*inputs), FoldedUserTower(mind)(*inputs)
    assert torch.equal(expected[1], found[1])
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    inactive = torch.arange(config.interests) >= found[1].unsqueeze(1)
    assert not found[0][inactive].any()
    assert not found[2][inactive].any()
    assert not found[2].transpose(1, 2)[inputs[0] == 0].any()


def test_padding_is_left_out_whatever_its_row_holds() -> None:
    """The rows of padding are zero in the folded tables, as the network masks them."""
    mind = Mind(CONFIG, SPEC, VOCABULARIES).eval()
    inputs = histories(SPEC)
    before = FoldedUserTower(mind)(*inputs)
    with torch.no_grad():
        for table in mind.item_tables:
            table.weight[0] = 9.0
    for one, other in zip(before, FoldedUserTower(mind)(*inputs), strict=True):
        assert torch.equal(one, other)


def test_the_network_stays_as_it_was() -> None:
    """Folding changes no weight of the network, and the folded tower is none of its parts."""
    mind = Mind(CONFIG, SPEC, VOCABULARIES).eval()
    before = {name: value.clone() for name, value in mind.state_dict().items()}
    folded = FoldedUserTower(mind)
    with torch.no_grad():
        for table in folded.item_tables:
            table.zero_()
    assert all(torch.equal(value, before[name]) for name, value in mind.state_dict().items())
