"""Rows to arrays and back: fitted on train alone, the same for training and for new rows."""

import datetime
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch

from stages.common.errors import UserError
from stages.features.columns import as_category, as_numeric, fits_float32, image_array
from stages.features.encode import check_columns, encode, row_keys
from stages.features.kinds import boolean
from stages.features.schema import Feature, Moments, Schema, Statistics, Target, read_schema
from stages.features.spelling import BLANKS
from stages.model.calibration import to_probabilities
from stages.model.predictor import Predictor
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.fit import fit_schema, fit_statistics
from stages.prepare.table.table import in_memory
from stages.tensors.batch import to_batch
from tests.conftest import Project
from tests.support.samples import mixed_table, prepare_params, run_stages, small_project

Arrays = dict[str, npt.NDArray[Any]]
# The parameter that names the file, as an error tells it.
KEY = "infer.input"

CLASSES = Target(name="y", task="classification", classes=["ill", "well"])
VALUE = Target(name="y", task="regression")
NO_STATISTICS = Statistics(numeric={}, image=[], target=None)

MIXED = pl.DataFrame(
    {
        "id": [7, 3, 9, 4],
        "size": [1.0, 3.0, None, 5.0],
        "age": [10, 20, 30, 40],
        "smoker": [True, None, False, True],
        "member": [False, False, True, True],
        "town": ["Oslo", "Bergen", None, "Oslo"],
        "y": ["ill", "well", "ill", "well"],
    }
)


def fit(train: pl.DataFrame, **changes: object) -> tuple[Schema, Statistics]:
    """What prepare learns from the rows of train."""
    # Four rows a class, so that finding the classes has nothing to say about the sample.
    schema = find_schema(pl.concat([train] * 4), prepare_params(**changes))
    schema = fit_schema(schema, in_memory(train))
    return schema, fit_statistics(schema, in_memory(train))


def encoded(rows: pl.DataFrame, schema: Schema, statistics: Statistics) -> Arrays:
    return dict(encode(rows, schema, statistics, KEY))


def one_feature(feature: Feature, key: str | None = None) -> Schema:
    return Schema(key=key, features=[feature], target=CLASSES)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert {problem.key for problem in caught.value.problems} == {KEY}
    return str(caught.value)


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


def test_gaps_that_train_does_not_have_are_the_mean_and_need_no_column() -> None:
    schema, statistics = fit(MIXED.filter(pl.col("size").is_not_null()), key="id")
    numeric = encoded(MIXED, schema, statistics)["numeric"]
    assert numeric.shape == (4, 2)
    assert numeric[2, 0] == 0


def test_a_constant_column_is_zero() -> None:
    schema, statistics = fit(MIXED.with_columns(age=pl.lit(5)), key="id")
    numeric = encoded(MIXED.with_columns(age=pl.lit(5)), schema, statistics)["numeric"]
    assert (numeric[:, 1] == 0).all()


@pytest.mark.parametrize(
    "train",
    [
        pl.Series("x", [14.62] * 240),
        pl.Series("x", [0.1] * 7 + [None]),
        pl.Series("x", [14.62] * 240, pl.Float32),
        pl.Series("x", [1e300] * 9),
        pl.Series("x", [0.0] * 9),
        # Equal but for the rounding of a sum.
        pl.Series("x", [0.1 + 0.2, 0.3, 0.3]),
        pl.Series("x", [0.1 + 0.2, 0.3, 0.3], pl.Float32),
    ],
    ids=str,
)
def test_rounding_is_no_spread(train: pl.Series) -> None:
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric")], target=VALUE)
    table = train.to_frame().with_columns(y=pl.int_range(pl.len()))
    moments = fit_statistics(schema, in_memory(table)).numeric["x"]
    assert (moments.deviation, moments.constant) == (1.0, True)
    values = train.cast(pl.Float64).drop_nulls()
    assert values.min() <= moments.mean <= values.max()  # type: ignore[operator]
    # A cent more is a cent more, and not 2e12 deviations.
    statistics = Statistics(numeric={"x": moments}, image=[], target=None)
    new = pl.DataFrame({"x": values + 0.01})
    assert np.abs(encoded(new, schema, statistics)["numeric"]).max() <= 0.0101


