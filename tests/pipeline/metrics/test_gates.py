"""Gates: on values, against another revision, at the command and at the end of a flow."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.metrics.gates import (
    Difference,
    Verdict,
    difference_of,
    judge,
    judge_differences,
    judge_values,
    overall,
)
from pipeline.metrics.metrics import format_value
from pipeline.report.base import find_base
from pipeline.run.flow import judge_run
from pipeline.run.run_result import RunResult
from stages.common.config import validate
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from stages.evaluate.measure.bootstrap import paired_differences
from stages.evaluate.params import Gate
from tests.conftest import ROOT, Project
from tests.pipeline.scheduled.test_scheduled import run_flows
from tests.support.dags import ask, flow_run_in, make_dag
from tests.support.remotes import branches
from tests.support.tiny import tiny_project


def gate(**bounds: float) -> dict[str, Gate]:
    return {"accuracy": validate(Gate, bounds, at="evaluate.gates.accuracy")}


def difference(low: float, value: float, high: float, *, less: bool = False) -> Difference:
    return Difference(value, low, high, num_rows=400, less_is_better=less)


@pytest.mark.parametrize(
    ("low", "value", "high", "result"),
    [
        (-0.001, 0.01, 0.02, "pass"),
        (-0.002, 0.0, 0.002, "pass"),
        (0.0, 0.0, 0.0, "pass"),
        (-0.03, -0.02, -0.0021, "fail"),
        (-0.03, -0.02, -0.002, "inconclusive"),
        (-0.01, 0.0, 0.01, "inconclusive"),
        (-0.0021, 0.01, 0.02, "inconclusive"),
    ],
)
def test_the_interval_decides(low: float, value: float, high: float, result: str) -> None:
    assert judge("accuracy", 0.9, 0.002, difference(low, value, high)).result == result
    # A loss of the same size: its good side is the other one.
    mirrored = difference(-high, -value, -low, less=True)
    verdict = judge("log_loss", 0.9, 0.002, mirrored)
    assert (verdict.result, verdict.gate) == (result, "not worse by 0.002")


def test_how_many_rows_it_would_take() -> None:
    verdict = judge("accuracy", 0.9, 0.002, difference(-0.01, 0.003, 0.02))
    # (0.013 / 0.005)² times the 400 rows.
    assert verdict.num_rows == 2704
    assert "about 2,800 test rows would tell, 400 are there" in verdict.why
    # Beyond the margin it is the better half that has to shrink.
    assert judge("accuracy", 0.9, 0.0, difference(-0.04, -0.01, 0.01)).num_rows == 1600
    at_the_margin = judge("accuracy", 0.9, 0.002, difference(-0.02, -0.002, 0.01))
    assert at_the_margin.num_rows is None
    assert "no number of test rows would tell" in at_the_margin.why
    unknown = judge("max_error", 9.0, 0.0, replace(difference(0, 0, 0), low=None))
    assert unknown.result == "inconclusive"
    assert "there is no interval of max_error" in unknown.why


def test_rows_do_not_shrink_what_the_seeds_make() -> None:
    found = difference(-0.01, 0.003, 0.02)
    # The variance has to come to (0.005 / 0.013)² = 0.148 of what it is; seeds keep 0.1 of it.
    verdict = judge("accuracy", 0.9, 0.002, replace(found, seeds=0.1))
    assert verdict.num_rows == math.ceil(400 * 0.9 / ((5 / 13) ** 2 - 0.1))
    hopeless = judge("accuracy", 0.9, 0.002, replace(found, seeds=0.2))
    assert (hopeless.result, hopeless.num_rows) == ("inconclusive", None)
    assert "more replicas would tell" in hopeless.why


def test_gates_go_by_the_change_where_there_are_replicas() -> None:
    change = {"value": -0.01, "low": -0.03, "high": 0.01, "rows": 3.0, "shared": 1.0, "seeds": 2.0}
    change["after"] = 0.88
    metric = {"after": 0.9, "value": 0.0, "low": 0.0, "high": 0.0, "less_is_better": False}
    comparison = {
        "why_not": None,
        "rows": {"shared": 410, "relabelled": 10},
        "replicas": {"before": 3, "after": 4, "needed": 3},
        "metrics": {"accuracy": {**metric, "change": change}},
    }
    gates = gate(not_worse_by=0.002)
    (verdict,) = judge_differences(gates, {"accuracy": 0.9}, comparison, [])
    assert verdict.result == "inconclusive"
    assert "difference of the means -0.0100, 95 %: -0.0300 to +0.0100" in verdict.why
    # The value of the model that is served, and the mean that was judged.
    both = "0.9000 (seed served), 0.8800 (mean of 4 seeds)"
    assert verdict.written_value() == both
    assert verdict.sentence().startswith(f"gate inconclusive: accuracy {both}, not worse by 0.002")
    found = difference_of("accuracy", comparison)
    assert found == Difference(-0.01, -0.03, 0.01, 400, False, 0.25, 0.88, 4)
    comparison["metrics"] = {"accuracy": {**metric, "change": None}}
    (verdict,) = judge_differences(gates, {"accuracy": 0.9}, comparison, [])
    assert verdict.result == "pass"
    assert verdict.written_value() == "0.9000"
    assert "difference +0.0000" in verdict.why


@pytest.mark.parametrize(("step", "margin"), [(0.04, 0.0), (-0.03, 0.005), (0.0, 0.02)])
def test_with_that_many_rows_it_is_known(step: float, margin: float) -> None:
    # Real intervals of the paired bootstrap; more rows like these are these rows several times.
    random = np.random.default_rng(3)
    target = random.normal(size=200)
    before = target + random.normal(0, 0.5, 200)
    after = target + random.normal(0, 0.5, 200)
    after += (step - (np.abs(after - target).mean() - np.abs(before - target).mean())) * np.sign(
        after - target
    )

    def judged(times: float) -> Verdict:
        rows = np.resize(np.arange(200), round(200 * times))
        found = paired_differences(["mae"], "regression", target[rows], before[rows], after[rows])
        interval = found["mae"]
        assert interval.low is not None
        assert interval.high is not None
        given = Difference(interval.value, interval.low, interval.high, len(rows), True)
        return judge("mae", 0.5, margin, given)

    verdict = judged(1)
    assert verdict.result == "inconclusive"
    assert verdict.num_rows is not None
    times = np.ceil(verdict.num_rows / 200)
    assert judged(times * 1.3).result == ("fail" if step > margin else "pass")
    assert judged(max(1, times // 2)).result == "inconclusive"


def test_values_are_judged_and_no_value_is_no_pass() -> None:
    assert [v.result for v in judge_values(gate(minimum=0.9, maximum=0.99), {"accuracy": 0.9})] == [
        "pass",
        "pass",
    ]
    (low,) = judge_values(gate(minimum=0.95, not_worse_by=0.0), {"accuracy": 0.93013})
    assert low.sentence() == "gate failed: accuracy 0.9301, at least 0.95"
    (gone,) = judge_values(gate(minimum=0.95), {})
    assert gone.result == "fail"
    assert "no value, at least 0.95 (run 'dvc repro evaluate'" in gone.sentence()


def test_what_cannot_be_compared_is_never_passed() -> None:
    gates = gate(not_worse_by=0.1)
    missing = ["the predictions of main are not in DVC's cache: 'dvc fetch'"]
    (verdict,) = judge_differences(gates, {"accuracy": 0.9}, {}, missing)
    assert (verdict.result, verdict.why) == ("inconclusive", missing[0])
    other = {"why_not": "splits differ: fewer than half of the rows are shared"}
    (verdict,) = judge_differences(gates, {"accuracy": 0.9}, other, [])
    assert (verdict.result, verdict.why) == ("inconclusive", other["why_not"])
    passed = Verdict("a", 1.0, "at least 0", "pass")
    failed = Verdict("a", 1.0, "at least 2", "fail")
    assert overall([passed]) == overall([]) == "pass"
    assert overall([passed, verdict]) == "inconclusive"
    assert overall([failed, verdict]) == "fail"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (63176.69, "63177"),
        (-1234567.8, "-1234568"),
        (2.5e12, "2.5e+12"),
        (999.5, "999.5000"),
        (0.0012345, "0.001234"),
        (7, "7"),
    ],
)
def test_a_large_value_is_shown_whole(value: float, shown: str) -> None:
    assert format_value(value) == shown


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

    # A stage that failed comes first.
    project.edit("dvc.yaml", "true && echo infer", "false && echo infer")
    done = project.run("reprise", "run", ok=False, env={"PREFECT_API_URL": prefect_server})
    told = ask(prefect_server, f"/flow_runs/{flow_run_in(done.stdout)}")["state"]["message"]
    assert told.startswith("failed: infer; gate failed: accuracy 0.9301")
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
