"""`reprise expect`: a suite drafted, edited and held against new rows, with nothing lost of it."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.commands.suite_file import read_rules, with_rule, without_rule
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from tests.conftest import Project, copy_project
from tests.support.samples import mixed_table

SUITE = "data/raw/patients.expectations.yaml"
ONE = {"type": "expect_column_to_exist", "column": "a", "severity": "critical"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project on a table of its own, which nothing is expected of yet."""
    project = copy_project(tmp_path_factory.mktemp("expect"))
    mixed_table(400).write_csv(project.path / "data/raw/patients.csv")
    project.run("reprise", "init", "data/raw/patients.csv", "--target", "y")
    (project.path / SUITE).unlink()
    params = project.path / "params.yaml"
    params.write_text(params.read_text().replace(f"expectations: {SUITE}", "expectations: null"))
    return project


@pytest.mark.soak
def test_a_suite_is_drafted_edited_and_held_against_new_rows(project: Project) -> None:
    assert "there is no suite yet" in project.run("reprise", "expect", "check", ok=False).stderr
    said = project.run("reprise", "expect", "draft", "--write", SUITE).stdout
    assert f"params.yaml: prepare.expectations: {SUITE}" in said
    assert read_yaml(project.path / "params.yaml")["prepare"]["expectations"] == SUITE
    suite = project.path / SUITE
    drafted = suite.read_text()
    assert (
        "is there already"
        in project.run("reprise", "expect", "draft", "--write", SUITE, ok=False).stderr
    )

    words = ("values_to_be_between", "--column", "size", "--max", "12", "--severity", "critical")
    said = project.run("reprise", "expect", "add", *words).stdout
    assert said == f"{SUITE}: critical: 'size' is at most 12\n"
    line = "- {type: expect_column_values_to_be_between, column: size, max_value: 12, "
    assert suite.read_text() == f"{drafted}{line}severity: critical}}\n"
    wrong = project.run("reprise", "expect", "add", *words[:2], "siz", "--max", "x", ok=False)
    assert "did you mean 'size'?" in wrong.stderr
    assert suite.read_text() == f"{drafted}{line}severity: critical}}\n"
    number = len(read_rules(suite)) - 1
    assert (
        f"{number:3}  critical  'size' is at most 12\n"
        in project.run("reprise", "expect", "list").stdout
    )

    new = project.path / "data/raw/new.csv"
    mixed_table(400).drop("y").with_columns(size=pl.col("size") + 1).write_csv(new)
    done = project.run("reprise", "expect", "check", "data/raw/new.csv", ok=False)
    assert "data/raw/new.csv does not meet" in done.stderr
    assert f"{SUITE}:{number + 3}  {number}.type" in done.stderr
    assert "prepare.source" not in done.stderr
    assert project.run("reprise", "expect", "remove", str(number)).stdout.startswith(SUITE)
    assert suite.read_text() == drafted
    said = project.run("reprise", "expect", "check", "data/raw/new.csv").stdout
    assert "note: 3 rules about the target or the number of rows are left out" in said
    assert (project.path / ".reprise/expect/expectations.html").exists()


def test_drift_is_told_and_the_training_data_has_none(project: Project) -> None:
    drift, moved = "data/raw/drift.yaml", project.path / "data/raw/moved.csv"
    project.run("reprise", "expect", "draft", "--drift", "--write", drift)
    assert {rule["severity"] for rule in read_rules(project.path / drift)} == {"warning"}
    table = mixed_table(400)
    table.with_columns(size=pl.col("size") + 5, town=pl.lit("Oslo")).write_csv(moved)
    said = project.run("reprise", "expect", "check", "data/raw/moved.csv", "--suite", drift).stdout
    assert "the mean of 'size' is between" in said
    assert "the shares of 'town' are those of the training" in said
    said = project.run("reprise", "expect", "check", "--suite", drift).stdout
    assert "warning" not in said
    assert f"6 of 6 expectations of {drift} met" in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Of nothing.\n",
        "# Of nothing.\n[]\n",
        "# All.\n- {type: x, a: 1}\n\n# A note.\n- {type: y}  # here\n\n# Last.\n- type: z\n  b: 2",
        "  # Deep.\n  - type: x\n  - type: y\n",
        "[{type: x}, {type: y}]\n",
    ],
)
def test_a_rule_is_added_and_removed_with_every_other_line_as_it_was(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    before = read_rules(path)
    more = with_rule(path, ONE)
    path.write_text(more)
    assert read_rules(path) == [*before, ONE]
    comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert [line for line in more.splitlines() if line.lstrip().startswith("#")] == comments
    if "\n-" in text:
        assert more.startswith(text)
    less = without_rule(path, len(before))
    path.write_text(less)
    assert read_rules(path) == before
    if before:
        path.write_text(without_rule(path, 0))
        assert read_rules(path) == before[1:]
    with pytest.raises(UserError, match="has no rule 7"):
        without_rule(path, 7)


def test_a_rule_goes_with_the_comment_above_it(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("# All.\n- {type: x}\n\n# Of y.\n- {type: y}\n\n# Of z.\n- {type: z}\n")
    assert without_rule(path, 1) == "# All.\n- {type: x}\n\n\n# Of z.\n- {type: z}\n"
