"""Twenty kinds of wrong input: one screen that says what to edit, and every output back in place.

DVC removes a stage's outputs before it runs it; so each case ends with a comparison of all
outputs and `dvc.lock` with what they were, byte for byte.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import pytest

from stages.common.errors import UserError, format_problem
from tests.conftest import Project
from tests.support.samples import run_stages

SCREEN_LINES = 24


@dataclass(frozen=True)
class Mistake:
    """What the user does wrong and what the screen must say."""

    do: Callable[[Project], None]
    says: tuple[str, ...]
    # A stage before the failing one has run, and rightly so: its entry in dvc.lock is new.
    upstream_ran: bool = False


def params(old: str, new: str) -> Callable[[Project], None]:
    return lambda project: project.edit("params.yaml", old, new)


def source(name: str, content: bytes) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        (project.path / "data/raw" / name).write_bytes(content)
        project.edit("params.yaml", "source: data/raw/digits.parquet", f"source: data/raw/{name}")
        no_expectations(project)

    return change


def table(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Project], None]:
    def save(project: Project) -> None:
        path = project.path / "data/raw/digits.parquet"
        change(pl.read_parquet(path)).write_parquet(path)
        no_expectations(project)

    return save


def no_expectations(project: Project) -> None:
    project.edit("params.yaml", "raw/digits.expectations.yaml", "raw/none.expectations.yaml")


def new_rows(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Project], None]:
    def save(project: Project) -> None:
        path = project.path / "data/raw/digits_new.parquet"
        change(pl.read_parquet(path)).write_parquet(path)

    return save


def break_expectation(project: Project) -> None:
    path = project.path / "data/raw/digits.parquet"
    rows = pl.read_parquet(path)
    rows.with_columns(label=pl.when(pl.col("id") == 7).then(12).otherwise("label")).write_parquet(
        path
    )


def bad_space(project: Project) -> None:
    project.edit("params.yaml", "train.optimizer.lr: {low", "train.optimizer.lrr: {low")
    project.edit("params.yaml", "trials: 0", "trials: 1")


def block_folder(project: Project) -> None:
    """Make `data/.writing` a file: nobody can write a folder there, whatever their rights."""
    (project.path / "data/.writing").rmdir()
    (project.path / "data/.writing").touch()
    project.edit("params.yaml", "epochs: 30", "epochs: 3")


MISTAKES = {
    "empty source": Mistake(source("x.csv", b""), ("x.csv is empty", "prepare.source")),
    "header alone": Mistake(source("x.csv", b"id,a,label\n"), ("no rows", "prepare.source")),
    "damaged parquet": Mistake(
        source("x.parquet", b"PAR1 nonsense"), ("cannot read", "x.parquet", "prepare.source")
    ),
    "another kind of file": Mistake(
        source("x.xlsb", b"PK"), ("not a kind of table", ".parquet, .csv")
    ),
    "missing target": Mistake(
        params("target: label", "target: labl"),
        ("no column 'labl'", "prepare.target", "did you mean 'label'?"),
    ),
    "missing key column": Mistake(
        params("key: id ", "key: ID_ "), ("no column 'ID_'", "prepare.key", "did you mean 'id'?")
    ),
    "key not unique": Mistake(
        table(lambda rows: rows.with_columns(id=pl.lit(5))),
        ("names more than one row", "prepare.key"),
    ),
    "target of one class": Mistake(
        table(lambda rows: rows.with_columns(label=pl.lit(3, dtype=pl.Int64))),
        ("in every row", "prepare.target"),
    ),
    "target with gaps": Mistake(
        table(lambda rows: rows.with_columns(label=pl.when(pl.col("id") > 9).then("label"))),
        ("is empty in 10 rows",),
    ),
    "broken expectation": Mistake(
        break_expectation, ("label", "12", ".reprise/expectations.html", "critical")
    ),
    "misspelt key in a section": Mistake(
        params("patience: 8", "patient: 8"), ("unknown key 'patient'", "did you mean 'patience'?")
    ),
    "wrong type": Mistake(
        params("batch_size: 64", "batch_size: many"), ("train.batch_size", "many", "whole number")
    ),
    "unknown optimizer": Mistake(
        params("name: AdamW", "name: AdamWW"), ("AdamWW", "train.optimizer.name", "'AdamW'?")
    ),
    "refused loss": Mistake(
        params("name: CrossEntropyLoss", "name: BCELoss"),
        ("BCELoss can't be used", "train.loss.name", "CrossEntropyLoss"),
    ),
    "argument that the optimizer does not take": Mistake(
        params("weight_decay: 0.01", "momentum: 0.9"),
        ("unknown key 'momentum'", "train.optimizer.momentum", "weight_decay"),
    ),
    "argument that the model does not take": Mistake(
        params("width: 64,", "widht: 64,"),
        ("unknown key 'widht'", "build.model.widht", "did you mean 'width'?"),
    ),
    "model that does not fit the data": Mistake(
        params("channels: [16, 32]", "channels: [16, 32, 32, 32, 32]"),
        ("build.model", "cnn"),
    ),
    "negative split": Mistake(
        params("test: 0.2", "test: -0.2"), ("prepare.split.test", "-0.2", "greater than 0")
    ),
    "splits that leave nothing": Mistake(
        params("validation: 0.15, test: 0.2", "validation: 0.5, test: 0.5"),
        ("no rows to train on", "prepare.split"),
    ),
    "unknown metric": Mistake(
        params("- accuracy\n", "- acuracy\n"),
        ("no metric 'acuracy'", "evaluate.metrics", "did you mean 'accuracy'?"),
    ),
    "metric of another task": Mistake(
        params("- f1_macro\n", "- rmse\n"), ("no metric 'rmse'", "classification")
    ),
    "metric to stop by of another task": Mistake(
        params("metric: loss, patience", "metric: rmse, patience"),
        ("'rmse'", "train.early_stopping.metric", "accuracy"),
    ),
    "bad search space": Mistake(
        bad_space,
        ("tune.space.train.optimizer.lrr",),
    ),
    "column that vanished from the new rows": Mistake(
        new_rows(lambda rows: rows.rename({"image": "picture"})),
        ("'image'", "infer.input", "digits_new.parquet"),
    ),
    "new rows of another shape": Mistake(
        new_rows(lambda rows: rows.with_columns(image=pl.lit([[1, 2], [3, 4]]))),
        ("'image'", "(8, 8)", "infer.input"),
    ),
    "not YAML": Mistake(params("patience: 8}", "patience: 8"), ("params.yaml",)),
    "learning rate out of this world": Mistake(
        params("lr: 3e-3", "lr: 1e30"),
        ("was not finite in 5 steps in a row", "first seen in", "train.optimizer.lr"),
        True,
    ),
    "unwritable folder": Mistake(block_folder, ("cannot write", "data/.writing")),
}


# What a stage does about these is asked of it in this process: the stage that stops at each.
ASKED_HERE = {
    "header alone": "prepare",
    "damaged parquet": "prepare",
    "another kind of file": "prepare",
    "missing target": "prepare",
    "missing key column": "prepare",
    "key not unique": "prepare",
    "target of one class": "prepare",
    "target with gaps": "prepare",
    "negative split": "prepare",
    "splits that leave nothing": "prepare",
    "wrong type": "train",
    "refused loss": "train",
    "new rows of another shape": "infer",
    "broken expectation": "prepare",
    "empty source": "prepare",
    "model that does not fit the data": "build",
}
# `reprise check` names these too, without the start of a process (test_check.py).
NAMED_BY_CHECK = (
    "unknown metric",
    "metric of another task",
    "metric to stop by of another task",
    "bad search space",
    "unknown optimizer",
    "argument that the optimizer does not take",
    "argument that the model does not take",
)


LONG = (*ASKED_HERE, *NAMED_BY_CHECK)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.soak] if k in LONG else []) for k in MISTAKES]
)
def test_a_mistake_is_one_screen_and_loses_nothing(clone: Project, kind: str) -> None:
    mistake = MISTAKES[kind]
    before, lock = clone.outputs(), (clone.path / "dvc.lock").read_bytes()
    mistake.do(clone)
    done = clone.run("dvc", "repro", ok=False)
    screen = done.stderr
    for words in mistake.says:
        assert words in screen, screen
    assert "Traceback" not in screen + done.stdout
    assert len(screen.splitlines()) <= SCREEN_LINES, screen
    assert clone.outputs() == before
    if not mistake.upstream_ran:
        assert (clone.path / "dvc.lock").read_bytes() == lock


@pytest.mark.parametrize("kind", ASKED_HERE)
def test_a_stage_names_a_mistake_and_brings_its_outputs_back(clone: Project, kind: str) -> None:
    mistake, stage = MISTAKES[kind], ASKED_HERE[kind]
    before = clone.outputs()
    mistake.do(clone)
    # As DVC does, before it runs the command.
    for name in before:
        if name.startswith(f"data/{stage}/") and not name.endswith(".gitignore"):
            (clone.path / name).unlink()
    with pytest.raises(UserError) as caught:
        run_stages(clone, stage)
    screen = "\n".join(format_problem(problem) for problem in caught.value.problems)
    for words in mistake.says:
        assert words in screen, screen
    assert len(screen.splitlines()) < SCREEN_LINES, screen
    assert clone.outputs() == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param(
            *("source: data/raw/digits", "source: data/raw/digitz", "prepare.source"),
            marks=pytest.mark.soak,
        ),
        ("input: data/raw/digits", "input: data/raw/digitz", "infer.input"),
        ("name: cnn", "name: cnnn", "build.model.name"),
        ("batch_size: 64", "batchsize: 64", "train.batchsize"),
    ],
)
def test_where_dvc_itself_stops_the_check_says_what_to_do(
    clone: Project, old: str, new: str, says: str
) -> None:
    before = clone.outputs()
    clone.edit("params.yaml", old, new)
    said = clone.run("reprise", "check", ok=False).stderr
    assert says in said
    assert "did you mean" in said
    assert "come back from the cache" in said
    # Who runs DVC all the same loses what DVC removes before it looks; and gets it back.
    clone.run("dvc", "repro", ok=False)
    assert clone.outputs() != before
    clone.edit("params.yaml", new, old)
    assert clone.repro() == []
    assert clone.outputs() == before
