"""The way of a stage to a work pool and back: code by git's `origin`, data by DVC's remote."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.common.dvc_repo import default_remote
from pipeline.common.git import git
from pipeline.plan.forecast import STALE
from pipeline.plan.plan import StagePlan
from stages.common.errors import Problem, UserError


def find_sent(plans: Sequence[StagePlan], *, force: bool = False) -> list[StagePlan]:
    """The stages that a run sends to a work pool, unless what is upstream of them stays as it is.

    With `force` the fresh ones, too; without, one that DVC's cache has is restored here.
    """
    return [plan for plan in plans if plan.work_pool and (force or plan.state == STALE)]


def find_bars(sent: Sequence[StagePlan], folder: Path) -> list[Problem]:
    """The mistakes that keep these stages from any work pool; the server is not asked."""
    problems: list[Problem] = []
    for check in (find_origin, check_remote) if sent else ():
        try:
            check(folder)
        except UserError as error:
            problems += error.problems
    return [barred(sent), *problems] if problems else []


def barred(sent: Sequence[StagePlan]) -> Problem:
    """The line before what keeps these stages from their work pools."""
    stages = ", ".join(f"{plan.name} (to '{plan.work_pool}')" for plan in sent)
    return Problem(f"can't be sent to a work pool: {stages}")


def find_origin(folder: Path) -> str:
    """The address of `origin`, a path as seen from anywhere.

    Raises UserError where the repository has none.
    """
    if "origin" not in git(folder, "remote").split():
        raise UserError(
            "a stage reaches a work pool by way of git: this repository has no remote 'origin'\n"
            "  git remote add origin ADDRESS   (one that the pool's workers reach as well)"
        )
    address = git(folder, "ls-remote", "--get-url", "origin")
    is_path = ":" not in address
    top = Path(git(folder, "rev-parse", "--show-toplevel"))
    return str((top / address).resolve()) if is_path else address


def check_remote(folder: Path) -> str:
    """The name of the DVC remote that carries data. Raises UserError where there is none."""
    name = default_remote(folder)
    if name is None:
        raise UserError(
            "data reaches a work pool by way of DVC's remote: this project has no default one\n"
            "  dvc remote add --default NAME ADDRESS   (one that the pool's workers reach as well)"
        )
    return name
