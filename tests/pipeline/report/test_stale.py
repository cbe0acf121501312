"""Metrics that are of another model: `dvc repro train`, and nothing after it."""

from ruamel.yaml import YAML

from pipeline.report.page.page import escape
from stages.common.files import write_json
from stages.common.yamlfile import read_yaml
from tests.conftest import Project


def test_an_evaluation_of_another_model_gives_no_verdict(shorter: Project) -> None:
    """As after `dvc repro train`: dvc.lock itself tells, whatever lies in the folder."""
    clone = shorter
    was = clone.run("git", "show", "main:dvc.lock").stdout
    now = read_yaml(clone.path / "dvc.lock")
    now["stages"]["evaluate"] = YAML(typ="safe").load(was)["stages"]["evaluate"]
    write_json(clone.path / "dvc.lock", now)
    for file in ("metrics.json", "plots/confusion.csv"):
        clone.run("git", "checkout", "--quiet", "main", "--", f"data/evaluate/{file}")
    clone.edit("params.yaml", "minimum: 0.95", "minimum: 0.5")

    why = "evaluate has not run since train wrote its outputs anew: run 'dvc repro'"
    clone.run("reprise", "report", "--base", "main")
    text = (clone.path / "report.md").read_text(encoding="utf-8")
    assert text.startswith(f"### No verdict: {why}.\n")
    assert "noise" not in text
    assert "| accuracy | no value | at least 0.5 | fail | " in text.replace("|  |", "| no value |")
    assert "| train | validation_loss |" in text
    page = (clone.path / "report.html").read_text(encoding="utf-8")
    assert f"<h1>No verdict: {escape(why)}.</h1>" in page
    assert 'class="matrix"' not in page
    assert clone.run("reprise", "gate", ok=False).returncode == 1
    said = clone.run("reprise", "metrics").stdout
    assert "evaluate (stale)" in said
    assert "train (stale)" not in said
    assert f"stale: {why}" in said
    assert "passed:" not in said
    clone.run("reprise", "show")
    page = (clone.path / ".reprise/show.html").read_text(encoding="utf-8")
    assert escape(why) in page.split("<nav>")[0]
    assert "the gate failed" in page

    # The same where it is the base that is stale.
    clone.run("git", "add", "dvc.lock")
    clone.commit("half of a run")
    clone.run("git", "checkout", "--quiet", "main", "--", "dvc.lock", "data/evaluate")
    clone.run("reprise", "report", "--base", "shorter")
    text = (clone.path / "report.md").read_text(encoding="utf-8")
    assert text.startswith(f"### No verdict: at the base, {why} there.\n")
