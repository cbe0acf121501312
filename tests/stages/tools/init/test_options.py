"""The options of `reprise init` that name one column."""

from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from stages.common.errors import UserError
from stages.tools.init.options import Options, check_named

COLUMNS = ["a", "b", "t1", "t 2"]


@pytest.mark.parametrize("option", ["target", "key", "time", "group", "weight"])
def test_an_option_stands_for_one_column(tmp_path: Path, option: str) -> None:
    pl.DataFrame({"a": [1], "b": [2]}).write_csv(tmp_path / "x.csv")
    command = ["init", str(tmp_path / "x.csv"), "--target", "a"]
    command += [f"--{option}", "b"] + ([f"--{option}", "a"] if option != "target" else [])
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 2
    assert "it is one column, and not" in said.output
    assert ("a model has one target" in said.output) == (option == "target")


def test_several_targets_are_told_how_to_go_on() -> None:
    with pytest.raises(UserError) as caught:
        check_named(COLUMNS, Options("x.csv", "t1, t 2"), [])
    assert "--target t1 --column 't 2=exclude'" in caught.value.problems[0].message
    # A name that is none of several is a wrong one, as any other.
    with pytest.raises(UserError) as caught:
        check_named(COLUMNS, Options("x.csv", "t1,t3"), [])
    assert "a model of its own" not in caught.value.problems[0].message
