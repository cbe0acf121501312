"""Gates at the command and at the end of a flow."""

import json
from pathlib import Path

import pytest

from pipeline.report.base import find_base
from pipeline.run.flow import judge_run
from pipeline.run.run_result import RunResult
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT, Project
from tests.pipeline.scheduled.test_scheduled import run_flows
from tests.support.dags import ask, flow_run_in, make_dag
from tests.support.remotes import branches
from tests.support.tiny import tiny_project


def judged(project: Project, *arguments: str) -> tuple[int, str]:
    done = project.run("reprise", "gate", *arguments, ok=None, env={"COLUMNS": "240"})
    return done.returncode, done.stdout + done.stderr


def test_the_command_judges_a_branch(shorter: Project) -> None:
    clone = shorter
    clone.run("git", "switch", "--quiet", "main")
    clone.run("dvc", "checkout", "--quiet")
    # Gates on values alone need no other revision.
    clone.edit("params.yaml", "{minimum: 0.95}", "{minimum: 1.1}")
    code, said = judged(clone)
    assert code == 1
    assert "at least 1.1 │ fail" in said
    assert "against" not in said
    clone.edit("params.yaml", "{minimum: 1.1}", "{not_worse_by: 0.002}")
    code, said = judged(clone, "--strict")
    assert code == 0, "nothing has changed"
    assert "against the merge base with main" in said
    assert "reprise gate: not worse by 0.002" in clone.run("reprise", "metrics").stdout

    # One epoch is far worse.
    clone.run("git", "checkout", "--quiet", "--", ".")
    clone.run("git", "switch", "--quiet", "shorter")
    clone.run("dvc", "checkout", "--quiet")
    clone.edit("params.yaml", "{minimum: 0.95}", "{not_worse_by: 0.002}")
    code, said = judged(clone, "--json")
    report = json.loads(said)
    assert (code, report["result"], report["base"]) == (1, "fail", "the merge base with main")
    (found,) = report["gates"]
    assert (found["gate"], found["result"]) == ("not worse by 0.002", "fail")
    # With the margin near the estimate nothing can tell.
    step = float(found["why"].split("difference of the means ")[1].split(",")[0])
    clone.edit("params.yaml", "not_worse_by: 0.002", f"not_worse_by: {-step * 1.01:.6f}")
    code, said = judged(clone)
    assert code == 0
    assert "inconclusive" in said
    assert "more replicas would tell, more test rows alone would not" in said
    # Nothing pulled of the base.
    (clone.path / ".dvc/cache").rename(clone.path / ".dvc/elsewhere")
    code, said = judged(clone, "--strict")
    assert code == 2
    assert "(no default DVC remote is set to fetch from)" in said
    code, said = judged(clone, "--base", "nowhere")
    assert code == 1
    assert "there is no revision 'nowhere'" in said


METRICS = {"metrics": [{"data/evaluate/metrics.json": {"cache": False}}]}


def test_a_failed_gate_fails_the_flow_after_all_is_written(
    prefect_server: str, tmp_path: Path
) -> None:
    write = "mkdir -p data/evaluate && echo '{\"accuracy\": 0.93013}' > data/evaluate/metrics.json"
    stages = {"evaluate": {"cmd": write, **METRICS}, "infer": {"after": ["evaluate"]}}
    project = make_dag(tmp_path / "dag", stages)
    # Both times: the gate judges the metrics of the run, also when evaluate is unchanged.
    for state in ("Ran", "Unchanged"):
        done = project.run("reprise", "run", ok=False, env={"PREFECT_API_URL": prefect_server})
        table, _, after = done.stdout.rpartition("┘")
        assert "accuracy 0.9301" in " ".join(table.split())
        assert after.strip() == "gate failed: accuracy 0.9301, at least 0.95"
        told = ask(prefect_server, f"/flow_runs/{flow_run_in(done.stdout)}")["state"]
        assert told["type"] == "FAILED"
        assert told["message"].startswith("gate failed: accuracy 0.9301, at least 0.95; ")
        assert f"{state.lower()}: evaluate, infer" in told["message"]
        assert set(read_yaml(project.path / "dvc.lock")["stages"]) == {"evaluate", "infer"}
        wanted = {"flow_runs": {"id": {"any_": [flow_run_in(done.stdout)]}}}
        artifacts = {a["key"]: a["data"] for a in ask(prefect_server, "/artifacts/filter", wanted)}
        assert ("No metric differs" in artifacts["metrics"]) == (state == "Unchanged")
        assert "| evaluate | accuracy | 0.9301 | failed: at least 0.95 |" in artifacts["metrics"]
        project.commit("with these metrics")

    # A stage that failed comes first, with the first line of its mistake.
    stop = "echo infer stopped && echo the table is empty && false && echo infer"
    project.edit("dvc.yaml", "true && echo infer", stop)
    done = project.run("reprise", "run", ok=False, env={"PREFECT_API_URL": prefect_server})
    told = ask(prefect_server, f"/flow_runs/{flow_run_in(done.stdout)}")["state"]["message"]
    assert told.startswith("failed: infer (the table is empty); gate failed: accuracy 0.9301")
    # A metrics file without the metric passes no gate; and the stage that failed is mended.
    project.edit("dvc.yaml", "false && echo infer", "true && echo infer")
    project.edit("dvc.yaml", "accuracy", "f1_macro")
    done = project.run("reprise", "run", ok=False, env={"PREFECT_API_URL": prefect_server})
    assert "gate failed: accuracy no value, at least 0.95" in done.stdout


@pytest.mark.parametrize(
    ("state", "cancelled", "num"),
    [
        ("ran", False, 1),
        ("restored", False, 1),
        ("unchanged", False, 1),
        ("failed", False, 0),
        ("skipped", False, 0),
        ("ran", True, 0),
        (None, False, 0),
    ],
)
def test_only_what_is_of_this_run_is_judged(
    state: str | None, num: int, monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    monkeypatch.chdir(ROOT)
    states = {} if state is None else {"evaluate": state}
    assert len(judge_run(RunResult([], states, cancelled=cancelled))) == num


@pytest.mark.soak
def test_a_scheduled_run_publishes_what_its_gate_refuses(
    prefect_server: str, tmp_path: Path
) -> None:
    write = "mkdir -p data/evaluate && echo '{\"accuracy\": 0.93013}' > data/evaluate/metrics.json"
    project = make_dag(tmp_path / "dag", {"evaluate": {"cmd": write, **METRICS}})
    ((kind, message),), log = run_flows(project, prefect_server, {})
    assert kind == "FAILED"
    assert message.startswith("gate failed: accuracy 0.9301, at least 0.95")
    assert "gate failed: accuracy" in log
    (branch,) = set(branches(project.path)) - {"main"}
    shown = project.run("git", "show", "--format=%B", "--stat", branch).stdout
    assert "gate failed: accuracy 0.9301, at least 0.95" in shown
    assert "dvc.lock" in shown
    assert "data/evaluate/metrics.json" in shown
    # Its clone is not kept as that of a run that went wrong.
    assert not list((project.path / ".reprise/workspaces").iterdir())


def test_a_base_without_a_common_commit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tiny_project(tmp_path)
    project.run("git", "switch", "--quiet", "--orphan", "alone")
    project.commit("apart")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no commit in common here\n.*--unshallow"):
        find_base(None)
    assert find_base("main")[0] == "main"
