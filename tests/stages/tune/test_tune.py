"""The search: what it tries, what it may try, and that a kill changes nothing of it."""

import math
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from stages.common.config import MAX_SEED, Overrides
from stages.common.errors import Problem, UserError
from stages.common.files import read_csv, read_json
from stages.common.yamlfile import read_yaml
from stages.tune.params import TuneParams
from stages.tune.study import best_trial, finished, importances, search
from tests.conftest import Project, project_environment
from tests.support.samples import mixed_table, run_stages, set_params, small_project

LR, WIDTH = "train.optimizer.lr", "build.model.width"
SPACE: dict[str, Any] = {LR: {"low": 1e-4, "high": 1.0, "log": True}, WIDTH: [8, 16, 32, 64]}
CURRENT: Overrides = {LR: 0.5, WIDTH: 16}
EPOCHS = 9


def tune_params(**changes: object) -> TuneParams:
    section = {"trials": 12, "epochs": EPOCHS, "sampler": "tpe", "pruner": "none", "space": SPACE}
    return TuneParams.model_validate({**section, **changes})


def bowl(overrides: Overrides, report: Callable[[int, float], None]) -> float:
    """A training in no time: best at a learning rate of 0.01 and 32 units."""
    tried = {**CURRENT, **overrides}
    depth = (math.log10(tried[LR]) + 2) ** 2 + abs(math.log2(tried[WIDTH]) - 5) / 10
    for epoch in range(1, EPOCHS + 1):
        report(epoch, depth + 1 / epoch)
    return float(depth + 1 / EPOCHS)


def trials_of(
    params: TuneParams, journal: Path, seed: int = 0, objective: Any = bowl
) -> list[FrozenTrial]:
    return finished(search(params, CURRENT, "minimize", seed, journal, objective))


def story(trials: list[FrozenTrial]) -> list[object]:
    """All that a trial is but for the time."""
    return [
        (t.number, t.state, t.values, t.params, t.intermediate_values, t.user_attrs) for t in trials
    ]


def tried(trials: list[FrozenTrial]) -> list[Overrides]:
    return [trial.user_attrs["tried"] for trial in trials]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_trial_zero_is_what_stands_in_the_parameters(tmp_path: Path, sampler: str) -> None:
    trials = trials_of(tune_params(sampler=sampler, trials=3), tmp_path / "journal")
    assert trials[0].user_attrs == {"overrides": {}, "tried": CURRENT}
    assert trials[0].value == pytest.approx(bowl({}, lambda _epoch, _value: None))
    # The sampler learns from it too.
    assert trials[0].params == {LR: 0.5, WIDTH: 1}
    assert all(set(trial.user_attrs["overrides"]) == set(SPACE) for trial in trials[1:])


@pytest.mark.parametrize(
    "current",
    [
        {LR: 5.0, WIDTH: 128},
        {LR: None, WIDTH: None},
        {LR: "fast", WIDTH: [1]},
        {WIDTH: 0.5},
        {},
    ],
)
def test_values_outside_of_the_space_are_trial_zero_all_the_same(
    tmp_path: Path, current: Overrides
) -> None:
    space = {LR: SPACE[LR], WIDTH: {"low": 8, "high": 64}}
    seen: list[Overrides] = []

    def objective(overrides: Overrides, report: Callable[[int, float], None]) -> float:
        seen.append(overrides)
        return 0.0

    params = tune_params(trials=2, space=space)
    study = search(params, current, "minimize", 0, tmp_path / "journal", objective)
    assert seen[0] == {}
    assert set(seen[1]) == {LR, WIDTH}
    assert finished(study)[0].params == {}
    assert finished(study)[0].user_attrs["tried"] == current


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_value_tried_is_one_of_the_space(tmp_path: Path, sampler: str) -> None:
    space = {**SPACE, "build.model.layers": {"low": 1, "high": 3}}
    if sampler == "grid":
        space = {LR: [1e-3, 0.1], WIDTH: [8, 16]}
    trials = trials_of(tune_params(sampler=sampler, space=space), tmp_path / "journal")
    for values in tried(trials)[1:]:
        assert values[WIDTH] in [8, 16, 32, 64]
        assert 1e-4 <= values[LR] <= 1.0
        assert isinstance(values[LR], float)
        if sampler != "grid":
            assert values["build.model.layers"] in [1, 2, 3]


