"""Code of libraries that is not as it was installed stops a stage: edited, rebuilt, from elsewhere.

Each test has an environment of its own, which borrows all but one library from that of the tests.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.runtime.installed import NOTE
from tests.conftest import Project, project_environment

CHECK = "import tqdm; from stages.runtime.installed import check_installed; check_installed()"


@dataclass(frozen=True)
class Environment:
    """An environment with a `tqdm` that may be changed."""

    root: Path
    site: Path

    def check(self, code: str = CHECK, **env: str) -> str:
        """Run the check after `code`; return what stops it, '' if nothing does."""
        done = subprocess.run(
            [self.root / "bin/python", "-B", "-c", code],
            capture_output=True,
            text=True,
            env={**project_environment(), **env},
        )
        assert (done.returncode == 0) == (not done.stderr), done.stderr
        return done.stderr

    def rewrite_record(self, name: str) -> None:
        """As a build of other content would have it in its RECORD."""
        digest = hashlib.sha256((self.site / name).read_bytes()).digest()
        written = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        (record,) = self.site.glob("tqdm-*/RECORD")
        lines = [
            f"{name},sha256={written},1" if line.startswith(f"{name},") else line
            for line in record.read_text(encoding="utf-8").splitlines()
        ]
        record.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """As `python -m venv` makes it, in a tenth of the time."""
    root, theirs = tmp_path / "environment", Path(sysconfig.get_path("purelib"))
    site = root / theirs.relative_to(sys.prefix)
    site.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin/python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), root)
    for entry in theirs.iterdir():
        if entry.name.startswith("tqdm"):
            shutil.copytree(entry, site / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (site / entry.name).symlink_to(entry)
    return Environment(root, site)


def append(path: Path, text: str) -> None:
    """Add `text` to a file, which may be new."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_an_edited_library_is_named_until_it_is_put_back(environment: Environment) -> None:
    assert environment.check() == ""
    file = environment.site / "tqdm/std.py"
    before = file.read_bytes()
    append(file, "\nSEEN = 1\n")
    said = environment.check()
    assert f"{file}: not as in tqdm " in said
    assert "pip install --force-reinstall --no-deps tqdm==" in said
    file.write_bytes(before)
    assert environment.check() == ""


def test_an_edit_of_the_same_size_and_time_is_seen(environment: Environment) -> None:
    file = environment.site / "tqdm/std.py"
    assert environment.check() == ""
    stat = file.stat()
    file.write_bytes(file.read_bytes().replace(b"import", b"IMPORT", 1))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    code = "import stages.runtime.installed as i; i.check_noted()"
    assert f"{file}: not as in tqdm " in environment.check(code)


def test_a_library_that_is_built_anew_under_its_version_is_told(environment: Environment) -> None:
    assert environment.check() == ""
    append(environment.site / "tqdm/std.py", "\nSEEN = 1\n")
    environment.rewrite_record("tqdm/std.py")
    assert "another build of tqdm " in environment.check()
    assert "another build of tqdm " in environment.check()
    (environment.root / NOTE).unlink()
    assert environment.check() == ""


def test_code_that_nothing_has_installed_is_named(environment: Environment) -> None:
    added = environment.site / "tqdm/added.py"
    added.write_text("", encoding="utf-8")
    assert f"{added}: of no library" in environment.check(f"import tqdm.added; {CHECK}")
    # A native library needs no module to be loaded.
    native = environment.site / "tqdm/native.so"
    shutil.copy(next(Path(sysconfig.get_config_var("DESTSHARED")).glob("_struct*.so")), native)
    said = environment.check(f"import ctypes; ctypes.CDLL({str(native)!r}); {CHECK}")
    assert f"{native}: of no library" in said


def test_code_from_outside_is_named_with_its_way_in(
    environment: Environment, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "helper.py").write_text("", encoding="utf-8")
    code = f"import helper; {CHECK}"
    said = environment.check(code, PYTHONPATH=str(outside))
    assert f"helper: {outside / 'helper.py'} (PYTHONPATH={outside})" in said
    way = environment.site / "own.pth"
    way.write_text(f"{outside}\n", encoding="utf-8")
    assert f"helper: {outside / 'helper.py'} ({way})" in environment.check(code)


def test_a_stage_stops_at_it(clone: Project, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("WIDTH = 8\n", encoding="utf-8")
    before = clone.outputs()
    line = "from pathlib import Path\n"
    clone.edit("stages/build/__main__.py", line, f"import helper  # noqa: F401\n{line}")
    said = clone.run("python", "-m", "stages.build", ok=False, env={"PYTHONPATH": str(tmp_path)})
    assert f"helper: {tmp_path / 'helper.py'} (PYTHONPATH={tmp_path})" in said.stderr
    assert "Traceback" not in said.stderr
    assert clone.outputs() == before
