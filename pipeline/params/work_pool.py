"""The Prefect work pool in which a stage runs: `meta.work_pool`, or a variable of the environment.

REPRISE_WORK_POOL_train=gpu sends the stage train to the pool `gpu` without a change of any file;
with an empty value it runs here, whatever `dvc.yaml` says.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from stages.common.errors import Problem, UserError, did_you_mean

PREFIX = "REPRISE_WORK_POOL_"
META_KEY = "work_pool"
# What Prefect takes as a pool's name, less what its addresses would have to write otherwise.
NAME = re.compile(r"^[\w.-][\w. -]*$")


def find_work_pool(stage: str, meta: Mapping[str, Any]) -> str | None:
    """The work pool that `stage` is sent to; None: it runs here.

    Raises UserError for a variable whose value can be no pool's name.
    """
    variable = variable_of(stage)
    value = os.environ.get(variable)
    if value is None:
        found = meta.get(META_KEY)
        return None if found is None else str(found)
    if value and not NAME.match(value):
        raise UserError(f"{variable} is '{value}': it must be the name of a Prefect work pool")
    return value or None


def variable_of(stage: str) -> str:
    """The variable that says where `stage` runs; what a shell refuses in a name is a `_`."""
    return PREFIX + re.sub(r"\W", "_", stage, flags=re.ASCII)


def check_variables(stages: Iterable[str]) -> None:
    """Raise UserError for a variable that is of none of the `stages`: it would have no effect."""
    known = {variable_of(stage): stage for stage in stages}
    problems = []
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            stage = name.removeprefix(PREFIX)
            names = tuple(known.values())
            message = f"{name} is set, and there is no stage '{stage}'"
            problems.append(Problem(message, allowed=names, suggestion=did_you_mean(stage, names)))
    if problems:
        raise UserError(*problems)
