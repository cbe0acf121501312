"""A clone that git would give other line ends, has the same bytes."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Project


def test_a_clone_with_autocrlf_has_every_byte(
    fresh: Callable[[str], Project], tmp_path: Path
) -> None:
    origin = fresh("origin")
    command = ("git", "clone", "--quiet", "--config", "core.autocrlf=true")
    origin.run(*command, str(origin.path), str(tmp_path / "clone"))
    names = origin.run("git", "ls-files", "-z").stdout.split("\0")
    differing = [
        name
        for name in filter(None, names)
        if (tmp_path / "clone" / name).read_bytes() != (origin.path / name).read_bytes()
    ]
    assert differing == []
    # Else the test would show nothing.
    assert any(name.endswith(".py") for name in names)
    # What is edited in such a clone goes in as it is.
    (tmp_path / "clone/params.yaml").write_bytes(b"seed: 0\n")
    Project(tmp_path / "clone").commit("edited")
    size = Project(tmp_path / "clone").run("git", "cat-file", "-s", "HEAD:params.yaml").stdout
    assert size == "8\n"
