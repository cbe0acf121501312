"""No stage ends well that reads what DVC does not know of: a change there would rerun nothing."""

import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.runtime.audit import Audit
from stages.runtime.outside import find_outside
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Prepared arrays; each test builds a model of its own on them."""
    made = small_project(tmp_path_factory.mktemp("undeclared") / "project", mixed_table(), {})
    (made.path / "stages/zoo/models/mlp.py").rename(made.path / "mlp.py")
    run_stages(made, "prepare")
    return made


def build(project: Project, body: str, imports: str = "") -> str:
    """Write a model that does `body` where it is made, build it; what the stage says."""
    text = (project.path / "mlp.py").read_text(encoding="utf-8")
    init = "super().__init__()\n"
    assert text.count(init) == 1
    text = text.replace(init, f"{init}        {body}\n")
    docstring, _, rest = text.partition('"""\n')
    model = project.path / "stages/zoo/models/mlp.py"
    model.write_text(f'{docstring}"""\n{imports}\n{rest}', encoding="utf-8")
    done = project.run("python", "-m", "stages.build", ok=None)
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) == (not done.stderr)
    return done.stderr


def test_a_model_that_loads_a_file_is_told_what_to_declare(prepared: Project) -> None:
    weights = prepared.path / "data/raw/pre.pt"
    weights.write_bytes(b"weights")
    # What the model makes of our error changes nothing.
    body = "try: open('data/raw/pre.pt')\n        except Exception: pass"
    said = build(prepared, body)
    assert "build stopped" in said
    assert "stages/zoo/models/mlp.py:" in said
    assert "opens data/raw/pre.pt, which dvc.yaml does not declare for the stage 'build'" in said
    assert "add '- data/raw/pre.pt' in dvc.yaml to the 'deps:' of every stage that runs" in said
    prepared.edit(
        "dvc.yaml", "      - stages/build\n", "      - data/raw/pre.pt\n      - stages/build\n"
    )
    assert build(prepared, body) == ""


def test_code_elsewhere_in_the_repository_is_refused(prepared: Project) -> None:
    (prepared.path / "helper.py").write_text("x = 1\n", encoding="utf-8")
    said = build(prepared, "import helper")
    assert "opens helper.py, which dvc.yaml does not declare" in said
    assert "move that code into stages/" in said


def test_a_library_whose_version_no_stage_declares_is_refused(prepared: Project) -> None:
    said = build(
        prepared, "pass", "import torch.nn.functional\nimport math\nfrom pandas import DataFrame"
    )
    assert re.search(r"zoo/models/mlp\.py:[0-9]+: imports 'pandas', whose version dvc", said)
    assert "'reprise deps' lists it, or says why not" in said
    assert "torch" not in said


@pytest.mark.soak
def test_what_a_module_opens_at_its_import_counts(prepared: Project) -> None:
    table = prepared.path / "table.json"
    table.write_text("{}", encoding="utf-8")
    summary = prepared.path / "stages/build/summary.py"
    text = summary.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n\n")
    summary.write_text(f"{first}\n\nTABLE = open('table.json').read()\n{rest}", encoding="utf-8")
    try:
        said = build(prepared, "pass")
    finally:
        summary.write_text(text, encoding="utf-8")
    assert "opens table.json" in said
    assert "add '- table.json' in dvc.yaml to the 'deps:' of build" in said


@pytest.mark.soak
def test_a_model_that_asks_the_environment_is_refused(prepared: Project) -> None:
    said = build(prepared, "self.factor = os.environ.get('FACTOR', '1')", "import os")
    assert "'environ' reads the environment" in said
    assert "make it an argument" in said


