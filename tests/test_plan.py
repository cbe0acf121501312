"""`reprise plan`: what would run and why, compared with what `dvc repro` then does."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.plan import StagePlan, describe, make_plan
from stages.common.errors import UserError
from tests.conftest import Project
from tests.tiny import reproduced


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return reproduced(tmp_path)


def planned(*targets: str, lock_only: bool = False) -> Mapping[str, StagePlan]:
    return {plan.name: plan for plan in make_plan(targets, lock_only=lock_only)}


def states(*targets: str, lock_only: bool = False) -> dict[str, str]:
    return {name: plan.state for name, plan in planned(*targets, lock_only=lock_only).items()}


def why(name: str) -> list[str]:
    return [describe(reason) for reason in planned()[name].reasons]


def test_each_edit_is_named_and_going_back_is_restored(tiny: Project) -> None:
    assert states() == {"first": "fresh", "second": "fresh", "third": "fresh"}
    assert planned()["second"].upstream == ("first",)
    assert planned()["second"].meta == {"retries": 2}

    tiny.edit("params.yaml", "size: 3", "size: 4")
    tiny.edit("params.yaml", "[1, 2]", "[1, 3]")
    tiny.edit("stages/code/b.py", "return 2", "return 3")
    assert why("second") == [
        "stages/code/b.py changed",
        "second.size: 3 → 4",
        "second.deep.list: [1, 2] → [1, 3]",
    ]
    assert why("third") == ["upstream second"]
    assert tiny.repro() == ["second"]
    assert set(states().values()) == {"fresh"}

    tiny.run("git", "checkout", "params.yaml", "stages")
    assert states() == {"first": "fresh", "second": "restorable", "third": "fresh"}


def test_an_unknown_stage_is_named_with_the_nearest(tiny: Project) -> None:
    with pytest.raises(UserError, match="did you mean 'second'"):
        make_plan(["secnd"])
    assert list(states("second")) == ["first", "second"]
