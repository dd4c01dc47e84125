import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.canary import read_canary, write_canary
from artifacts.errors import CorruptError
from artifacts.tables import writing_table


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    shape=st.lists(st.integers(1, 4), max_size=3),
    kind=st.sampled_from(["int32", "int64", "float32"]),
)
def test_tensors_of_any_rank_come_back_as_they_went_in(tmp_path_factory, rows, shape, kind):
    """Type, shape and every bit of a tensor survive, rows first."""
    path = tmp_path_factory.mktemp("canary") / "canary.arrow"
    tensors = {
        "x": np.arange(rows * int(np.prod(shape)), dtype=kind).reshape(rows, *shape),
        "score": np.full(rows, np.pi, np.float32),
    }
    write_canary(path, tensors)
    found = read_canary(path)
    assert list(found) == ["x", "score"]
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor, strict=True)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_another_table_is_no_canary(tmp_path):
    """An Arrow file of ours without shapes is refused by name."""
    schema = pa.schema([pa.field("x", pa.int32(), nullable=False)])
    with writing_table(tmp_path / "x.arrow", schema, metadata={}, inputs="") as writer:
        writer.write(pa.table({"x": pa.array([1], pa.int32())}))
    with pytest.raises(CorruptError, match=r"x\.arrow: expected canary rows with their shapes"):
        read_canary(tmp_path / "x.arrow")
