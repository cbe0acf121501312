"""The trained model with its preparation as a program of `torch.export`: needs torch alone.

    program = torch.export.load("model.pt2").module()
    prediction, probabilities = program({"image": images})

It takes a dict of one tensor a column, with a row for each value: numbers and truths float64 with
NaN for a gap, images float32 as their layout has them, and categories as int64 codes, since
tensors hold no text: 1 for the first of `categories` in `signature.json`, 0 for any other value.
It gives the value, or the number of the class and the probability of each. The bytes follow from
the model alone: no path, no time.
"""

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from stages.common.batches import standardise
from stages.common.errors import Problem, UserError
from stages.common.predict import Predictor
from stages.common.schema import Feature
from stages.infer.bundle import OUTPUTS, input_name, row_shape

TYPES = {
    "numeric": torch.float64,
    "boolean": torch.float64,
    "categorical": torch.int64,
    "image": torch.float32,
}
# Of a node: where in whose files it was called from.
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node")
_FEW = 2


def export_program(predictor: Predictor) -> bytes:
    """The program's bytes. Raises UserError when the model can't be followed.

    It is followed with zeros, so that no row of anybody's data is in the file.
    """
    features = predictor.schema.features
    columns = {
        input_name(f): torch.zeros(_FEW, *row_shape(f), dtype=TYPES[f.kind]) for f in features
    }
    rows = torch.export.Dim("rows", min=1)
    shapes = {name: {0: rows} for name in columns}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                _WithPreparation(predictor).eval(), (columns,), dynamic_shapes=(shapes,)
            )
    except Exception as error:  # whatever the model's own code raises there
        reason = str(error).strip().split("\n")[0][:200]
        message = (
            f"the model can't be exported as a program: {reason}; 'infer.export' says what is "
            "exported"
        )
        allowed = ("[onnx, program]", "[onnx]", "[]")
        raise UserError(Problem(message, key="infer.export", allowed=allowed)) from None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for trace in _TRACES:
                    node.meta.pop(trace, None)
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def program_signature(predictor: Predictor) -> dict[str, Any]:
    """How the program is called, for `signature.json`; what a gap is stands with the columns."""
    features, classes = predictor.schema.features, predictor.schema.target.classes
    kind, width = ("float64", []) if classes is None else ("int64", [["rows", len(classes)]])
    shapes = [["rows"], *width]
    return {
        "inputs": [
            {
                "name": input_name(feature),
                "type": str(TYPES[feature.kind]).removeprefix("torch."),
                "shape": ["rows", *row_shape(feature)],
            }
            for feature in features
        ],
        "outputs": [
            {"name": name, "type": each, "shape": shape}
            for name, each, shape in zip(OUTPUTS, (kind, "float64"), shapes, strict=False)
        ],
    }


class _WithPreparation(nn.Module):
    """Raw columns to predictions, as `encode`, `to_batch` and `Predictor.decode` go there."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model = predictor.model
        self.schema, self.statistics = predictor.schema, predictor.statistics
        self.calibration = predictor.calibration

    def forward(self, columns: dict[str, Tensor]) -> tuple[Tensor, ...]:
        batch = {kind: self._of_kind(kind, columns) for kind in self.schema.inputs()}
        scores = self.model(batch).double()
        moments = self.statistics.target
        if moments is not None:
            return (scores[:, 0] * moments.deviation + moments.mean,)
        probabilities = (scores / self.calibration.temperature).softmax(dim=1)
        threshold = self.calibration.threshold
        if threshold is None:
            return probabilities.argmax(dim=1), probabilities
        return (probabilities[:, 1] > threshold).long(), probabilities

    def _of_kind(self, kind: str, columns: dict[str, Tensor]) -> Tensor:
        features = self.schema.of_kind(kind)  # type: ignore[arg-type]
        raw = [columns[input_name(feature)] for feature in features]
        if kind == "categorical":
            return torch.stack(raw, dim=1)
        if kind == "image":
            return standardise(_channels_first(raw[0], features[0]), self.statistics)
        gaps = [~value.isfinite() for value in raw]
        values = [self._scaled(f, value) for f, value in zip(features, raw, strict=True)]
        filled = [v.masked_fill(gap, 0.0) for v, gap in zip(values, gaps, strict=True)]
        filled += [gap.double() for f, gap in zip(features, gaps, strict=True) if f.missing]
        return torch.stack(filled, dim=1).float()

    def _scaled(self, feature: Feature, values: Tensor) -> Tensor:
        if feature.kind == "boolean":
            return values
        moments = self.statistics.numeric[feature.name]
        return (values - moments.mean) / moments.deviation


def _channels_first(images: Tensor, feature: Feature) -> Tensor:
    if feature.layout == "HW":
        return images[:, None]
    return images.permute(0, 3, 1, 2) if feature.layout == "HWC" else images


def load_program(content: bytes) -> Any:
    """What stands in the file, to be called with a dict of columns."""
    return torch.export.load(io.BytesIO(content)).module()
