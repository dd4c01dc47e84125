"""Item vectors kept from an earlier run: the bytes of a full night, however the ranges of the catalogue have moved."""

import itertools
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import tables
from artifacts.bundle import Bundle
from artifacts.run import Run
from artifacts.tables import writing_table
from batch import items as step
from batch.items import embed_items

NUMBER = itertools.count()
ITEMS = 120


def write_catalogue(run: Run, tiny: ModuleType, rows: np.ndarray, recategorized: np.ndarray | None = None) -> None:
    """Give *run* these of ``ITEMS`` items; those that are *recategorized* have another category."""
    table = tiny.catalogue_of(ITEMS)
    categories = table["feature_category"].to_numpy().copy()
    if recategorized is not None:
        categories[recategorized] = (categories[recategorized] - 1) % tiny.CATEGORIES + 2
    place = table.column_names.index("feature_category")
    table = table.set_column(place, "feature_category", pa.array(categories)).take(pa.array(rows))
    with writing_table(run.layout.catalogue, table.schema, metadata={}, inputs="") as writer:
        writer.write(table)


def embedded(run: Run, bundle: Bundle, *earlier: Run) -> tuple[list[bytes], dict[str, int]]:
    result = embed_items(run, bundle, range(run.item_shards), earlier=earlier, threads=2)
    return [run.layout.items(shard, run.item_shards).read_bytes() for shard in range(run.item_shards)], result.counts


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_kept_gives_the_bytes_of_a_full_night(make_run, tiny, item_bundle, monkeypatch, data):
    """Items come, go or change their category, and ranges begin elsewhere: bytes and counts are a full night's."""
    number, rows = next(NUMBER), data.draw(st.sampled_from([7, 40, 65_536]), "rows of a record batch")
    for module in (tables, step):
        monkeypatch.setattr(module, "BATCH_ROWS", rows)
    said = {
        "item_shards": data.draw(st.integers(1, 5), "ranges"),
        "batch_items": data.draw(st.sampled_from([1, 4, 16])),
    }
    random = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    old, new = (np.flatnonzero(random.random(ITEMS) < data.draw(st.sampled_from([0, 0.5, 0.95, 1]))) for _ in range(2))
    changed = np.flatnonzero(random.random(ITEMS) < data.draw(st.sampled_from([0, 0.1, 1]), "share of the changed"))
    before, kept, full = (make_run(name=f"{name}-{number}", **said) for name in ("before", "kept", "full"))
    write_catalogue(before, tiny, old)
    for run in (kept, full):
        write_catalogue(run, tiny, new, changed)

    embedded(before, item_bundle)
    found, counts = embedded(kept, item_bundle, before)
    wanted, plain = embedded(full, item_bundle)

    assert found == wanted
    assert counts["kept"] == len(set(old) & set(new) - set(changed))
    assert {**counts, "kept": 0} == plain


@pytest.mark.parametrize("what", ["catalogue", "second range"])
def test_a_changed_byte_of_the_earlier_run_is_found_and_what_it_would_save_is_computed(
    make_run, tiny, item_bundle, what
):
    """A catalogue that is damaged saves nothing; of damaged vectors the ranges that would be read from them nothing."""
    before, kept, full = (make_run(name=name, item_shards=3) for name in ("before", "kept", "full"))
    for run in (before, kept, full):
        write_catalogue(run, tiny, np.arange(ITEMS))
    embedded(before, item_bundle)
    path = before.layout.catalogue if what == "catalogue" else before.layout.items(1, 3)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)

    found, counts = embedded(kept, item_bundle, before)

    assert found == embedded(full, item_bundle)[0]
    assert counts["kept"] == (0 if what == "catalogue" else 80)
    assert counts.get("not_repeated", 0) == (0 if what == "catalogue" else 1)
