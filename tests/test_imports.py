"""Imports run one way, and rooms stay small. `make check` runs this file."""

import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

from pipeline.deps.import_closure import read_imports
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT

STAGES = ("prepare", "build", "tune", "train", "evaluate", "infer")
# Rooms of a package, from the ground up: each imports only what stands before it. Those of one
# line stand beside each other and don't import each other.
ROOMS = {
    "stages": (
        ("common", "locks"),
        ("runtime",),
        ("features", "parallel"),
        ("formats", "tensors"),
        ("model",),
        ("zoo",),
        ("training",),
        STAGES,
        ("compare", "tools"),
    ),
    "stages.training": (
        ("params",),
        ("compatibility",),
        ("device",),
        ("data",),
        ("optim",),
        ("state",),
        ("far_values", "choices"),
        ("step", "averaging"),
        ("recipe", "build"),
        ("loop",),
        ("packed",),
    ),
    "pipeline": (
        ("common",),
        ("deps",),
        ("params",),
        ("metrics", "plan"),
        ("run", "report", "comment"),
        ("scheduled",),
        ("server", "serve"),
        ("elsewhere",),
        ("doctor",),
        ("commands",),
        ("cli",),
    ),
}
# Package → what of the project's other package it may import.
EDGES = {
    # Audits a stage from its first import on.
    "stages": (),
    # The light, typed sections, what of one goes together, and Markdown; all else it starts as a
    # process.
    "pipeline": (
        "stages.common",
        "stages.locks",
        "stages.runtime",
        *(f"stages.{stage}.params" for stage in STAGES if stage != "train"),
        "stages.evaluate.outputs.markdown",
        # What a suite may name beside columns.
        "stages.prepare.expectations.fact_names",
        # The values of a target that a transform of it does not take.
        "stages.prepare.low_values",
        # A kind of column, for JSON values; the sections, its name.
        "stages.features.kind",
        "stages.features.kinds",
        "stages.features.schema",
        "stages.features.spelling",
        # The first lines of a text: its encoding, its separator, its header.
        "stages.formats.reading",
        "stages.formats.suffixes",
        "stages.formats.text.compressed",
        "stages.formats.text.layout",
        "stages.formats.text.pieces",
        # The names of a folder's files.
        "stages.formats.images.folder",
        "stages.formats.images.idx_files",
        "stages.formats.folders.folder_kind",
        "stages.training.compatibility",
        "stages.training.params",
    ),
}
MAX_FILES, MAX_LINES, MEDIAN_LINES = 14, 300, 130
FORBIDDEN = {"stages": ("prefect", "dvc", "pipeline"), "pipeline": ("torch", "polars", "optuna")}
HEAVY = (
    "torch",
    "polars",
    "optuna",
    "sklearn",
    "great_expectations",
    "tensorboard",
    "dvc",
    "prefect",
)
# What Prefect runs; the command loads it only for a run.
FLOWS = (
    "pipeline/elsewhere/flow.py",
    "pipeline/elsewhere/follow.py",
    "pipeline/elsewhere/link.py",
    "pipeline/elsewhere/pool.py",
    "pipeline/elsewhere/search/helper.py",
    "pipeline/elsewhere/search/helpers.py",
    "pipeline/elsewhere/send.py",
    "pipeline/elsewhere/sending.py",
    "pipeline/run/advice_task.py",
    "pipeline/run/artifacts.py",
    "pipeline/run/flow.py",
    "pipeline/run/run_plan.py",
    "pipeline/run/run_result.py",
    "pipeline/run/server_contact.py",
    "pipeline/run/stage_task.py",
    "pipeline/scheduled/flow.py",
)


@functools.cache
def edges() -> list[tuple[str, str, str]]:
    """(module, imported module, where) for each import in the project's own modules."""
    found: list[tuple[str, str, str]] = []
    for file in sorted([*Path("stages").rglob("*.py"), *Path("pipeline").rglob("*.py")]):
        module = ".".join(file.with_suffix("").parts)
        found += [(module, each.name, f"{file}:{each.line}") for each in read_imports(file)]
    return found


@functools.cache
def project_edges() -> list[tuple[str, str, str]]:
    """The same, of imports that lead to a file of the project."""
    return [each for each in edges() if Path(*each[1].split(".")).with_suffix(".py").is_file()]


