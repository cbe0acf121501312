"""`reprise init`: from a file to a training, with nobody editing anything."""

import json
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.commands.init import show_columns
from stages.common.yamlfile import read_yaml
from tests.conftest import Project, copy_project
from tests.support.samples import mixed_table, run_stages, set_params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = copy_project(tmp_path_factory.mktemp("own"))
    # Some rows have no target: they are left out, and the suite must allow for them.
    number = pl.int_range(pl.len())
    table = mixed_table(300).with_columns(ship=0, y=pl.when(number % 50 != 7).then("y"))
    table.write_csv(project.path / "data/raw/patients.csv")
    return project


def test_a_table_trains_with_what_init_writes(project: Project) -> None:
    command = ("reprise", "init", "data/raw/patients.csv", "--target", "y")
    done = project.run(*command, "--column", "ship=exclude")
    assert "patients.csv: 300 rows, 6 columns" in done.stdout
    assert "wrote params.yaml and data/raw/patients.expectations.yaml" in done.stdout
    params = read_yaml(project.path / "params.yaml")
    assert params["prepare"]["key"] == "id"
    assert params["prepare"]["columns"] == {"ship": "exclude"}
    assert (project.path / "params.yaml").read_text().startswith("# yaml-language-server:")
    assert "# the column that names a row" in (project.path / "params.yaml").read_text()
    project.run("reprise", "check")
    assert params["train"]["folds"] == 8
    # Two of them, and shorter ones, are enough to see that the stages take them.
    set_params(project, {"train.folds": 2, "train.epochs": 10})
    run_stages(project, "prepare", "build", "tune", "train", "evaluate")
    metrics = json.loads((project.path / "data/evaluate/metrics.json").read_text())
    assert metrics["accuracy"] > 0.7


def test_edits_that_no_commit_holds_are_not_lost(project: Project) -> None:
    params = project.path / "params.yaml"
    params.write_text(params.read_text().replace("seed: 0 ", "seed: 1 ", 1))
    before = params.read_text()
    command = ("reprise", "init", "data/raw/patients.csv", "--target", "y")
    done = project.run(*command, ok=False)
    assert "would be lost" in done.stderr
    assert params.read_text() == before
    suite = project.path / "data/raw/patients.expectations.yaml"
    suite.write_text("[]\n")
    assert f"kept {suite.relative_to(project.path)}" in project.run(*command, "--force").stdout
    assert suite.read_text() == "[]\n"
    assert params.read_text() != before
    suite.write_text("- {type: expect_column_to_exist, column: of_another_table}\n")
    done = project.run(*command, "--force")
    assert "rules about columns that data/raw/patients.csv has not: of_another_table" in done.stderr


def test_what_init_wrote_itself_it_writes_anew(project: Project) -> None:
    suite = project.path / "data/raw/patients.expectations.yaml"
    suite.unlink(missing_ok=True)
    command = ("reprise", "init", "data/raw/patients.csv", "--target", "y")
    project.run(*command, "--force")
    rule = "column: y, value_set: [ill, well], severity: critical"
    assert rule in suite.read_text()
    # The advice of a run, followed word by word.
    done = project.run(*command, "--column", "id=exclude")
    assert "wrote params.yaml and data/raw/patients.expectations.yaml" in done.stdout
    assert "column: id" not in suite.read_text()
    # Another target has rules of its own.
    project.run("reprise", "init", "data/raw/patients.csv", "--target", "size")
    assert rule not in suite.read_text()
    with suite.open("a") as file:
        file.write("# an edit\n")
    edited = suite.read_text()
    done = project.run(*command, "--key", "id")
    assert suite.read_text() == edited
    assert "no critical rule for the target 'y'; if it is for another target, " in done.stderr


def test_a_refused_init_shows_the_whole_command_and_no_table(project: Project) -> None:
    params = project.path / "params.yaml"
    params.write_text(params.read_text() + "# an edit\n")
    words = ("data/raw/patients.csv", "--target", "y", "--column", "ship={kind: numeric}")
    done = project.run("reprise", "init", *words, ok=False)
    again = "reprise init data/raw/patients.csv --target y --column 'ship={kind: numeric}' --force"
    assert f"give them up with '{again}'" in done.stderr
    assert not done.stdout
    project.run(*shlex.split(again))


def test_a_dry_run_looks_elsewhere_and_writes_nothing(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "patients.csv"
    mixed_table(80).write_csv(elsewhere)
    before = (project.path / "params.yaml").read_bytes()
    done = project.run("reprise", "init", str(elsewhere), "--target", "y", ok=False)
    assert "lies outside the repository" in done.stderr
    assert "dvc add data/raw/patients.csv" in done.stderr
    done = project.run("reprise", "init", str(elsewhere), "--target", "y", "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert found["num_rows"] == 80
    assert found["values"]["prepare.source"] == str(elsewhere)
    assert (project.path / "params.yaml").read_bytes() == before


def test_mistakes_are_told_on_one_screen(project: Project) -> None:
    (project.path / "data/raw/array.npy").touch()
    for words, said in (
        (("data/raw/array.npy", "--target", "y"), "to make a table of it: numpy.savez("),
        (("data/raw/patients.csv", "--target", "yy"), "did you mean 'y'?"),
        (("data/raw/patient.csv", "--target", "y"), "does not exist"),
    ):
        done = project.run("reprise", "init", *words, ok=False)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        # There is no params.yaml yet that names the file.
        assert "prepare.source" not in done.stderr


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_every_reason_is_shown_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "176 different texts in 200 rows: categories that say nothing of new rows"
    values = ", ".join(["ae06415b-8e2f-ebd3-…"] * 3)
    columns = [
        {"name": "name of it", "role": "left out", "missing": 687, "distinct": 176}
        | {"values": values, "why": why},
        {"name": "b", "role": "numeric", "missing": 0, "distinct": 3}
        | {"values": "0 to 1", "why": "numbers; standardised"},
    ]
    monkeypatch.setenv("COLUMNS", str(width))
    show_columns(columns, 900)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= max(width, 67)
    start = lines[0].find("why")
    shown = " ".join(line[start:].strip() for line in lines) if start > 0 else " ".join(lines)
    assert why in " ".join(shown.split())


def test_of_very_many_columns_those_that_differ_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = {"role": "numeric", "missing": 0, "distinct": 3, "values": "0 to 1", "why": "numbers"}
    odd = {**one, "name": "odd", "role": "left out", "why": "one value"}
    show_columns([*({**one, "name": f"x{n}"} for n in range(300)), odd], 900)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 20 + 1 + 2
    assert lines[-3].startswith("odd")
    assert lines[-2] == "… and 280 more that are numeric: numbers"


@pytest.mark.soak
def test_a_folder_of_photographs_is_prepared_by_its_parts(project: Project) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (160, 120, 3), dtype=np.uint8)
    for part, number in (("train", 60), ("test", 12)):
        for row in range(number):
            path = project.path / f"data/raw/pets/{part}/{'cat' if row % 2 else 'dog'}/{row}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[: 120 + row % 40, : 90 + row % 30]).save(path)
    command = ("reprise", "init", "data/raw/pets", "--target", "label", "--force")
    assert "{height: 64, width: 48}" in project.run(*command).stdout
    text = (project.path / "params.yaml").read_text()
    assert "  image: {height: 64, width: 48}" in text
    assert "column: split" in text
    project.run("reprise", "check")
    done = project.run("dvc", "repro", "prepare")
    assert "train 48, validation 12, test 12" in done.stdout
