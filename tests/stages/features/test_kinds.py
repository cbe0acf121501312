"""One contract for every kind of column: all ways from a raw value to a batch are one and the same.

A kind that is new needs a column in COLUMNS of `tests/support/stages/kinds.py`: its surest one.
"""

import inspect
import json
import math
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.serve.codec.tensors import DTYPES, TYPES
from stages.common.errors import UserError
from stages.features.kind import FOLDER, Kind, RawType, kind_of, list_kinds
from stages.features.numbers import row_shape, take_column
from stages.features.schema import KINDS, WORDS, Feature, Statistics
from stages.prepare.columns.infer_schema import guess_kind
from tests.support.stages.kinds import COLUMNS, KEY, NUM_ROWS, NUM_TRAIN, Fitted

CONSTANTS = ("TYPE", "PROGRAM_TYPE", "GAP", "NUMBERS")
FUNCTIONS = [
    name for name, each in vars(Kind).items() if inspect.isfunction(each) and name[0] != "_"
]
HOSTILE: list[object] = [
    *(None, True, 0, 1, -1.5, 10**400, 2**64, 1e300, -1e300, math.nan, math.inf, -0.0, 5e-324),
    *("", " ", "\x00", "nan", "1e999", "yes", "é", "\ud800", "x" * 10_000, "[1]"),
    *([], [[]], [1, [2]], [[None] * 3] * 2, [["a"] * 3] * 2, [[1e300] * 3] * 2, {}, {"a": 1}),
]


@pytest.fixture(scope="module", params=COLUMNS)
def fitted(request: pytest.FixtureRequest) -> Fitted:
    return Fitted(COLUMNS[request.param])


def column_of(name: str) -> Fitted:
    return next(Fitted(c) for c in COLUMNS.values() if guess_kind(c) == name)


def json_values(column: pl.Series) -> list[object]:
    return [_json_value(value) for value in column.to_list()]


def _json_value(value: object) -> object:
    if isinstance(value, date):
        return value.isoformat()
    return value.to_list() if isinstance(value, pl.Series) else value


def test_the_type_names_the_files_of_the_folder() -> None:
    assert list_kinds() == sorted(KINDS)
    assert {guess_kind(column) for column in COLUMNS.values()} == set(KINDS)
    assert all((FOLDER / f"{name}.py").is_file() for name in KINDS)


@pytest.mark.parametrize("name", list_kinds())
def test_a_kind_has_the_functions_of_the_interface(name: str) -> None:
    kind: Any = kind_of(name)
    for function in FUNCTIONS:
        ours = inspect.signature(getattr(kind, function)).parameters
        theirs = inspect.signature(getattr(Kind, function)).parameters
        assert list(ours) == [each for each in theirs if each != "self"], function
        assert getattr(kind, function).__doc__, function
    assert all(hasattr(kind, constant) for constant in CONSTANTS)
    assert TYPES[kind.TYPE] in {*DTYPES, "BYTES"}
    nothing = Statistics(numeric={}, image=[], target=None)
    # Those of an absent kind would be in the exported program of every model.
    if name not in ("numeric", "boolean"):
        assert kind.constants([], nothing) == {}


def test_an_array_is_of_the_shape_that_build_is_told(fitted: Fitted) -> None:
    array = fitted.batch(fitted.table)
    shape = fitted.schema.inputs()[fitted.name]
    if fitted.name in WORDS:
        assert array.dtype == np.int64
        assert array.shape[1] == shape[0]
        assert array.max() == shape[1] - 1
    elif array.dtype == np.int64:
        assert array.shape[1:] == (len(shape),)
        assert array.max() < shape[0]
    else:
        assert array.dtype == np.float32
        assert list(array.shape[1:]) == shape
        assert np.isfinite(array).all()


def test_rows_alone_are_encoded_as_among_others(fitted: Fitted) -> None:
    together = fitted.encode(fitted.table)
    for row in (0, 3, NUM_TRAIN + 1, NUM_ROWS - 1):
        np.testing.assert_array_equal(fitted.encode(fitted.table[row : row + 1])[0], together[row])


def test_onnx_and_torch_make_the_same_of_a_column(fitted: Fitted) -> None:
    column, expected = fitted.table["c"], fitted.batch(fitted.table)
    raw = fitted.kind.feed(fitted.feature, column, KEY)
    assert raw.dtype == (object if fitted.kind.TYPE == "string" else np.dtype(fitted.kind.TYPE))
    assert list(raw.shape) == [NUM_ROWS, *row_shape(fitted.feature)]
    np.testing.assert_allclose(fitted.run_onnx(raw), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fitted.run_torch(column), expected, rtol=1e-6, atol=1e-6)


def test_json_values_are_read_as_a_column_is(fitted: Fitted) -> None:
    column = fitted.table["c"]
    read = fitted.kind.read_values(fitted.described(), json_values(column))
    raw = fitted.kind.feed(fitted.feature, column, KEY)
    if fitted.kind.TYPE == "string":
        assert read.tolist() == raw.tolist()
    else:
        # Infinities are gaps either way.
        np.testing.assert_array_equal(read, raw)
    again = fitted.kind.read_tensor(fitted.described(), read)
    np.testing.assert_array_equal(again, read)


