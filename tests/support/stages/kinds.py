"""A column of every kind, and what prepare learns of it."""

import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
import torch
from onnx import helper

from pipeline.serve.codec.signature import Input
from stages.features.encode import encode
from stages.features.kind import kind_of
from stages.features.schema import CODES, WORDS, Array, Schema, Target
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
