from dataclasses import replace

import pyarrow as pa
import pytest

from artifacts.bundle import FeatureSpec
from artifacts.errors import InputError, UsageError
from features.catalogue import encode_catalogue, fit_feature_vocabularies
from features.inputs import Source
from features.vocabulary import fit_vocabulary

SPEC = FeatureSpec(("item_id", "brand"))


def vocabularies(ids, brands, kind="int64"):
    return {
        "item_id": fit_vocabulary("item_id", pa.array(ids, kind)),
        "brand": fit_vocabulary("brand", pa.array(brands, "string")),
    }


def test_items_are_encoded_in_the_order_of_their_ids(tmp_path, shop):
    """Rows ascend by id, unknown and null values get row 1, an item of which nothing is known has no signal."""
    inputs = shop([], [(30, "b"), (-5, None), (10, "zz"), (7, "a")], gone_items=[7, 99]).inputs(tmp_path)
    table, counts = encode_catalogue(inputs, spec=SPEC, vocabularies=vocabularies([7, 10, 30], ["a", "b"]))

    assert table.to_pydict() == {
        "item_id": [-5, 10, 30],
        "feature_item_id": [1, 3, 4],
        "feature_brand": [1, 1, 3],
        "eligible": [True, True, True],
        "signal": [False, True, True],
        "title": [None, None, None],
    }
    assert counts == {
        "items": 3,
        "items_excluded": 1,
        "items_ineligible": 0,
        "items_unknown": 1,
        "items_id_unknown": 1,
        "items_brand_unknown": 2,
    }


def test_what_may_be_declared_is_read(tmp_path, write_parquet):
    """Titles, eligibility and the groups of the shop's rules come from their columns; no value in a group is -1."""
    rows = pa.table(
        {
            "sku": pa.array([2, 1, 3], pa.uint8()),
            "label": pa.array(["b", "b", None]).dictionary_encode(),
            "name": pa.array(["two", None, "three"], pa.large_string()),
            "on": [False, True, True],
            "variant": pa.array([900, 800, None], pa.int16()),
        }
    )
    columns = {"item_id": "sku", "brand": "label", "title": "name", "eligible": "on", "group_variant": "variant"}
    where = Source(str(write_parquet(tmp_path / "items.parquet", rows)), columns)
    inputs = _only_items(where)
    table, counts = encode_catalogue(
        inputs, spec=SPEC, vocabularies=vocabularies([1, 2, 3], ["b"], "uint64"), groups=["brand", "variant"]
    )

    assert table.schema.field("item_id").type == pa.uint64()
    assert table.select(["item_id", "group_brand", "group_variant", "eligible", "title"]).to_pydict() == {
        "item_id": [1, 2, 3],
        "group_brand": [0, 0, -1],
        "group_variant": [0, 1, -1],
        "eligible": [True, False, True],
        "title": [None, "two", "three"],
    }
    assert counts["items_ineligible"] == 1


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(1, "a"), (2, "b"), (1, "b")], "item id 1 is there more than once in column sku"),
        ([(1, "a"), (None, "b")], "column sku of items has nulls"),
        ([], "found no rows"),
    ],
)
def test_a_wrong_catalogue_is_refused(items, message, tmp_path, shop):
    """A repeated or missing id, or no item at all, is an error that names file and column."""
    inputs = shop([], items).inputs(tmp_path)
    with pytest.raises(InputError, match=rf"items\.parquet.*{message}"):
        encode_catalogue(inputs, spec=SPEC, vocabularies=vocabularies([1], ["a"]))


def test_eligible_says_yes_or_no(tmp_path, write_parquet):
    """A null in ``eligible`` is an error naming the item: nobody said whether it may be shown."""
    rows = pa.table({"sku": [1, 2], "label": ["a", "b"], "on": [True, None]})
    columns = {"item_id": "sku", "brand": "label", "eligible": "on"}
    inputs = _only_items(Source(str(write_parquet(tmp_path / "items.parquet", rows)), columns))
    with pytest.raises(InputError, match="column on is null for item 2"):
        encode_catalogue(inputs, spec=SPEC, vocabularies=vocabularies([1], ["a"]))


def test_features_need_columns_of_the_model_s_types(tmp_path, shop):
    """A feature or group that no column is declared for, or whose ids are of another type, is named."""
    inputs = shop([], [(1, "a")]).inputs(tmp_path)
    undeclared = replace(inputs, items=Source(inputs.items.path, {"item_id": "sku"}))

    with pytest.raises(UsageError, match=r"\[inputs.items\] declares no column for the feature brand"):
        encode_catalogue(undeclared, spec=SPEC, vocabularies=vocabularies([1], ["a"]))
    with pytest.raises(UsageError, match="colour"):
        encode_catalogue(inputs, spec=SPEC, vocabularies=vocabularies([1], ["a"]), groups=["colour"])
    with pytest.raises(InputError, match=r"feature item_id: expected string .* found int64"):
        encode_catalogue(inputs, spec=SPEC, vocabularies=vocabularies(["1"], ["a"], "string"))


def test_vocabularies_are_fitted_on_what_is_declared(tmp_path, shop):
    """Item features are known from the items that are not excluded, profile features from the users."""
    inputs = shop([], [(1, "a"), (2, "b")], [(7, "nl"), (8, None), (9, "be")], gone_items=[2]).inputs(tmp_path)
    fitted = fit_feature_vocabularies(inputs, spec=FeatureSpec(("item_id", "brand"), ("country",)))

    assert {name: vocabulary.values.to_pylist() for name, vocabulary in fitted.items()} == {
        "item_id": [1],
        "brand": ["a"],
        "country": ["be", "nl"],
    }


@pytest.mark.parametrize(
    ("kind", "known"),
    [(pa.string(), pa.string()), (pa.dictionary(pa.int32(), pa.string()), pa.string()), (pa.uint8(), pa.uint64())],
)
def test_no_users_make_an_empty_vocabulary(kind, known, tmp_path, shop, write_parquet):
    """A users table without rows knows no value of a profile feature; the type is still its column's, widened."""
    inputs = shop([], [(1, "a")]).inputs(tmp_path)
    write_parquet(tmp_path / "users.parquet", pa.table({"visitor": pa.array([], "int64"), "land": pa.array([], kind)}))
    country = fit_feature_vocabularies(inputs, spec=FeatureSpec(("item_id",), ("country",)))["country"]

    assert country.values.type == known
    assert country.size == 2
    assert country.encode(pa.array([None], known)).tolist() == [1]


def _only_items(items):
    from features.inputs import Inputs

    return Inputs(interactions=None, histories=None, users=None, items=items)
