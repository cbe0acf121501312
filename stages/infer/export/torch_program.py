"""The trained model with its preparation as a program of `torch.export`: needs torch alone.

    program = torch.export.load("model.pt2").module()
    prediction, probabilities = program({"image": images})

It takes a dict of one tensor a kind of column, rows first, with the columns side by side as
`signature.json` lists them: `numeric`, `boolean` and `datetime` (seconds since 1970 in UTC) float64
with NaN for a gap, `image` float32 as its layout has it. Tensors hold no text: `categorical` is
int64 codes, 1 for the first of `categories` there and 0 for any other value; `text` is int64 codes
of words, one column behind the other, 2 for the first of `words`, 1 for any other and 0 for none;
where a `tokenizer` cuts the text, they are the ids of its tokens plus 1.
It gives the value, or the number of the class and the probability of each, and where
`evaluate.coverage` asks for it the ends of the interval, or which classes are in the set. The bytes
follow from the model alone: no path, no time.

No name of a column is in it. torch.export writes the keys of a dict into code that it runs when
the program is made and whenever it is loaded, so a column's name could be code. One tensor for each
column would also take 30 ms a column to follow.
"""

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from stages.common.errors import Problem, UserError
from stages.features.kind import kind_of
from stages.features.numbers import row_shape
from stages.features.schema import KINDS, WORDS, FeatureKind, Schema
from stages.infer.export.signature import describe_outputs
from stages.model.predictor import Predictor
from stages.tensors.batch import finish
from stages.tensors.target_errors import invert

# Of a node: where in whose files it was called from.
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node")
_FEW = 2


def export_program(predictor: Predictor) -> bytes:
    """The program's bytes. Raises UserError when the model can't be followed.

    It is followed with zeros, so that no row of anybody's data is in the file.
    """
    schema = predictor.schema
    columns = {
        kind: torch.zeros(
            _FEW, *_shape(schema, kind), dtype=getattr(torch, kind_of(kind).PROGRAM_TYPE)
        )
        for kind in _kinds(schema)
    }
    rows = torch.export.Dim("rows", min=1)
    shapes = {kind: {0: rows} for kind in columns}
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
    """The program's call, for `signature.json`.

    What a gap is stands with the columns.
    """
    schema = predictor.schema
    outputs = list(
        describe_outputs(schema.target.classes, has_sets=predictor.conformal is not None)
    )
    if schema.target.classes is not None:
        # Tensors hold no text: the number of the class.
        outputs[0] |= {"type": "int64"}
    return {
        "inputs": [
            {
                "name": kind,
                "columns": [feature.name for feature in schema.of_kind(kind)],
                "type": kind_of(kind).PROGRAM_TYPE,
                "shape": ["rows", *_shape(schema, kind)],
            }
            for kind in _kinds(schema)
        ],
        "outputs": outputs,
    }


def _kinds(schema: Schema) -> list[FeatureKind]:
    """The kinds of columns that there are, in the order of a batch."""
    return [kind for kind in KINDS if schema.of_kind(kind)]


def _shape(schema: Schema, kind: FeatureKind) -> list[int]:
    """The shape of a row of one kind: of an image its own, else the number of columns.

    Of texts it is the number of words that all columns have a place for.
    """
    features = schema.of_kind(kind)
    if kind in WORDS:
        return [sum(feature.width for feature in features)]
    return row_shape(features[0]) if features[0].is_array else [len(features)]


class _WithPreparation(nn.Module):
    """Raw columns to predictions, as `encode`, `to_batch` and `Predictor.decode` go there."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model = predictor.model
        self.schema, self.statistics = predictor.schema, predictor.statistics
        self.calibration, self.conformal = predictor.calibration, predictor.conformal
        self.kinds = {kind: kind_of(kind) for kind in KINDS}
        for kind, functions in self.kinds.items():
            constants = functions.constants(self.schema.of_kind(kind), self.statistics)
            for name, value in constants.items():
                # By way of a list: the strides of an empty array are others than torch's.
                dtype = torch.from_numpy(value).dtype
                self.register_buffer(name, torch.tensor(value.tolist(), dtype=dtype))

    def forward(self, columns: dict[str, Tensor]) -> tuple[Tensor, ...]:
        batch = {kind: self._of_kind(kind, columns) for kind in _kinds(self.schema)}
        scores = self.model(batch).double()
        moments = self.statistics.target
        if moments is not None:
            values = scores[:, 0] * moments.deviation + moments.mean
            if self.conformal is None:
                return (invert(values, moments),)
            bound = self.conformal.bound
            return tuple(invert(v, moments) for v in (values, values - bound, values + bound))
        probabilities = (scores / self.calibration.temperature).softmax(dim=1)
        threshold = self.calibration.threshold
        if threshold is None:
            codes = probabilities.argmax(dim=1)
        else:
            codes = (probabilities[:, 1] > threshold).long()
        if self.conformal is None:
            return codes, probabilities
        numbers = torch.arange(probabilities.shape[1])
        return (
            codes,
            probabilities,
            (probabilities >= self.conformal.bound) | (codes[:, None] == numbers),
        )

    def _of_kind(self, kind: FeatureKind, columns: dict[str, Tensor]) -> Tensor:
        features = self.schema.of_kind(kind)
        values, gaps = self.kinds[kind].to_torch(features, columns[kind], self.get_buffer)
        if gaps is None:
            return finish(kind, values, self.statistics)
        places = self.get_buffer(f"{kind}_with_gaps")
        if len(places):
            values = torch.cat([values, gaps[:, places].double()], dim=1)
        return values.float()


def load_program(content: bytes) -> Any:
    """The program in the file, to be called with a dict of tensors by kind."""
    return torch.export.load(io.BytesIO(content)).module()
