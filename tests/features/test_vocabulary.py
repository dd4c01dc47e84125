import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.errors import CorruptError, InputError
from artifacts.layout import sidecar_of
from artifacts.tables import writing_table
from features.types import widened
from features.vocabulary import fit_vocabulary, load_vocabularies, load_vocabulary, save_vocabulary

IDS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.string(): st.text(max_size=6).filter(lambda text: "\x00" not in text),
}


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(list(IDS)), data=st.data())
def test_known_values_get_rows_from_two_in_ascending_order(kind, data):
    """A known value has row 2 + (number of known values below it); any other value, and null, has row 1."""
    known = data.draw(st.lists(st.none() | IDS[kind], max_size=12))
    asked = data.draw(st.lists(st.none() | IDS[kind] | st.sampled_from([*known, None]), max_size=12))
    vocabulary = fit_vocabulary("item_id", pa.array(known, kind))

    ascending = sorted({value for value in known if value is not None})
    expected = [2 + ascending.index(value) if value in ascending else 1 for value in asked]

    assert vocabulary.size == 2 + len(ascending)
    assert vocabulary.encode(pa.array(asked, kind)).tolist() == expected
    assert vocabulary.encode(pa.chunked_array([pa.array(asked, kind)] * 2)).tolist() == expected * 2


@pytest.mark.parametrize("big", [2**53 + 1, 2**63, 2**64 - 1])
def test_big_ids_stay_themselves(big, tmp_path):
    """No id wraps or passes through a float: neighbours above 2**53 and 2**63 stay apart, on disk too."""
    vocabulary = fit_vocabulary("item_id", pa.array([big - 1, big], pa.uint64()))
    save_vocabulary(vocabulary, tmp_path / "item_id.arrow")
    again = load_vocabulary("item_id", tmp_path / "item_id.arrow")

    assert again.values.to_pylist() == [big - 1, big]
    assert again.encode(pa.array([big, big - 1, big - 2], pa.uint64())).tolist() == [3, 2, 1]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()])
def test_text_is_text_however_it_is_stored(kind):
    """Large strings, dictionaries and views encode as the strings that they hold."""
    vocabulary = fit_vocabulary("brand", pa.array(["b", "a", "b"]).cast(kind))

    assert vocabulary.values.type == pa.string()
    assert vocabulary.encode(pa.array(["a", "b", "c", None]).cast(kind)).tolist() == [2, 3, 1, 1]


def test_a_type_that_is_no_category_is_refused():
    """Floats are never taken for ids, and integers never looked up among strings; the message names the feature."""
    assert widened(pa.float64()) is None
    with pytest.raises(InputError, match=r"feature year: expected integers or text, found double"):
        fit_vocabulary("year", pa.array([1.0]))
    with pytest.raises(InputError, match=r"feature year: expected string .* found int64"):
        fit_vocabulary("year", pa.array(["1999"])).encode(pa.array([1999]))


def test_the_same_values_give_the_same_bytes(tmp_path):
    """A vocabulary's file depends on its values alone, and no sidecar is left beside it."""
    for name, values in {"one": ["b", "a", None], "two": ["a", "b", "b"]}.items():
        save_vocabulary(fit_vocabulary(name, pa.array(values)), tmp_path / f"{name}.arrow")

    assert (tmp_path / "one.arrow").read_bytes() == (tmp_path / "two.arrow").read_bytes()
    assert not sidecar_of(tmp_path / "one.arrow").exists()
    loaded = load_vocabularies(tmp_path, ["one", "two"])
    assert {name: vocabulary.name for name, vocabulary in loaded.items()} == {"one": "one", "two": "two"}


def test_another_file_is_no_vocabulary(tmp_path):
    """A missing file, foreign bytes and unsorted values are errors that name the file."""
    (tmp_path / "foreign.arrow").write_bytes(b"hello")
    save_vocabulary(type(fit_vocabulary("x", pa.array(["a"])))("x", pa.array(["b", "a"])), tmp_path / "unsorted.arrow")
    for name in ("missing", "foreign", "unsorted"):
        with pytest.raises(CorruptError, match=f"{name}.arrow"):
            load_vocabulary(name, tmp_path / f"{name}.arrow")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"values": ["a"]}), "expected the one column `value` of a vocabulary, found values: string"),
        (pa.table({"value": [1.5]}), "expected the one column `value` of a vocabulary, found value: double"),
        (pa.table({"value": pa.array([1, 1])}), "expected"),
        (pa.table({"value": pa.array([2, 1])}), "expected"),
    ],
)
def test_another_table_is_no_vocabulary(table, message, tmp_path):
    """A column of another name or type, and values that do not ascend, are refused with the file's name."""
    path = tmp_path / "brand.arrow"
    with writing_table(path, table.schema, metadata={}, inputs="") as writer:
        writer.write(table)
    with pytest.raises(CorruptError, match=rf"^{path}: {message}"):
        load_vocabulary("brand", path)