def test_a_logarithmic_range_is_drawn_by_its_logarithm(tmp_path: Path) -> None:
    trials = trials_of(tune_params(sampler="random", trials=101), tmp_path / "journal")
    below = sum(values[LR] < 1e-2 for values in tried(trials)[1:])
    assert 35 <= below <= 65


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_the_seed_alone_decides_what_is_tried(tmp_path: Path, sampler: str) -> None:
    space = {LR: [1e-4, 1e-3, 1e-2, 1e-1], WIDTH: [8, 16, 32]} if sampler == "grid" else SPACE
    params = tune_params(sampler=sampler, trials=8, space=space)
    first, again, other = (
        tried(trials_of(params, tmp_path / name, seed))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert first != other


def test_tpe_learns_where_it_is_good(tmp_path: Path) -> None:
    def mean_depth(sampler: str) -> float:
        params = tune_params(sampler=sampler, trials=40)
        trials = trials_of(params, tmp_path / sampler)[20:]
        return sum(trial.value or 0.0 for trial in trials) / len(trials)

    assert mean_depth("tpe") < 0.5 * mean_depth("random")


GRID: dict[str, Any] = {LR: [1e-3, 1e-2, 0.5], WIDTH: [8, 16, 32, 64]}


def test_a_grid_tries_every_point_once(tmp_path: Path) -> None:
    trials = trials_of(tune_params(sampler="grid", space=GRID, trials=100), tmp_path / "journal")
    points = sorted((values[LR], values[WIDTH]) for values in tried(trials))
    # Trial 0 is one of them, and is not trained twice.
    assert points == sorted((lr, width) for lr in GRID[LR] for width in GRID[WIDTH])


def test_a_grid_that_params_yaml_is_no_point_of_is_tried_beside_it(tmp_path: Path) -> None:
    space = {LR: [1e-3, 1e-2], WIDTH: [8, 16]}
    trials = trials_of(tune_params(sampler="grid", space=space, trials=100), tmp_path / "journal")
    assert len(trials) == 5
    assert len({(values[LR], values[WIDTH]) for values in tried(trials)}) == 5


def test_a_grid_that_is_cut_short_is_spread_over_the_space(tmp_path: Path) -> None:
    trials = trials_of(tune_params(sampler="grid", space=GRID, trials=7), tmp_path / "journal")
    assert len(trials) == 7
    assert len({values[LR] for values in tried(trials)}) == 3
    assert len({values[WIDTH] for values in tried(trials)}) >= 3


def test_a_choice_may_be_a_list_or_nothing(tmp_path: Path) -> None:
    space = {"build.model.channels": [[8], [8, 16]], "train.clip_norm": [None, 1.0]}
    params = tune_params(sampler="grid", space=space, trials=9)
    current = {"build.model.channels": [8, 16], "train.clip_norm": None}
    study = search(params, current, "minimize", 0, tmp_path / "journal", lambda _o, _r: 0.0)
    pairs = {str(trial.user_attrs["tried"]) for trial in finished(study)}
    assert len(pairs) == len(finished(study)) == 4


def test_median_pruning_stops_a_trial_that_is_worse_than_half_of_those_before(
    tmp_path: Path,
) -> None:
    params = tune_params(sampler="random", pruner="median", trials=30)
    trials = trials_of(params, tmp_path / "journal")
    complete: list[float] = []
    for trial in trials:
        first = trial.intermediate_values[1]
        # Optuna watches five trials before it prunes. A bowl is as deep in every epoch.
        worse = len(complete) >= 5 and first > statistics.median(complete)
        assert (trial.state == TrialState.PRUNED) == worse
        assert len(trial.intermediate_values) == (1 if worse else EPOCHS)
        if not worse:
            complete.append(first)
    assert len(complete) < len(trials)


class Merciless(BasePruner):
    """Cuts every trial short after its first epoch."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return True


def test_the_values_of_params_yaml_are_never_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.tune.study._pruner", lambda _params: Merciless())
    trials = trials_of(tune_params(trials=3), tmp_path / "journal")
    assert [len(trial.intermediate_values) for trial in trials] == [EPOCHS, 1, 1]
    assert trials[0].state == TrialState.COMPLETE


def test_hyperband_trains_few_trials_to_the_end(tmp_path: Path) -> None:
    params = tune_params(sampler="random", pruner="hyperband", trials=30)
    trials = trials_of(params, tmp_path / "journal")
    assert 5 <= sum(trial.state == TrialState.PRUNED for trial in trials) <= 25


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_the_largest_seed_serves_every_trial(tmp_path: Path, sampler: str) -> None:
    params = tune_params(sampler=sampler, space={LR: [1e-3, 0.1], WIDTH: [8, 16]}, trials=3)
    assert len(trials_of(params, tmp_path / "journal", seed=MAX_SEED)) == 3


def test_the_first_of_equals_wins(tmp_path: Path) -> None:
    study = search(
        tune_params(trials=4), CURRENT, "minimize", 0, tmp_path / "j", lambda _o, _r: 1.0
    )
    assert best_trial(study).number == 0


def test_more_is_better_when_it_is_maximised(tmp_path: Path) -> None:
    study = search(tune_params(), CURRENT, "maximize", 0, tmp_path / "journal", bowl)
    values = [trial.value for trial in finished(study)]
    assert best_trial(study).value == max(values)


def test_the_parameter_that_matters_is_the_important_one(tmp_path: Path) -> None:
    params = tune_params(sampler="random", trials=40)
    shares = importances(search(params, CURRENT, "minimize", 0, tmp_path / "journal", bowl))
    assert list(shares) == [LR, WIDTH]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares[LR] > 0.7


@pytest.mark.parametrize(
    ("sampler", "pruner"), [("tpe", "hyperband"), ("grid", "none"), ("random", "median")]
)
def test_a_search_goes_on_from_wherever_its_journal_ends(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    space = {LR: [1e-4, 1e-3, 1e-2, 1e-1], WIDTH: [8, 16, 32]} if sampler == "grid" else SPACE
    params = tune_params(sampler=sampler, pruner=pruner, trials=13, space=space)
    whole = tmp_path / "whole"
    expected = story(trials_of(params, whole))
    content = whole.read_bytes()
    # A kill may come at any byte: in a trial, between two, in the middle of a line.
    for cut in range(0, len(content), len(content) // 6):
        journal = tmp_path / f"cut-{cut}"
        journal.write_bytes(content[:cut])
        # What a killed process may leave behind.
        journal.with_name(f"{journal.name}.lock").symlink_to(journal)
        assert story(trials_of(params, journal)) == expected, cut


def test_finished_trials_are_not_run_again(tmp_path: Path) -> None:
    num_runs = 0

    def counted(overrides: Overrides, report: Callable[[int, float], None]) -> float:
        nonlocal num_runs
        num_runs += 1
        if num_runs == 5:
            raise KeyboardInterrupt
        return bowl(overrides, report)

    with pytest.raises(KeyboardInterrupt):
        trials_of(tune_params(), tmp_path / "journal", objective=counted)
    trials_of(tune_params(), tmp_path / "journal", objective=counted)
    assert num_runs == 12 + 1


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything before tune has run, on a recipe that leaves something to find."""
    project = small_project(
        tmp_path_factory.mktemp("built") / "project",
        mixed_table(),
        {
            "prepare.key": "id",
            "build.model": {"name": "mlp", "width": 3},
            "train.optimizer": {"name": "Adam", "lr": 1e-5},
            "tune.epochs": 4,
            "train.epochs": 4,
        },
    )
    run_stages(project, "prepare", "build")
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    shutil.copytree(built.path, tmp_path / "project")
    return Project(tmp_path / "project")


def tune(project: Project, trials: int, sampler: str, space: dict[str, Any]) -> None:
    set_params(project, {"tune.trials": trials, "tune.sampler": sampler, "tune.space": space})
    run_stages(project, "tune")


def problems(project: Project, space: dict[str, Any], sampler: str = "tpe") -> list[Problem]:
    with pytest.raises(UserError) as caught:
        tune(project, 1, sampler, space)
    return caught.value.problems


def test_without_trials_the_parameters_pass_through(project: Project) -> None:
    # The space may be that of another model: nobody searches it.
    tune(project, 0, "tpe", {**SPACE, "build.model.channels": [[8], [16]]})
    folder = project.path / "data/tune"
    assert read_yaml(folder / "best.yaml") == {}
    assert read_csv(folder / "trials.csv") == []
    assert read_csv(folder / "plots/history.csv") == []


def test_a_trial_is_a_training_with_its_values(project: Project) -> None:
    tune(project, 5, "grid", {LR: [1e-5, 0.05], WIDTH: [3, 6]})
    rows = read_csv(project.path / "data/tune/trials.csv")
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert (rows[0][LR], rows[0][WIDTH]) == ("1e-05", "3")
    for row in rows:
        set_params(project, {LR: float(row[LR]), WIDTH: int(row[WIDTH])})
        run_stages(project, "build")
        (project.path / "data/tune/best.yaml").write_text("{}\n", encoding="utf-8")
        run_stages(project, "train")
        metrics = read_json(project.path / "data/train/metrics.json")
        assert float(row["value"]) == pytest.approx(metrics["validation_loss"], rel=1e-6)


def test_the_winner_is_what_train_trains(project: Project) -> None:
    tune(project, 4, "grid", {LR: [1e-5, 0.05], WIDTH: [3, 6]})
    rows = read_csv(project.path / "data/tune/trials.csv")
    best = min(rows, key=lambda row: float(row["value"]))
    best_trial = read_yaml(project.path / "data/tune/best.yaml")
    assert best_trial == {LR: float(best[LR]), WIDTH: int(best[WIDTH])}
    # The parameters of this project learn next to nothing, so another trial wins.
    assert best_trial[LR] == 0.05
    run_stages(project, "train")
    metrics = read_json(project.path / "data/train/metrics.json")
    assert metrics["validation_loss"] == pytest.approx(float(best["value"]), rel=1e-6)
    model = read_json(project.path / "data/train/model.json")
    assert model["arguments"]["width"] == best_trial[WIDTH]


def test_the_plots_tell_the_search(project: Project) -> None:
    tune(project, 6, "random", {LR: {"low": 1e-5, "high": 0.1, "log": True}, WIDTH: [3, 6]})
    folder = project.path / "data/tune"
    rows, history = read_csv(folder / "trials.csv"), read_csv(folder / "plots/history.csv")
    values = [float(row["value"]) for row in rows if row["state"] == "complete"]
    assert [float(row["value"]) for row in history] == pytest.approx(values)
    best = [min(values[: i + 1]) for i in range(len(values))]
    assert [float(row["best"]) for row in history] == pytest.approx(best)
    importance = read_csv(folder / "plots/importance.csv")
    assert {row["parameter"] for row in importance} == {LR, WIDTH}


def test_a_trial_that_diverges_is_called_so_and_the_search_goes_on(project: Project) -> None:
    set_params(project, {"train.optimizer": {"name": "SGD", "lr": 1e-3}, "train.clip_norm": None})
    tune(project, 3, "grid", {LR: [1e-3, 1e30]})
    rows = read_csv(project.path / "data/tune/trials.csv")
    assert [(row["state"], row[LR]) for row in rows] == [
        ("complete", "0.001"),
        ("diverged", "1e+30"),
    ]
    assert rows[1]["value"] == ""
    assert read_yaml(project.path / "data/tune/best.yaml") == {}


def test_a_search_in_which_nothing_trains_is_an_error(project: Project) -> None:
    set_params(project, {"train.optimizer": {"name": "SGD", "lr": 1e30}, "train.clip_norm": None})
    with pytest.raises(UserError, match="not one trial could be trained to its end"):
        tune(project, 2, "grid", {LR: [1e30, 1e29]})


@pytest.mark.parametrize(
    ("path", "values", "says"),
    [
        ("train.optimizer.lrr", [0.1, 0.2], "did you mean 'lr'?"),
        ("train.optimiser.lr", [0.1, 0.2], "no parameter"),
        ("train.batch_size.x", [1, 2], "no parameter"),
        ("build.model.widht", [4, 8], "did you mean 'width'?"),
        ("prepare.split.seed", [0, 1], "can't be tuned"),
        ("train.epochs", [3, 4], "tune.epochs"),
        ("build.model.name", ["mlp", "linear"], "can't be tuned"),
        ("train.batch_size", [32, "many"], "can't be 'many'"),
        ("train.batch_size", [32, 0], "can't be 0"),
        ("train.optimizer.name", ["Adam", "AdamWW"], "did you mean 'AdamW'?"),
        ("train.optimizer.lr", [0.1, -0.1], "can't be -0.1"),
        ("train.optimizer.lr", {"low": -0.5, "high": 0.1}, "can't be -0.5"),
        ("train.loss.name", ["CrossEntropyLoss", "NLLLoss"], "compared by this very loss"),
        ("train.loss.label_smoothing", [0.0, 0.1], "compared by this very loss"),
        ("train.early_stopping.metric", ["loss", "accuracy"], "trials are compared by it"),
        ("build.model.width", {"low": 1.5, "high": 8.5}, "can't be 1.5"),
        ("build.model.dropout", {"low": 0.0, "high": 1.0}, "can't be 1.0"),
    ],
)
def test_a_space_that_can_not_be_is_an_error_before_any_trial(
    project: Project, path: str, values: object, says: str
) -> None:
    (found,) = problems(project, {path: values})
    assert found.key == f"tune.space.{path}"
    text = f"{found.message}\ndid you mean '{found.suggestion}'?"
    assert says in text


def test_losses_can_be_tuned_where_another_metric_compares_them(project: Project) -> None:
    set_params(project, {"train.early_stopping": {"metric": "accuracy", "patience": None}})
    (found,) = problems(project, {"train.loss.name": ["CrossEntropyLoss", "MSELoss"]})
    assert found.key == "tune.space.train.loss.name"
    assert "no loss for classification" in found.message


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"low": 2.0, "high": 1.0}, "must be below high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "needs low above 0"),
        ({"low": 0.1}, "missing"),
        ({"low": 0.1, "high": 1.0, "step": 0.1}, "unknown key 'step'"),
        ([0.1], "at least 2 items"),
    ],
)
def test_a_range_or_list_that_says_nothing_is_an_error(
    project: Project, values: object, says: str
) -> None:
    (found,) = problems(project, {LR: values})
    assert str(found.key).startswith(f"tune.space.{LR}")
    assert says in found.message


