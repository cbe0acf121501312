"""The flow of the deployments `elsewhere`: one stage, at the state that somebody has sent.

A worker starts it in the repository (`REPRISE_BASE`, by the pull step of the deployment), whose
working folder it leaves as it is. Its parameters name a stage and a ref of `origin`, nothing else.
"""

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import chdir, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler
from prefect.logging.loggers import PrefectLogAdapter
from prefect.runtime import flow_run
from prefect.settings import PREFECT_LOGGING_LEVEL, PREFECT_LOGGING_TO_API_ENABLED
from prefect.states import Cancelled, Completed, Crashed, Failed

from pipeline.common.dvc_repo import open_repo
from pipeline.common.git import hide_secrets
from pipeline.elsewhere.data import missing_inputs, pull, push_outputs
from pipeline.elsewhere.names import ALIVE_LOG, DONE, STAGE_LOG
from pipeline.elsewhere.refs import RESULT, STATE, push_ref, ref_of, remove_useless
from pipeline.elsewhere.result import commit_result
from pipeline.elsewhere.search.helper import help_search
from pipeline.plan.way import check_remote
from pipeline.run.console import Console
from pipeline.run.execute import StageEnd, Supervisors, read_grace_seconds, run_stage
from pipeline.run.server_contact import POLL_SECONDS, Contact
from pipeline.run.watchdog import keep
from pipeline.scheduled.workspace import Workspace, open_workspace
from stages.common.errors import UserError
from stages.common.params import VERSIONS, declared
from stages.runtime.environment import check_versions

# Signs of life in the time after which the sender gives the run up.
SIGNS = 3
# Where the machines of a search meet (stages/tune/training/shared.py).
STUDY = "REPRISE_STUDY"
CANCELLED = "the run was cancelled"
GIVEN_UP = "the run was given up by its sender"


class StageFailedError(Exception):
    """The stage has failed; the clone is kept."""


@flow(name="elsewhere", persist_result=False)
def elsewhere(
    stage: str,
    key: str,
    force: bool,  # noqa: FBT001
    silent_seconds: float,
    workers: int = 0,
    helper: bool = False,  # noqa: FBT001
) -> State[Any]:
    """Run `stage` at the state that lies in origin under `key`, and put the result beside it.

    A search has that many `workers` beside it: runs like this one, with `helper`.
    """
    ends: list[StageEnd] = []
    try:
        _check_log()
        with (
            _signs_of_life(silent_seconds / SIGNS),
            keep(str(flow_run.id), read_grace_seconds()),
            open_workspace(
                Path.cwd(),
                f"{stage}-{key[:8]}{'-helper' if helper else ''}",
                None,
                _say,
                ref=ref_of(key, STATE),
            ) as workspace,
            chdir(workspace.path),
        ):
            _prepare(workspace, stage, shared=helper or workers > 0)
            ends.append(_help(key) if helper else _run(stage, force=force))
            if helper and ends[0].state != "failed":
                _say("the search has ended")
            elif ends[0].state != "failed":
                _finish(workspace, stage, key)
            elif ends[0].reason == CANCELLED and not helper:
                # Its sender may be gone. One that comes now waits for this run's end.
                with suppress(UserError):
                    remove_useless(workspace.path, key)
            elif ends[0].reason not in (CANCELLED, GIVEN_UP):
                raise StageFailedError
    except StageFailedError:
        return _flushed(Failed(message=f"{stage} failed ({ends[0].reason})"))
    except (UserError, OSError) as error:
        # What a person can mend is no matter for a traceback.
        text = hide_secrets("\n".join([str(error), *getattr(error, "__notes__", [])]))
        get_run_logger().error("%s", text)
        return _flushed(Failed(message=text))
    if ends[0].reason == GIVEN_UP:
        # As its sender has it, which must not take that for a person's wish.
        return _flushed(Crashed(message=f"{GIVEN_UP}; every process of the run has ended"))
    if ends[0].state == "failed":
        return _flushed(Cancelled(message="cancelled; every process of the run has ended"))
    return _flushed(Completed(message=f"{ends[0].state} in {ends[0].seconds:.1f} s"))


