"""The shell steps of a workflow, run here in their order as GitHub would, conditions included."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, project_environment

FOLDER = ROOT / ".github/workflows"
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")


def read_workflow(name: str) -> dict[str, Any]:
    """A workflow's file as plain values."""
    # The YAML of GitHub is 1.2's: 'on' is a word there.
    content: dict[str, Any] = YAML(typ="safe").load(FOLDER / name)
    return content


@dataclass
class Job:
    """A job that runs in `project`: what is known to its expressions, and how its steps ended."""

    project: Project
    known: Mapping[str, str]
    steps: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, done: tuple[str, ...]) -> dict[str, str]:
        """Run the steps of the only job of a workflow; those of `done` are taken for succeeded.

        Returns how each step with a name ended; `said` then has what it printed.
        """
        (job,) = read_workflow(name)["jobs"].values()
        ends: dict[str, str] = {}
        outputs: dict[str, str] = {}
        for step in job["steps"]:
            context = {**self.known, **outputs}
            condition = step.get("if", "${{ success() }}")
            wanted = self._holds(condition, context, failed="failure" in ends.values())
            end = "skipped"
            if wanted and ("uses" in step or step["name"] in done):
                end = "success"
            elif wanted:
                end, found = self._step(step, context)
                outputs |= {f"steps.{step['id']}.outputs.{k}": v for k, v in found.items()}
            ends[step["name"]] = end
            if "id" in step:
                outputs[f"steps.{step['id']}.outcome"] = end
        return ends

    def _step(
        self, step: Mapping[str, Any], context: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        output, summary = (self.project.path / f".reprise/{n}" for n in ("output", "summary"))
        output.parent.mkdir(exist_ok=True)
        output.write_text("")
        known = {
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_EVENT_NAME": context["github.event_name"],
        }
        own = {k: _fill(v, context) for k, v in step.get("env", {}).items()}
        done = subprocess.run(
            [*SHELL, step["run"]],
            cwd=self.project.path,
            env={**project_environment(), **known, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        self.said[step["name"]] = done.stdout
        found = dict(line.split("=", 1) for line in output.read_text().splitlines())
        return ("success" if done.returncode == 0 else "failure"), found

    def _holds(self, condition: str, context: Mapping[str, str], *, failed: bool) -> bool:
        inner = condition.removeprefix("${{").removesuffix("}}").strip()
        return all(_term(each.strip(), context, failed=failed) for each in inner.split("&&"))


def _term(term: str, context: Mapping[str, str], *, failed: bool) -> bool:
    if term == "success()":
        return not failed
    if term == "!cancelled()":
        return True
    found = re.fullmatch(r"([\w.]+) (==|!=) '([^']*)'", term)
    assert found is not None, f"not known here: {term}"
    return (context.get(found[1], "") == found[3]) == (found[2] == "==")


def _fill(value: str, context: Mapping[str, str]) -> str:
    """A value with its expressions: names, the first of several that is not empty."""

    def fill(found: re.Match[str]) -> str:
        names = [name.strip() for name in found[1].split("||")]
        return next((context[name] for name in names if context.get(name)), "")

    return re.sub(r"\$\{\{(.*?)\}\}", fill, value)


def all_steps(name: str) -> list[dict[str, Any]]:
    """Every step of a workflow."""
    return [step for job in read_workflow(name)["jobs"].values() for step in job["steps"]]


def read_pins(path: Path) -> list[tuple[str, str, str]]:
    """(action, commit, the comment behind it) for each action that a workflow uses."""
    found = re.findall(r"uses: (\S+?)@(\S+)(.*)", path.read_text(encoding="utf-8"))
    return [(action, commit, comment.strip()) for action, commit, comment in found]
