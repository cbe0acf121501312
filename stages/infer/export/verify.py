"""Checks on real rows that the exported files predict as the trained model does."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from stages.common.errors import Problem, UserError
from stages.features.encode import encode
from stages.features.kind import kind_of
from stages.features.schema import KINDS, Schema
from stages.features.target_scale import steps_at
from stages.infer.export.onnx_graph import input_names
from stages.infer.export.torch_program import load_program
from stages.model.calibration import margins
from stages.model.predictor import Predictor

# The prediction of each row, for classes their probabilities, then the interval or set, if any.
Answer = Sequence[npt.NDArray[np.generic]]
Floats = npt.NDArray[np.float64]

# Of a probability, or of a value in deviations of the training's target.
MAX_DIFFERENCE = 1e-4
# Of a row with numbers beyond this, in deviations, the difference may grow as they do: float32
# rounds each number by its own size.
ORDINARY = 100.0
# Of a value near -1, which exp(x) - 1 rounds otherwise than expm1(x), in units of the target.
ROUNDING = 1e-9


def verify(
    bundle: bytes,
    predictor: Predictor,
    table: pl.DataFrame,
    key: str,
    numbers: Sequence[int] | None = None,
) -> float:
    """The largest difference between bundle and model over the rows of `table`, one alone too.

    In probabilities, or in deviations of the target. `numbers` are those of the rows in their
    file; None: from 0. Raises UserError beyond MAX_DIFFERENCE.
    """
    # Not before the stage has switched its telemetry off: it looks when it is imported.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle, options, providers=["CPUExecutionProvider"])

    def ask(rows: pl.DataFrame) -> Answer:
        answer: Answer = session.run(None, feeds(rows, predictor.schema, key))
        return answer

    return _largest("as ONNX", ask, predictor, table, key, numbers)


def verify_program(
    content: bytes,
    predictor: Predictor,
    table: pl.DataFrame,
    key: str,
    numbers: Sequence[int] | None = None,
) -> float:
    """Verify the bytes of an exported program as `verify` does."""
    program = load_program(content)
    schema, classes = predictor.schema, predictor.schema.target.classes

    def ask(rows: pl.DataFrame) -> Answer:
        with torch.inference_mode():
            prediction, *others = program(tensors_of(rows, schema, key))
        found = [prediction.numpy(), *(other.numpy() for other in others)]
        return found if classes is None else [np.array(classes)[found[0]], *found[1:]]

    return _largest("as a program", ask, predictor, table, key, numbers)


def tensors_of(table: pl.DataFrame, schema: Schema, key: str) -> dict[str, torch.Tensor]:
    """The columns of a raw table as the program takes them: side by side, by kind."""
    tensors: dict[str, torch.Tensor] = {}
    for kind in KINDS:
        features = schema.of_kind(kind)
        columns = [
            torch.tensor(kind_of(kind).feed_program(f, table[f.name], key)) for f in features
        ]
        if columns:
            is_array = features[0].is_array
            flat = [column if column.ndim > 1 else column[:, None] for column in columns]
            tensors[kind] = columns[0] if is_array else torch.cat(flat, dim=1)
    return tensors


def _largest(
    what: str,
    ask: Callable[[pl.DataFrame], Answer],
    predictor: Predictor,
    table: pl.DataFrame,
    key: str,
    numbers: Sequence[int] | None,
) -> float:
    """The largest difference of a row; one with a score that is not finite is left out."""
    arrays = encode(table, predictor.schema, predictor.statistics, key)
    scores = predictor.scores(arrays)
    known = np.flatnonzero(np.isfinite(scores).all(axis=1))
    table, expected = table[known], predictor.decode(scores[known])
    arrays = {kind: array[known] for kind, array in arrays.items()}
    largest = 0.0
    allowed = MAX_DIFFERENCE * np.maximum(1.0, _sizes(arrays, scores[known]) / ORDINARY)
    for part, own in ((table, expected), (table[:1], expected[:1])):
        if not part.height:
            continue
        difference = _differences(ask(part), own, predictor)
        if not (difference <= allowed[: len(difference)]).all():
            # NaN is the largest.
            row = int(np.argmax(np.nan_to_num(difference / allowed[: len(difference)], nan=np.inf)))
            number = int(known[row]) if numbers is None else numbers[known[row]]
            name = predictor.schema.key
            where = f"row {number}" if name is None else f"the row with {name} {part[row, name]!r}"
            raise _differs(what, float(difference[row]), where, key)
        largest = max(largest, float(difference.max()))
    return largest


def _differs(what: str, difference: float, where: str, key: str) -> UserError:
    """The mistake of a file that differs from the model, with the row that shows it."""
    message = (
        f"the model {what} differs from the model by {difference:.2g}, more than "
        f"{MAX_DIFFERENCE:g}, in {where} ({key}): float32 rounds otherwise there, and a step of "
        "the model, or very large numbers, make much of it; or the model branches on the values "
        "of its batch, or mixes its rows"
    )
    return UserError(Problem(message, key="infer.export"))


def _sizes(arrays: dict[str, npt.NDArray[np.generic]], scores: Floats) -> Floats:
    """The largest number of each row (rows,), in deviations: of what the model is given or says."""
    sizes = np.abs(scores).max(axis=1)
    for array in arrays.values():
        # Codes are no sizes, and images have ordinary ones.
        if array.ndim == 2 and array.dtype.kind == "f":
            sizes = np.maximum(sizes, np.abs(array.astype(np.float64)).max(axis=1))
    return np.asarray(sizes)


def _differences(found: Answer, expected: pl.DataFrame, predictor: Predictor) -> Floats:
    """The distance of each row's answer from the model's (rows,); 1 where it is another class."""
    if predictor.schema.target.classes is None:
        scale = predictor.statistics.target
        assert scale is not None
        wanted = np.stack([expected[name].to_numpy() for name in expected.columns])
        if scale.transform is None:
            difference = np.abs(np.stack(found) - wanted).max(axis=0)
            return np.asarray(difference / scale.deviation)
        steps = np.maximum(steps_at(wanted, scale), ROUNDING)
        return np.asarray((np.abs(np.stack(found) - wanted) / steps).max(axis=0))
    probabilities = expected.select(pl.selectors.starts_with("probability_")).to_numpy()
    difference = np.abs(found[1] - probabilities).max(axis=1)
    sure = margins(probabilities, predictor.calibration.threshold) > MAX_DIFFERENCE
    other = sure & (found[0] != np.array(expected["prediction"].to_list()))
    if predictor.conformal is not None:
        sets = expected.select(pl.selectors.starts_with("in_set_")).to_numpy()
        near = np.abs(probabilities - predictor.conformal.bound) <= MAX_DIFFERENCE
        # The predicted class is in the set whatever its probability.
        other |= sure & ((found[2] != sets) & ~near).any(axis=1)
    return np.where(other, 1.0, difference)


def feeds(table: pl.DataFrame, schema: Schema, key: str) -> dict[str, npt.NDArray[np.generic]]:
    """The columns of a raw table as the bundle takes them, by the name of the input."""
    names = input_names(schema)
    return {names[f.name]: kind_of(f.kind).feed(f, table[f.name], key) for f in schema.features}
