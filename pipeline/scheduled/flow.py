"""The flow of the deployments in `prefect.yaml`: the pipeline, in a clone of its own.

A worker starts it in the repository (`REPRISE_BASE`, by the pull step of `prefect.yaml`), whose
working folder it leaves as it is.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Failed

from pipeline.params.check import check_params
from pipeline.params.overrides import apply_overrides_to_file
from pipeline.params.schema_check import SCHEMA
from pipeline.report.advice.measure import write_pages
from pipeline.run.advice_task import AdviceAsked
from pipeline.run.execute import read_grace_seconds
from pipeline.run.flow import run_pipeline
from pipeline.run.run_result import RunResult
from pipeline.run.watchdog import keep
from pipeline.scheduled.dvc_remote import fetch_data, has_tracked_data, push_data, update_imports_of
from pipeline.scheduled.publish import publish
from pipeline.scheduled.workspace import Workspace, open_workspace
from stages.common.errors import UserError


class PipelineFailedError(Exception):
    """Stages have failed; nothing is published, and the clone is kept."""


# The form of a deployment in Prefect's UI shows what stands below `Args:`. No list of the allowed
# stages: the revision may have others.
@flow(name="scheduled", persist_result=False)
def scheduled(
    stages: list[str] = [],  # noqa: B006
    overrides: dict[str, Any] = {},  # noqa: B006
    revision: str | None = None,
    update_imports: bool = False,  # noqa: FBT001
    advise_seconds: float | None = None,
) -> State[Any]:
    """Run the pipeline at a revision in a clone, and publish what it has changed.

    Args:
        stages: The stages to run with what they need: prepare, build, tune, train, evaluate,
            infer, or another of dvc.yaml. Empty: all.
        overrides: Values of params.yaml by their dotted keys, such as {"train.epochs": 3}.
        revision: A branch, tag or commit. Empty: the default branch.
        update_imports: Bring imported data (`dvc import`) up to date first.
        advise_seconds: Measure for as long what to improve first, when all stages have ended
            well. Empty: not at all.
    """
    results: list[RunResult] = []
    try:
        with (
            keep(str(flow_run.id), read_grace_seconds()),
            open_workspace(Path.cwd(), str(flow_run.name), revision, _say) as workspace,
            _inside(workspace.path),
        ):
            if update_imports:
                update_imports_of(workspace.path, _say)
            _prepare(workspace.path, overrides)
            advice = None if advise_seconds is None else AdviceAsked(advise_seconds, write_pages)
            parallel = os.cpu_count() or 1
            results.append(run_pipeline(stages, force=False, parallel=parallel, advice=advice))
            _finish(workspace, results[0])
    except PipelineFailedError:
        return results[0].as_state()
    except (UserError, OSError) as error:
        # What a person can mend is no matter for a traceback.
        text = "\n".join([str(error), *getattr(error, "__notes__", [])])
        get_run_logger().error("%s", text)
        return Failed(message=text)
    return results[0].as_state()


def _say(line: str) -> None:
    get_run_logger().info("%s", line)


def _finish(workspace: Workspace, result: RunResult) -> None:
    """Publish a run whose stages all ended well, also where a gate failed: people must see it."""
    for stage, state in result.states.items():
        _say(f"{stage}: {state}")
    for sentence in result.failed_gates:
        get_run_logger().error("%s", sentence)
    if result.failed:
        raise PipelineFailedError
    if not result.cancelled:
        push_data(workspace.path, _say)
        publish(workspace, _deployment_name(), result.states, _say, result.failed_gates)


def _prepare(folder: Path, overrides: dict[str, Any]) -> None:
    """Set the overrides and fetch the data; a wrong override ends the run before anything else."""
    lines: list[str] | None = None
    try:
        lines = apply_overrides_to_file(overrides, "overrides") if overrides else []
    except UserError:
        # A file that params.yaml names may be one that is only fetched now.
        if not has_tracked_data(folder):
            raise
    fetch_data(folder, _say)
    if lines is None:
        lines = apply_overrides_to_file(overrides, "overrides")
    if SCHEMA.exists():  # an old revision has none
        check_params()
    for line in lines:
        _say(line)


def _deployment_name() -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", str(deployment.name or "")).strip("-")
    return plain or "run"


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
