"""Registered at the server, once: the pool, deployments, automations."""

import re
import subprocess
import sys

import pytest

from pipeline.server import launch, register
from pipeline.server.names import POOL
from pipeline.server.prefect_api import request
from pipeline.server.register import (
    TEMPLATE,
    ZOMBIES,
    ensure_automation,
    ensure_deployments,
    ensure_pool,
    read_deployments,
)
from stages.common.errors import UserError
from tests.conftest import ROOT, Project, project_environment

COMMAND = {"type": "object", "properties": {"command": {"type": "string"}}}


def test_a_pool_that_lets_its_runs_choose_a_command_lets_them_no_more(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As Prefect makes one, and an older version did. Of another name: the tests share the server.
    monkeypatch.setattr(register, "POOL", "loose")
    loose = {"job_configuration": {"command": "{{ command }}"}, "variables": COMMAND}
    pool = {"name": "loose", "type": "process", "base_job_template": loose}
    request(prefect_server, "/work_pools/", pool)
    for said in ("the work pool 'loose' let its runs choose a command", ""):
        ensure_pool(prefect_server)
        assert request(prefect_server, "/work_pools/loose")["base_job_template"] == TEMPLATE
        assert capsys.readouterr().err.startswith(said)
    edited = {**TEMPLATE, "job_configuration": {"stream_output": False}}
    request(prefect_server, "/work_pools/loose", {"base_job_template": edited}, method="PATCH")
    ensure_pool(prefect_server)
    assert request(prefect_server, "/work_pools/loose")["base_job_template"] == edited
    assert capsys.readouterr().err == ""
    request(prefect_server, "/work_pools/loose", method="DELETE")


def test_what_is_registered_is_registered_once(folder: Project, prefect_server: str) -> None:
    environment = launch.environment(prefect_server)
    for _ in range(2):
        ensure_pool(prefect_server)
        ensure_automation(prefect_server)
        ensure_deployments(prefect_server, environment)
    named = {"automations": {"name": {"any_": [ZOMBIES["name"]]}}}
    (automation,) = request(prefect_server, "/automations/filter", named)
    assert automation["trigger"]["within"] == ZOMBIES["trigger"]["within"]
    nightly, on_demand = read_deployments(prefect_server)
    assert nightly["work_pool_name"] == on_demand["work_pool_name"] == POOL
    (schedule,) = nightly["schedules"]
    assert not schedule["active"]
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    (step,) = nightly["pull_steps"]
    assert list(step.values()) == [{"directory": "{{ $REPRISE_BASE }}"}]
    asked = on_demand["parameter_openapi_schema"]["properties"]
    assert set(asked) == {"stages", "overrides", "revision", "update_imports", "advise_seconds"}
    # The form in the UI says what each is for.
    assert all(each.get("description") for each in asked.values()), asked
    # Somebody switches the schedule on in the UI, and the automation off: both stay.
    on = {"active": True}
    path = f"/deployments/{nightly['id']}/schedules/{schedule['id']}"
    request(prefect_server, path, on, method="PATCH")
    off = {"enabled": False}
    request(prefect_server, f"/automations/{automation['id']}", off, method="PATCH")
    ensure_automation(prefect_server)
    ensure_deployments(prefect_server, environment)
    assert read_deployments(prefect_server)[0]["schedules"][0]["active"]
    assert not request(prefect_server, f"/automations/{automation['id']}")["enabled"]
    request(prefect_server, path, {"active": False}, method="PATCH")
    request(prefect_server, f"/automations/{automation['id']}", {"enabled": True}, method="PATCH")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("deployments:", "deployment:", "must have a list 'deployments'"),
        ("0 2 * * *", "0 25 * * *", "Prefect does not accept prefect.yaml"),
    ],
)
def test_a_wrong_prefect_yaml(
    folder: Project, prefect_server: str, old: str, new: str, said: str
) -> None:
    ensure_pool(prefect_server)
    folder.edit("prefect.yaml", old, new)
    with pytest.raises(UserError, match=said):
        ensure_deployments(prefect_server, launch.environment(prefect_server))


def test_the_automations_of_the_documentation_are_accepted(prefect_server: str) -> None:
    text = (ROOT / "docs/orchestration.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 2
    environment = {**project_environment(), "PREFECT_API_URL": prefect_server}
    subprocess.run([sys.executable, "-c", "\n".join(blocks)], env=environment, check=True)
    found = request(prefect_server, "/automations/filter", {})
    by_name = {automation["name"]: automation for automation in found}
    told = by_name["tell the team about failed runs"]
    assert told["actions"][0]["type"] == "call-webhook"
    silent = by_name["crash runs that have fallen silent"]
    for key in ("after", "expect", "for_each"):
        assert sorted(silent["trigger"][key]) == sorted(ZOMBIES["trigger"][key])
    for automation in (told, silent):
        request(prefect_server, f"/automations/{automation['id']}", method="DELETE")
