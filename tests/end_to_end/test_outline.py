"""docs/outline.md tells the truth: its snippets run, its links lead to what they name.

And the recipes beside it are whole, valid and fit their data.
"""

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.params.template import apply_recipe
from stages.build.params import BuildParams
from stages.common.config import validate, validate_all
from stages.common.yamlfile import read_yaml
from stages.evaluate.params import GatedEvaluateParams
from stages.features.encode import check_columns
from stages.infer.params import InferParams
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.fit import fit_schema
from stages.prepare.params import PrepareParams
from stages.prepare.table.table import in_memory
from stages.tools.rehearse import rehearse
from stages.training.params import TrainParams
from tests.conftest import ROOT, Project
from tests.support.samples import recipe_params
from tests.support.tables import read_table

OUTLINE = ROOT / "docs/outline.md"
RECIPES = sorted((ROOT / "docs/recipes").glob("*.yaml"))
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^]]+)\]\(([^)#]*)(?:#([^)]+))?\)")

# Runs each snippet as if it stood where it does in the file, so that a traceback shows its line.
RUNNER = """
import pathlib, re, sys
text = pathlib.Path("docs/outline.md").read_text(encoding="utf-8")
namespace = {"__name__": "__main__"}
for found in re.finditer(sys.argv[1], text, re.DOTALL | re.MULTILINE):
    above = "\\n" * text.count("\\n", 0, found.start(1))
    exec(compile(above + found[1], "docs/outline.md", "exec"), namespace)
"""


def links() -> list[tuple[str, str, str | None]]:
    """Text, file (empty: the outline itself) and anchor of every relative link."""
    prose = PYTHON_BLOCK.sub("", OUTLINE.read_text(encoding="utf-8"))
    return [(m[1], m[2], m[3]) for m in LINK.finditer(prose) if "://" not in m[2]]


def test_the_snippets_run_in_order(fresh: Callable[[str], Project]) -> None:
    project = fresh("outline")
    done = project.run(
        "python",
        "-W",
        "error",
        "-c",
        RUNNER,
        PYTHON_BLOCK.pattern,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout
    assert project.run("git", "status", "--porcelain", "--ignored").stdout == ""


def test_every_snippet_proves_something() -> None:
    snippets = PYTHON_BLOCK.findall(OUTLINE.read_text(encoding="utf-8"))
    assert len(snippets) >= 15
    for snippet in snippets:
        assert isinstance(ast.parse(snippet).body[-1], ast.Assert), snippet


def test_the_contents_list_the_steps() -> None:
    text = OUTLINE.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    slugs = {
        heading: re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
    }
    listed = [(name, anchor) for name, file, anchor in links() if not file]
    assert [f"{i}. {name}" for i, (name, _) in enumerate(listed, start=1)] == headings
    assert [anchor for _, anchor in listed] == [slugs[heading] for heading in headings]


def test_every_link_leads_to_what_it_names() -> None:
    wrong: list[str] = []
    num_symbols = 0
    for name, file, anchor in links():
        if not file:
            continue
        target = Path(os.path.normpath(OUTLINE.parent / file))
        symbol = re.fullmatch(r"`((?!\w+\.py`)[A-Za-z_][\w.]*)`", name)
        if not target.exists():
            wrong.append(f"{name}: {file} does not exist")
        elif anchor is not None and target.suffix == ".py":
            wrong.append(f"{name}: a link names the file and its symbol, not {anchor}")
        elif symbol is not None and target.suffix == ".py":
            num_symbols += 1
            if symbol[1] not in definitions(target):
                wrong.append(f"{symbol[1]}: {target.relative_to(ROOT)} does not define it")
    assert num_symbols >= 25
    assert wrong == [], "\n".join(wrong)


def definitions(file: Path) -> set[str]:
    """The functions, classes and names assigned at the top of `file`, and methods."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            found.update(prefix + t.id for t in targets if isinstance(t, ast.Name))

    collect(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return found


def test_the_recipes_are_those_of_the_outline() -> None:
    names = [recipe.stem for recipe in RECIPES]
    assert names == ["cnn", "linear_regression", "logistic_regression", "mlp"]
    committed = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert apply_recipe(ROOT / "docs/recipes/cnn.yaml") == committed


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.params.check import SECTIONS, check_params

    monkeypatch.chdir(ROOT)
    written = tmp_path / "params.yaml"
    written.write_text(apply_recipe(recipe), encoding="utf-8")
    tree = read_yaml(written)
    assert list(tree) == ["seed", *SECTIONS]
    for name, model in SECTIONS.items():
        problems, _ = validate_all(model, tree[name], at=name, file=str(written))
        assert problems == []
    # Names, arguments, the search space and paths, as `reprise check` sees them.
    monkeypatch.setattr("pipeline.params.check.PARAMS", written)
    monkeypatch.setattr("pipeline.params.check.rehearse", rehearse)
    check_params()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_fits_its_data(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.evaluate.measure.metrics import metrics_of
    from stages.model.model import make_model, make_spec
    from stages.prepare.expectations.suite import read_suite
    from stages.training.optim.preflight import check_names

    monkeypatch.chdir(ROOT)
    tree = recipe_params(recipe.stem)
    prepare = validate(PrepareParams, tree["prepare"], at="prepare")
    table = read_table(Path(prepare.source), "prepare.source")
    schema = fit_schema(find_schema(table, prepare), in_memory(table))
    rules, problems = read_suite(Path(prepare.expectations))
    assert rules
    assert problems == []

    model = validate(BuildParams, tree["build"], at="build").model
    make_model(make_spec(model, schema), seed=tree["seed"])
    check_names(validate(TrainParams, tree["train"], at="train"), schema.target.task)

    evaluate = validate(GatedEvaluateParams, tree["evaluate"], at="evaluate")
    assert set(evaluate.metrics) <= set(metrics_of(schema.target.task))
    assert evaluate.gates
    new_rows = validate(InferParams, tree["infer"], at="infer").input
    check_columns(read_table(Path(new_rows), "infer.input"), schema, "infer.input")
