"""Small DVC projects of `sh` stages, made in a second where the road takes twenty."""

from pathlib import Path

from tests.conftest import ROOT, Project

# Reads its inputs, writes its outputs; `make` stands in for the work of a stage.
DVC_YAML = """\
stages:
  first:
    cmd: cat stages/one.py raw.txt > out/first.txt && echo ${first.text} >> out/first.txt
    deps: [raw.txt, stages/one.py]
    params: [first]
    outs: [out/first.txt]
  second:
    cmd:
      - cat out/first.txt stages/code/a.py | grep -v '^#' > out/second.txt
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
second: {size: 3, deep: {list: [1, 2]}}
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


def reproduced(folder: Path, **options: str) -> Project:
    """`tiny_project` after `dvc repro`, committed."""
    project = tiny_project(folder, **options)
    project.repro()
    project.commit("reproduced")
    return project
