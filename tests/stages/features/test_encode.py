"""Rows to arrays: the same for training and for new rows."""

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.columns import as_category
from stages.features.encode import check_columns, row_keys
from stages.features.schema import Feature
from stages.features.spelling import BLANKS
from tests.stages.features.encoded import KEY, MIXED, encoded, fit, message, one_feature
from tests.support.samples import mixed_table


def test_numbers_are_standardised_and_gaps_are_zero_with_an_indicator() -> None:
    schema, statistics = fit(MIXED, key="id")
    numeric = encoded(MIXED, schema, statistics)["numeric"]
    sizes, ages = np.array([1.0, 3.0, 5.0]), np.array([10.0, 20.0, 30.0, 40.0])
    size = (sizes - sizes.mean()) / sizes.std()
    age = (ages - ages.mean()) / ages.std()
    # The columns, then an indicator for each that has gaps in train.
    expected = np.stack([[*size[:2], 0, size[2]], age, [0, 0, 1, 0]], axis=1)
    assert numeric.dtype == np.float32
    np.testing.assert_allclose(numeric, expected, rtol=1e-6)


def test_booleans_are_zeros_and_ones_with_an_indicator_of_gaps() -> None:
    schema, statistics = fit(MIXED, key="id")
    boolean = encoded(MIXED, schema, statistics)["boolean"]
    assert boolean.dtype == np.float32
    assert boolean.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 0]]


def test_categories_are_coded_from_one_in_sorted_order_and_a_gap_behind_the_last() -> None:
    schema, statistics = fit(MIXED, key="id")
    categorical = encoded(MIXED, schema, statistics)["categorical"]
    assert categorical.dtype == np.int64
    assert categorical.tolist() == [[2], [1], [3], [2]]


def test_the_schema_tells_models_the_shapes_of_the_arrays() -> None:
    schema, statistics = fit(MIXED, key="id")
    arrays = encoded(MIXED, schema, statistics)
    inputs = schema.inputs()
    assert list(inputs) == list(arrays)
    for kind in ("numeric", "boolean"):
        assert list(arrays[kind].shape[1:]) == inputs[kind]
    assert len(inputs["categorical"]) == arrays["categorical"].shape[1]
    assert inputs["categorical"] == [4]


def test_a_category_that_train_does_not_have_is_code_zero() -> None:
    schema, statistics = fit(MIXED, key="id")
    rows = MIXED.with_columns(town=pl.Series(["Oslo", "Paris", "oslo", "Bergen"]))
    codes = encoded(rows, schema, statistics)["categorical"]
    assert codes[:, 0].tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 4), slice(1, 2), slice(0, 4)])
@pytest.mark.parametrize(
    "column",
    [
        pl.Series([1.0, 2.0, 2.5, 1.0]),
        pl.Series([1.0, 2.0, None, float("nan")]),
        pl.Series([1, 2, None, 1]),
        pl.Series([True, False, None, True]),
        pl.Series([0.5, 1e300, -0.0, 1.0]),
    ],
)
def test_what_a_category_is_called_does_not_depend_on_the_other_rows(
    column: pl.Series, rows: slice
) -> None:
    assert as_category(column)[rows].to_list() == as_category(column[rows]).to_list()


def test_whole_numbers_are_one_category_however_they_are_stored() -> None:
    for kind in (pl.Int8, pl.UInt64, pl.Float32, pl.Float64):
        assert as_category(pl.Series([1, 20], dtype=kind)).to_list() == ["1", "20"]


def test_a_category_has_one_name_however_a_file_spells_it() -> None:
    texts = ["Oslo", "Oslo  ", "\tOslo\u00a0", "\u00e9", "e\u0301", "", "  ", None]
    expected = ["Oslo", "Oslo", "Oslo", "\u00e9", "\u00e9", None, None, None]
    assert as_category(pl.Series(texts)).to_list() == expected
    assert as_category(pl.Series(texts, dtype=pl.Categorical)).to_list() == expected
    prices = pl.Series(["2.50", "10", "0.05", "100.00", None]).cast(pl.Decimal(10, 2))
    assert as_category(prices).to_list() == ["2.5", "10", "0.05", "100", None]


