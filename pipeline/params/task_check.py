"""Names that belong to one task: losses, metrics, and the metric that early stopping watches."""

from collections.abc import Mapping
from typing import Any

from pipeline.params.source_check import Target
from stages.common.config import get_path
from stages.common.errors import Problem, wrong_name

# What depends on the task, by its key.
OF_TASK = {
    "evaluate.metrics": "metric",
    "train.loss.name": "loss",
    "train.early_stopping.metric": "metric to watch",
}


def check_task(tree: Mapping[str, Any], schema: Mapping[str, Any], target: Target) -> list[Problem]:
    """Names that a task has or has not: those of all tasks unless `target` knows which it is."""
    by_task: Mapping[str, Mapping[str, list[str]]] = schema["x-tasks"]
    problems = []
    for place, kind in OF_TASK.items():
        everywhere = [name for names in by_task[place].values() for name in names]
        known = by_task[place].get(str(target.task), everywhere)
        what = "" if known is everywhere else f" for {target.task}"
        why = f": {target.reason}" if what and target.reason else ""
        found = _find(tree, place)
        if isinstance(found, list):
            names = {f"{place}.{index}": name for index, name in enumerate(found)}
        else:
            # Of a name that no task has, the check of the section tells.
            names = {place: found} if found in everywhere else {}
        for key, name in names.items():
            if isinstance(name, str) and name not in known:
                message = f"there is no {kind} '{name}'{what}{why}"
                problems.append(wrong_name(message, name, known, key))
    return problems


def check_guess(
    of_task: list[Problem], tree: Mapping[str, Any], schema: Mapping[str, Any], target: Target
) -> list[Problem]:
    """The one edit that mends all of `of_task`: the other task, where whole numbers may be both."""
    other = "regression" if target.task == "classification" else "classification"
    if not of_task or not target.is_guess or check_task(tree, schema, Target(other)):
        return []
    names = ", ".join(str(problem.value) for problem in of_task)
    message = f"{target.reason}; this file has {names}, all for {other}"
    return [Problem(message, "prepare.task", "auto", (other, str(target.task)), other)]


def check_task_gates(of_task: list[Problem], gates: Mapping[str, Any]) -> list[Problem]:
    """Gates on the metrics that `of_task` says the task has not."""
    wrong = {problem.value for problem in of_task if str(problem.key).startswith("evaluate.")}
    message = "the gate on '{}' judges a metric that the task has not"
    return [
        Problem(message.format(name), f"evaluate.gates.{name}") for name in gates if name in wrong
    ]


def _find(tree: Mapping[str, Any], key: str) -> object:
    try:
        return get_path(tree, key)
    except KeyError:
        return None
