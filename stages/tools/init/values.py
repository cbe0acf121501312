"""The values of `params.yaml` that `init` writes, by their keys."""

from collections.abc import Mapping
from typing import Any

from stages.features.schema import Target
from stages.tools.init.choose import Choice
from stages.tools.init.columns import Column
from stages.tools.init.options import Options

SPLIT = {"seed": 0, "validation": 0.15, "test": 0.2}


def prepare_values(
    columns: list[Column], options: Options, target: Target | None, *, has_gaps: bool
) -> dict[str, Any]:
    """The section `prepare`."""
    tie = {name: getattr(options, name) for name in ("group", "time") if getattr(options, name)}
    return {
        "source": options.source,
        "key": next((c.name for c in columns if c.role == "key"), None),
        "target": options.target,
        "task": options.task or ("auto" if target is None else target.task),
        "target_transform": None,
        "columns": {c.name: c.setting for c in columns if c.setting is not None},
        "missing": [],
        "drop_missing_target": has_gaps,
        "weight": options.weight,
        "duplicates": "warn",
        "image": None,
        "normalize": None,
        "pretrained": None,
        "structure": tie or None,
        "split": SPLIT,
        "expectations": None,
    }


def all_values(prepare: Mapping[str, Any], choices: list[Choice]) -> dict[str, Any]:
    """All that is written, by its key in params.yaml."""
    chosen = {choice.key: choice.value for choice in choices}
    return {f"prepare.{key}": value for key, value in prepare.items()} | chosen
