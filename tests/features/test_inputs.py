from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError, NotReadyError, UsageError
from features.events import read_events
from features.inputs import Inputs, Source, check_inputs, check_schemas, files_of, fingerprint_inputs

COLUMNS = {"user_id": "visitor", "item_id": "sku", "time": "at"}


def table(**changed):
    columns = {
        "visitor": pa.array([1, 2], pa.int64()),
        "sku": pa.array(["a", "b"]),
        "at": pa.array([5, 6], pa.timestamp("ms")),
    }
    return pa.table({name: column for name, column in (columns | changed).items() if column is not None})


def source(path, **columns):
    return Source(str(path), COLUMNS | columns)


def checked(where):
    return check_schemas("interactions", where, files_of(where))


def test_a_folder_is_read_whole_but_for_hidden_files(tmp_path, write_parquet):
    """Files come in the order of their paths; names that start with a dot or underscore are skipped and counted."""
    for name in ("b.parquet", "a/2.parquet", "a/1.parquet", "_tmp/x.parquet", ".y.parquet"):
        write_parquet(tmp_path / name, table())
    (tmp_path / "_SUCCESS").touch()

    folder, matching = files_of(Source(str(tmp_path), {})), files_of(Source(f"{tmp_path}/**/*.parquet", {}))
    assert [path.relative_to(tmp_path).as_posix() for path in folder.paths] == [
        "a/1.parquet",
        "a/2.parquet",
        "b.parquet",
    ]
    assert folder.hidden == 3
    assert matching.paths == folder.paths
    assert matching.hidden == 2


def test_a_hidden_parent_hides_nothing(tmp_path, write_parquet):
    """Only what a search finds can be hidden, not what the user spelt out."""
    write_parquet(tmp_path / "_in" / ".day" / "a.parquet", table())

    for path in ("_in/.day", "_in/.day/*.parquet", "_in/.day/a.parquet"):
        assert len(files_of(Source(f"{tmp_path}/{path}", {})).paths) == 1


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello, I am no Parquet file at all", None])
def test_damaged_files_are_named(content, tmp_path, write_parquet):
    """A zero-byte, truncated or foreign file is an error that names it, and never an empty table."""
    write_parquet(tmp_path / "a.parquet", table())
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-20] if content is None else content)

    with pytest.raises(InputError, match=r"b\.parquet"):
        checked(source(tmp_path))


def test_a_damaged_page_is_found_while_it_is_read(tmp_path, write_parquet):
    """A file whose footer is whole but whose rows are not is an error that names it."""
    rows = 5_000
    big = table(visitor=pa.array(range(rows)), sku=pa.array(["x"] * rows), at=pa.array(range(rows), pa.timestamp("s")))
    path = tmp_path / "a.parquet"
    pq.write_table(big, path, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)

    inputs = Inputs(source(path), None, None, Source("", {}))
    with pytest.raises(InputError, match=r"a\.parquet"):
        list(read_events(inputs))


def test_foreign_and_missing_files_are_named(tmp_path, write_parquet):
    """A stray file in a folder, an empty folder, an unmatched glob and an address are refused by name."""
    with pytest.raises(NotReadyError, match="found none"):
        files_of(Source(str(tmp_path), {}))
    with pytest.raises(NotReadyError, match=r"nothing-\*\.parquet"):
        files_of(Source(f"{tmp_path}/nothing-*.parquet", {}))
    write_parquet(tmp_path / "a.parquet", table())
    (tmp_path / "notes.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"notes\.csv"):
        files_of(Source(str(tmp_path), {}))
    with pytest.raises(UsageError, match="s3://bucket/x"):
        files_of(Source("s3://bucket/x", {}))


def test_a_missing_column_is_named_with_its_nearest(tmp_path, write_parquet):
    """A renamed column is an error with file, column and what it may have meant; it never reads as null."""
    write_parquet(tmp_path / "a.parquet", table())
    write_parquet(tmp_path / "b.parquet", table(visitor=None, visitors=pa.array([1, 2])))

    with pytest.raises(
        InputError, match=r"b\.parquet: column visitor of interactions is missing; did you mean visitors"
    ):
        checked(source(tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"visitor": pa.array([1.0, 2.0])}, "column visitor .* expected an integer or text, found double"),
        ({"visitor": pa.array([True, False])}, "column visitor .* found bool"),
        ({"sku": pa.array([b"a", b"b"])}, "column sku .* found binary"),
        ({"at": pa.array([1, 2])}, "column at .* expected a timestamp .* found int64"),
        ({"at": pa.array(["2026-01-01", "2026-01-02"])}, "column at .* found string"),
    ],
)
def test_types_that_are_no_id_or_time_are_refused(changed, message, tmp_path, write_parquet):
    """No id passes through a float, and no number is a time whose unit nobody declared."""
    write_parquet(tmp_path / "a.parquet", table(**changed))

    with pytest.raises(InputError, match=message):
        checked(source(tmp_path))


