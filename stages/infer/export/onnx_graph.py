"""The trained model with its preparation as one ONNX graph: raw columns in, names of classes out.

A column is an input with a row for each value. Inputs are called `c0`, `c1`, … in the order of the
schema, since a column may have any name: `signature.json` says which is which. Gaps are NaN in
numbers and truths, and '' in categories. The bytes follow from the model alone: no path, no time.
"""

import io
import warnings
from collections.abc import Iterator
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from stages.common.errors import Problem, UserError
from stages.features.kind import RawType, kind_of
from stages.features.numbers import row_shape
from stages.features.schema import Array, Feature, Schema
from stages.features.target_scale import LARGEST
from stages.model.predictor import Predictor
from stages.tensors.batch import to_batch

OPSET = 17
# Of the standard library of operators and of that for tables, which has LabelEncoder.
OPSETS = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 2)]
IR_VERSION = 8
OUTPUTS = ("prediction", "probabilities")
_MODEL = "model/"


def export(predictor: Predictor, arrays: dict[str, Array]) -> bytes:
    """The bundle's bytes; `arrays` are some encoded rows, to follow the model with.

    Raises UserError when the model has an operator that ONNX has not.
    """
    inner = to_onnx(predictor, arrays)
    graph = GraphBuilder()
    names = input_names(predictor.schema)
    inputs = [input_of(feature, names[feature.name]) for feature in predictor.schema.features]
    for kind in arrays:
        graph.node("Identity", [_add_kind(graph, predictor, kind)], f"{_MODEL}{kind}")
    graph.nodes += inner.graph.node
    graph.constants += inner.graph.initializer
    outputs = list(_add_outputs(graph, predictor, f"{_MODEL}scores"))
    made = helper.make_graph(graph.nodes, "reprise", inputs, outputs, graph.constants)
    model = helper.make_model(made, opset_imports=OPSETS, ir_version=IR_VERSION)
    for node in model.graph.node:
        # Where in the code it was called from.
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def input_names(schema: Schema) -> dict[str, str]:
    """The bundle's name of each column, by the column's name: `c0` for the first, and so on."""
    return {feature.name: f"c{number}" for number, feature in enumerate(schema.features)}


class _Positional(nn.Module):
    """A model whose batch comes as one tensor after the other: what an exporter takes."""

    def __init__(self, model: nn.Module, kinds: list[str]) -> None:
        super().__init__()
        self.model, self.kinds = model, kinds

    def forward(self, *tensors: Tensor) -> Tensor:
        scores: Tensor = self.model(dict(zip(self.kinds, tensors, strict=True)))
        return scores


class GraphBuilder:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an operator with one output `name`; return the name."""
        domain = "ai.onnx.ml" if kind == "LabelEncoder" else ""
        self.nodes.append(helper.make_node(kind, inputs, [name], domain=domain, **attributes))
        return name

    def cast(self, value: str, name: str) -> str:
        """Add a conversion to float32; return its name."""
        return self.node("Cast", [value], name, to=TensorProto.FLOAT)

    def constant(self, value: npt.NDArray[Any], name: str) -> str:
        """Add a constant; return its name."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name


def to_onnx(predictor: Predictor, arrays: dict[str, Array]) -> Any:
    """The bare model as ONNX; inputs by kind, output `scores`.

    The exporter that follows a call is used and not the one that torch has since: it takes 0.1 s
    where the other takes 5 and needs a library more. What it could get wrong, a branch that
    depends on the values, `verify` would see.
    """
    batch = to_batch(arrays, predictor.statistics)
    kinds = list(batch)
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Positional(predictor.model, kinds).eval(),
                tuple(tensor[:2] for tensor in batch.values()),
                file,  # type: ignore[arg-type]  # it takes a path alone, it says
                dynamo=False,
                input_names=kinds,
                output_names=["scores"],
                dynamic_axes={name: {0: "rows"} for name in [*kinds, "scores"]},
                opset_version=OPSET,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        message = (
            f"the model can't be written as ONNX: {reason}; 'infer.export' says what is exported"
        )
        allowed = ("[onnx, program]", "[program]", "[]")
        raise UserError(Problem(message, key="infer.export", allowed=allowed)) from None
    model = onnx.load_from_string(file.getvalue())
    return onnx.compose.add_prefix(model, _MODEL)


def input_of(feature: Feature, name: str) -> Any:
    """The input of a raw column, called `name`."""
    shape: list[int | str] = ["rows", *row_shape(feature)]
    return helper.make_tensor_value_info(name, _element(kind_of(feature.kind).TYPE), shape)


def _element(raw: RawType) -> Any:
    match raw:
        case "float64":
            return TensorProto.DOUBLE
        case "string":
            return TensorProto.STRING
        case "float32":
            return TensorProto.FLOAT
        case "int64":
            return TensorProto.INT64
        case _:
            assert_never(raw)


