"""The stage tune: trials are trainings, and what is written of them."""

import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.common.yamlfile import read_yaml
from tests.conftest import Project, project_environment
from tests.stages.tune.conftest import LR, SPACE, WIDTH, tune
from tests.support.samples import run_stages, set_params


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
    points = read_csv(folder / "plots/points.csv")
    assert len(points) == 2 * len(values)
    for point in points:
        row = rows[int(point["trial"])]
        path = point["parameter"].split(" ")[0]
        assert point["shown"] == row[path]
        lr = (math.log10(float(row[LR])) + 5) / 4
        assert float(point["position"]) == pytest.approx(
            lr if path == LR else float(row[WIDTH] == "6"), abs=1e-6
        )
    by_rank = sorted(points, key=lambda point: int(point["rank"]))
    assert float(by_rank[0]["value"]) == pytest.approx(min(values))


def test_tensorboard_compares_the_trials(project: Project) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    tune(project, 3, "random", SPACE)
    rows = read_csv(project.path / "data/tune/trials.csv")
    (folder,) = (project.path / "data/tensorboard").glob("tune-*")
    runs = sorted(folder.iterdir())
    assert [run.name for run in runs] == ["0000", "0001", "0002"]
    for run, row in zip(runs, rows, strict=True):
        events = EventAccumulator(str(run)).Reload()
        info = HParamsPluginData.FromString(
            events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        )
        chosen = info.session_start_info.hparams
        assert chosen[LR].number_value == pytest.approx(float(row[LR]))
        assert chosen["origin"].string_value == row["origin"]
        curve = [event.value for event in events.Scalars("tune/value") if event.step > 0]
        assert min(curve) == pytest.approx(float(row["value"]), rel=1e-5)


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


@pytest.mark.parametrize("pruner", ["none", "halving"])
def test_packed_trials_are_those_that_train_one_by_one(
    project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str], pruner: str
) -> None:
    # Two forms in a batch: widths of 3 and 6 are two packs, which go on together.
    space = {LR: {"low": 1e-3, "high": 0.1, "log": True}, WIDTH: [3, 6]}
    space |= {"build.model.dropout": {"low": 0.0, "high": 0.4}}
    set_params(project, {"tune.batch": 9, "tune.pruner": pruner, "tune.keep_scores": 3})
    other = Project(tmp_path / "other")
    shutil.copytree(project.path, other.path)
    found = []
    for each, packed in ((project, True), (other, False)):
        set_params(each, {"train.packed": packed})
        tune(each, 18, "random", space)
        said = capfd.readouterr().out
        assert ("trials: packed" in said) == packed
        assert ("one after the other: train.packed is false" in said) != packed
        found.append(read_csv(each.path / "data/tune/trials.csv"))
    packed_rows, rows = found
    states = [row["state"] for row in rows]
    assert ("pruned" in states) == (pruner == "halving")
    assert [row["state"] for row in packed_rows] == states
    for one, two in zip(packed_rows, rows, strict=True):
        assert (one[LR], one[WIDTH]) == (two[LR], two[WIDTH])
        if two["value"]:
            assert float(one["value"]) == pytest.approx(float(two["value"]), rel=1e-4)


def test_a_search_in_which_nothing_trains_is_an_error(project: Project) -> None:
    set_params(project, {"train.optimizer": {"name": "SGD", "lr": 1e30}, "train.clip_norm": None})
    with pytest.raises(UserError, match="not one trial could be trained to its end"):
        tune(project, 2, "grid", {LR: [1e30, 1e29]})


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
        env={**project_environment(), "REPRISE_AT_ONCE": "2"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("trial 2 (3/"):
            break
    # In the middle of a batch, of which each part is trained by a copy of the stage.
    stage, copies = psutil.Process(process.pid), list[psutil.Process]()
    while not copies and process.poll() is None:
        copies = stage.children()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert copies
    _, left = psutil.wait_procs(copies, timeout=10)
    assert left == []
    assert not (project.path / "data/tune/best.yaml").exists()

    said = project.run("python", "-m", "stages.tune").stdout
    assert "resumes after" in said
    assert "trial 2 (3/" not in said
    assert project.outputs() == other.outputs()
    # A finished search leaves nothing to resume from: a forced rerun really searches.
    assert list((project.path / ".reprise/tune").iterdir()) == []


def test_a_journal_of_another_search_or_version_is_left_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {LR: {"low": 1e-3, "high": 0.1, "log": True}}
    other = {**first, WIDTH: [3, 6]}
    journals = project.path / ".reprise/tune"

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # All trials have ended, and nothing is written of them yet.
        patch.setattr("stages.tune.__main__.write_results", break_off)
        with pytest.raises(KeyboardInterrupt):
            tune(project, 4, "random", first)
    (left,) = journals.glob("*.journal")
    kept = left.read_bytes()
    capsys.readouterr()
    tune(project, 4, "random", other)
    assert "resumes after" not in capsys.readouterr().out
    assert {row[WIDTH] for row in read_csv(project.path / "data/tune/trials.csv")} <= {"3", "6"}
    # Another version of the code may write another kind of line.
    code = project.path / "stages/tune/journal.py"
    text = code.read_text(encoding="utf-8")
    code.write_text(text + "VERSION = 2\n", encoding="utf-8")
    tune(project, 4, "random", first)
    assert "resumes after" not in capsys.readouterr().out
    expected = project.outputs()
    assert left.read_bytes() == kept
    # Back where it was left, the search goes on, and has nothing more to train.
    code.write_text(text, encoding="utf-8")
    tune(project, 4, "random", first)
    said = capsys.readouterr().out
    assert "resumes after 4 trials" in said
    assert "trial 0 (1/4)" not in said
    assert project.outputs() == expected
    assert list(journals.iterdir()) == []