def audited(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *declared: str,
    find_change: Callable[[str], str] | None = None,
) -> Audit:
    monkeypatch.chdir(tmp_path)
    audit = Audit()
    audit.start("train", map(Path, declared), find_change or (lambda _name: ""))
    return audit


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("data/raw/pre.pt", True),
        ("data/raw/table.csv", False),
        ("data/raw/../raw/pre.pt", True),
        ("folder/inside.npy", False),
        ("not/there.pt", False),
        ("params.yaml", False),
        (".reprise/checkpoints/x.pt", False),
        ("helper.py", True),
    ],
)
def test_a_file_of_the_repository_must_be_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, seen: bool
) -> None:
    for path in ("data/raw/pre.pt", "data/raw/table.csv", "folder/inside.npy", "helper.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    audit = audited(tmp_path, monkeypatch, "data/raw/table.csv", "folder")
    for spelt in (name, str(tmp_path / name)):
        if seen:
            with pytest.raises(UserError, match="does not declare"):
                audit.hook("open", (spelt, "r", 0))
        else:
            audit.hook("open", (spelt, "r", 0))


def test_a_file_of_the_zoo_that_imports_another_is_told_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "stages/zoo/models"
    models.mkdir(parents=True)
    (models / "mlp.py").touch()
    audit = audited(tmp_path, monkeypatch, "stages/zoo/models/own.py")
    # As Python's import does: between the line and the file that is opened are frames of its own.
    opens = compile("hook('open', ('stages/zoo/models/mlp.py', 'r', 0))", "<frozen x>", "exec")
    imports = compile("\n\nexec(opens)", "stages/zoo/models/own.py", "exec")
    with pytest.raises(UserError) as caught:
        exec(imports, {"opens": opens, "hook": audit.hook})
    said = str(caught.value)
    assert said.startswith("stages/zoo/models/own.py:3 opens stages/zoo/models/mlp.py, which")
    assert "stands alone: what several share belongs in stages/model/layers.py" in said
    assert "move that code into stages/" not in said


def test_a_file_elsewhere_on_the_machine_must_be_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests' own folder is a temporary one, which may be read: so the rule is tried by hand.
    outside = tmp_path / "disk" / "pre.pt"
    outside.parent.mkdir()
    outside.touch()
    (tmp_path / "repository").mkdir()
    audit = audited(tmp_path / "repository", monkeypatch)
    audit.hook("open", (str(outside), "r", 0))
    monkeypatch.setattr(audit, "_elsewhere", ("/usr/",))
    with pytest.raises(UserError, match=r"pre\.pt, which dvc\.yaml does not declare"):
        audit.hook("open", (str(outside), "r", 0))
    audit.hook("open", (sys.executable, "r", 0))
    named = audited(tmp_path / "repository", monkeypatch, str(outside))
    monkeypatch.setattr(named, "_elsewhere", ("/usr/",))
    named.hook("open", (str(outside), "r", 0))


def test_a_link_to_what_is_declared_is_what_it_links_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "declared").touch()
    (tmp_path / "secret").touch()
    (tmp_path / "link").symlink_to("declared")
    (tmp_path / "other").symlink_to("secret")
    audit = audited(tmp_path, monkeypatch, "declared")
    audit.hook("open", ("link", "r", 0))
    with pytest.raises(UserError, match="opens secret"):
        audit.hook("open", ("other", "r", 0))


@pytest.mark.parametrize(
    "address", [("192.0.2.1", 80), ("example.org", 443), ("2001:db8::1", 80, 0, 0)]
)
def test_a_socket_stays_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: tuple[object, ...]
) -> None:
    audit = audited(tmp_path, monkeypatch)
    for fine in (("127.0.0.1", 80), ("::1", 80, 0, 0), ("localhost", 80), "/run/socket"):
        audit.hook("socket.connect", (socket.socket, fine))
    with pytest.raises(UserError, match="connects to"):
        audit.hook("socket.connect", (socket.socket, address))
    with pytest.raises(UserError, match="connects to"):
        audit.stop_if_refused()


def test_a_file_that_changed_since_the_stage_began_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").touch()
    asked = []

    def find_change(name: str) -> str:
        asked.append(name)
        return "a.py was edited" if name == "a.py" else ""

    audit = audited(tmp_path, monkeypatch, "a.py", "b.py", find_change=find_change)
    audit.hook("open", ("b.py", "r", 0))
    with pytest.raises(UserError, match="was edited"):
        audit.hook("open", ("a.py", "r", 0))
    assert asked == ["b.py", "a.py"]


@pytest.mark.parametrize(
    "code",
    [
        "import os\nx = os.environ['A']",
        "import os\nx = os.getenv('A')",
        "from os import environ",
        "import time",
        "from datetime import datetime",
        "import safetensors.torch as st\nx = st.load_file('pre.safetensors')",
        "import polars as pl\nx = pl.read_parquet('a.parquet')",
    ],
)
def test_what_no_hook_sees_is_found_in_the_code(tmp_path: Path, code: str) -> None:
    file = tmp_path / "model.py"
    file.write_text(code, encoding="utf-8")
    problems = list(find_outside(file))
    assert len(problems) == 1
    assert f"{file}:{code.count(chr(10)) + 1}: " in problems[0].message


def test_the_zoo_as_it_is_takes_nothing_from_outside() -> None:
    files = sorted(Path("stages/zoo").rglob("*.py"))
    assert len(files) > 4
    assert [problem for file in files for problem in find_outside(file)] == []