def _logger(name: str) -> PrefectLogAdapter:
    """A logger below that of the run."""
    logger = get_run_logger()
    assert isinstance(logger, PrefectLogAdapter)
    return logger.getChild(name.removeprefix("."))


def _say(line: str) -> None:
    get_run_logger().info("%s", line)


def _check_log() -> None:
    """Raise UserError where no line of this run would reach who follows it."""
    setting = PREFECT_LOGGING_TO_API_ENABLED
    if not setting.value():
        raise UserError(f"{setting.name} is off for this worker: nobody could follow the run")
    handlers = logging.getLogger("prefect.flow_runs").handlers
    reached = any(h.level <= logging.INFO for h in handlers if isinstance(h, APILogHandler))
    if not (reached and _logger(ALIVE_LOG).isEnabledFor(logging.INFO)):
        raise UserError(
            f"{PREFECT_LOGGING_LEVEL.name} is '{PREFECT_LOGGING_LEVEL.value()}' for this worker, "
            "or its logging.yml leaves lines out: it must let lines at INFO through to Prefect's "
            "server, else nobody could follow the run"
        )


def _flushed(state: State[Any]) -> State[Any]:
    """The state, once all lines of the log have reached the server: who follows has them first."""
    _flush()
    return state


def _flush() -> None:
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.flush()


def _prepare(workspace: Workspace, stage: str, *, shared: bool) -> None:
    """Refuse what can't run here before any data moves; then pull the inputs of the stage."""
    if shared and not os.environ.get(STUDY):
        raise UserError(
            f"{STUDY} is not set for this worker: it says in which database the machines of a "
            "search meet (docs/tuning.md, 'Several machines')"
        )
    check_remote(workspace.path)
    if VERSIONS.exists() and _declares_versions(stage):
        check_versions(stage)
    with open_repo(wait=True) as repo:
        missing = missing_inputs(repo, stage)
        if missing:
            _say(f"dvc pull {' '.join(missing)}")
        pull(repo, missing)


def _declares_versions(stage: str) -> bool:
    try:
        return bool(declared(stage, VERSIONS))
    except KeyError:
        return False


def _run(stage: str, *, force: bool) -> StageEnd:
    """Run the stage under a supervisor; end it when the run has an end in Prefect, or is to."""
    supervisors = Supervisors(str(flow_run.id))
    contact = Contact(Console(live=False))
    logger = _logger(STAGE_LOG)

    def say(line: str) -> None:
        logger.info("%s", line)

    reason = ""
    with ThreadPoolExecutor(1) as pool:
        try:
            running = pool.submit(run_stage, stage, supervisors, say, force=force)
            while not wait([running], POLL_SECONDS).done:
                # Also for a run that its sender has given up: another one does its work.
                if contact.is_over():
                    reason = CANCELLED if contact.is_cancelled() else GIVEN_UP
                    supervisors.end_all()
        finally:
            supervisors.end_all()
    end = running.result()
    return replace(end, reason=reason) if reason and end.state == "failed" else end


def _help(key: str) -> StageEnd:
    """Train trials of the search that another run of the pool holds."""
    supervisors = Supervisors(str(flow_run.id))
    logger = _logger(STAGE_LOG)

    def say(line: str) -> None:
        logger.info("%s", line)

    return help_search(key, supervisors, Contact(Console(live=False)), say)


def _finish(workspace: Workspace, stage: str, key: str) -> None:
    """Push the outputs, then the commit that names them: who sees that finds them all."""
    with open_repo(wait=True) as repo:
        push_outputs(repo, stage)
        commit = commit_result(repo, stage, workspace.commit)
    push_ref(workspace.path, commit, ref_of(key, RESULT))
    _logger(ALIVE_LOG).info("%s", DONE)
    _flush()


@contextmanager
def _signs_of_life(seconds: float) -> Iterator[None]:
    """Write a line now and then: who follows this run hears nothing else of a long silence."""
    logger = _logger(ALIVE_LOG)
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(seconds):
            logger.info("at work")

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
