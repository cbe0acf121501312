"""The metrics of the last run as a table, with the gates of `evaluate.gates`."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stages.common.errors import UserError
from stages.common.files import read_json
from stages.common.params import DVC_FILE, PARAMS
from stages.common.section import validate
from stages.common.yamlfile import read_yaml
from stages.evaluate.params import Gate, GatedEvaluateParams, check_gates

EVALUATE = "evaluate"


def show_metrics() -> None:
    """Print every metric that `dvc.yaml` declares, and how the gates judge those of evaluate.

    Raises UserError when nothing has run yet.
    """
    section = validate(GatedEvaluateParams, read_yaml(PARAMS)["evaluate"], at="evaluate")
    if problems := check_gates(section):
        raise UserError(*problems)
    gates = section.gates
    table = Table()
    table.add_column("stage")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("gate")
    for name, metrics in read_metrics().items():
        for index, (metric, value) in enumerate(metrics.items()):
            gate = gates.get(metric) if name == EVALUATE else None
            shown = "" if index else name
            table.add_row(shown, metric, format_value(value), judge(value, gate) if gate else "")
        table.add_section()
    if not table.rows:
        raise UserError("no stage has written metrics yet: run 'dvc repro'")
    Console().print(table)


def read_metrics(folder: Path = Path()) -> dict[str, dict[str, Any]]:
    """The metrics that the stages of the `dvc.yaml` in `folder` have written, by stage."""
    found: dict[str, dict[str, Any]] = {}
    for name, stage in (read_yaml(folder / DVC_FILE).get("stages") or {}).items():
        for entry in stage.get("metrics", []) if isinstance(stage, dict) else []:
            path = folder / _path_of(entry)
            content = read_json(path) if path.suffix == ".json" and path.is_file() else None
            # A metric may be a bare number, which has no name.
            if isinstance(content, dict):
                found.setdefault(name, {}).update(content)
    return found


def _path_of(entry: Any) -> Path:
    return Path(next(iter(entry)) if isinstance(entry, dict) else entry)


def format_value(value: object) -> str:
    """A whole number as it is, another one to four places or four significant digits."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def judge(value: float, gate: Gate) -> str:
    """What the gate says to a value, and why."""
    bounds = []
    passed = True
    if gate.minimum is not None:
        passed = passed and value >= gate.minimum
        bounds.append(f"at least {gate.minimum:g}")
    if gate.maximum is not None:
        passed = passed and value <= gate.maximum
        bounds.append(f"at most {gate.maximum:g}")
    verdict = "[green]passed[/]" if passed else "[red]failed[/]"
    return f"{verdict}: {', '.join(bounds)}"
