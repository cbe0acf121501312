"""The first trials of a search: recipes that are known to be good for the model and the task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from stages.common.config import Config, MissingKeyError, Overrides
from stages.common.errors import UserError
from stages.common.params import to_plain
from stages.common.yamlfile import read_yaml
from stages.tune.params import find_untunable

Task = Literal["classification", "regression"]
PORTFOLIO = Path("stages/tune/portfolio.yaml")
WIDTH = "build.model.width"
# A width is rounded to a multiple of it.
ROUNDED = 8


class Entry(Config):
    """One recipe. `width` is a factor on the width that stands in `params.yaml`."""

    name: str
    model: str
    source: str
    tasks: list[Task] = Field(["classification", "regression"])
    width: float | None = None
    set: dict[str, Any]


def read_portfolio(
    model: str,
    task: Task,
    current: Overrides,
    watched: str,
    check: Callable[[Overrides], object],
) -> dict[str, Overrides]:
    """Overrides by name, in the order in which they are tried.

    `check` raises UserError for overrides that make no valid recipe: such an entry is left out, as
    is one that changes what trials are compared by, the metric `watched`.
    """
    found: dict[str, Overrides] = {}
    entries = TypeAdapter(list[Entry]).validate_python(to_plain(read_yaml(PORTFOLIO)))
    for entry in entries:
        if entry.model != model or task not in entry.tasks:
            continue
        overrides = dict(entry.set)
        if entry.width is not None:
            overrides[WIDTH] = max(1, round(entry.width * current[WIDTH] / ROUNDED)) * ROUNDED
        if any(find_untunable(path, watched) for path in overrides):
            continue
        try:
            check(overrides)
        except (UserError, MissingKeyError):
            continue
        found[entry.name] = overrides
    return found