def test_a_grid_takes_lists_alone(project: Project) -> None:
    (found,) = problems(project, {LR: {"low": 0.1, "high": 1.0}, WIDTH: [3, 4]}, "grid")
    assert found.key == f"tune.space.{LR}"
    assert "a grid needs a list" in found.message


def test_all_mistakes_of_a_space_are_told_at_once(project: Project) -> None:
    found = problems(project, {"train.epochs": [1, 2], "train.x": [1, 2], LR: [0.1, 0.2]})
    assert [p.key for p in found] == ["tune.space.train.epochs", "tune.space.train.x"]


def test_a_killed_search_goes_on_and_ends_as_one_that_was_not(
    project: Project, tmp_path: Path
) -> None:
    space = {LR: {"low": 1e-5, "high": 0.1, "log": True}, WIDTH: [3, 6, 12]}
    other = Project(tmp_path / "uninterrupted")
    shutil.copytree(project.path, other.path)
    tune(other, 8, "tpe", space)

    set_params(project, {"tune.trials": 8, "tune.sampler": "tpe", "tune.space": space})
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.tune"],
        cwd=project.path,
        env=project_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("trial 3/"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (project.path / "data/tune/best.yaml").exists()

    said = project.run("python", "-m", "stages.tune").stdout
    assert "resumes after" in said
    assert "trial 3/" not in said
    assert project.outputs() == other.outputs()
    # A finished search leaves nothing to go on from: a forced rerun really searches.
    assert list((project.path / ".reprise/tune").iterdir()) == []
