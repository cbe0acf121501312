"""The way a stage is run: the keys of its `meta:` in `dvc.yaml`.

train:
  cmd: …
  meta:
    retries: 2                  # after a failure; none else
    retry_delay_seconds: 30
    timeout_seconds: 3600
    tags: [gpu]                 # in Prefect
    concurrency: 1              # of this stage at once, over all runs of the server
    concurrency: {name: gpu, limit: 2}      # or shared by every stage that names it
    work_pool: gpu              # `reprise run` sends it to that work pool of Prefect's
    workers: 4                  # of tune: so many more runs of the pool help the search
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pipeline.params.work_pool import NAME
from stages.common.config import Config, validate_all
from stages.common.errors import Problem, UserError, did_you_mean
from stages.common.params import DVC_FILE


class Concurrency(Config):
    """A limit on the stages that share `name` and run at once on one Prefect server."""

    name: str = Field(pattern=r"^[\w.-]+$")
    limit: int = Field(ge=1)


class StageMeta(Config):
    """The content of `meta:` about running the stage; nothing is retried or limited without it."""

    retries: int = Field(0, ge=0)
    retry_delay_seconds: float = Field(0, ge=0)
    timeout_seconds: float | None = Field(None, gt=0)
    tags: list[str] = Field(default_factory=list)
    concurrency: int | Concurrency | None = None
    work_pool: str | None = Field(None, pattern=NAME.pattern)
    workers: int = Field(0, ge=0)


def read_meta(stage: str, tree: Mapping[str, Any]) -> StageMeta:
    """The stage's `meta:`; keys of others are left to whoever put them there.

    Raises UserError for wrong values, and for keys that look like a misspelt one of these.
    """
    at = f"stages.{stage}.meta"
    problems = [
        Problem(f"unknown key '{key}'", f"{at}.{key}", str(value), (), meant, str(DVC_FILE))
        for key, value in tree.items()
        if key not in StageMeta.model_fields
        and (meant := did_you_mean(key, StageMeta.model_fields))
    ]
    known = {key: value for key, value in tree.items() if key in StageMeta.model_fields}
    found, meta = validate_all(StageMeta, known, at=at, file=str(DVC_FILE))
    if problems or meta is None:
        raise UserError(*problems, *found)
    return meta


def read_metas(trees: Mapping[str, Mapping[str, Any]]) -> dict[str, StageMeta]:
    """The `meta:` of each stage, by name.

    Raises UserError with all that is wrong in them, and for one limit with two numbers.
    """
    metas: dict[str, StageMeta] = {}
    limits: dict[str, Concurrency] = {}
    problems: list[Problem] = []
    for name, tree in trees.items():
        try:
            metas[name] = read_meta(name, tree)
        except UserError as error:
            problems += error.problems
            continue
        limit = limit_of(name, metas[name])
        if limit is not None and limits.setdefault(limit.name, limit) != limit:
            message = f"the limit '{limit.name}' is {limits[limit.name].limit} at another stage"
            key = f"stages.{name}.meta.concurrency"
            problems.append(Problem(message, key, str(limit.limit), file=str(DVC_FILE)))
    if problems:
        raise UserError(*problems)
    return metas


def limit_of(stage: str, meta: StageMeta) -> Concurrency | None:
    """The limit that the stage shares with others, or with itself in other runs."""
    if isinstance(meta.concurrency, int):
        return Concurrency(name=f"reprise-{stage}", limit=meta.concurrency)
    return meta.concurrency
