"""Small DVC projects of `sh` stages, made in a second where the pipeline takes twenty."""

import atexit
import contextlib
import functools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.conftest import ROOT, Project, project_environment

# Comments in the code reach no output, as it is with real stages.
DVC_YAML = """\
stages:
  first:
    cmd: cat raw.txt > out/first.txt && echo ${first.text} >> out/first.txt
    deps: [raw.txt, stages/one.py]
    params: [first]
    outs: [out/first.txt]
  second:
    cmd:
      - (cat out/first.txt; grep -o 'return [0-9]' stages/code/a.py) > out/second.txt
      - wc -c < out/second.txt > out/size.json
    deps: [out/first.txt, stages/code]
    params: [second]
    outs: [out/second.txt]
    metrics: [{out/size.json: {cache: false}}]
    meta: {retries: 2}
  third:
    cmd: cp out/second.txt out/third.txt
    deps: [out/second.txt]
    outs: [out/third.txt]
"""
PARAMS = """\
first: {text: hello}
second: {number: 3, deep: {list: [1, 2]}}
"""


def tiny_project(folder: Path, dvc_yaml: str = DVC_YAML, params: str = PARAMS) -> Project:
    """A committed project of three stages in a row, not yet run."""
    project = Project(folder)
    files = {
        "dvc.yaml": dvc_yaml,
        "params.yaml": params,
        "raw.txt": "raw\n",
        "stages/one.py": '"""One."""\nX = 1\n',
        "stages/code/a.py": "def a():\n    return 1\n",
        "stages/code/b.py": "def b():\n    return 2\n",
        "out/.gitignore": "",
        ".gitignore": "/.reprise/\n",
        ".dvcignore": "__pycache__\n",
        ".dvc/config": (ROOT / ".dvc/config").read_text(encoding="utf-8"),
        ".dvc/.gitignore": (ROOT / ".dvc/.gitignore").read_text(encoding="utf-8"),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.commit("start")
    return project


def made_once(make: Callable[[Path], None]) -> Callable[[Path], Project]:
    """What `make` puts into a folder, once for all tests of this process: they take copies."""

    @functools.cache
    def original() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="tiny-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        make(folder)
        return folder

    def copy(folder: Path) -> Project:
        shutil.copytree(original(), folder, dirs_exist_ok=True)
        return Project(folder)

    return copy


@made_once
def reproduced(folder: Path) -> None:
    """`tiny_project` after `dvc repro`, committed."""
    project = tiny_project(folder)
    project.repro()
    project.commit("reproduced")


@contextlib.contextmanager
def running_stage(folder: Path) -> Iterator[Project]:
    """A project whose one stage `slow` runs as long as the block does, and then succeeds."""
    project = tiny_project(
        folder,
        "stages: {slow: {cmd: 'touch started; while [ ! -f go ]; do sleep 0.1; done; "
        "cp raw.txt out/slow.txt', deps: [raw.txt], outs: [out/slow.txt]}}\n",
    )
    running = subprocess.Popen(
        ["dvc", "repro"], cwd=folder, env=project_environment(), stdout=subprocess.DEVNULL
    )
    try:
        while not (folder / "started").exists():
            assert running.poll() is None
            time.sleep(0.05)
        yield project
    finally:
        (folder / "go").touch()
        assert running.wait(timeout=30) == 0
