"""Whether the exported files say what the trained model says, on real rows."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime
import polars as pl
import torch

from stages.common.calibration import margins
from stages.common.encode import (
    as_boolean,
    as_category,
    as_numeric,
    encode,
    encode_codes,
    image_array,
)
from stages.common.errors import Problem, UserError
from stages.common.predict import Predictor
from stages.common.schema import Feature, Schema
from stages.infer.bundle import input_name
from stages.infer.program import load_program

# The prediction of each row, and for classes their probabilities.
Answer = Sequence[npt.NDArray[np.generic]]

# Of a probability, or of a value in deviations of the training's target.
MAX_DIFFERENCE = 1e-4


def verify(bundle: bytes, predictor: Predictor, table: pl.DataFrame, key: str) -> float:
    """The largest difference between bundle and model over the rows of `table`, one alone too.

    In probabilities, or in deviations of the target. Raises UserError beyond MAX_DIFFERENCE.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle, options, providers=["CPUExecutionProvider"])

    def ask(rows: pl.DataFrame) -> Answer:
        answer: Answer = session.run(None, feeds(rows, predictor.schema, key))
        return answer

    return _largest("as ONNX", ask, predictor, table, key)


def verify_program(content: bytes, predictor: Predictor, table: pl.DataFrame, key: str) -> float:
    """As `verify`, of the bytes of an exported program."""
    program = load_program(content)
    schema, classes = predictor.schema, predictor.schema.target.classes

    def ask(rows: pl.DataFrame) -> Answer:
        with torch.inference_mode():
            prediction, *others = program(columns_of(rows, schema, key))
        found = [prediction.numpy(), *(other.numpy() for other in others)]
        return found if classes is None else [np.array(classes)[found[0]], found[1]]

    return _largest("as a program", ask, predictor, table, key)


def columns_of(table: pl.DataFrame, schema: Schema, key: str) -> dict[str, torch.Tensor]:
    """The columns of a raw table as the program takes them, by the name of the input."""
    columns = feeds(table, schema, key)
    for feature in schema.of_kind("categorical"):
        codes = encode_codes(table[feature.name], feature.categories or [], key)
        columns[input_name(feature)] = codes
    return {name: torch.tensor(column) for name, column in columns.items()}


def _largest(
    what: str,
    ask: Callable[[pl.DataFrame], Answer],
    predictor: Predictor,
    table: pl.DataFrame,
    key: str,
) -> float:
    arrays = encode(table, predictor.schema, predictor.statistics, key)
    expected = predictor.decode(predictor.scores(arrays))
    largest = 0.0
    for part, own in ((table, expected), (table[:1], expected[:1])):
        largest = max(largest, _difference(ask(part), own, predictor))
    if not largest <= MAX_DIFFERENCE:
        message = (
            f"the model {what} differs from the model by {largest:.2g}, more than "
            f"{MAX_DIFFERENCE:g}: does it branch on the values of its batch?"
        )
        raise UserError(Problem(message, key="infer.export"))
    return largest


def _difference(found: Answer, expected: pl.DataFrame, predictor: Predictor) -> float:
    if predictor.schema.target.classes is None:
        assert predictor.statistics.target is not None
        apart = found[0] - expected["prediction"].to_numpy()
        return float(np.abs(apart).max() / predictor.statistics.target.deviation)
    chances = expected.drop("prediction").to_numpy()
    sure = margins(chances, predictor.calibration.threshold) > MAX_DIFFERENCE
    if (found[0] != np.array(expected["prediction"].to_list()))[sure].any():
        return 1.0
    return float(np.abs(found[1] - chances).max())


def feeds(table: pl.DataFrame, schema: Schema, key: str) -> dict[str, npt.NDArray[np.generic]]:
    """The columns of a raw table as the bundle takes them, by the name of the input."""
    return {input_name(f): _feed(table[f.name], f, key) for f in schema.features}


def _feed(column: pl.Series, feature: Feature, key: str) -> npt.NDArray[np.generic]:
    if feature.kind == "categorical":
        return np.array(as_category(column).fill_null("").to_list(), dtype=object)
    if feature.kind == "image":
        images = image_array(column, feature, key).astype(np.float32)
        if feature.layout == "HW":
            return images[:, 0]
        return images.transpose(0, 2, 3, 1) if feature.layout == "HWC" else images
    read = as_numeric if feature.kind == "numeric" else as_boolean
    return read(column, key).cast(pl.Float64).fill_null(float("nan")).to_numpy()