def test_a_small_spread_that_is_none_of_rounding_is_kept() -> None:
    seconds = pl.Series("x", [1.7e9, 1.7e9 + 1, 1.7e9 + 2])
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric")], target=VALUE)
    moments = fit_statistics(schema, in_memory(seconds.to_frame().with_columns(y=seconds))).numeric[
        "x"
    ]
    assert moments == Moments(mean=1.7e9 + 1, deviation=float(np.std([0.0, 1.0, 2.0])))
    tiny = pl.Series("x", [1e-200, 2e-200, 3e-200])
    moments = fit_statistics(schema, in_memory(tiny.to_frame().with_columns(y=tiny))).numeric["x"]
    assert moments.deviation == pytest.approx(np.std([1.0, 2.0, 3.0]) * 1e-200)
    assert not moments.constant


def test_a_channel_of_one_brightness_has_no_spread() -> None:
    for value in (0.1, 14.62, 255.0):
        images = np.full((40, 3, 4), value, np.float32)
        images[:, 1:] += np.arange(40, dtype=np.float32)[:, None, None]
        feature = Feature(name="x", kind="image", shape=[1, 1, 4], layout="HW")
        schema = Schema(key=None, features=[feature], target=CLASSES)
        image = pl.Series("x", images[:, :1].tolist(), pl.Array(pl.Float32, (1, 4)))
        assert fit_statistics(schema, in_memory(image.to_frame())).image[0].deviation == 1.0


def test_numbers_without_gaps_are_read_as_those_with_gaps_are() -> None:
    for values in ([0.1, -3.5, 1e-7], [1.5, None, -2.0], [None, None]):
        column = pl.Series("x", values, pl.Float64)
        longer = pl.concat([column, pl.Series("x", [float("nan")])])
        assert as_numeric(column, "k").equals(as_numeric(longer, "k")[:-1], null_equal=True)
    assert as_numeric(pl.Series("x", [0.5], pl.Float32), "k").dtype == pl.Float64


def test_what_float32_holds() -> None:
    for values, fits in (([], True), ([None], True), ([3e38, -3e38], True), ([-4e38, 0.0], False)):
        assert fits_float32(pl.Series("x", values, pl.Float64)) is fits


def test_infinities_are_gaps() -> None:
    rows = MIXED.with_columns(size=pl.Series([1.0, float("inf"), float("nan"), 5.0]))
    schema, statistics = fit(rows, key="id")
    assert statistics.numeric["size"] == Moments(mean=3.0, deviation=2.0)
    numeric = encoded(rows, schema, statistics)["numeric"]
    assert numeric[:, 2].tolist() == [0, 1, 1, 0]


def test_a_column_that_is_empty_in_train_has_to_be_excluded() -> None:
    schema = find_schema(pl.concat([MIXED] * 4), prepare_params(key="id"))
    train = MIXED.filter(pl.col("size").is_null())
    with pytest.raises(UserError, match="no value in the train split") as caught:
        fit_statistics(schema, in_memory(train))
    assert caught.value.problems[0].key == "prepare.columns.size"


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("stored", ["array", "list"])
def test_images_come_out_as_channels_height_width(
    layout: str, dtype: type[np.generic], stored: str
) -> None:
    images = np.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4).astype(dtype)
    if layout == "HW":
        images, rows = images[:, :1], images[:, 0]
    else:
        rows = images.transpose(0, 2, 3, 1) if layout == "HWC" else images
    inner = pl.UInt8 if dtype == np.uint8 else pl.Float64
    column = pl.Series("image", rows.tolist(), dtype=pl.Array(inner, rows.shape[1:]))
    if stored == "list":
        column = pl.Series("image", rows.tolist()).cast(_nested_list(inner, rows.ndim - 1))
    shape = list(images.shape[1:])
    feature = Feature.model_validate(
        {"name": "image", "kind": "image", "shape": shape, "layout": layout}
    )
    array = image_array(column, feature, KEY)
    assert array.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert np.array_equal(array, images)


