"""The inputs and outputs of `model.onnx`, for `signature.json`."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from stages.features.kind import kind_of
from stages.features.numbers import row_shape
from stages.features.schema import Class, Feature, Statistics
from stages.infer.export.onnx_graph import input_names
from stages.model.predictor import Predictor

TRANSFORM = "target_transform"


def signature(predictor: Predictor, bundle: bytes) -> dict[str, Any]:
    """Inputs by column with type, shape and what a gap is; outputs; classes; the model's hash.

    `name` is what the graph calls a column. Booleans are 0 and 1. Images hold raw numbers, as in
    the table that was trained on. `missing_words` stand for gaps, `decimal` and `thousands` are the
    signs in texts of numbers, `unit` stands before or behind them: who asks the graph itself makes
    gaps and numbers of them. `mean` and `deviation` are those of training. `conformal` has the
    share of rows whose target the interval or the set holds, and by what it is made; where there is
    a `target_transform`, the bound is of transformed values, all outputs of values. `onnx_md5` is
    the hash of `bundle`, the bytes of model.onnx: who finds the two files knows whether they belong
    together.
    """
    schema, classes = predictor.schema, predictor.schema.target.classes
    names, scale = input_names(schema), predictor.statistics.target
    return {
        "model_md5": predictor.model_md5,
        "onnx_md5": hashlib.md5(bundle).hexdigest(),
        "task": schema.target.task,
        "target": schema.target.name,
        "key": schema.key,
        "classes": classes,
        "calibration": None if classes is None else predictor.calibration.model_dump(),
        **({} if scale is None or scale.transform is None else {TRANSFORM: scale.transform}),
        "conformal": None if predictor.conformal is None else asdict(predictor.conformal),
        "inputs": [describe_input(f, names[f.name], predictor.statistics) for f in schema.features],
        "outputs": list(describe_outputs(classes, has_sets=predictor.conformal is not None)),
    }


def describe_input(feature: Feature, name: str, statistics: Statistics) -> dict[str, Any]:
    """A column as an input of the graph, called `name` there."""
    kind = kind_of(feature.kind)
    return {
        "name": name,
        "column": feature.name,
        "kind": feature.kind,
        "type": kind.TYPE,
        "shape": ["rows", *row_shape(feature)],
        "gap": kind.GAP,
        **({"missing_words": feature.missing_words} if feature.missing_words else {}),
        **kind.describe(feature, statistics.of(feature)),
    }


def describe_outputs(classes: list[Class] | None, *, has_sets: bool) -> Iterator[dict[str, Any]]:
    """Yield the outputs, with the interval or the set last."""
    if classes is None:
        for name in ("prediction", *(("low", "high") if has_sets else ())):
            yield {"name": name, "type": "float64", "shape": ["rows"]}
        return
    kind = {bool: "bool", int: "int64", str: "string"}[type(classes[0])]
    shape = ["rows", len(classes)]
    yield {"name": "prediction", "type": kind, "shape": ["rows"]}
    yield {"name": "probabilities", "type": "float64", "shape": shape}
    if has_sets:
        yield {"name": "in_set", "type": "bool", "shape": shape}
