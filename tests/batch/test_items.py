import numpy as np
import pytest

from artifacts.errors import CorruptError, StaleRunError
from artifacts.tables import read_sidecar, read_table
from batch.items import embed_items


def _vectors(run) -> np.ndarray:
    tables = [read_table(run.layout.items(shard, run.item_shards)) for shard in range(run.item_shards)]
    return np.concatenate([t["vector"].combine_chunks().flatten().to_numpy().reshape(t.num_rows, 8) for t in tables])


def test_every_item_of_the_catalogue_gets_the_vector_that_numpy_computes(make_run, item_bundle, weights):
    """Eligible or not, known or not: all items, ascending by id, in the model's own numbers."""
    run = make_run(items=45)
    result = embed_items(run, item_bundle, range(1))
    table = read_table(run.layout.items(0, 1))
    catalogue = read_table(run.layout.catalogue)
    assert table["item_id"].to_pylist() == catalogue["item_id"].to_pylist()
    expected = weights.vectors(catalogue["feature_item_id"].to_numpy(), catalogue["feature_category"].to_numpy())
    np.testing.assert_array_equal(_vectors(run), expected)
    assert (result.step, result.shards, result.skipped, result.rows) == ("items", 1, 0, 45)
    assert result.counts == {"not_finite": 0, "zero": 0, "kept": 0}


@pytest.mark.parametrize("item_shards", [2, 3, 7, 50])
def test_ranges_are_contiguous_and_together_the_catalogue(make_run, item_bundle, item_shards):
    """Each range continues the one before, also where there are more ranges than items."""
    whole, parts = make_run(name="whole"), make_run(item_shards=item_shards, name="parts")
    embed_items(whole, item_bundle, range(1))
    embed_items(parts, item_bundle, range(item_shards))
    np.testing.assert_array_equal(_vectors(parts), _vectors(whole))


def test_the_metadata_says_where_the_vectors_come_from(make_run, item_bundle):
    """A table can be traced to its night, its run and its model."""
    run = make_run()
    embed_items(run, item_bundle, range(1))
    said = read_table(run.layout.items(0, 1)).schema.metadata
    assert said[b"data_date"] == b"2026-02-01"
    assert said[b"run_key"] == run.run_key.encode()
    assert said[b"model_id_item"] == b"model"


def test_what_is_done_is_skipped_and_what_is_lost_is_made_again(make_run, item_bundle):
    """A range with its sidecar is left alone; one without is computed, to the same bytes."""
    run = make_run(item_shards=3)
    embed_items(run, item_bundle, range(3))
    before = [run.layout.items(shard, 3).stat().st_mtime_ns for shard in range(3)]
    digest = read_sidecar(run.layout.items(1, 3)).sha256
    run.layout.items(1, 3).unlink()
    result = embed_items(run, item_bundle, range(3))
    after = [run.layout.items(shard, 3).stat().st_mtime_ns for shard in range(3)]
    assert (result.skipped, result.rows) == (2, 15)
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]
    assert read_sidecar(run.layout.items(1, 3)).sha256 == digest


def test_a_changed_byte_of_the_catalogue_is_found_before_use(make_run, item_bundle):
    """An Arrow body with a flipped bit decodes without an error, so the digest is checked first."""
    run = make_run()
    data = bytearray(run.layout.catalogue.read_bytes())
    data[len(data) // 2] ^= 1
    run.layout.catalogue.write_bytes(data)
    with pytest.raises(CorruptError, match=r"catalogue\.arrow: expected sha256"):
        embed_items(run, item_bundle, range(1))
    assert not run.layout.items(0, 1).exists()


def test_a_bundle_that_the_run_was_not_prepared_for_is_refused(make_run, tiny, tmp_path):
    """One run is computed with the bundles it was prepared for."""
    run = make_run()
    other = tiny.make_bundle(tmp_path / "other", tiny.Role.ITEM, tiny.make_weights(5))
    with pytest.raises(StaleRunError, match=rf"prepared for the item bundle .* {other.bundle_id}"):
        embed_items(run, other, range(1))


def test_progress_counts_every_row_once(make_run, item_bundle):
    """What `advance` is told adds up to the rows."""
    run, told = make_run(items=45, item_shards=2), []
    embed_items(run, item_bundle, range(2), advance=told.append)
    assert sum(told) == 45