def _nested_list(inner: type[pl.DataType], depth: int) -> pl.DataType:
    nested: pl.DataType = inner()
    for _ in range(depth):
        nested = pl.List(nested)
    return nested


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (pl.Series("image", [[[1, 2]], None]), "row 1 has none"),
        (pl.Series("image", [[[1, 2]], [[1, 2, 3]]]), "shape (1, 2)"),
        (pl.Series("image", [[1, 2], [3, 4]]), "shape (1, 2)"),
        (pl.Series("image", ["a", "b"]), "not String"),
        (pl.Series("image", [[["a", "b"]], [["c", "d"]]]), "not List(List(String))"),
        (pl.Series("image", [[[1, 2]], [[None, 2]]]), "row 1 has gaps in it"),
        (pl.Series("image", [[[1.0, 2.0]], [[float("nan"), 2.0]]]), "row 1 has gaps in it"),
        (pl.Series("image", [[[1, 2]], [None]]), "row 1 has gaps in it"),
        (pl.Series("image", [[[1.0, 2.0]], [[1e300, 2.0]]]), "row 1 has numbers too large to"),
        (pl.Series("image", [[[1.0, 2.0]], [[math.inf, 2.0]]]), "row 1 has gaps in it"),
    ],
)
def test_an_image_that_is_missing_or_of_another_shape_is_an_error(
    images: pl.Series, says: str
) -> None:
    feature = Feature(name="image", kind="image", shape=[1, 1, 2], layout="HW")
    assert says in message(lambda: image_array(images, feature, KEY))


def test_images_are_standardised_channel_by_channel() -> None:
    images = np.random.default_rng(0).integers(256, size=(6, 3, 4, 5), dtype=np.uint8)
    table = pl.DataFrame(
        {"image": pl.Series(images.tolist(), dtype=pl.Array(pl.UInt8, (3, 4, 5))), "y": [1, 2] * 3}
    )
    schema, statistics = fit(table, task="classification")
    arrays = encoded(table, schema, statistics)
    assert arrays["image"].dtype == np.uint8
    batch = to_batch(arrays, statistics)["image"]
    wide = images.astype(np.float64)
    axes = (0, 2, 3)
    expected = (wide - wide.mean(axes, keepdims=True)) / wide.std(axes, keepdims=True)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), expected, rtol=1e-5, atol=1e-6)


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
        (pl.Series("smoker", ["yes", "no", "maybe", None]), "1 values that are not true or false"),
        (pl.Series("smoker", [0, 1, 2, 1]), "1 values that are not true or false: 2"),
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


def test_a_number_that_float32_can_not_hold_names_its_column() -> None:
    feature = Feature(name="age", kind="numeric")
    table = pl.DataFrame({"age": [1.0, -1e300]})
    statistics = Statistics(numeric={"age": Moments(mean=0, deviation=1)}, image=[], target=None)
    said = message(lambda: encode(table, one_feature(feature), statistics, KEY))
    assert "the column 'age' holds numbers too large to compute with, such as -1e+300" in said
    for column in ([1e300, -1e300, 1.0], [1e308, 1e308, 1.0]):
        train = pl.DataFrame({"age": column, "y": ["ill", "well", "ill"]})
        with pytest.raises(UserError, match=r"the column 'age' holds .* such as 1e\+30"):
            fit_statistics(one_feature(feature), in_memory(train))


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


def predictor(target: Target, moments: Moments | None = None) -> Predictor:
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric")], target=target)
    statistics = NO_STATISTICS.model_copy(update={"target": moments})
    return Predictor(torch.nn.Identity(), schema, statistics)


def test_scores_of_classes_become_the_class_and_its_probabilities() -> None:
    scores = np.array([[1.0, 3.0], [1000.0, 0.0], [0.0, 0.0]])
    table = predictor(CLASSES).decode(scores)
    chance = 1 / (1 + np.exp(-2.0))
    assert table.columns == ["prediction", "probability_ill", "probability_well"]
    assert table["prediction"].to_list() == ["well", "ill", "ill"]
    np.testing.assert_allclose(table["probability_well"], [chance, 0.0, 0.5])
    np.testing.assert_allclose(to_probabilities(scores).sum(axis=1), 1.0)


