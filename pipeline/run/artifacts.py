"""Artifacts of a run on Prefect's pages: the plan, the metrics, the parameters."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact

from pipeline.metrics.gates import EVALUATE, PASS
from pipeline.metrics.metrics import format_value, read_metrics
from pipeline.plan.plan import StagePlan, describe
from pipeline.run.run_result import ENDED_WELL, RunResult
from stages.evaluate.outputs.markdown import plain


def publish_plan(plan: Sequence[StagePlan]) -> None:
    """The plan, as it was before anything ran."""
    rows = [
        (each.name, each.state, "; ".join(describe(reason) for reason in each.reasons))
        for each in plan
    ]
    text = _table(("stage", "state", "why"), rows)
    create_markdown_artifact(text, key="plan", description="What would run, and why")


def publish_results(result: RunResult) -> None:
    """The metrics of a run with its gates; they and the parameters against the last commit."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    values = _values(result)
    shown = "\n\n" + _table(("stage", "metric", "value", "gate"), values) if values else ""
    with Repo() as repo:
        try:
            metrics = repo.metrics.diff(a_rev="HEAD", b_rev="workspace")
            params = repo.params.diff(a_rev="HEAD", b_rev="workspace")
        except DvcException as error:
            create_markdown_artifact(
                f"There is nothing to compare with: {plain(error)}{shown}", key="metrics"
            )
            return
    rows = _changes(metrics.get("diff", {}))
    text = _table(("file", "metric", "last commit", "now", "difference"), rows)
    create_markdown_artifact(
        f"{text if rows else 'No metric differs from the last commit.'}{shown}",
        key="metrics",
        description="Metrics against the last commit, and the gates",
    )
    rows = [row[:4] for row in _changes(params.get("diff", {}))]
    text = _table(("file", "parameter", "last commit", "now"), rows)
    create_markdown_artifact(
        text if rows else "No parameter differs from the last commit.",
        key="params",
        description="Parameters that differ from the last commit",
    )


def _values(result: RunResult) -> list[tuple[str, ...]]:
    """The metrics of the stages that ended well, with the verdicts of the gates on them."""
    gates: dict[str, list[str]] = {}
    for verdict in result.verdicts:
        word = "passed" if verdict.result == PASS else "failed"
        gates.setdefault(verdict.metric, []).append(f"{word}: {verdict.gate}")
    found = {
        stage: {**dict.fromkeys(gates if stage == EVALUATE else ()), **metrics}
        for stage, metrics in read_metrics().items()
        if result.states.get(stage) in ENDED_WELL
    }
    return [
        (stage, name, _shown(value), ", ".join(gates.get(name, ())) if stage == EVALUATE else "")
        for stage, metrics in found.items()
        for name, value in metrics.items()
    ]


def _changes(diff: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, ...]]:
    """The rows of a diff of DVC's: file, name, old, new, difference."""
    rows: list[tuple[str, ...]] = []
    for file, changes in sorted(diff.items()):
        for name, change in sorted(changes.items()):
            old, new = change.get("old"), change.get("new")
            both = isinstance(old, int | float) and isinstance(new, int | float)
            step = f"{new - old:+.4g}" if both else ""  # type: ignore[operator]
            rows.append((file, name, _shown(old), _shown(new), step))
    return rows


def _shown(value: object) -> str:
    return "" if value is None else format_value(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(plain, line)) + " |" for line in lines)
