"""The training of an ensemble: proposed by the search, broken off, packed, refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.common.params import read_params
from stages.model.model import read_spec
from stages.train.members import here
from stages.train.recipe import read_recipe
from stages.training.packed.rule import Sizes, Way
from tests.conftest import Project
from tests.support.samples import recipe_params, run_stages, set_params, trained_files
from tests.support.stages.ensembles import MEMBERS, WIDTH


def test_the_proposal_of_the_search_is_trained(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stages.tune.results.MIN_ROWS", 10)
    set_params(project, {"train.ensemble": "tune"})
    with pytest.raises(UserError, match="tune proposes no ensemble") as raised:
        run_stages(project, "train")
    assert raised.value.problems[0].key == "train.ensemble"
    assert "tune.space names keys to search" in raised.value.problems[0].message
    set_params(project, {"tune.trials": 6, "tune.keep_scores": 6})
    run_stages(project, "tune")
    folder = project.path / "data/tune"
    proposed = read_json(folder / "ensemble.json")["members"]
    trials = read_csv(folder / "trials.csv")
    for member in proposed:
        row = trials[member["trial"]]
        assert {path: float(row[path]) for path in member["set"]} == member["set"]
    # Whatever these few rows chose, three members are trained.
    path = folder / "ensemble.json"
    chosen = [{"trial": n, "weight": w, "set": {WIDTH: 4 * n + 4}} for n, w in enumerate((3, 2, 1))]
    path.write_text(json.dumps({"members": chosen}), encoding="utf-8")
    run_stages(project, "train", "evaluate")
    assert "member 2, weight 0.167: build.model.width 12" in capfd.readouterr().out
    parts = read_spec(project.path / "data/train").parts
    assert [(part.arguments["width"], round(part.weight, 6)) for part in parts] == [
        (4, 0.5),
        (8, 0.333333),
        (12, 0.166667),
    ]


def test_an_ensemble_that_is_broken_off_ends_with_the_same_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from stages.train.members import fit_in_turn
    from stages.training.packed import loop

    monkeypatch.setenv("REPRISE_CHECKPOINT_SECONDS", "0")
    set_params(project, {"train.ensemble": MEMBERS, "train.packed": True})
    run_stages(project, "train")
    whole = trained_files(project)
    take_step, fit = loop.take_step, fit_in_turn.fit
    taken: list[int] = []

    def break_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def take_some(*given: Any) -> None:
        taken.append(1)
        if len(taken) == 9:
            break_off()
        take_step(*given)

    # Once in the pack, and once in the member that trains after it.
    for module, name, broken in ((loop, "take_step", take_some), (fit_in_turn, "fit", break_off)):
        monkeypatch.setattr(module, name, broken)
        with pytest.raises(KeyboardInterrupt):
            run_stages(project, "train")
    assert "resumes from" in capfd.readouterr().out
    monkeypatch.setattr(loop, "take_step", take_step)
    monkeypatch.setattr(fit_in_turn, "fit", fit)
    run_stages(project, "train")
    assert "2 of 3 trainings have ended before" in capfd.readouterr().out
    assert trained_files(project) == whole


def test_a_pack_keeps_its_checkpoints_when_another_group_is_none(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.path)
    set_params(project, {"train.ensemble": MEMBERS, "train.replicas": 2})
    recipe = read_recipe(read_params("train"))
    kept: dict[str, tuple[int, ...]] = {}

    def note(numbers: Sequence[int], _homes: Sequence[Path], folder: Path) -> None:
        # A resumed stage may have less memory, and pack one of the two groups alone.
        assert kept.setdefault(folder.name, tuple(numbers)) == tuple(numbers)

    def pack_if_possible(_: Sizes, *, may_pack: bool) -> Way:
        return Way("packed" if may_pack else "in turn", "")

    monkeypatch.setattr(here, "load_packed", lambda _, numbers: numbers)
    monkeypatch.setattr(here, "fit_packed", note)
    monkeypatch.setattr(here, "fit_in_turn", lambda *_, **__: None)
    monkeypatch.setattr(here, "choose_way", pack_if_possible)
    homes = [tmp_path / str(number) for number in range(6)]
    for reasons in ([None, None], ["the memory does not hold the rows", None]):
        left = iter(reasons)
        monkeypatch.setattr(here, "_why_no_room", lambda _, left=left: next(left))
        train = here.choose_here(recipe, 1, 1)
        assert train is not None
        train(range(6), homes, tmp_path)
    assert sorted(kept.values()) == [(0, 2, 3, 5), (1, 4)]


@pytest.mark.parametrize(
    ("changed", "message", "key"),
    [
        ({"train.replicas": 3}, "all members have the same", "train.replicas"),
        ({"prepare.target": "y"}, "neither of the model nor of the training", "prepare.target"),
        ({"build.model.name": "mlp"}, "only the file of the model", "build.model.name"),
        ({"build.model.wdth": 3}, "wdth", "build.model.wdth"),
        ({"train.optimiser.lr": 3}, "there is no parameter", "train.optimiser.lr"),
        ({WIDTH: 8, "train.batch_size": 0}, "be at least 1", "train.batch_size"),
    ],
)
def test_what_a_member_can_t_set_is_said_at_its_key(
    project: Project, changed: dict[str, Any], message: str, key: str
) -> None:
    members = [{"weight": 1, "set": {}}, {"weight": 1, "set": changed}]
    set_params(project, {"train.ensemble": members})
    with pytest.raises(UserError) as raised:
        run_stages(project, "train")
    (problem,) = raised.value.problems
    assert problem.key == f"train.ensemble.1.set.{key}"
    assert message in problem.message


def test_a_member_that_no_constructor_takes_is_named(project: Project) -> None:
    members = [{"weight": 1, "set": {}}, {"weight": 1, "set": {"train.optimizer.eps": -1.0}}]
    set_params(project, {"train.ensemble": members})
    with pytest.raises(UserError, match="member 1 of the ensemble: ") as raised:
        run_stages(project, "train")
    assert raised.value.problems[0].key == "train.ensemble"


def test_check_knows_ensembles() -> None:
    from pipeline.params.check import find_problems

    tree = recipe_params("cnn")
    assert tree["train"]["ensemble"] is None
    tree["train"]["ensemble"] = "tune"
    (problem,) = find_problems(tree)
    assert (problem.key, problem.value) == ("train.ensemble", "tune")
    assert "tune.trials is above 1, and it is 0" in problem.message
    tree["tune"]["trials"] = 20
    assert find_problems(tree) == []
    space, tree["tune"]["space"] = tree["tune"]["space"], {}
    (problem,) = find_problems(tree)
    assert (problem.key, problem.value) == ("train.ensemble", "tune")
    assert "tune.space names keys to search, and it is empty" in problem.message
    tree["tune"]["space"] = space
    tree["train"]["ensemble"] = [{"weight": 1, "set": {WIDTH: 32, "train.optimizer.lrr": 0.1}}]
    (problem,) = find_problems(tree)
    assert problem.key == "train.ensemble.0.set.train.optimizer.lrr"
    tree["train"]["ensemble"] = [{"weigth": 1, "set": {}}]
    keys = {problem.key for problem in find_problems(tree)}
    assert keys == {"train.ensemble.0.weigth", "train.ensemble.0.weight"}