def test_a_value_comes_back_in_the_targets_units() -> None:
    table = predictor(VALUE, Moments(mean=100.0, deviation=15.0)).decode(np.array([[0.0], [2.0]]))
    assert table["prediction"].to_list() == [100.0, 130.0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = small_project(tmp_path_factory.mktemp("prepared"), mixed_table(), {})
    run_stages(project, "prepare")
    return project


def arrays_of(project: Project, split: str) -> Arrays:
    folder = project.path / "data/prepare" / split
    return {file.stem: np.load(file) for file in sorted(folder.glob("*.npy"))}


def test_nothing_is_fitted_on_validation_or_test_rows(prepared: Project, tmp_path: Path) -> None:
    table = mixed_table()
    held_out = [int(k) for s in ("validation", "test") for k in arrays_of(prepared, s)["key"]]
    # Extremes, gaps and categories that train does not have; the class stays: it stratifies.
    there = pl.col("id").is_in(held_out)
    changed = table.with_columns(
        size=pl.when(there).then(1e6).otherwise("size"),
        town=pl.when(there).then(pl.lit("Atlantis")).otherwise("town"),
        smoker=pl.when(there).then(None).otherwise("smoker"),
    )
    other = small_project(tmp_path / "changed", changed, {})
    run_stages(other, "prepare")
    ours, theirs = prepared.outputs(), other.outputs()
    assert "data/prepare/train/numeric.npy" in ours
    for name in ours:
        fitted = "/train/" in name or name.endswith(("schema.json", "statistics.json"))
        if fitted:
            assert ours[name] == theirs[name], name
        elif name.endswith(("numeric.npy", "categorical.npy", "boolean.npy")):
            # The test can fail: what was changed did reach the arrays.
            assert ours[name] != theirs[name], name


def test_statistics_are_those_of_the_train_rows(prepared: Project) -> None:
    train = arrays_of(prepared, "train")
    sizes = mixed_table().filter(pl.col("id").is_in(train["key"].tolist()))["size"].drop_nulls()
    statistics = json.loads((prepared.path / "data/prepare/statistics.json").read_text("utf-8"))
    assert statistics["numeric"]["size"] == pytest.approx(
        {"mean": sizes.mean(), "deviation": sizes.std(ddof=0)}, rel=1e-12
    )


def test_the_arrays_of_a_split_are_its_rows_encoded(prepared: Project) -> None:
    table = mixed_table()
    schema = read_schema(prepared.path / "data/prepare")
    assert schema.target.classes == ["ill", "well"]
    for split in ("train", "validation", "test"):
        arrays = arrays_of(prepared, split)
        rows = pl.DataFrame({"id": arrays["key"]}).join(table, on="id", maintain_order="left")
        assert [schema.target.classes[code] for code in arrays["target"]] == rows["y"].to_list()
        assert arrays["target"].dtype == np.int64
        assert (arrays["numeric"][:, 1] == rows["size"].is_null().to_numpy()).all()


def test_a_target_in_numbers_is_standardised_on_train(tmp_path: Path) -> None:
    table = mixed_table().with_columns(y=pl.col("id") * 2.0)
    project = small_project(tmp_path / "numbers", table, {})
    run_stages(project, "prepare")
    train, test = arrays_of(project, "train"), arrays_of(project, "test")
    values = train["key"] * 2.0
    assert test["target"].dtype == np.float32
    expected = (test["key"] * 2.0 - values.mean()) / values.std()
    np.testing.assert_allclose(test["target"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (pl.Series([True, False] * 10), [False, True]),
        (pl.Series([3, -1] * 10), [-1, 3]),
        (pl.Series([2.0, 0.5] * 10), ["0.5", "2"]),
        (pl.Series(["b", "a"] * 10, dtype=pl.Enum(["b", "a"])), ["a", "b"]),
        (
            pl.Series([datetime.datetime(2024, 1, d, tzinfo=datetime.UTC) for d in (2, 1)] * 10),
            ["2024-01-01 00:00:00.000000+00:00", "2024-01-02 00:00:00.000000+00:00"],
        ),
    ],
)
def test_classes_of_every_type_are_coded_in_their_order(
    tmp_path: Path, target: pl.Series, classes: list[object]
) -> None:
    table = pl.DataFrame({"id": range(20), "x": range(20), "y": target})
    project = small_project(tmp_path / "classes", table, {"prepare.task": "classification"})
    run_stages(project, "prepare")
    assert read_schema(project.path / "data/prepare").target.classes == classes
    for split in ("train", "validation", "test"):
        arrays = arrays_of(project, split)
        # Of these tables the even rows hold the second class.
        assert arrays["target"].tolist() == (1 - arrays["key"] % 2).tolist()


def test_a_column_that_becomes_several_numbers_has_moments_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = [Moments(mean=1.0, deviation=2.0), Moments(mean=3.0, deviation=4.0)]
    monkeypatch.setattr(boolean, "moments", lambda *_: several)
    table = pl.DataFrame({"x": [1.0, 3.0], "b": [True, False]})
    wide = Feature(name="b", kind="boolean", width=2)
    target = Target(name="y", task="classification", classes=["a", "b"])
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric"), wide], target=target)
    statistics = fit_statistics(schema, in_memory(table))
    assert statistics.of(wide) == several
    assert list(statistics.numeric) == ["x"]
