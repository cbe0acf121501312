"""The Prefect work pool in which a stage runs: `meta.work_pool`, or a variable of the environment.

REPRISE_WORK_POOL_train=gpu sends the stage train to the pool `gpu` without a change of any file;
with an empty value it runs here, whatever `dvc.yaml` says. REPRISE_WORKERS_tune=4 has four more
runs of the pool help its search.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from stages.common.errors import Problem, UserError, did_you_mean

PREFIX = "REPRISE_WORK_POOL_"
META_KEY = "work_pool"
WORKERS_PREFIX = "REPRISE_WORKERS_"
WORKERS_KEY = "workers"
# The one stage whose work several machines share.
SEARCH = "tune"
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


def find_workers(stage: str, meta: Mapping[str, Any]) -> int:
    """The number of runs in the pool that help the search of `stage`.

    Raises UserError where it is no number, of another stage than tune, or without a pool.
    """
    variable = variable_of(stage, WORKERS_PREFIX)
    text = os.environ.get(variable)
    named = f"meta.{WORKERS_KEY} of '{stage}'" if text is None else variable
    text = str(meta.get(WORKERS_KEY) or 0) if text is None else text or "0"
    if not text.isascii() or not text.isdigit():
        raise UserError(f"{named} is '{text}': it must be a number of workers, 0 or more")
    if int(text) and stage != SEARCH:
        raise UserError(f"{named} is {text}: of all stages only '{SEARCH}' is shared by several")
    if int(text) and find_work_pool(stage, meta) is None:
        pool = variable_of(stage)
        raise UserError(
            f"{named} is {text}, and '{stage}' has no work pool that they could be runs of\n"
            f"  set {pool}, or meta.{META_KEY} in dvc.yaml"
        )
    return int(text)


def variable_of(stage: str, prefix: str = PREFIX) -> str:
    """The variable that says where `stage` runs; what a shell refuses in a name is a `_`."""
    return prefix + re.sub(r"\W", "_", stage, flags=re.ASCII)


def check_variables(stages: Iterable[str]) -> None:
    """Raise UserError for a variable that is of none of the `stages`: it would have no effect."""
    names = tuple(stages)
    known = {variable_of(stage, prefix) for stage in names for prefix in (PREFIX, WORKERS_PREFIX)}
    problems = []
    for name in sorted(os.environ):
        if name.startswith((PREFIX, WORKERS_PREFIX)) and name not in known:
            stage = name.removeprefix(PREFIX).removeprefix(WORKERS_PREFIX)
            message = f"{name} is set, and there is no stage '{stage}'"
            problems.append(Problem(message, allowed=names, suggestion=did_you_mean(stage, names)))
    if problems:
        raise UserError(*problems)
