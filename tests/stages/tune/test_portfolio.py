"""The recipes that are tried first."""

from typing import Any

import pytest

from stages.common.config import ClassSpec, Overrides, apply_overrides, validate
from stages.common.errors import UserError
from stages.common.files import read_csv
from stages.common.params import to_plain
from stages.common.yamlfile import read_yaml
from stages.features.schema import Feature, Schema, Target
from stages.model.model import arguments_class, make_model, make_spec
from stages.training.optim.preflight import check_names
from stages.training.params import TrainParams
from stages.tune.portfolio import PORTFOLIO, read_portfolio
from tests.conftest import ROOT, Project
from tests.stages.tune.conftest import LR, SPACE, WIDTH, tune
from tests.support.samples import recipe_params, set_params

ENTRIES: list[dict[str, Any]] = to_plain(read_yaml(ROOT / PORTFOLIO))
MODELS = sorted({entry["model"] for entry in ENTRIES})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_entry_is_a_recipe(monkeypatch: pytest.MonkeyPatch, model: str, task: Any) -> None:
    monkeypatch.chdir(ROOT)
    train = recipe_params("cnn")["train"]
    # As init leaves it for a table: an optimizer without arguments of its own.
    train["optimizer"] = {"name": "AdamW", "lr": 5e-3, "weight_decay": 3e-4}
    train["loss"] = {"name": "CrossEntropyLoss" if task == "classification" else "MSELoss"}
    kind: dict[str, Any] = {"kind": "numeric"}
    if model in ("cnn", "resnet"):
        kind = {"kind": "image", "shape": [1, 8, 8]}
    classes = ["a", "b"] if task == "classification" else None
    target = Target(name="y", task=task, classes=classes)
    schema = Schema(key=None, features=[Feature(name="x", **kind)], target=target)

    def check(overrides: Overrides) -> None:
        recipe = validate(TrainParams, apply_overrides(train, overrides, "train"), at="train")
        tree = {"model": {"name": model, **current_arguments}}
        spec = make_spec(ClassSpec(**apply_overrides(tree, overrides, "build")["model"]), schema)
        check_names(recipe, task, target.classes, lambda: make_model(spec, 0), by_row=False)

    current_arguments = arguments_class(model)().model_dump()
    current = {f"build.model.{name}": value for name, value in current_arguments.items()}
    found = read_portfolio(model, task, current, "loss", check)
    expected = [e for e in ENTRIES if e["model"] == model and task in e.get("tasks", [task])]
    assert list(found) == [entry["name"] for entry in expected]
    assert all(entry["source"] for entry in expected)
    if model == "tabm":
        # The source has 864 units, where its default has 512 and this recipe 128.
        assert found["tabm r184"][WIDTH] == 216


def test_what_the_recipe_can_not_take_is_left_out() -> None:
    def check(overrides: Overrides) -> None:
        if overrides["build.model.layers"] == 5:
            raise UserError("no")

    current = {WIDTH: 8}
    assert list(read_portfolio("mlp", "classification", current, "loss", check)) == ["mlp r22"]
    assert read_portfolio("linear", "classification", current, "loss", check) == {}


def test_a_search_begins_with_it(project: Project) -> None:
    set_params(project, {"tune.portfolio": True, "tune.epochs": 1})
    tune(project, 4, "random", {LR: SPACE[LR], WIDTH: SPACE[WIDTH]})
    rows = read_csv(project.path / "data/tune/trials.csv")
    origins = [row["origin"] for row in rows]
    assert origins == ["params.yaml", "mlp r22", "mlp r86", "random"]
    assert rows[1][WIDTH] == "213"
    # What an entry sets beside the space stands there, too, and of others what params.yaml says.
    decay = "train.optimizer.weight_decay"
    set_by = {entry["name"]: entry["set"] for entry in ENTRIES}
    assert [float(row[decay]) for row in rows[1:3]] == [
        set_by[name][decay] for name in ("mlp r22", "mlp r86")
    ]
    assert rows[0][decay] == rows[3][decay]