def test_blanks_are_those_of_unicode() -> None:
    characters = pl.Series([chr(n) for n in range(0x110000) if not 0xD800 <= n < 0xE000])
    blank = characters.filter(characters.str.strip_chars() == "")
    assert sorted(BLANKS) == blank.sort().to_list()


def test_a_missing_column_is_told_with_the_nearest_name() -> None:
    schema, _ = fit(MIXED, key="id")
    with pytest.raises(UserError) as caught:
        check_columns(MIXED.rename({"town": "Town", "id": "ID"}), schema, KEY)
    assert [p.suggestion for p in caught.value.problems] == ["Town", "ID"]
    assert {p.key for p in caught.value.problems} == {KEY}


def test_the_target_need_not_be_in_new_rows() -> None:
    schema, statistics = fit(MIXED, key="id")
    check_columns(MIXED.drop("y"), schema, KEY)
    assert encoded(MIXED.drop("y"), schema, statistics)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pl.Series("size", ["1", "tall", "2", "short"]), "2 values that are not a number: 'tall'"),
        (pl.Series("size", [[1.0]] * 4), "List(Float64), not a number"),
        (pl.Series("smoker", ["yes", "no", "maybe", None]), "1 value that is not true or false"),
        (pl.Series("smoker", [0, 1, 2, 1]), "1 value that is not true or false: 2"),
        (pl.Series("town", [["Oslo"]] * 4), "List(String), not a category"),
    ],
)
def test_values_that_the_kind_can_not_be_made_of_are_an_error(column: pl.Series, says: str) -> None:
    schema, statistics = fit(MIXED, key="id")
    rows = MIXED.with_columns(column)
    assert says in message(lambda: encoded(rows, schema, statistics))


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pl.Series("id", [1, None, 3, None]), "empty in 2 rows"),
        (pl.Series("id", [5, 3, 5, 3]), "more than one row with: 5, 3"),
    ],
)
def test_a_key_that_does_not_name_its_row_is_an_error(column: pl.Series, says: str) -> None:
    schema = one_feature(Feature(name="age", kind="numeric"), key="id")
    assert says in message(lambda: row_keys(MIXED.with_columns(column), schema, KEY))


def test_keys_are_the_key_column_or_the_rows_numbers() -> None:
    feature = Feature(name="age", kind="numeric")
    by_id, by_number = one_feature(feature, key="id"), one_feature(feature)
    assert row_keys(MIXED, by_id, KEY).tolist() == [7, 3, 9, 4]
    assert row_keys(MIXED, by_number, KEY).tolist() == [0, 1, 2, 3]
    words = MIXED.with_columns(id=pl.Series(["a", "b", "cc", "d"]))
    assert row_keys(words, by_id, KEY).tolist() == ["a", "b", "cc", "d"]


@pytest.mark.parametrize("kind", [pl.UInt64, pl.Int128])
def test_keys_of_more_than_63_bits_keep_every_digit(kind: type[pl.DataType]) -> None:
    by_id = one_feature(Feature(name="age", kind="numeric"), key="id")
    small = MIXED.with_columns(pl.col("id").cast(kind))
    assert row_keys(small, by_id, KEY).tolist() == [7, 3, 9, 4]
    hashes = [2**63 - 1, 2**63, 2**64 - 1, 3]
    wide = MIXED.with_columns(id=pl.Series(hashes, dtype=kind))
    assert row_keys(wide, by_id, KEY).tolist() == [str(number) for number in hashes]


@pytest.mark.parametrize("size", [1, 3])
def test_rows_are_encoded_one_by_one_as_they_are_together(size: int) -> None:
    table = mixed_table()
    schema, statistics = fit(table, key="id")
    whole = encoded(table, schema, statistics)
    parts = [
        encoded(table[start : start + size], schema, statistics)
        for start in range(0, table.height, size)
    ]
    for kind, array in whole.items():
        assert np.array_equal(np.concatenate([part[kind] for part in parts]), array), kind
