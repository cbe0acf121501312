"""Datasets by name: mistakes that are told early, trials, and the one of the zoo."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from pipeline.params.check import find_problems
from stages.common.errors import UserError
from stages.common.files import write_json
from stages.common.yamlfile import read_yaml
from stages.model.model import PRETRAINED_FILE
from stages.tensors.rows import open_rows
from stages.training import recipe
from stages.training.optim.preflight import check_names
from stages.tune.training import batch
from stages.zoo.datasets import random_erasing
from tests.conftest import ROOT
from tests.support.samples import mixed_table, run_stages, small_project, train_params
from tests.support.training.datasets import NOISY, PLAIN, SCHEMA, Write
from tests.support.training.prepared import SPEC

pytestmark = pytest.mark.usefixtures("one_thread")


def test_all_wrong_names_and_arguments_are_told_before_any_data_is_loaded(write: Write) -> None:
    write(PLAIN)
    wrong = {"name": "mien"}, {"name": "mine", "scael": 2.0}, {"name": "mine", "num_workers": -1}
    said = []
    for dataset in wrong:
        params = train_params(dataset=dataset, optimizer={"name": "SDG", "lr": 0.1})
        with pytest.raises(UserError) as caught:
            check_names(params, "classification")
        optimizer, problem = caught.value.problems
        assert optimizer.key == "train.optimizer.name"
        said.append((problem.key, problem.suggestion))
    assert said == [
        ("train.dataset.name", "mine"),
        ("train.dataset.scael", "scale"),
        ("train.dataset.num_workers", None),
    ]


def test_each_trial_has_the_dataset_with_its_own_arguments(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(NOISY)
    write_json(tmp_path / "model.json", SPEC.model_copy(update={"num_outputs": 7}).model_dump())
    (tmp_path / PRETRAINED_FILE).write_bytes(save({}))
    monkeypatch.setattr(recipe, "BUILT", tmp_path)
    monkeypatch.setattr(batch, "PREPARED", recipe.PREPARED)

    def tried(dataset: dict[str, Any] | None, **overrides: float) -> float | None:
        start = batch.Start(train_params(dataset=dataset).model_dump(), SPEC, SCHEMA, seed=3)
        train_trials, _, _ = batch.make_train_trials(start, in_step=False, keep_scores=False)
        paths = {f"train.dataset.{name}": value for name, value in overrides.items()}
        (result,) = train_trials([paths], lambda *_: set())
        return result.value

    plain = tried(None)
    mine: dict[str, Any] = {"name": "mine", "scale": 0.5}
    assert tried(mine) != plain
    assert tried(mine, scale=0.0) == plain
    assert tried(mine, scale=0.7) == tried({"name": "mine", "scale": 0.7})


def test_the_check_of_the_whole_file_knows_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("pipeline.params.check.check_paths", lambda *_, **__: [])
    tree = read_yaml(Path("params.yaml"))

    def check(dataset: object) -> list[str]:
        tree["train"]["dataset"] = dataset
        return [str(p.key) for p in find_problems(tree) if str(p.key).startswith("train.")]

    assert check(None) == check({"name": "random_erasing", "num_workers": 2}) == []
    assert check({"name": "erasing"}) == ["train.dataset.name"]
    assert check({"name": "random_erasing", "probability": 2, "num_workers": 0.5}) == [
        "train.dataset.probability",
        "train.dataset.num_workers",
    ]
    assert check("random_erasing") == ["train.dataset"]


def test_random_erasing_overwrites_a_box_as_the_paper_draws_it(write: Write) -> None:
    write(PLAIN)
    rows = open_rows(recipe.PREPARED / "train")
    arguments = random_erasing.Arguments(probability=0.6, largest=0.3)
    learned = random_erasing.Dataset(arguments, rows, train=True)
    random.seed(0)
    torch.manual_seed(0)
    num_erased = 0
    for row in range(45):
        (features, target), (whole, code) = learned[row], rows.take(row)
        assert torch.equal(target, code)
        assert torch.equal(features["numeric"], whole["numeric"])
        changed = features["image"] != whole["image"]
        if not changed.any():
            continue
        num_erased += 1
        inside = changed.any(dim=0).nonzero()
        (top, left), (bottom, right) = inside.min(dim=0).values, inside.max(dim=0).values
        assert changed[:, top : bottom + 1, left : right + 1].all()
        area = int((bottom - top + 1) * (right - left + 1))
        # Of 36 pixels, sides rounded.
        assert 1 <= area <= 0.3 * 36 + 4
    assert 18 <= num_erased <= 36
    judged = random_erasing.Dataset(arguments, rows, train=False)
    assert torch.equal(judged[3][0]["image"], rows.take(3)[0]["image"])


def test_random_erasing_is_refused_without_images(tmp_path: Path) -> None:
    project = small_project(
        tmp_path / "project", mixed_table(), {"train.dataset": {"name": "random_erasing"}}
    )
    run_stages(project, "prepare", "build", "tune")
    with pytest.raises(UserError, match="random_erasing is for images") as caught:
        run_stages(project, "train")
    assert caught.value.problems[0].key == "train.dataset.name"
