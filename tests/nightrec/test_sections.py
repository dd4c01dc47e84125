"""Tables of the config whose keys a step declares itself."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from artifacts.errors import UsageError
from nightrec.sections import read_section


@dataclass(frozen=True, slots=True)
class Sizes:
    width: int = 64
    power: float = 2.0
    attention: Literal["own", "label"] = "own"
    hidden: tuple[int, ...] = (256,)
    normalise: bool = False
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Schedule:
    epochs: int = 5
    seed: int = 1


def test_a_step_s_own_dataclass_is_read_from_its_table() -> None:
    """Lists become tuples, whole numbers may stand for others, what is not said keeps its default."""
    read = read_section(Sizes(width=8), Schedule(), {"hidden": [8, 4], "power": 1, "epochs": 2}, at="train.mind")

    assert read == (Sizes(width=8, hidden=(8, 4), power=1.0), Schedule(epochs=2))


def test_a_key_that_both_have_changes_both() -> None:
    """There is one seed in a table, whoever takes it."""
    assert read_section(Sizes(), Schedule(), {"seed": 7}, at="train.mind") == (Sizes(seed=7), Schedule(seed=7))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"widht": 3}, r"\[train.mind\] no key 'widht' is known here; did you mean 'width'\?"),
        ({"width": "3"}, r"\[train.mind\] width: expected a whole number, found the text '3'"),
        ({"normalise": 1}, r"\[train.mind\] normalise: expected true or false, found 1"),
        ({"attention": "lable"}, r"did you mean 'label'\?"),
        ({"hidden": 3}, r"\[train.mind\] hidden: expected a list, found 3"),
    ],
)
def test_a_mistake_in_a_step_s_table_names_the_table(given: dict[str, Any], said: str) -> None:
    """It is refused in the words of the rest of the config."""
    with pytest.raises(UsageError, match=said):
        read_section(Sizes(), Schedule(), given, at="train.mind")
