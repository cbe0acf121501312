"""The import closure, and what of it stands in `dvc.yaml`."""

import re
import shutil
from pathlib import Path

import pytest

from pipeline.deps.deps import derive, out_of_date, read_pins, write
from pipeline.deps.import_closure import find_closure, name_libraries
from pipeline.params.check import check_models
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT, Project


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("stages/__init__.py", "stages/a/__init__.py", "stages/b/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def files(*modules: str) -> set[str]:
    return {str(file) for file in find_closure(*modules).files}


PARENTS = {"stages/__init__.py", "stages/a/__init__.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "import stages.a.two",
        "from stages.a import two",
        "from stages.a.two import name",
        "from . import two",
        "from .two import name",
        "from ..a.two import name",
        "def f():\n    from stages.a import two",
        "if True:\n    import stages.a.two as t",
        "import importlib\nimportlib.import_module('stages.a.two')",
        "from importlib import import_module\nimport_module('stages.a.two')",
        "try:\n    import json\nexcept ImportError:\n    import stages.a.two",
    ],
)
def test_every_form_of_import_is_followed(tree: Path, statement: str) -> None:
    (tree / "stages/a/one.py").write_text(statement, encoding="utf-8")
    (tree / "stages/a/two.py").write_text("from stages import b", encoding="utf-8")
    (tree / "stages/a/other.py").touch()
    expected = PARENTS | {"stages/a/one.py", "stages/a/two.py", "stages/b/__init__.py"}
    assert files("stages.a.one") == expected


def test_what_a_package_imports_counts_for_its_modules(tree: Path) -> None:
    (tree / "stages/a/__init__.py").write_text("from . import helper", encoding="utf-8")
    (tree / "stages/a/helper.py").touch()
    (tree / "stages/a/one.py").touch()
    assert files("stages.a.one") == PARENTS | {"stages/a/helper.py", "stages/a/one.py"}


