"""The outline tells the truth: its snippets can be pasted, its links lead to what they name.

Its notebook is made of the same text, and runs. The recipes beside it are whole, valid and fit
their data.
"""

import ast
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
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
from stages.tools import outline_notebook
from stages.tools.outline_notebook import list_chapters
from stages.tools.rehearse import rehearse
from stages.training.params import TrainParams
from tests.conftest import ROOT, Project, project_environment
from tests.support.pasted import FAILURES, paste_all
from tests.support.samples import recipe_params
from tests.support.tables import read_table

OUTLINE = ROOT / "docs/outline.md"
CHAPTERS = list_chapters(ROOT / "docs/outline")
RECIPES = sorted((ROOT / "docs/recipes").glob("*.yaml"))
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
FOLDED = re.compile(r"^<details>.*?^</details>$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^]]+)\]\(([^)#]*)(?:#([^)]+))?\)")
SCRIPT = "docs/outline/two_processes.py"
# A chapter needs nothing of those before it: their names are gone, as in a prompt of its own.
FORGET = 'for name in [n for n in globals() if not n.startswith("__")]:\n    del globals()[name]\n'


def snippets(page: Path) -> list[str]:
    """The snippets of a chapter, with the answers to its exercises."""
    return PYTHON_BLOCK.findall(page.read_text(encoding="utf-8"))


def links(page: Path) -> list[tuple[str, str, str | None]]:
    """Text, file (empty: the page itself) and anchor of every relative link."""
    prose = PYTHON_BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [(m[1], m[2], m[3]) for m in LINK.finditer(prose) if "://" not in m[2]]


def headings(page: Path, level: int) -> list[str]:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(rf"^{'#' * level} (.+)$", prose, re.MULTILINE)


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def of_a_reader(home: Path) -> dict[str, str]:
    """The environment of a person's shell, with a home of its own and nothing compiled."""
    own = {"HOME": str(home), "IPYTHONDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**project_environment(), **own, "TERM": "xterm"}


@pytest.mark.soak
def test_the_snippets_can_be_pasted(fresh: Callable[[str], Project], tmp_path: Path) -> None:
    project = fresh("outline")
    pasted = [text for page in CHAPTERS for text in (FORGET, *snippets(page))]
    shown = paste_all(pasted, project.path, of_a_reader(tmp_path))
    assert not any(failure in shown[-1] for failure in FAILURES), shown[-1]
    assert len(shown) == len(pasted)
    assert project.run("git", "status", "--porcelain", "--ignored").stdout == ""


@pytest.mark.soak
def test_the_notebook_runs(fresh: Callable[[str], Project], tmp_path: Path) -> None:
    project = fresh("notebook")
    project.run("jupyter", "execute", "docs/outline.ipynb", env=of_a_reader(tmp_path))
    assert project.run("git", "status", "--porcelain", "--ignored").stdout == ""


def test_the_notebook_is_that_of_the_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert outline_notebook.main(["--check"]) == 0
    notebook = nbformat.read(ROOT / "docs/outline.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    open_text = [FOLDED.sub("", page.read_text(encoding="utf-8")) for page in CHAPTERS]
    shown = [found.rstrip() for text in open_text for found in PYTHON_BLOCK.findall(text)]
    assert code == [outline_notebook.TO_ROOT, *shown]
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert sum(text.startswith("<details>") for text in texts) == 3 * len(CHAPTERS)
    named = {
        name.replace(" ", "-") for text in texts for name in re.findall("^#+ (.+)", text, re.M)
    }
    for _, file, anchor in [found for text in texts for found in LINK.findall(text)]:
        assert "://" in file or (ROOT / "docs" / file).exists() if file else anchor in named

    monkeypatch.setattr(outline_notebook, "NOTEBOOK", tmp_path / "outline.ipynb")
    assert outline_notebook.main(["--check"]) == 1
    assert "is out of date: 'python -m stages.tools.outline_notebook'" in capsys.readouterr().err


@pytest.mark.soak
def test_the_script_of_two_processes_runs() -> None:
    # It writes nothing.
    command = ["torchrun", "--standalone", "--nproc-per-node", "2", SCRIPT]
    assert " ".join(command) in (ROOT / "docs/outline/5_devices.md").read_text(encoding="utf-8")
    done = Project(ROOT).run(*command)
    assert "2 processes with equal weights" in done.stdout


def test_the_page_shows_the_script_of_two_processes() -> None:
    page = (ROOT / "docs/outline/5_devices.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert (ROOT / SCRIPT).read_text(encoding="utf-8").endswith(f'"""\n\n{shown}')


def test_every_snippet_proves_something() -> None:
    texts = [text for page in CHAPTERS for text in snippets(page)]
    assert len(texts) >= 60
    for text in texts:
        assert isinstance(ast.parse(text).body[-1], ast.Assert), text


def test_the_contents_list_the_chapters_and_their_steps() -> None:
    listed = [(name, file, anchor) for name, file, anchor in links(OUTLINE) if "outline/" in file]
    expected: list[tuple[str, str, str | None]] = []
    for number, page in enumerate(CHAPTERS, start=1):
        (title,) = headings(page, 1)
        name = title.removeprefix(f"Chapter {number}: ")
        assert name != title
        file = f"outline/{page.name}"
        steps = [step for step in headings(page, 2) if step != "Exercises"]
        expected += [(name, file, None), *((step, file, slug(step)) for step in steps)]
        own = [(name, anchor) for name, file, anchor in links(page) if not file]
        assert own == [(step, slug(step)) for step in headings(page, 2)]
    assert [(name.lower(), *place) for name, *place in listed] == [
        (name.lower(), *place) for name, *place in expected
    ]


def test_a_chapter_leads_to_the_next() -> None:
    for before, after in itertools.pairwise(CHAPTERS):
        assert after.name in [file for _, file, _ in links(before)][-1]
        assert before.name in [file for _, file, _ in links(after)]


def test_every_link_leads_to_what_it_names() -> None:
    wrong: list[str] = []
    num_symbols = 0
    for page in (OUTLINE, *CHAPTERS):
        for name, file, anchor in links(page):
            if not file:
                continue
            target = Path(os.path.normpath(page.parent / file))
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
