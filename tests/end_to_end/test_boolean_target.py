"""A target of true and false: its classes have one spelling wherever they are named."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.serve.codec.rows import decode
from pipeline.serve.codec.signature import parse_signature
from stages.common.files import read_csv
from stages.infer.write import write_predictions
from stages.model.predictor import load_predictor
from tests.support.samples import mixed_table, run_stages, small_project


def test_the_classes_of_a_boolean_target_are_named_as_the_prediction(tmp_path: Path) -> None:
    table = mixed_table().with_columns(y=pl.col("y") == "ill")
    changes = {"prepare.key": "id", "evaluate.coverage": 0.8, "infer.export": []}
    project = small_project(tmp_path / "p", table, changes)
    run_stages(project, "prepare", "build", "tune", "train", "evaluate", "infer")
    data = project.path / "data"

    columns = ["probability_false", "probability_true", "in_set_false", "in_set_true"]
    for stage in ("evaluate", "infer"):
        found = pl.read_parquet(data / stage / "predictions.parquet")
        assert found.columns[-5:] == ["prediction", *columns]
        assert found["prediction"].dtype == pl.Boolean
    predictor = load_predictor(data, coverage=0.8)
    file = tmp_path / "out.csv"
    write_predictions(project.path / "data/raw/table.parquet", file, None, predictor, "FILE")
    for row in read_csv(file):
        assert float(row[f"probability_{row['prediction']}"]) >= 0.5
        assert row[f"in_set_{row['prediction']}"] == "true"

    signature = parse_signature((data / "infer/signature.json").read_bytes())
    outputs = [np.array([True]), np.array([[0.3, 0.7]]), np.array([[False, True]])]
    (answer,) = json.loads(json.dumps(decode(signature, outputs, [{}])))
    assert answer["probabilities"] == {"false": 0.3, "true": 0.7}
    assert (answer["prediction"], answer["set"]) == (True, [True])

    classes = [row["class"] for row in read_csv(data / "evaluate/classes.csv")]
    assert classes == ["false", "true"]
    confusion = read_csv(data / "evaluate/plots/confusion.csv")
    assert {row["actual"] for row in confusion} == set(classes)
    assert {row["target"] for row in read_csv(data / "evaluate/mistakes.csv")} <= set(classes)
    assert "True" not in (data / "evaluate/card.md").read_text(encoding="utf-8")
