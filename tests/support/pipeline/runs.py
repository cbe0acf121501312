"""A scheduled run without Prefect."""

from pipeline.scheduled.dvc_remote import fetch_data, push_data
from pipeline.scheduled.publish import publish
from pipeline.scheduled.workspace import Workspace, open_workspace
from tests.conftest import Project

RAN = {"count": "ran", "double": "ran"}


def run_once(project: Project, name: str = "run", said: list[str] | None = None) -> None:
    """What a scheduled run does, without Prefect."""
    say = (said if said is not None else []).append
    with open_workspace(project.path, name, None, say) as workspace:
        fetch_data(workspace.path, say)
        repro(workspace)
        push_data(workspace.path, say)
        publish(workspace, "nightly", RAN, say)


def repro(workspace: Workspace) -> None:
    Project(workspace.path).run("dvc", "repro", "--quiet")
