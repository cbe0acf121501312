"""Every output of the four recipes, to the byte: the MD5s that DVC writes down in `dvc.lock`.

They guard changes that are meant to alter no result. `python -m tests.end_to_end.test_outputs`
writes `outputs.json` anew, after a change that is meant to, and prints what differs. Bytes are the
same on one kind of machine alone, which the file names; on another kind the test is skipped.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.params.template import apply_recipe
from stages.common.files import read_json, write_json
from stages.common.yamlfile import read_yaml
from stages.train.kind import find_kind
from tests.conftest import ROOT, copy_project, project_environment

RECIPES = sorted((ROOT / "docs/recipes").glob("*.yaml"))
LISTED = Path(__file__).with_name("outputs.json")


def outputs_of(recipe: Path, folder: Path) -> dict[str, str]:
    """Path → MD5 of each output after `dvc repro` of that recipe in an empty repository."""
    folder.mkdir()
    copy_project(folder)
    (folder / "params.yaml").write_text(apply_recipe(recipe), encoding="utf-8")
    command, environment = ["dvc", "repro", "--quiet"], project_environment()
    subprocess.run(command, cwd=folder, env=environment, check=True)
    stages = read_yaml(folder / "dvc.lock")["stages"]
    outputs = [out for stage in stages.values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in sorted(outputs, key=lambda out: out["path"])}


def machine() -> dict[str, Any]:
    """The kind of this machine."""
    return find_kind(torch.device("cpu"))


def differences(listed: dict[str, str], made: dict[str, str]) -> list[str]:
    """A line for each output that is new, gone or of other bytes."""
    paths = sorted(listed.keys() | made.keys())
    return [
        f"{path}: {listed.get(path)} → {made.get(path)}"
        for path in paths
        if listed.get(path) != made.get(path)
    ]


@pytest.mark.soak
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_gives_the_bytes_that_are_listed(recipe: Path, tmp_path: Path) -> None:
    listed = read_json(LISTED)
    if listed["machine"] != machine():
        pytest.skip(f"listed on another kind of machine: {listed['machine']}, here {machine()}")
    made = outputs_of(recipe, tmp_path / "project")
    assert differences(listed["recipes"][recipe.stem], made) == []


def test_every_recipe_is_listed() -> None:
    assert list(read_json(LISTED)["recipes"]) == [recipe.stem for recipe in RECIPES]


def main() -> None:
    """Write the list anew; print what differs from the one before."""
    before = read_json(LISTED)["recipes"] if LISTED.exists() else {}
    recipes: dict[str, dict[str, str]] = {}
    for recipe in RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            recipes[recipe.stem] = outputs_of(recipe, Path(folder) / "project")
        for line in differences(before.get(recipe.stem, {}), recipes[recipe.stem]):
            print(f"{recipe.stem}: {line}")
        sys.stdout.flush()
    write_json(LISTED, {"machine": machine(), "recipes": recipes})


if __name__ == "__main__":
    main()
