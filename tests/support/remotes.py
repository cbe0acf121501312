"""A DVC project of two `sh` stages with a bare git remote and a DVC remote, made in a second."""

import hashlib
import subprocess
from pathlib import Path

from tests.conftest import Project

STAGES = """\
stages:
  count:
    cmd: sh count.sh
    deps: [source.txt, count.sh]
    outs: [counted.txt]
    metrics: [metrics.json: {cache: false}]
  double:
    cmd: cat counted.txt counted.txt > doubled.txt
    deps: [counted.txt]
    outs: [doubled.txt]
"""
COUNT = """\
set -e
test ! -e broken.txt
cp source.txt counted.txt
echo '{"lines": '$(grep -c . source.txt)'}' > metrics.json
"""
IGNORED = "/.reprise/\n__pycache__/\n/counted.txt\n/doubled.txt\n"


def make_tiny(folder: Path, *, origin: bool = True, store: bool = True) -> Project:
    """The project in `folder`, its remotes beside it as `origin.git` and `store`."""
    folder.mkdir(parents=True)
    project = Project(folder)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n", encoding="utf-8")
    files = {"dvc.yaml": STAGES, "count.sh": COUNT, "source.txt": "one\n", ".gitignore": IGNORED}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    if store:
        # From the folder of the configuration, as people write it.
        url = "    remote = store\n['remote \"store\"']\n    url = ../../store\n"
        with (folder / ".dvc/config").open("a", encoding="utf-8") as config:
            config.write(url)
    project.commit("start")
    if origin:
        bare = folder.parent / "origin.git"
        project.run("git", "init", "--quiet", "--bare", "--initial-branch", "main", str(bare))
        project.run("git", "remote", "add", "origin", "../origin.git")
        project.run("git", "push", "--quiet", "origin", "main")
    return project


def snapshot(folder: Path) -> dict[str, str]:
    """Every file of a working folder with its hash, git's head, index and status with it.

    But for what belongs to runs, and what a fetch may add to git.
    """
    apart = {".git", ".reprise"}
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in apart
        and path.parent.name != "__pycache__"
        # Its cache is shared on purpose.
        and not path.is_relative_to(folder / ".dvc/cache")
        and not path.is_relative_to(folder / ".dvc/tmp")
    }
    for name in ("HEAD", "index", "config"):
        files[f".git/{name}"] = hashlib.sha256((folder / ".git" / name).read_bytes()).hexdigest()
    command = ["git", "--no-optional-locks", "status", "--porcelain"]
    files["git status"] = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    return files


def branches(folder: Path) -> dict[str, str]:
    """The branches of a repository with their commits."""
    command = ["git", "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads"]
    listed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return dict(line.split() for line in listed.stdout.splitlines())
