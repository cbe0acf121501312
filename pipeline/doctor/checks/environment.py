"""The environment that a stage is started with: the programs on PATH, and variables."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.doctor.finding import Finding, Options, note, ok, wrong

AREA = "environment"
ACTIVATE = "source .venv/bin/activate"
WHOLE = ("REPRISE_THREADS", "REPRISE_AT_ONCE")


def check(_options: Options) -> Iterator[Finding]:
    """Yield what would make a stage another one, or stop it."""
    yield from check_programs(os.environ.get("PATH"))
    yield from check_variables(os.environ)


def check_programs(path: str | None) -> Iterator[Finding]:
    """Yield whether `python` and `dvc` on PATH are those of this environment.

    `dvc repro` starts `python -m stages.…`, whichever that is.
    """
    home = Path(sys.executable).parent.resolve()
    for name in ("python", "dvc"):
        found = shutil.which(name, path=path)
        why = "'dvc repro' starts each stage as 'python -m …', with the libraries of that Python"
        if found is None:
            yield wrong(f"there is no '{name}' on PATH", why, ACTIVATE)
        elif Path(found).parent.resolve() != home:
            yield wrong(f"'{name}' on PATH is {found}, not that of {home}", why, ACTIVATE)
        else:
            yield ok(f"'{name}' on PATH is this environment's")


def check_variables(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the variables that stop a stage, or change what it does."""
    if variables.get("PYTHONOPTIMIZE") == "2":
        why = "Python then drops the docstrings, which pydantic and torch read"
        yield wrong("PYTHONOPTIMIZE is 2", why, "unset PYTHONOPTIMIZE")
    if variables.get("PYTHONPATH"):
        why = "a stage stops when it loads code from there: dvc.lock does not know it"
        yield note(f"PYTHONPATH is {variables['PYTHONPATH']}", why, "unset PYTHONPATH")
    for name in WHOLE:
        value = variables.get(name)
        if value is not None and not (value.isdigit() and int(value) > 0):
            why = "it must be a whole number, 1 or more"
            yield wrong(f"{name} is '{value}'", why, f"unset {name}")
    processes = variables.get("PET_NPROC_PER_NODE", "1")
    if processes not in ("gpu", "auto") and not (processes.isdigit() and int(processes) > 0):
        why = "it must be a whole number, 1 or more, or 'gpu'"
        yield wrong(f"PET_NPROC_PER_NODE is '{processes}'", why, "unset PET_NPROC_PER_NODE")
    yield from check_machines(variables)
    if variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield note(
            "CUDA_VISIBLE_DEVICES hides every GPU",
            "trainings take the CPU",
            "unset CUDA_VISIBLE_DEVICES",
        )
    proxy = variables.get("HTTP_PROXY") or variables.get("http_proxy")
    local = variables.get("NO_PROXY") or variables.get("no_proxy") or ""
    if proxy and "127.0.0.1" not in local:
        why = "programs may ask the proxy for servers of this machine, such as Prefect's"
        yield note(
            "a proxy is set, also for this machine", why, "export NO_PROXY=127.0.0.1,localhost"
        )


def check_machines(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is missing for several machines to meet."""
    least, _, most = variables.get("PET_NNODES", "1").partition(":")
    if not least.isdigit() or int(least) < 1 or most not in ("", least):
        why = "it must be a whole number, 1 or more: another number of processes is other bits"
        yield wrong(f"PET_NNODES is '{variables['PET_NNODES']}'", why, "unset PET_NNODES")
    elif int(least) > 1 and not {"PET_RDZV_ENDPOINT", "PET_MASTER_ADDR"} & variables.keys():
        why = "nothing says where the machines meet"
        yield wrong(
            f"PET_NNODES is {least}", why, "export PET_RDZV_ENDPOINT=HOST:29400   # on each"
        )