def _add_kind(graph: GraphBuilder, predictor: Predictor, kind: str) -> str:
    """The tensor of one kind from the raw columns, as `encode` and `to_batch` make it."""
    features = predictor.schema.of_kind(kind)  # type: ignore[arg-type]
    known = input_names(predictor.schema)
    names = [known[feature.name] for feature in features]
    return kind_of(kind).to_onnx(graph, features, names, predictor.statistics)


def _add_code(graph: GraphBuilder, threshold: float | None) -> str:
    """The codes of `predict_codes` from the probabilities: (rows,) int64."""
    if threshold is None:
        return graph.node("ArgMax", ["probabilities"], "/code", axis=1, keepdims=0)
    second = graph.constant(np.array(1), "/second")
    chance = graph.node("Gather", ["probabilities", second], "/second/probability", axis=1)
    limit = graph.constant(np.array(threshold), "/threshold")
    above = graph.node("Greater", [chance, limit], "/second/predicted")
    return graph.node("Cast", [above], "/code", to=TensorProto.INT64)


def _add_outputs(graph: GraphBuilder, predictor: Predictor, scores: str) -> Iterator[Any]:
    """Yield what `Predictor.decode` makes of the scores."""
    exact = graph.node("Cast", [scores], "/scores", to=TensorProto.DOUBLE)
    classes = predictor.schema.target.classes
    if classes is None:
        moments = predictor.statistics.target
        assert moments is not None
        axis = graph.constant(np.array([1]), "/target/axis")
        flat = graph.node("Squeeze", [exact, axis], "/target/flat")
        deviation = graph.constant(np.array(moments.deviation), "/target/deviation")
        wide = graph.node("Mul", [flat, deviation], "/target/wide")
        mean = graph.constant(np.array(moments.mean), "/target/mean")
        transform = moments.transform
        # The names of the outputs, or of what they are made of.
        learned = "" if transform is None else "/target/transformed/"
        graph.node("Add", [wide, mean], f"{learned}prediction")
        if transform is not None:
            _add_inverse(graph, f"{learned}prediction", "prediction")
        yield helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["rows"])
        if predictor.conformal is not None:
            half = graph.constant(np.array(predictor.conformal.bound), "/interval/half")
            for operator, end in (("Sub", "low"), ("Add", "high")):
                graph.node(operator, [f"{learned}prediction", half], f"{learned}{end}")
                if transform is not None:
                    _add_inverse(graph, f"{learned}{end}", end)
                yield helper.make_tensor_value_info(end, TensorProto.DOUBLE, ["rows"])
        return
    if predictor.calibration.temperature != 1:
        divisor = graph.constant(np.array(predictor.calibration.temperature), "/temperature")
        exact = graph.node("Div", [exact, divisor], "/scores/calibrated")
    graph.node("Softmax", [exact], "probabilities", axis=1)
    code = _add_code(graph, predictor.calibration.threshold)
    names = np.array(classes, dtype=object if isinstance(classes[0], str) else None)
    graph.node("Gather", [graph.constant(names, "/classes"), code], "prediction")
    kind = helper.np_dtype_to_tensor_dtype(names.dtype)
    yield helper.make_tensor_value_info("prediction", kind, ["rows"])
    shape = ["rows", len(classes)]
    yield helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, shape)
    if predictor.conformal is not None:
        _add_set(graph, predictor.conformal.bound, code, len(classes))
        yield helper.make_tensor_value_info("in_set", TensorProto.BOOL, shape)


def _add_inverse(graph: GraphBuilder, values: str, name: str) -> None:
    """Add the inverse of log1p under `name`, as `invert` of `stages/features/target_scale.py`."""
    largest = graph.constant(np.array(LARGEST), f"/{name}/largest")
    bounded = graph.node("Min", [values, largest], f"/{name}/bounded")
    power = graph.node("Exp", [bounded], f"/{name}/power")
    one = graph.constant(np.array(1.0), f"/{name}/one")
    graph.node("Sub", [power, one], name)


def _add_set(graph: GraphBuilder, least: float, code: str, num_classes: int) -> None:
    """The sets of `Conformal.contains`: (rows, classes) truths."""
    bound = graph.constant(np.array(least), "/set/least")
    below = graph.node("Less", ["probabilities", bound], "/set/below")
    inside = graph.node("Not", [below], "/set/likely")
    numbers = graph.constant(np.arange(num_classes), "/set/classes")
    axis = graph.constant(np.array([1]), "/set/axis")
    column = graph.node("Unsqueeze", [code, axis], "/set/code")
    predicted = graph.node("Equal", [column, numbers], "/set/predicted")
    graph.node("Or", [inside, predicted], "in_set")