def child(module: str, package: str) -> str | None:
    """The file or folder of `package` in which a module stands; None: it is not in there."""
    if not module.startswith(f"{package}."):
        return None
    return module.removeprefix(f"{package}.").split(".")[0]


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def starts_with(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def test_nothing_imports_upwards() -> None:
    wrong = []
    for package, rooms in ROOMS.items():
        height = {name: number for number, names in enumerate(rooms) for name in names}
        for module, name, where in project_edges():
            above, below = child(module, package), child(name, package)
            if above in (None, below, "__init__") or below is None:
                continue
            assert above in height, f"{above} of {package} has no place in ROOMS"
            if height[below] >= height[above]:
                wrong.append(f"{where}: {above} imports {below}")
    assert wrong == []
    assert len(project_edges()) > 800, "the walk must see the project"


def test_packages_import_of_each_other_what_is_on_the_list() -> None:
    wrong = [
        f"{where}: {module} imports {name}"
        for module, name, where in project_edges()
        if not starts_with(name, (module.split(".")[0], *EDGES[module.split(".")[0]]))
    ]
    assert wrong == []


def test_a_file_of_the_zoo_stands_alone() -> None:
    wrong = [
        f"{where}: {name}"
        for module, name, where in project_edges()
        if starts_with(module, ("stages.zoo",)) and starts_with(name, ("stages.zoo",))
    ]
    assert wrong == []


def test_no_circle_between_files_or_folders() -> None:
    packages = {"stages", "pipeline"}
    for file in [*Path("stages").rglob("*.py"), *Path("pipeline").rglob("*.py")]:
        packages |= {".".join(folder.parts) for folder in file.parents[:-1]}
    for package in sorted(packages):
        graph: dict[str, set[str]] = {}
        for module, name, _ in project_edges():
            above, below = child(module, package), child(name, package)
            if above is not None and below is not None and above != below:
                graph.setdefault(above, set()).add(below)
        # Raises CycleError, which names the circle.
        TopologicalSorter(graph).prepare()


def test_rooms_and_files_are_small() -> None:
    files = [*Path("stages").rglob("*.py"), *Path("pipeline").rglob("*.py")]
    folders = Counter(file.parent for file in files)
    assert {str(folder): n for folder, n in folders.items() if n > MAX_FILES} == {}
    files += Path("benchmarks").glob("*.py")
    lines = {str(file): file.read_bytes().count(b"\n") for file in files}
    assert {file: n for file, n in lines.items() if n > MAX_LINES} == {}
    assert median(lines.values()) <= MEDIAN_LINES


def test_files_of_tests_are_small() -> None:
    files = list(Path("tests").rglob("*.py"))
    assert len(files) > 300, "the walk must see the tests"
    lines = {str(file): file.read_bytes().count(b"\n") for file in files}
    assert {file: n for file, n in lines.items() if n > MAX_LINES} == {}


def test_stages_know_nothing_of_orchestration_and_pipeline_nothing_of_torch() -> None:
    wrong = [
        f"{where}: {name}"
        for module, name, where in edges()
        if starts_with(name, FORBIDDEN[module.split(".")[0]])
    ]
    assert wrong == []


def test_no_stage_imports_a_model_of_the_zoo_by_itself() -> None:
    wrong = [
        f"{where}: {name}"
        for module, name, where in edges()
        if not starts_with(module, ("stages.zoo",)) and starts_with(name, ("stages.zoo.models",))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "file"),
    [
        ("transformers", "stages/zoo/models/huggingface.py"),
        ("tokenizers", "stages/features/words/tokens.py"),
    ],
)
def test_an_extra_is_imported_by_one_file_and_only_where_it_is_used(
    library: str, file: str
) -> None:
    places = {where.split(":")[0] for _, name, where in edges() if starts_with(name, (library,))}
    assert places == {file}
    top = ast.parse(Path(file).read_bytes()).body
    names = [a.name for node in top if isinstance(node, ast.Import) for a in node.names]
    names += [str(node.module) for node in top if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if starts_with(name, (library,))]


def test_the_command_starts_without_heavy_libraries() -> None:
    names = ", ".join(
        ".".join(file.with_suffix("").parts)
        for file in sorted(Path("pipeline").rglob("*.py"))
        if file.as_posix() not in FLOWS
    )
    code = f"import sys, {names}; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sections_are_light() -> None:
    sections = sorted(Path("stages").glob("*/params.py"))
    assert len(sections) == 7
    names = ", ".join(".".join(file.with_suffix("").parts) for file in sections)
    code = f"import sys, {names}; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_edit_of_a_tool_or_of_a_comparison_reruns_nothing() -> None:
    stages = read_yaml(Path("dvc.yaml"))["stages"].values()
    deps = {Path(dep) for stage in stages for dep in stage["deps"]}
    apart = [*Path("stages/tools").iterdir(), *Path("stages/compare").iterdir()]
    assert len(apart) >= 11
    for file in apart:
        assert not {file, *file.parents} & deps, file


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    clause = re.compile(r'^\s*r?"""(What|Whether|How|Where|Who|When|Why)\b')
    files = [*Path("stages").rglob("*.py"), *Path("pipeline").rglob("*.py")]
    wrong = [
        f"{file}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if clause.match(line)
    ]
    assert wrong == []
