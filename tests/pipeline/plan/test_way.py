"""The way to a work pool: what is missing of it is said before anything runs."""

from pathlib import Path

import pytest

from pipeline.commands.plan import show_plan
from pipeline.run.run_plan import plan_run
from stages.common.errors import UserError
from tests.support.remotes import make_tiny

BARS = (
    "can't be sent to a work pool: count (to 'gpu')",
    "this repository has no remote 'origin'",
    "this project has no default one",
)


def test_a_stage_that_reaches_no_pool_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_tiny(tmp_path / "tiny", origin=False, store=False)
    monkeypatch.chdir(project.path)
    monkeypatch.setenv("REPRISE_WORK_POOL_count", "gpu")

    def planned() -> str:
        show_plan(())
        return capsys.readouterr().out

    said = planned()
    assert all(bar in said for bar in BARS), said
    with pytest.raises(UserError) as raised:
        plan_run((), print, force=False)
    assert all(bar in str(raised.value) for bar in BARS)
    # One that is fresh or restored is not sent, unless by force.
    project.repro()
    assert "work pool:" not in planned()
    assert plan_run((), print, force=False).plan[0].work_pool == "gpu"
    with pytest.raises(UserError, match="can't be sent"):
        plan_run((), print, force=True)
    # Outputs that are gone: only a remote can have them.
    project.run("rm", "-r", ".dvc/cache", "counted.txt")
    said = planned()
    assert "not in the cache" in " ".join(said.split())
    assert "dvc pull" not in said
    project.run("dvc", "remote", "add", "--default", "store", "../store")
    assert "'dvc pull' fetches" in planned()
