"""What moved a prediction: integrated gradients by column, their sums, and where they are shown."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages.common.files import read_csv
from stages.features.encode import encode
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.infer.explain import Explanations, in_words
from stages.infer.write import write_predictions
from stages.model.attribution import attribute
from stages.model.layers import Flatten
from stages.model.predictor import Predictor, load_predictor
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project

KEY = "infer.input"
FEATURES = [
    Feature(name="size", kind="numeric", missing=True),
    Feature(name="town", kind="categorical", categories=["Bergen", "Oslo"]),
    Feature(name="smoker", kind="boolean"),
]
SCHEMA = Schema(key=None, features=FEATURES, target=Target(name="y", task="regression"))
STATISTICS = Statistics(
    numeric={"size": Moments(mean=10.0, deviation=2.0)},
    image=[],
    target=Moments(mean=100.0, deviation=5.0),
)
TABLE = pl.DataFrame(
    {"size": [14.0, None, 10.0], "town": ["Oslo", "Bergen", "Paris"], "smoker": [True, False, True]}
)


class Weighted(torch.nn.Module):
    """A sum: 3 times the size, 7 for a gap, 2 for Bergen, less 1 for Oslo, 4 for a smoker."""

    def __init__(self, *, square: bool = False) -> None:
        super().__init__()
        self.flatten, self.square = Flatten(SCHEMA.inputs()), square

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        # Numbers with their gaps, truths, towns.
        weights = torch.tensor([[3.0], [7.0], [4.0], [2.0], [-1.0]])
        scores = self.flatten(batch) @ weights
        return scores**2 if self.square else scores


class Bare(torch.nn.Module):
    """Adds what it is given, categories as numbers."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        kinds = ("numeric", "categorical", "boolean")
        return sum(batch[kind].float().sum(1, keepdim=True) for kind in kinds)  # type: ignore[return-value]


def explained(model: torch.nn.Module) -> tuple[dict[str, list[float]], np.ndarray, list[str]]:
    predictor = Predictor(model, SCHEMA, STATISTICS)
    arrays = encode(TABLE, SCHEMA, STATISTICS, KEY)
    found = attribute(predictor, arrays, np.zeros(3, np.int64))
    values = {name: found.values[:, i].tolist() for i, name in enumerate(found.columns)}
    return values, found.errors, found.left_out


def test_of_a_sum_each_column_has_its_part_in_the_targets_units() -> None:
    values, errors, left_out = explained(Weighted())
    assert values["size"] == pytest.approx([5 * 3 * 2, 5 * 7, 0], abs=1e-4)
    assert values["town"] == pytest.approx([5 * -1, 5 * 2, 0], abs=1e-4)
    assert values["smoker"] == pytest.approx([5 * 4, 0, 5 * 4], abs=1e-4)
    assert errors.max() < 1e-4
    assert left_out == []


def test_what_is_no_sum_adds_up_all_the_same() -> None:
    values, errors, _ = explained(Weighted(square=True))
    total = np.sum(list(values.values()), axis=0)
    assert total == pytest.approx([5 * 9**2, 5 * 9**2, 5 * 4**2], rel=1e-4)
    assert errors.max() < 0.01


def test_categories_are_left_out_where_no_layer_makes_numbers_of_them() -> None:
    values, errors, left_out = explained(Bare())
    assert left_out == ["town"]
    assert values["size"] == pytest.approx([10, 5, 0], abs=1e-4)
    assert values["smoker"] == pytest.approx([5, 0, 5], abs=1e-4)
    assert errors.max() < 1e-4