def test_a_description_has_an_example_that_can_be_read(fitted: Fitted) -> None:
    described = fitted.described()
    example = fitted.kind.example(described)
    read = fitted.kind.read_values(described, [json.loads(json.dumps(example))])
    assert np.isfinite(fitted.run_onnx(read)).all()
    schema = fitted.kind.json_type(described)
    assert json.loads(json.dumps(schema)) == schema
    assert schema["type"]
    assert fitted.kind.must(fitted.feature)


@pytest.mark.parametrize("name", list_kinds())
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
def test_a_hostile_value_is_refused_or_can_be_predicted(name: str, value: object) -> None:
    each = column_of(name)
    try:
        read = each.kind.read_values(each.described(), [value])
    except ValueError:
        return
    assert isinstance(value, list) == each.feature.is_array
    if isinstance(value, str) and not value.isprintable():
        return
    assert np.isfinite(each.run_onnx(read)).all()
    if isinstance(value, list | dict) or (isinstance(value, int) and abs(value) >= 2**63):
        return
    # A column of this one value is read likewise.
    try:
        column = pl.Series("c", [value])
        raw = each.kind.feed(each.feature, column, KEY)
    except UserError:
        pytest.fail(f"{value!r} is read from JSON and not from a table")
    if each.kind.TYPE == "string":
        assert raw.tolist() == read.tolist()
    else:
        np.testing.assert_array_equal(raw, read)


def test_each_row_is_in_one_slice(fitted: Fitted) -> None:
    train, test = (
        take_column(fitted.feature, fitted.schema.places().get("c"), {fitted.name: array})
        for array in (fitted.encode(fitted.table[:NUM_TRAIN]), fitted.encode(fitted.table))
    )
    sliced = fitted.kind.slices(fitted.feature, train, test, fitted.moments)
    if fitted.feature.is_array:
        assert sliced is None
        return
    assert sliced is not None
    labels, codes = sliced
    assert len(set(labels)) == len(labels)
    assert codes.shape == (NUM_ROWS,)
    assert codes.min() >= 0
    assert codes.max() < len(labels)


def test_train_rows_do_not_drift_from_themselves(fitted: Fitted) -> None:
    train = fitted.table[:NUM_TRAIN]
    place = fitted.schema.places().get("c")
    encoded = take_column(fitted.feature, place, {fitted.name: fitted.encode(train)})
    found = fitted.kind.observe(fitted.feature, train["c"], encoded, fitted.moments)
    assert found.unseen is None or found.unseen.len() == 0
    for sums, moments in zip(found.sums, fitted.moments, strict=bool(found.sums)):
        assert sums.drift(NUM_TRAIN, moments) == []
        assert sums.count > 0
    for own in fitted.kind.profile(fitted.feature, encoded, fitted.moments):
        assert math.isfinite(own.mean)
        assert own.deviation > 0


def test_other_rows_drift_from_the_train_rows(fitted: Fitted) -> None:
    """Two hundred times the row with the largest numbers; each category that train lacks."""
    array = fitted.encode(fitted.table)
    place = fitted.schema.places().get("c")
    values = take_column(fitted.feature, place, {fitted.name: array}).values
    largest = int(values.reshape(NUM_ROWS, -1).astype(np.float64).sum(axis=1).argmax())
    table = fitted.table[[largest] * 200]
    encoded = take_column(
        fitted.feature, fitted.schema.places().get("c"), {fitted.name: fitted.encode(table)}
    )
    found = fitted.kind.observe(fitted.feature, table["c"], encoded, fitted.moments)
    said = [sums.drift(200, m) for sums, m in zip(found.sums, fitted.moments, strict=False)]
    if found.sums and not fitted.moments[0].constant:
        assert any("mean" in line for lines in said for line in lines)
    unseen = fitted.kind.observe(
        fitted.feature,
        fitted.table["c"],
        take_column(fitted.feature, fitted.schema.places().get("c"), {fitted.name: array}),
        fitted.moments,
    ).unseen
    if unseen is not None:
        known = set(fitted.feature.categories or [])
        assert not known & set(unseen)


@pytest.mark.parametrize("name", list_kinds())
def test_a_column_of_something_else_is_refused_with_its_name(name: str) -> None:
    kind, records = kind_of(name), pl.Series("odd", [{"a": 1}, {"a": 2}])
    assert kind.guess(records) == 0
    with pytest.raises(UserError, match="odd"):
        kind.infer(records, KEY)


def test_a_field_of_a_csv_file_is_what_it_is_in_a_typed_column(fitted: Fitted) -> None:
    if fitted.feature.is_array or fitted.table["c"].dtype == pl.Float32:
        return
    typed = fitted.table["c"]
    texts = fitted.kind.from_text(fitted.feature, typed.cast(pl.String))
    table = pl.DataFrame([texts.alias("c")])
    np.testing.assert_array_equal(fitted.encode(table), fitted.encode(fitted.table))


def test_raw_types_are_those_that_json_and_onnx_know() -> None:
    assert set(RawType.__args__) <= set(TYPES)  # type: ignore[attr-defined]
    assert all(isinstance(Feature(name="c", kind=name), Feature) for name in KINDS)
