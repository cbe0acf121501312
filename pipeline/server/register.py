"""Registers this repository at a Prefect server: work pool, deployments, one automation.

All of it may be said again: what is there already is left or brought up to date. `reprise up`
does it for its own server; `python -m pipeline.commands.register` for that of PREFECT_API_URL.
"""

import hashlib
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.common.atomic import write_whole
from pipeline.common.programs import run_program
from pipeline.server.names import BASE, POOL
from pipeline.server.prefect_api import request
from pipeline.server.services import HOME
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml

DEPLOYMENTS = Path("prefect.yaml")
FLOW = Path("pipeline/scheduled/flow.py")
REGISTERED = HOME / "prefect" / "registered"
DEPLOY_SECONDS = 120
# Three heartbeats of 30 s, as the worker's environment asks for.
SILENT_SECONDS = 90
# What a run may ask of the worker's machine by its `job_variables`: nothing. Prefect's own template
# lets it name a command, a folder and environment variables, which is to run what one likes.
FIXED = ("command", "env", "working_dir")
TEMPLATE: dict[str, Any] = {
    "job_configuration": {"stream_output": True},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
_RUN = "prefect.flow-run"
# One heartbeat, then nothing: neither another one nor an end (or a rest) that explains it.
_EXPECTED = (
    "heartbeat",
    "Completed",
    "Failed",
    "Cancelled",
    "Crashed",
    "TimedOut",
    "Paused",
    "Suspended",
    "AwaitingRetry",
)
ZOMBIES: dict[str, Any] = {
    "name": "reprise: crash runs that have fallen silent",
    "description": (
        "A flow run whose process was killed with its worker stays 'Running' for ever; this "
        f"marks it as crashed when it has sent no heartbeat for {SILENT_SECONDS} s. "
        "Registered by 'reprise up'."
    ),
    "enabled": True,
    "trigger": {
        "type": "event",
        "posture": "Proactive",
        "match": {"prefect.resource.id": f"{_RUN}.*"},
        "for_each": ["prefect.resource.id"],
        "after": [f"{_RUN}.heartbeat"],
        "expect": [f"{_RUN}.{name}" for name in _EXPECTED],
        "threshold": 1,
        "within": SILENT_SECONDS,
    },
    "actions": [
        {
            "type": "change-flow-run-state",
            "state": "CRASHED",
            "message": f"no heartbeat for {SILENT_SECONDS} s: its process is gone",
        }
    ],
}


def ensure_pool(url: str) -> None:
    """Make the work pool, whose runs name neither command nor environment.

    One that is there already and lets them is changed; all else in it stays.
    Raises UserError when the server refuses.
    """
    what = f"the work pool '{POOL}'"
    wanted = {"name": POOL, "type": "process", "base_job_template": TEMPLATE}
    try:
        request(url, "/work_pools/", wanted)
    except urllib.error.HTTPError as error:
        if error.code != 409:  # there is one already
            raise UserError(_refused(url, what, error)) from None
    except OSError as error:
        raise UserError(_refused(url, what, error)) from None
    try:
        found = request(url, f"/work_pools/{POOL}")["base_job_template"]
        if not found or any(key in found.get("job_configuration", {}) for key in FIXED):
            changed = {"base_job_template": TEMPLATE}
            request(url, f"/work_pools/{POOL}", changed, method="PATCH")
            click.echo(
                f"{what} let its runs choose a command or their environment; no more", err=True
            )
    except OSError as error:
        raise UserError(_refused(url, what, error)) from None


def ensure_automation(url: str) -> None:
    """Make the automation that marks silent runs as crashed; an older form of it is replaced.

    One that somebody has switched off stays off.
    Raises UserError when the server refuses.
    """
    try:
        named = {"automations": {"name": {"any_": [ZOMBIES["name"]]}}}
        found = request(url, "/automations/filter", named)
        if not found:
            request(url, "/automations/", ZOMBIES)
        elif not _is_current(found[0]):
            changed = {**ZOMBIES, "enabled": found[0]["enabled"]}
            request(url, f"/automations/{found[0]['id']}", changed, method="PUT")
    except OSError as error:
        raise UserError(_refused(url, "the automation for silent runs", error)) from None


def _is_current(automation: Mapping[str, Any]) -> bool:
    trigger = automation["trigger"]
    wanted = ZOMBIES["trigger"]
    return (
        sorted(trigger["expect"]) == sorted(wanted["expect"])
        and float(trigger["within"]) == wanted["within"]
        and automation["description"] == ZOMBIES["description"]
    )


def read_deployments(url: str) -> list[dict[str, Any]]:
    """The server's records of the deployments of `prefect.yaml`, by name.

    Raises UserError for a damaged `prefect.yaml` and when the server refuses.
    """
    wanted = _names()
    try:
        body = {"deployments": {"name": {"any_": wanted}}}
        found: list[dict[str, Any]] = request(url, "/deployments/filter", body) if wanted else []
    except OSError as error:
        raise UserError(_refused(url, "the deployments", error)) from None
    return sorted(found, key=lambda deployment: wanted.index(deployment["name"]))


def ensure_deployments(url: str, environment: Mapping[str, str]) -> None:
    """Register the deployments of `prefect.yaml`, if it has changed or the server lacks one.

    What somebody has changed in Prefect's UI, such as a schedule switched on, therefore stays
    until the file changes.
    Raises UserError with what Prefect says when it does not accept the file.
    """
    names = _names()
    digest = hashlib.sha256(url.encode() + DEPLOYMENTS.read_bytes() + FLOW.read_bytes()).hexdigest()
    known = {deployment["name"] for deployment in read_deployments(url)}
    same = REGISTERED.exists() and REGISTERED.read_text(encoding="utf-8") == digest
    if same and known >= set(names):
        return
    # Each worker is to fill in its own: here it would be written into the deployment for all.
    kept = {key: value for key, value in environment.items() if key != BASE}
    run_program(
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        seconds=DEPLOY_SECONDS,
        env=kept,
        failed=f"Prefect does not accept {DEPLOYMENTS}",
    )
    REGISTERED.parent.mkdir(parents=True, exist_ok=True)
    write_whole(REGISTERED, digest)


def _names() -> list[str]:
    content = read_yaml(DEPLOYMENTS)
    listed = content.get("deployments") if isinstance(content, dict) else None
    names: list[Any] = [entry.get("name") for entry in listed or [] if isinstance(entry, dict)]
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{DEPLOYMENTS} must have a list 'deployments' with a name in each entry")
    return names


def _refused(url: str, what: str, error: OSError) -> str:
    text = str(error)
    if isinstance(error, urllib.error.HTTPError):
        text += f": {error.read().decode(errors='replace')[:300]}"
    return f"the Prefect server at {url} does not take {what}: {text}"
