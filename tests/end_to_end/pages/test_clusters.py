"""The files for clusters in docs/scale.md: as Kubernetes and SLURM take them, without either.

Kubernetes' own schemas are in the package kubernetes-validate. Of SLURM there are stand-ins for
the three programs that the script meets.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT, Project, project_environment
from tests.support.samples import set_params

PAGES = sorted((ROOT / "docs").glob("*.md"))
# The oldest version whose Jobs know each field that is used, and the newest that the package has.
VERSIONS = ("1.31", "1.37")
# Of https://slurm.schedmd.com/sbatch.html; a signal may be for the batch shell alone.
OPTIONS = {
    "nodes": r"\d+(-\d+)?",
    "ntasks-per-node": r"\d+",
    "gpus-per-node": r"(\w+:)?\d+",
    "signal": r"([BR]+:)?[A-Z0-9]+(@\d+)?",
    "requeue": r"",
}
# One task a node, side by side; the first that fails ends the step with its code.
SRUN = """#!/bin/bash
tasks=()
for node in $(seq 0 $((SLURM_NNODES - 1))); do
    SLURM_NODEID=$node SLURM_PROCID=$node "$@" & tasks+=($!)
done
code=0
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit $code
"""
SCONTROL = """#!/bin/bash
[ "$1 $2" = "show hostnames" ] && printf 'localhost\\n%.0s' $(seq "$SLURM_NNODES")
"""
# In place of git and DVC: tells with what a node would have run.
TOLD = """#!/bin/bash
env | grep -E '^(PET|SLURM_NODEID)' | sort > "$SLURM_NODEID.environment"
echo "$(basename "$0") $*" >> "$SLURM_NODEID.commands"
"""


def blocks(language: str) -> list[str]:
    """The blocks of code of all pages that are in a language."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    return [b for text in texts for b in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def manifests() -> list[dict[str, Any]]:
    """All objects of Kubernetes in the pages."""
    found = [block for block in blocks("yaml") if "apiVersion" in block]
    return [part for block in found for part in YAML(typ="safe").load_all(block)]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_the_files_of_the_pages(version: str) -> None:
    # It takes two seconds to import, in each worker that collects this file.
    import kubernetes_validate

    found = manifests()
    assert {"Service", "Job"} <= {each["kind"] for each in found}
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)
    # The check finds what it is there to find.
    wrong = next(each for each in found if each["kind"] == "Job")
    wrong["spec"]["template"]["spec"]["containers"][0]["comand"] = ["true"]
    with pytest.raises(kubernetes_validate.ValidationError, match="comand"):
        kubernetes_validate.validate(wrong, version, strict=True)


def slurm_script() -> str:
    (script,) = [block for block in blocks("") if "#SBATCH" in block]
    return script


def sbatch(script: str, home: Path, **programs: str) -> "subprocess.CompletedProcess[str]":
    """Run a script as sbatch starts it on the first node of a job, with stand-ins in the path."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script, re.MULTILINE)
    options = dict(found)
    assert len(found) == script.count("#SBATCH"), "an option that sbatch would not see"
    for name, value in options.items():
        assert re.fullmatch(OPTIONS[name], value), f"--{name}={value}"
    place = home / "programs"
    place.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, **programs}.items():
        (place / name).write_text(text, encoding="utf-8")
        (place / name).chmod(0o755)
    own = project_environment()
    environment = {
        **own,
        "PATH": f"{place}{os.pathsep}{own['PATH']}",
        "HOME": str(home),
        "REVISION": "HEAD",
        "SLURM_NNODES": options["nodes"],
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_GPUS_ON_NODE": options["gpus-per-node"],
        "PET_LOCAL_ADDR": "127.0.0.1",
    }
    (home / "job.sh").write_text(script, encoding="utf-8")
    return subprocess.run(
        ["bash", str(home / "job.sh")],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_slurm_starts_the_same_training_on_each_node(tmp_path: Path) -> None:
    for node in "01":
        (tmp_path / "runs" / node).mkdir(parents=True)
    done = sbatch(slurm_script(), tmp_path, git=TOLD, dvc=TOLD)
    assert done.returncode == 0, done.stderr
    for node in "01":
        folder = tmp_path / "runs" / node
        commands = (folder / f"{node}.commands").read_text().splitlines()
        assert commands == ["git checkout --detach HEAD", "dvc pull", "dvc repro train"]
        assert (folder / f"{node}.environment").read_text().splitlines() == [
            "PET_LOCAL_ADDR=127.0.0.1",
            "PET_NNODES=2",
            "PET_NPROC_PER_NODE=4",
            "PET_RDZV_ENDPOINT=localhost:29400",
            f"SLURM_NODEID={node}",
        ]
    # A node that fails fails the job, so that SLURM says so.
    (tmp_path / "programs/dvc").write_text("#!/bin/bash\n[ $SLURM_NODEID = 0 ]\n", encoding="utf-8")
    again = subprocess.run(
        ["bash", str(tmp_path / "job.sh")],
        env={**project_environment(), "PATH": f"{tmp_path}/programs:/bin:/usr/bin"}
        | {"HOME": str(tmp_path), "REVISION": "HEAD", "SLURM_NNODES": "2"},
        capture_output=True,
        check=False,
    )
    assert again.returncode == 1


@pytest.mark.soak
def test_slurm_trains_on_two_nodes_to_the_same_lock_file(clone: Project, tmp_path: Path) -> None:
    set_params(clone, {"train.epochs": 3, "train.replicas": 1})
    clone.run("dvc", "remote", "add", "--default", "here", str(tmp_path / "remote"))
    clone.run("dvc", "repro", "tune")
    clone.run("git", "commit", "--all", "--message", "two nodes")
    clone.run("dvc", "push", "--run-cache")
    home = tmp_path / "home"
    for node in "01":
        (home / "runs").mkdir(parents=True, exist_ok=True)
        clone.run("git", "clone", "--quiet", str(clone.path), str(home / "runs" / node))
    # Of one process each, where the pages have four devices.
    done = sbatch(slurm_script().replace("gpus-per-node=4", "gpus-per-node=1"), home)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (read_yaml(home / "runs" / node / "dvc.lock") for node in "01")
    assert first["stages"]["train"] == second["stages"]["train"]
    before = read_yaml(clone.path / "dvc.lock")["stages"]["train"]
    assert first["stages"]["train"]["outs"] != before["outs"]