@pytest.mark.parametrize(
    "changed",
    [
        {"visitor": pa.array([1, 2], pa.int32())},
        {"visitor": pa.array([1, 2], pa.uint64())},
        {"visitor": pa.array(["1", "2"])},
        {"at": pa.array([5, 6], pa.timestamp("us"))},
        {"at": pa.array([5, 6], pa.timestamp("ms", "UTC"))},
    ],
)
def test_a_file_whose_type_differs_is_named(changed, tmp_path, write_parquet):
    """All files of a table have one type for a column: the first that differs is an error naming file and column."""
    write_parquet(tmp_path / "a.parquet", table())
    write_parquet(tmp_path / "b.parquet", table(**changed))

    with pytest.raises(InputError, match=rf"b\.parquet: column {next(iter(changed))} of interactions is"):
        checked(source(tmp_path))


def test_text_may_be_stored_in_several_ways(tmp_path, write_parquet):
    """String, large string and dictionary are one type of id."""
    for name, kind in {"a": pa.string(), "b": pa.large_string(), "c": pa.dictionary(pa.int32(), pa.string())}.items():
        write_parquet(tmp_path / f"{name}.parquet", table(sku=pa.array(["a", "b"]).cast(kind)))

    where = Inputs(source(tmp_path), None, None, Source("", {}))
    checked(source(tmp_path))
    assert [id_ for batch, _ in read_events(where) for id_ in batch.column("item_id").to_pylist()] == ["a", "b"] * 3


def test_an_integer_time_needs_a_declared_unit(tmp_path, write_parquet):
    """``time_unit`` makes integers times; a unit that does not exist is a usage error."""
    write_parquet(tmp_path / "a.parquet", table(at=pa.array([5, 6])))

    where = source(tmp_path / "a.parquet", time_unit="ms")
    checked(where)
    events, _ = next(read_events(Inputs(where, None, None, Source("", {}))))
    assert events.column("time_us").to_pylist() == [5_000, 6_000]
    with pytest.raises(UsageError, match="time_unit is minutes"):
        checked(source(tmp_path / "a.parquet", time_unit="minutes"))


def test_ids_have_one_type_in_all_tables(tmp_path, shop):
    """Items named by numbers in one table and by text in another never meet: an error names both tables."""
    inputs = shop([(1, 1, 5)], [(1, "x")]).inputs(tmp_path / "numbers")
    texts = shop([(1, "1", 5)], [("1", "x")], item_type="string").inputs(tmp_path / "texts")

    assert check_inputs(inputs).item_id == pa.int64()
    with pytest.raises(InputError, match="item ids are int64 in items, but string in interactions"):
        check_inputs(replace(inputs, interactions=texts.interactions))
    with pytest.raises(InputError, match="in exclude_items"):
        check_inputs(replace(inputs, exclude_items=texts.exclude_items))


def test_behaviours_come_from_one_table(tmp_path, shop):
    """Interactions and histories exclude each other, and one of them is needed."""
    inputs = shop([], [(1, "x")]).inputs(tmp_path)
    for interactions, histories in ((None, None), (inputs.interactions, inputs.interactions)):
        with pytest.raises(UsageError, match="either interactions or histories"):
            check_inputs(replace(inputs, interactions=interactions, histories=histories))


def test_the_fingerprint_is_of_contents_alone(tmp_path, shop):
    """Renaming, moving or splitting files off changes no fingerprint that equal bytes had; another byte does."""
    first = shop([(1, 1, 5)], [(1, "x")]).inputs(tmp_path / "one")
    moved = shop([(1, 1, 5)], [(1, "x")]).inputs(tmp_path / "two")
    (tmp_path / "two" / "interactions.parquet").rename(tmp_path / "two" / "z.parquet")
    renamed = replace(moved, interactions=Source(str(tmp_path / "two" / "z.parquet"), COLUMNS))
    other = shop([(1, 1, 6)], [(1, "x")]).inputs(tmp_path / "three")

    assert fingerprint_inputs(first) == fingerprint_inputs(renamed)
    assert fingerprint_inputs(first) != fingerprint_inputs(other)
