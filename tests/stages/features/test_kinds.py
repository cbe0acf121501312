"""One contract for every kind of column: all ways from a raw value to a batch are one and the same.

A kind that is new needs a column in COLUMNS that it is surest of.
"""

import inspect
import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch
from onnx import helper

from pipeline.serve.codec.signature import Input
from pipeline.serve.codec.tensors import DTYPES, TYPES
from stages.common.errors import UserError
from stages.features.encode import encode
from stages.features.kind import FOLDER, Kind, RawType, kind_of, list_kinds
from stages.features.numbers import row_shape, take_column
from stages.features.schema import CODES, KINDS, WORDS, Array, Feature, Schema, Statistics, Target
from stages.infer.export.onnx_graph import IR_VERSION, OPSETS, GraphBuilder, input_of
from stages.infer.export.signature import describe_input
from stages.prepare.columns.infer_schema import guess_kind
from stages.prepare.fit import fit_schema, fit_statistics
from stages.prepare.table.table import in_memory
from stages.tensors.batch import finish, to_batch

KEY = "infer.input"
NUM_TRAIN = 60
NUM_ROWS = 90
RANDOM = np.random.default_rng(5)


def some(values: list[Any], dtype: Any = None, *, gaps: bool = True) -> pl.Series:
    """Rows of `values` in turn; with gaps among the train rows and behind them."""
    repeated = [values[row % len(values)] for row in range(NUM_ROWS)]
    if gaps:
        repeated = [None if row % 7 == 3 else value for row, value in enumerate(repeated)]
    return pl.Series("c", repeated, dtype=dtype)


def some_texts() -> pl.Series:
    """Sentences of different lengths; those behind the train rows have words that these lack."""
    words = [
        "Oslo",
        "the",
        "ship",
        "CRÈME",
        "cre\u0300me",
        "don't",
        "ﬁsh",
        "東京",
        "2024",
        "and",
        "—",
    ]
    texts = [
        " ".join(RANDOM.choice(words, 4 + row % 17)) + " new" * (row > NUM_TRAIN)
        for row in range(NUM_ROWS)
    ]
    return pl.Series("c", [text if row % 7 != 3 else None for row, text in enumerate(texts)])


# Behind the train rows stand values that these don't have.
COLUMNS: dict[str, pl.Series] = {
    "floats": some(RANDOM.normal(10, 3, 53).tolist()),
    "floats without gaps": some(RANDOM.normal(-1e-3, 1e-5, 53).tolist(), gaps=False),
    "floats with infinities": some([1.5, math.inf, -2.0, math.nan, 0.25, -math.inf, 7e9]),
    "float32": some([1.5, 2.25, -7.0], pl.Float32),
    "whole numbers": some([1, 2, 3, 40, -5]),
    "a constant": some([14.62], gaps=False),
    "truths": some([True, False, False]),
    "truths without gaps": some([True, False, True], gaps=False),
    "gaps that train lacks": pl.concat(
        [some([True, False], gaps=False)[:NUM_TRAIN], some([True, False])[NUM_TRAIN:]]
    ),
    "texts": some(["Oslo", "Bergen", "e\u0301", "1", "1.0", "a b", "true"]),
    "unseen texts": pl.concat(
        [some(["Oslo", "Bergen"])[:NUM_TRAIN], some(["Paris", "O'slo\n", "…"])[NUM_TRAIN:]]
    ),
    "categories of polars": some(["b", "a", "c"], pl.Categorical),
    "sentences": some_texts(),
    "days": some([date(2019, 1, 1) + timedelta(17 * n) for n in range(53)]),
    "times": some(
        [datetime.fromisoformat("2024-02-28") + timedelta(minutes=361 * n) for n in range(53)]
    ),
    "times of a zone": some(
        [datetime(2024, 3, 30, tzinfo=UTC) + timedelta(hours=n) for n in range(53)],
        pl.Datetime("ms", "Europe/Oslo"),
    ),
    "one time": some([datetime.fromisoformat("2024-02-29T12:30:01.123456")], gaps=False),
    "dates as people write them": some(
        [f"{n % 28 + 1}/{n % 12 + 1}/{2020 + n}" for n in range(53)]
    ),
    "times with offsets": some([f"2024-01-{n:02} 01:02:03.5+0{n % 9}:30" for n in range(1, 28)]),
    "gray images": pl.Series(
        "c", RANDOM.integers(0, 17, (NUM_ROWS, 2, 3), np.uint8), pl.Array(pl.UInt8, (2, 3))
    ),
    "images of floats": pl.Series(
        "c", RANDOM.normal(size=(NUM_ROWS, 2, 4, 3)), pl.Array(pl.Float64, (2, 4, 3))
    ),
    "images, channels first": pl.Series(
        "c", RANDOM.integers(0, 255, (NUM_ROWS, 3, 2, 5)), pl.Array(pl.UInt8, (3, 2, 5))
    ),
}
CONSTANTS = ("TYPE", "PROGRAM_TYPE", "GAP", "NUMBERS")
FUNCTIONS = [
    name for name, each in vars(Kind).items() if inspect.isfunction(each) and name[0] != "_"
]
HOSTILE: list[object] = [
    *(None, True, 0, 1, -1.5, 10**400, 2**64, 1e300, -1e300, math.nan, math.inf, -0.0, 5e-324),
    *("", " ", "\x00", "nan", "1e999", "yes", "é", "\ud800", "x" * 10_000, "[1]"),
    *([], [[]], [1, [2]], [[None] * 3] * 2, [["a"] * 3] * 2, [[1e300] * 3] * 2, {}, {"a": 1}),
]


