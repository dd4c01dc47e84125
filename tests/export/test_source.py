"""Where sources come from, and what is said when there is none."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.bundle import FeatureSpec, Role
from artifacts.errors import UsageError
from export.sample import KINDS, draw_rows
from export.source import READERS, sources_from_factory

FACTORIES = """
import sys
sys.path.insert(0, {folder!r})
import conftest as small
from export.source import Source

def one(): return small.make_source(small.Role.ITEM)
def several(): return small.make_towers()
def none(): return []
def number(): return 3
def mixed(): return [one(), "user"]
constant = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module of factories that can be imported."""
    (tmp_path / "made_here.py").write_text(FACTORIES.format(folder=str(Path(__file__).parent)))
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("made_here", "needs_more", "conftest"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "made_here"


def test_factory(factories: str) -> None:
    """A factory gives one source or a list of them."""
    assert [source.role for source in sources_from_factory(f"{factories}:one")] == [Role.ITEM]
    assert [source.role for source in READERS["factory"](f"{factories}:several")] == [Role.ITEM, Role.USER]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("made_here", "made_here: expected package.module:factory"),
        ("made_here:", "made_here:: expected package.module:factory"),
        ("nowhere.at_all:one", "nowhere.at_all:one: no module nowhere; is its folder on PYTHONPATH?"),
        ("made_here.deeper:one", "made_here.deeper:one: no module made_here.deeper; is its folder on PYTHONPATH?"),
        ("needs_more:one", "module needs_more needs not_installed_anywhere, which is not installed"),
        ("made_here:two", "made_here:two: module made_here has no two"),
        ("made_here:constant", "made_here:constant: expected a function without arguments, found a int"),
        (
            "made_here:number",
            "made_here:number: expected it to return export.source.Source or a list of them, found a int",
        ),
        ("made_here:none", "found a list of nothing"),
        ("made_here:mixed", "found a list of ['Source', 'str']"),
    ],
)
def test_factory_mistakes(factories: str, target: str, said: str) -> None:
    """A target that gives no sources is a wrong usage, and the message says which part of it is wrong."""
    with pytest.raises(UsageError, match=re.escape(said)):
        sources_from_factory(target)


def test_no_checkpoint(tmp_path: Path) -> None:
    """A folder that holds no checkpoint is a wrong usage."""
    with pytest.raises(UsageError, match=r"nothing: expected a checkpoint, found no model\.json"):
        READERS["checkpoint"](str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"spec": FeatureSpec(item_features=("item_id", "item_id"))}, "found item_id twice"),
        ({"spec": FeatureSpec(item_features=("item_id", "brand"))}, "feature brand has no vocabulary"),
        ({"spec": FeatureSpec(item_features=("item_id",), cross_features=("mood",))}, "cross feature mood is none of"),
        ({"integers": "uint8"}, "integers: expected int32 or int64, found uint8"),
        ({"trained_through": "yesterday"}, "trained_through: expected YYYY-MM-DD or nothing, found yesterday"),
    ],
)
def test_source_mistakes(small: ModuleType, said: dict[str, object], message: str) -> None:
    """A source that no bundle can hold is refused when it is made, naming what was expected."""
    with pytest.raises(UsageError, match=message):
        small.make_source(Role.RANKER, **said)


@given(
    role=st.sampled_from(list(Role)),
    rows=st.integers(1, 20),
    length=st.integers(1, 9),
    candidates=st.integers(1, 9),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None)
def test_rows_are_the_nights(small: ModuleType, role: Role, rows: int, length: int, candidates: int, seed: int) -> None:
    """Drawn rows look like the night's: rows of the vocabularies, histories that end in padding in all features."""
    source = small.make_source(role, dynamic_length=True)
    kinds = [KINDS[role][row % len(KINDS[role])] for row in range(rows)]
    inputs = draw_rows(source, kinds, length=length, candidates=candidates, seed=seed)
    assert tuple(inputs) == source.inputs
    again = draw_rows(source, kinds, length=length, candidates=candidates, seed=seed)
    for name, array in inputs.items():
        assert len(array) == rows
        assert np.array_equal(array, again[name])
        if array.dtype == np.int32:
            assert array.min() >= 0
    for feature, vocabulary in small.VOCABULARIES.items():
        for name in (feature, f"history_{feature}", f"candidate_{feature}", f"profile_{feature}"):
            assert inputs.get(name, np.zeros(1)).max() < vocabulary.size
    for row, kind in enumerate(kinds):
        if kind in {"all padding", "unknown ids"}:
            ids = {int(n) for a in inputs.values() if a.dtype == np.int32 for n in np.unique(a[row])}
            assert ids == ({0} if kind == "all padding" else {1})
    if role is not Role.ITEM:
        real = inputs["history_item_id"] > 0
        assert (real[:, :-1] >= real[:, 1:]).all()
        assert np.array_equal(real, inputs["history_category"] > 0)
        for kind, behaviours in (("no history", 0), ("history of 2", 2), ("full history", length)):
            chosen = np.array(kinds) == kind
            assert (real[chosen].sum(axis=1) == min(behaviours, length)).all()