def test_a_circle_ends(tree: Path) -> None:
    (tree / "stages/a/one.py").write_text("import stages.a.two", encoding="utf-8")
    (tree / "stages/a/two.py").write_text("import stages.a.one", encoding="utf-8")
    assert files("stages.a.one") == PARENTS | {"stages/a/one.py", "stages/a/two.py"}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import importlib\nimportlib.import_module(name)", "one.py:2: an import whose name"),
        ("__import__('a' + 'b')", "one.py:1: an import whose name"),
        ("import runpy\nrunpy.run_path(path)", "one.py:2: an import whose name"),
        ("import stages.a.gone", "one.py:1: there is no module 'stages.a.gone'"),
        ("def broken(:", "one.py:1:"),
    ],
)
def test_what_cannot_be_followed_is_an_error(tree: Path, code: str, says: str) -> None:
    (tree / "stages/a/one.py").write_text(code, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        find_closure("stages.a.one")


def test_libraries_are_named_as_they_are_installed(tree: Path) -> None:
    code = "import os.path\nimport sklearn.metrics\nfrom ruamel.yaml import YAML\nimport torch.nn\n"
    code += "from torch.utils.tensorboard.writer import SummaryWriter\n"
    # It carries work elsewhere, and no result depends on its version.
    code += "from distributed import Client\n"
    (tree / "stages/a/one.py").write_text(code, encoding="utf-8")
    imports = find_closure("stages.a.one").libraries
    names = ("scikit-learn", "ruamel-yaml", "ruamel-yaml-clib", "torch", "tensorboard")
    found = name_libraries(imports, dict.fromkeys(names, "1"))
    assert found == {"scikit-learn", "ruamel-yaml", "torch", "tensorboard"}
    with pytest.raises(UserError, match=r"one\.py:2: imports 'sklearn', but constraints.txt"):
        name_libraries(imports, dict.fromkeys(names[1:], "1"))


def test_the_files_of_the_repository_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert out_of_date(derive()) == [], "run 'reprise deps'"


def test_a_new_import_becomes_a_dependency(clone: Project) -> None:
    clone.edit(
        "stages/infer/notes.py", "import polars", "import stages.evaluate.params\nimport polars"
    )
    assert "don't hold" in clone.run("reprise", "deps", "--check", ok=False).stderr
    before = (clone.path / "dvc.yaml").read_text(encoding="utf-8")
    clone.run("reprise", "deps")
    after = (clone.path / "dvc.yaml").read_text(encoding="utf-8")
    added = set(after.splitlines()) - set(before.splitlines())
    assert added == {"      - stages/evaluate/params.py"}
    # And back: what is not imported any more goes.
    clone.edit("stages/infer/notes.py", "import stages.evaluate.params\n", "")
    clone.run("reprise", "deps")
    assert (clone.path / "dvc.yaml").read_text(encoding="utf-8") == before


def test_a_stage_refuses_to_run_code_that_it_does_not_declare(clone: Project) -> None:
    before = clone.outputs()
    clone.edit(
        "stages/infer/notes.py", "import polars", "import stages.evaluate.params\nimport polars"
    )
    said = clone.run("dvc", "repro", "infer", ok=False).stderr
    assert "stages/evaluate/params.py" in said
    assert "reprise deps" in said
    assert clone.outputs() == before


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's code in a folder of its own, as the current one."""
    for name in ("dvc.yaml", "params.yaml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=ignored)
    shutil.copytree(ROOT / "data/raw", tmp_path / "data/raw")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add_model(project: Path, code: str) -> None:
    """A model `mine`: the linear one, after `code`."""
    linear = (project / "stages/zoo/models/linear.py").read_text(encoding="utf-8")
    (project / "stages/zoo/models/mine.py").write_text(f"{code}\n{linear}", encoding="utf-8")


def test_a_new_model_changes_no_dependency(project: Path) -> None:
    names = ("math", "numpy", "torch.nn.functional", "stages.features.schema")
    add_model(project, "\n".join(f"import {name}" for name in names))
    assert out_of_date(derive()) == []


@pytest.mark.soak
def test_a_new_objective_changes_no_dependency_and_imports_no_other(project: Path) -> None:
    mine = project / "stages/zoo/objectives/mine.py"
    usual = (project / "stages/zoo/objectives/supervised.py").read_text(encoding="utf-8")
    mine.write_text(f"import torch.nn.functional\n{usual}", encoding="utf-8")
    assert out_of_date(derive()) == []
    named = "stages/zoo/objectives/${train.objective.name}.py"
    for name, stage in read_yaml(Path("dvc.yaml"))["stages"].items():
        assert (named in stage["deps"]) == (name in ("tune", "train"))
    for code in ("import polars", "import stages.zoo.objectives.mixup"):
        mine.write_text(f"{code}\n{usual}", encoding="utf-8")
        with pytest.raises(UserError, match=r"mine\.py:1: imports"):
            derive()


def test_what_a_dataset_imports_is_declared_where_it_trains(project: Path) -> None:
    before = read_yaml(Path("dvc.yaml"))["stages"]
    code = "import polars\nimport stages.formats.text.plain_values\n"
    (project / "stages/zoo/datasets/mine.py").write_text(code, encoding="utf-8")
    write(derive())
    for name, stage in read_yaml(Path("dvc.yaml"))["stages"].items():
        added = set(stage["deps"]) - set(before[name]["deps"])
        trains = name in ("tune", "train")
        assert ("stages/zoo/datasets" in stage["deps"]) == trains
        assert ("stages/formats/text/plain_values.py" in added) == trains
        assert (stage != before[name]) == trains
        (libraries,) = (e["stages/versions.yaml"] for e in stage["params"] if isinstance(e, dict))
        assert not trains or "polars" in libraries


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("from stages.zoo.models.mlp import Model as Base", "mine.py:1: imports 'stages.zoo.mode"),
        (
            "\nfrom . import mlp",
            "mine.py:2: imports 'stages.zoo.models.mlp', but a model stands al",
        ),
        ("import stages.formats.read", "mine.py:1: imports 'stages.formats.read', but a model"),
        (
            "from stages.training import loop",
            "mine.py:1: imports 'stages.training.loop', but a model",
        ),
        ("import polars", "mine.py:1: imports 'polars', which no stage with a model declares"),
        ("import torch.utils.tensorboard", "mine.py:1: imports 'torch.utils.tensorboard', which"),
    ],
)
def test_what_a_model_may_not_import_is_refused_with_its_place(
    project: Path, code: str, says: str
) -> None:
    add_model(project, code)
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        derive()
    assert len(caught.value.problems) == 1
    # A model that nothing names stops no run; once named, the check says so beforehand.
    tree = read_yaml(Path("params.yaml"))
    assert check_models(tree) == []
    tree["build"]["model"] = {"name": "mine"}
    (problem,) = check_models(tree)
    assert problem.key == "build.model.name"
    assert says in problem.message


def test_a_model_may_ask_for_a_library_that_no_other_needs(project: Path) -> None:
    """Its version stands in the file, which is a dependency where it is named, and nowhere else."""
    version = read_pins()["requests"]
    add_model(project, f'LIBRARIES = {{"requests": "{version}"}}\nimport requests.adapters')
    assert out_of_date(derive()) == []
    add_model(project, 'LIBRARIES = {"requests": "0.1"}\nimport requests')
    with pytest.raises(UserError, match=rf"mine.py: LIBRARIES has requests 0.1, .* has {version}"):
        derive()
    add_model(project, 'LIBRARIES = {"requests": "0.1"}\nimport polars')
    with pytest.raises(UserError, match="imports 'polars', which no stage"):
        derive()


def test_comments_and_stages_of_ones_own_stay(clone: Project) -> None:
    path = clone.path / "dvc.yaml"
    text = path.read_text(encoding="utf-8")
    own = "  notify:  # mine\n    cmd: echo done\n    deps:\n      - README.md\n\n  infer:\n"
    path.write_text(text.replace("  infer:\n", own, 1), encoding="utf-8")
    clone.edit(
        "stages/infer/notes.py", "import polars", "import stages.evaluate.params\nimport polars"
    )
    clone.run("reprise", "deps")
    assert own in path.read_text(encoding="utf-8")


def test_pins_are_read_by_canonical_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "# a comment\nRuamel.YAML==0.19.1  # why\n\nscikit_learn==1.9\n"
    (tmp_path / "constraints.txt").write_text(text, encoding="utf-8")
    assert read_pins() == {"ruamel-yaml": "0.19.1", "scikit-learn": "1.9"}
