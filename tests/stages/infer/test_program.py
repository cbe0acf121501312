"""The model as a program of torch.export: used without the project, and equal to the model."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stages.common.errors import UserError
from stages.common.files import read_json
from stages.features.schema import Target
from stages.infer.export.torch_program import export_program
from stages.infer.export.verify import verify_program
from stages.model.calibration import UNCALIBRATED, Calibration
from stages.model.predictor import Predictor, load_predictor
from tests.conftest import Project
from tests.support.inferred import TABLE, assert_used_alone, inferred
from tests.support.samples import Weighted, of_values, run_stages, set_params, small_project

KEY = "infer.input"
# A process that knows torch alone: JSON of raw columns in, predictions out.
ALONE = """
import json, sys, torch
signature = json.load(open(sys.argv[1] + "/signature.json"))
program = torch.export.load(sys.argv[1] + "/model.pt2").module()
columns = json.load(sys.stdin)
batch = {}
for each in signature["program"]["inputs"]:
    kind = getattr(torch, each["type"])
    tensors = [torch.tensor(columns[name], dtype=kind) for name in each["columns"]]
    batch[each["name"]] = tensors[0] if each["name"] == "image" else torch.stack(tensors, dim=1)
prediction, probabilities, sets = program(batch)
assert not {"stages", "polars", "onnx", "pydantic"} & set(sys.modules)
names = [signature["classes"][code] for code in prediction]
print(json.dumps([names, probabilities.tolist(), sets.tolist()]))
"""


@pytest.fixture
def project() -> Project:
    return inferred()


def test_it_is_used_without_the_project_for_all_kinds_of_columns(tmp_path: Path) -> None:
    codes = {"Bergen": 1, "Oslo": 2, "Tromsø": 3, None: 4}
    assert_used_alone(ALONE, tmp_path, lambda town: codes.get(town, 0))


def test_the_file_holds_no_path_no_time_and_no_row(project: Project) -> None:
    content = (project.path / "data/infer/model.pt2").read_bytes()
    assert content == export_program(load_predictor(project.path / "data", coverage=0.9))
    for trace in (str(project.path.parent), "stages", ".py", "_WithPreparation"):
        assert trace.encode() not in content, trace
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {entry.date_time[:1] for entry in archive.infolist()} == {(1980,)}
    for name in ("smoker", "town", "picture"):
        assert name.encode() not in content, name
    (batch,), _ = torch.export.load(io.BytesIO(content)).example_inputs or ((), {})
    assert set(batch) == {"numeric", "boolean", "categorical", "image"}
    assert not any(tensor.any() for tensor in batch.values())


def test_what_is_left_out_is_an_empty_file(project: Project, tmp_path: Path) -> None:
    other = small_project(tmp_path / "p", TABLE, {"prepare.key": "id", "infer.export": []})
    (other.path / "data/prepare").symlink_to(project.path / "data/prepare")
    (other.path / "data/train").symlink_to(project.path / "data/train")
    run_stages(other, "infer")
    for name in ("model.onnx", "model.pt2"):
        assert (other.path / "data/infer" / name).read_bytes() == b""
    signature = read_json(other.path / "data/infer/signature.json")
    assert signature["exports"] == []
    assert "program" not in signature
    set_params(other, {"infer.export": ["onnx", "onnx"]})
    with pytest.raises(UserError) as caught:
        run_stages(other, "infer")
    assert caught.value.problems[0].key == "infer.export"


def test_a_value_comes_out_in_the_targets_units() -> None:
    predictor, table = of_values(Weighted())
    assert verify_program(export_program(predictor), predictor, table, KEY) < 1e-6


def test_a_program_of_another_model_is_told_apart() -> None:
    predictor, table = of_values(Weighted())
    doubled = Predictor(
        Weighted(lambda numbers: numbers[0].sum() > 0), predictor.schema, predictor.statistics
    )
    with pytest.raises(UserError, match="as a program differs from the model by"):
        verify_program(export_program(predictor), doubled, table[1:], KEY)


def test_a_model_that_branches_on_values_stops_with_the_key_to_edit() -> None:
    predictor, _ = of_values(Weighted(lambda numbers: numbers[0].sum() > 0))
    with pytest.raises(UserError, match="can't be exported as a program") as caught:
        export_program(predictor)
    assert caught.value.problems[0].key == "infer.export"


class EpochTotals(torch.nn.Module):
    """Of two classes the second's score is the sum of a row's numbers."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        score = batch["numeric"].sum(dim=1)
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.mark.parametrize("threshold", [None, 0.8])
def test_the_program_calibrates_as_the_model_does(threshold: float | None) -> None:
    values, table = of_values(Weighted())
    target = Target(name="y", task="classification", classes=["no", "yes"])
    schema = values.schema.model_copy(update={"target": target})
    statistics = values.statistics.model_copy(update={"target": None})
    calibration = Calibration(temperature=2.5, threshold=threshold)
    predictor = Predictor(EpochTotals(), schema, statistics, calibration=calibration)
    assert verify_program(export_program(predictor), predictor, table, KEY) < 1e-6
    plain = replace(predictor, calibration=UNCALIBRATED)
    with pytest.raises(UserError, match="as a program differs from the model by"):
        verify_program(export_program(plain), predictor, table, KEY)