class Steep(Weighted):
    """Goes up where no step of the line is: what no gradient sees."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        scores = super().forward(batch)
        return scores + 100 * (scores > 4.5)


def test_a_row_whose_parts_miss_the_whole_is_not_explained() -> None:
    predictor = Predictor(Steep(), SCHEMA, STATISTICS)
    found = attribute(predictor, encode(TABLE, SCHEMA, STATISTICS, KEY), np.zeros(3, np.int64))
    assert found.believed.tolist() == [False, False, True]
    assert [text is None for text in in_words(found)] == [True, True, False]
    told = Explanations()
    told.add(found)
    assert "'moved_by' is empty for 2 of 3 rows" in told.lines()[1]


def photos(height: int, width: int) -> tuple[Schema, Statistics]:
    image = Feature(name="photo", kind="image", shape=[2, height, width], layout="CHW")
    schema = Schema(key=None, features=[image], target=Target(name="y", task="regression"))
    one = Moments(mean=1.0, deviation=1.0)
    return schema, Statistics(numeric={}, image=[one, one], target=one)


def test_a_network_with_norms_is_explained_by_one_walk() -> None:
    class Normed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            norm = torch.nn.GroupNorm(2, 8)
            layers = [torch.nn.Conv2d(2, 8, 3), norm, torch.nn.ReLU(), torch.nn.Flatten()]
            self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(8 * 16, 1))
            self.num_rows = 0

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            self.num_rows += len(batch["image"])
            scores: torch.Tensor = self.layers(batch["image"])
            return scores

    model = Normed()
    images = np.random.default_rng(0).integers(0, 255, (20, 2, 6, 6), np.uint8)
    found = attribute(Predictor(model, *photos(6, 6)), {"image": images}, np.zeros(20, np.int64))
    assert found.believed.all()
    # 48 gradients and the ends of the eight parts, in place of some 450.
    assert model.num_rows < 80 * len(images)


def test_an_image_is_nine_areas() -> None:
    schema, statistics = photos(3, 6)

    class Sum(torch.nn.Module):
        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return batch["image"].flatten(1).sum(1, keepdim=True)

    images = np.ones((1, 2, 3, 6), np.uint8)
    images[0, :, 0, 5] = 11
    images[0, 1, 1, 2] = 3
    predictor = Predictor(Sum(), schema, statistics)
    found = attribute(predictor, {"image": images}, np.zeros(1, np.int64))
    assert len(found.columns) == 9
    values = dict(zip(found.columns, found.values[0], strict=True))
    assert values.pop("photo top right") == pytest.approx(20, abs=1e-4)
    assert values.pop("photo centre") == pytest.approx(2, abs=1e-4)
    assert np.abs(list(values.values())).max() < 1e-6


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = small_project(
        tmp_path_factory.mktemp("attribution") / "p", mixed_table(), {"prepare.key": "id"}
    )
    run_stages(made, "prepare", "build", "tune", "train", "evaluate")
    return made


def test_evaluate_ranks_the_columns(project: Project) -> None:
    path = project.path / "data/evaluate/plots/attribution.csv"
    lines = read_csv(path)
    assert {line["column"] for line in lines} == {"size", "town", "smoker"}
    sizes = [float(line["attribution"]) for line in lines]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > 0
    before = path.read_bytes()
    run_stages(project, "evaluate")
    assert path.read_bytes() == before


def test_the_command_adds_what_moved_each_prediction(project: Project, tmp_path: Path) -> None:
    predictor = load_predictor(project.path / "data")
    source = tmp_path / "new.csv"
    mixed_table().write_csv(source)
    summary = write_predictions(source, tmp_path / "out.csv", None, predictor, KEY, explained=True)
    rows = read_csv(tmp_path / "out.csv")
    assert len(rows) == 120
    first = [part.split() for part in rows[0]["moved_by"].split(", ")]
    assert {name for name, _ in first} == {"size", "town", "smoker"}
    by_size = [abs(float(value)) for _, value in first]
    assert by_size == sorted(by_size, reverse=True)
    assert summary.notes[-1].startswith("'moved_by' is by integrated gradients")
    # The predictions are those without.
    write_predictions(source, tmp_path / "plain.csv", None, predictor, KEY)
    plain = pl.read_csv(tmp_path / "plain.csv")
    assert pl.read_csv(tmp_path / "out.csv").drop("moved_by").equals(plain)
