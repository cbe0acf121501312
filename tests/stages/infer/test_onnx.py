"""The model with its preparation as ONNX: used without the project, and equal to the model."""

from pathlib import Path

import onnxruntime
import polars as pl
import pytest
import torch

from stages.common.errors import UserError
from stages.common.files import read_json
from stages.features.encode import encode
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.formats.reading import Noticed
from stages.infer.export.onnx_graph import export
from stages.infer.export.verify import verify
from stages.infer.notes import Notes
from stages.infer.stream import predict_file
from stages.model.predictor import Predictor
from tests.conftest import Project
from tests.support.inferred import assert_used_alone, inferred
from tests.support.samples import Weighted, of_values

KEY = "infer.input"
# A process that knows onnxruntime and NumPy alone: JSON of raw columns in, predictions out.
ALONE = """
import json, sys
import numpy, onnxruntime
signature = json.load(open(sys.argv[1] + "/signature.json"))
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx")
columns = json.load(sys.stdin)
types = {"float64": numpy.float64, "float32": numpy.float32, "string": object}
feeds = {
    each["name"]: numpy.array(columns[each["column"]], dtype=types[each["type"]])
    for each in signature["inputs"]
}
names, chances, sets = session.run(None, feeds)
assert not {"torch", "stages", "polars", "onnx", "pydantic"} & set(sys.modules)
print(json.dumps([names.tolist(), chances.tolist(), sets.tolist()]))
"""


@pytest.fixture
def project() -> Project:
    return inferred()


def test_it_is_used_without_the_project_for_all_kinds_of_columns(tmp_path: Path) -> None:
    assert_used_alone(ALONE, tmp_path, lambda town: town or "")


def test_the_file_holds_no_path_and_the_signature_every_column(project: Project) -> None:
    content = (project.path / "data/infer/model.onnx").read_bytes()
    assert str(project.path.parent).encode() not in content
    assert b"stages/" not in content
    assert b".py" not in content
    session = onnxruntime.InferenceSession(content)
    assert [each.name for each in session.get_inputs()] == ["c0", "c1", "c2", "c3"]
    signature = read_json(project.path / "data/infer/signature.json")
    assert [(i["name"], i["column"]) for i in signature["inputs"]] == [
        ("c0", "size"),
        ("c1", "town"),
        ("c2", "smoker"),
        ("c3", "picture"),
    ]
    assert [i["kind"] for i in signature["inputs"]] == [
        "numeric",
        "categorical",
        "boolean",
        "image",
    ]
    assert signature["inputs"][3]["shape"] == ["rows", 2, 3]
    assert signature["classes"] == ["ill", "well"]


def test_a_value_comes_out_in_the_targets_units() -> None:
    predictor, table = of_values(Weighted())
    arrays = encode(table, predictor.schema, predictor.statistics, KEY)
    assert verify(export(predictor, arrays), predictor, table, KEY) < 1e-6
    assert export(predictor, arrays) == export(predictor, arrays)


class Summed(torch.nn.Module):
    """The sum of all that a row holds."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum(tensor.float().sum(dim=1, keepdim=True) for tensor in batch.values())


@pytest.mark.parametrize("name", ["axis", "raw", "gap", "raw/axis", "code/axis", "value"])
def test_columns_may_have_the_names_of_the_graphs_own_parts(name: str) -> None:
    features = [
        Feature(name=name, kind="numeric", missing=True),
        Feature(name=f"code/{name}", kind="boolean", missing=True),
        Feature(name=f"raw/{name}", kind="categorical", categories=["a", "b"]),
    ]
    for order in (features, [f.model_copy(update={"name": name}) for f in features[2:]]):
        schema = Schema(key=None, features=order, target=Target(name="y", task="regression"))
        statistics = Statistics(
            numeric={name: Moments(mean=1.0, deviation=2.0)},
            image=[],
            target=Moments(mean=50.0, deviation=5.0),
        )
        predictor = Predictor(Summed(), schema, statistics)
        values = {"numeric": [1.0, None, 3.0], "boolean": [True, None, False]}
        table = pl.DataFrame({f.name: values.get(f.kind, ["b", None, "c"]) for f in order})
        arrays = encode(table, schema, statistics, KEY)
        assert verify(export(predictor, arrays), predictor, table, KEY) < 1e-6


def test_a_model_that_comes_out_as_another_one_stops() -> None:
    predictor, table = of_values(Weighted(lambda numbers: len(numbers) <= 2))
    arrays = encode(table, predictor.schema, predictor.statistics, KEY)
    with pytest.raises(UserError, match="as ONNX differs from the model by"):
        verify(export(predictor, arrays), predictor, table, KEY)


class Cancelled(torch.nn.Module):
    """Two large parts of a sum that the order of additions rounds otherwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        scores: torch.Tensor = self.layers(batch["numeric"][:, :2])
        return scores


def test_a_sentinel_in_new_rows_is_compared_by_its_size() -> None:
    predictor, table = of_values(Cancelled().eval())
    table = table.with_columns(a=pl.Series([1e6, 9_999_999e6, None, 1e6 + 1]))
    arrays = encode(table, predictor.schema, predictor.statistics, KEY)
    verify(export(predictor, arrays), predictor, table, KEY)
    # What branches is found all the same, and the row is named.
    predictor, table = of_values(Weighted(lambda numbers: len(numbers) <= 2))
    exported = export(predictor, encode(table, predictor.schema, predictor.statistics, KEY))
    with pytest.raises(UserError, match=r"in row 23 \(infer.input\)"):
        verify(exported, predictor, table, KEY, [20, 21, 22, 23])


class Powers(torch.nn.Module):
    """A score that float32 does not hold for large numbers."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["numeric"][:, :1] ** 8


def test_a_row_whose_score_is_no_number_is_set_aside(tmp_path: Path) -> None:
    predictor, table = of_values(Powers())
    table = table.with_columns(a=pl.Series([1e6, 9_999_999e6, None, 1e6 + 1]))
    table.write_parquet(tmp_path / "new.parquet")
    notes = Notes(predictor.schema, predictor.statistics)
    (part,) = predict_file(tmp_path / "new.parquet", predictor, notes, Noticed(), KEY)
    assert part.predictions["row"].to_list() == [0, 2, 3]
    (damage,) = part.damaged
    assert (damage.row, damage.column) == (1, "a")
    assert damage.reason.startswith("9999999000000.0 is too far from training")
    # The exported files are compared on the others.
    arrays = encode(table, predictor.schema, predictor.statistics, KEY)
    assert verify(export(predictor, arrays), predictor, table, KEY) < 1e-4