class Fitted:
    """A column, described by its train rows."""

    def __init__(self, column: pl.Series) -> None:
        self.table = pl.DataFrame([column])
        self.name = guess_kind(column)
        self.kind = kind_of(self.name)
        inferred = self.kind.infer(column, KEY)
        target = Target(name="y", task="classification", classes=["a", "b"])
        schema = Schema(key=None, features=[inferred], target=target)
        self.schema = fit_schema(schema, in_memory(self.table[:NUM_TRAIN]))
        self.statistics = fit_statistics(self.schema, in_memory(self.table[:NUM_TRAIN]))
        (self.feature,) = self.schema.features
        self.moments = self.statistics.of(self.feature)

    def encode(self, table: pl.DataFrame) -> Array:
        (array,) = encode(table, self.schema, self.statistics, KEY).values()
        return array

    def batch(self, table: pl.DataFrame) -> Array:
        """What a model is given."""
        made: Array = to_batch({self.name: self.encode(table)}, self.statistics)[self.name].numpy()
        return made

    def described(self) -> Input:
        text = json.dumps(describe_input(self.feature, "c0", self.statistics))
        return Input.model_validate_json(text)

    def run_onnx(self, raw: Array) -> Array:
        graph = GraphBuilder()
        made = self.kind.to_onnx(graph, [self.feature], ["c0"], self.statistics)
        graph.node("Identity", [made], "out")
        coded = self.name in (*CODES, *WORDS)
        kind = onnx.TensorProto.INT64 if coded else onnx.TensorProto.FLOAT
        out = helper.make_tensor_value_info(
            "out", kind, [None] * (4 if self.feature.is_array else 2)
        )
        proto = helper.make_graph(
            graph.nodes, "test", [input_of(self.feature, "c0")], [out], graph.constants
        )
        model = helper.make_model(proto, opset_imports=OPSETS, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, {"c0": raw})
        return np.asarray(found)

    def run_torch(self, column: pl.Series) -> Array:
        raw = torch.tensor(self.kind.feed_program(self.feature, column, KEY))
        assert str(raw.dtype) == f"torch.{self.kind.PROGRAM_TYPE}"
        if raw.ndim == 1:
            raw = raw[:, None]
        constants = self.kind.constants([self.feature], self.statistics)
        values, gaps = self.kind.to_torch(
            [self.feature], raw, lambda name: torch.tensor(constants[name])
        )
        if gaps is None:
            return np.asarray(finish(self.name, values, self.statistics))
        places = torch.tensor(constants[f"{self.name}_with_gaps"])
        return np.asarray(torch.cat([values, gaps[:, places].double()], dim=1).float())


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
