"""How to call `model.onnx`: what stands in `signature.json`."""

from typing import Any

from stages.common.predict import Predictor
from stages.common.schema import Class, Feature
from stages.infer.bundle import input_name, row_shape

_TYPES = {"numeric": "float64", "boolean": "float64", "categorical": "string", "image": "float32"}
_GAPS = {"numeric": "NaN", "boolean": "NaN", "categorical": "''"}


def signature(predictor: Predictor) -> dict[str, Any]:
    """Inputs by column with type, shape and what a gap is; outputs; classes; the model's hash.

    Booleans are 0 and 1. Images hold raw numbers, as in the table that was trained on.
    """
    classes = predictor.schema.target.classes
    return {
        "model_md5": predictor.model_md5,
        "task": predictor.schema.target.task,
        "target": predictor.schema.target.name,
        "classes": classes,
        "calibration": None if classes is None else predictor.calibration.model_dump(),
        "inputs": [_input(feature) for feature in predictor.schema.features],
        "outputs": _outputs(classes),
    }


def _input(feature: Feature) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": input_name(feature),
        "column": feature.name,
        "kind": feature.kind,
        "type": _TYPES[feature.kind],
        "shape": ["rows", *row_shape(feature)],
        "gap": _GAPS.get(feature.kind),
    }
    if feature.kind == "categorical":
        described["categories"] = feature.categories
    return described


def _outputs(classes: list[Class] | None) -> list[dict[str, Any]]:
    if classes is None:
        return [{"name": "prediction", "type": "float64", "shape": ["rows"]}]
    first = classes[0]
    kind = {bool: "bool", int: "int64", str: "string"}[type(first)]
    return [
        {"name": "prediction", "type": kind, "shape": ["rows"]},
        {"name": "probabilities", "type": "float64", "shape": ["rows", len(classes)]},
    ]
