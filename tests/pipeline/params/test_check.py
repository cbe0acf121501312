"""`reprise check`: all mistakes of `params.yaml` at once, before anything runs."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from pipeline.cli import main
from pipeline.params.paths import check_paths
from pipeline.params.template import apply_recipe
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT, Project, project_environment
from tests.support.samples import recipe_params

SCHEMA = json.loads((ROOT / "stages/params.schema.json").read_text(encoding="utf-8"))
# Old text of params.yaml, new text, and what the screen must say.
MISTAKES = [
    ("seed: 0 ", "seed: -1 ", ["params.yaml:6  seed: -1", "from 0 to"]),
    ("\nseed: 0 ", "\n# no ", ["section 'seed' is missing"]),
    ("\ninfer:", "\ninferr:", ["unknown section 'inferr'", "did you mean 'infer'?", "'infer' is"]),
    ("task: auto ", "task: clasification ", ["prepare.task", "did you mean 'classification'?"]),
    ("  key: id ", "  # key ", ["the key 'prepare.key' is missing"]),
    ("validation: 0.15", "validation: 0.9", ["leave no rows to train on", "prepare.split"]),
    ("columns: {}", "columns: {a: number}", ["prepare.columns.a", "numeric"]),
    ("width: 64,", "widht: 64,", ["cnn takes no 'widht'", "did you mean 'width'?"]),
    ("channels: [16, 32]", "channels: []", ["build.model.channels"]),
    ("name: cnn", "name: densenet", ["no model 'densenet'", "did you mean 'resnet'"]),
    ("lr: 3e-3", "lr: fast", ["lr must be a number", "train.optimizer.lr: fast"]),
    ("lr: 3e-3", 'lr: "0.005"', ["lr must be a number", 'train.optimizer.lr: "0.005"']),
    ("epochs: 30", "epochs: 'true'", ['train.epochs: "true"']),
    ("lr: 3e-3", "betas: [0.9]", ["train.optimizer.betas"]),
    ("name: AdamW", "name: Muon", ["Muon can't be used", "it takes matrices only"]),
    ("name: AdamW", "name: adamw", ["no optimizer 'adamw'", "did you mean 'AdamW'?"]),
    ("name: CosineAnnealingLR", "name: StepLR", ["StepLR needs 'step_size'"]),
    ("- accuracy\n", "- acuracy\n", ["no metric 'acuracy'", "evaluate.metrics.0"]),
    ("minimum: 0.95", "min: 0.95", ["evaluate.gates.accuracy.min", "did you mean 'minimum'?"]),
    ("{minimum: 0.95}", "{}", ["a gate needs a minimum, a maximum"]),
    ("low: 1e-4", "low: 1", ["low (1) must be below high (0.1)"]),
    ("- 64\n", "- many\n", ["tune.space.build.model.width", "can't be 'many'"]),
    ("build.model.width:", "build.model.depth:", ["cnn takes no 'depth'"]),
    ("build.model.width:", "prepare.split.seed:", ["can't be tuned"]),
    ("train.optimizer.lr: {", "train.epochs: {", ["the epochs of a trial are tune.epochs"]),
    ("log: true}", "when: {build.model.width: 33}}", ["is never 33 in this space", "32, 64, 128"]),
    ("sampler: auto", "sampler: grid", ["a grid needs a list of values"]),
    ("raw/digits.parquet", "raw/digit.parquet", ["does not exist", "'data/raw/digits.parquet'?"]),
    ("raw/digits_new.parquet", "row/new.parquet", ["there is no folder data/row", "infer.input"]),
    ("patience: 8}", "patience: 8", ["params.yaml:", "not valid YAML"]),
]


def test_what_another_stage_makes_may_be_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = read_yaml(ROOT / "dvc.yaml")
    pipeline["stages"]["fetch"] = {
        "cmd": "curl",
        "outs": [{"data/fetched/new.csv": {"cache": False}}],
    }
    with Path("dvc.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(pipeline, file)
    tree = {"prepare": {"source": "data/fetched/new.csv"}, "infer": {"input": "data/fetched/n.csv"}}
    (problem,) = check_paths(tree)
    assert problem.key == "infer.input"


def test_what_dvc_would_wait_for_or_can_not_name_is_told(tmp_path: Path) -> None:
    tree = read_yaml(ROOT / "params.yaml")
    photos = tmp_path / "photos"
    (photos / "cat").mkdir(parents=True)
    tree["prepare"]["source"] = tree["infer"]["input"] = str(photos)
    assert check_paths(tree) == []
    os.mkfifo(photos / "cat/x.png")
    first, second = check_paths(tree)
    assert (first.key, second.key) == ("prepare.source", "infer.input")
    assert "cat/x.png is no file, but a link to nothing, a FIFO" in first.message
    (photos / "cat/x.png").unlink()
    (photos / os.fsdecode(b"\xe9t\xe9")).mkdir()
    assert f"the name b'\\xe9t\\xe9' in {photos} is not UTF-8" in check_paths(tree)[0].message


@pytest.fixture(scope="module")
def in_place(example: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The example's files, of which a test may change `params.yaml`: each is given it anew."""
    folder = tmp_path_factory.mktemp("check")
    for path in example.path.iterdir():
        if path.name not in (".reprise", "params.yaml"):
            (folder / path.name).symlink_to(path)
    return Project(folder)


@pytest.mark.parametrize(("old", "new", "says"), MISTAKES)
def test_a_mistake_is_named_with_its_place(
    in_place: Project,
    old: str,
    new: str,
    says: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (in_place.path / "params.yaml").write_text(text, encoding="utf-8")
    in_place.edit("params.yaml", old, new)
    in_place.edit("params.yaml", "trials: 0", "trials: 1")
    monkeypatch.chdir(in_place.path)
    # What torch says is the subject of test_rehearsal.py.
    monkeypatch.setattr("pipeline.params.check.rehearse", lambda _: [])
    with pytest.raises(SystemExit) as ended:
        main.main(["check"], prog_name="reprise")
    assert ended.value.code == 1
    screen = capsys.readouterr().err
    for words in says:
        assert words in screen, screen


def test_all_mistakes_are_named_at_once(clone: Project) -> None:
    clone.edit("params.yaml", "name: AdamW", "name: AdamWW")
    clone.edit("params.yaml", "target: label", "target: 3")
    clone.edit("params.yaml", "width: 64,", "width: wide,")
    clone.edit("params.yaml", "raw/digits_new.parquet", "raw/gone.parquet")
    said = clone.run("reprise", "check", ok=False).stderr
    for key in ("train.optimizer.name", "prepare.target", "build.model.width", "infer.input"):
        assert key in said


def test_the_example_is_fine_from_any_folder(clone: Project) -> None:
    inner = Project(clone.path / "stages")
    assert "params.yaml is fine" in inner.run("reprise", "check").stdout
    outside = Project(clone.path.parent)
    assert "not inside a Reprise repository" in outside.run("reprise", "check", ok=False).stderr


def test_a_new_model_is_known_at_once(clone: Project) -> None:
    source = (clone.path / "stages/zoo/models/linear.py").read_text(encoding="utf-8")
    source = source.replace('"""A linear model has none."""', "bias_start: float = 0.0")
    (clone.path / "stages/zoo/models/mine.py").write_text(source, encoding="utf-8")
    clone.edit(
        "params.yaml",
        "{name: cnn, channels: [16, 32], width: 64, dropout: 0.0}",
        "{name: mine, bias: 1}",
    )
    width = "build.model.width:\n    - 32\n    - 64\n    - 128"
    clone.edit("params.yaml", width, "build.model.bias_start: [0.1, 1]")
    said = clone.run("reprise", "check", ok=False).stderr
    assert "mine takes no 'bias'" in said
    assert "did you mean 'bias_start'?" in said
    clone.edit("params.yaml", "bias: 1}", "bias_start: 1}")
    done = clone.run("reprise", "check")
    # It has seen the new file, and written nothing that git tracks.
    assert "out of date for editors: 'reprise schema' writes it" in done.stderr
    changed = clone.run("git", "status", "--porcelain").stdout.split()
    assert changed == ["M", "params.yaml", "??", "stages/zoo/models/mine.py"]
    clone.run("reprise", "schema")
    assert clone.run("reprise", "check").stderr == ""


def test_a_model_with_a_mistake_in_it_is_named(clone: Project) -> None:
    (clone.path / "stages/zoo/models/mine.py").write_text("def broken(:\n", encoding="utf-8")
    said = clone.run("reprise", "check", ok=False).stderr
    assert "mine.py" in said
    assert "SyntaxError" in said
    (clone.path / "stages/zoo/models/mine.py").unlink()
    losses = clone.path / "stages/zoo/losses.py"
    text = losses.read_text(encoding="utf-8")
    losses.write_text(f"{text}\n\nclass mine(torch.nn.Module):\n    pass\n", encoding="utf-8")
    said = clone.run("reprise", "check", ok=False).stderr
    assert "stages/zoo/losses.py: mine does not say its task" in said
    assert "raise" not in said
    assert "^" not in said


def test_a_list_that_dvc_left_half_written_is_removed_when_nobody_needs_it(clone: Project) -> None:
    lock = clone.path / ".dvc/tmp/rwlock"
    lock.write_text('{"write": {', encoding="utf-8")
    assert "rwlock" in clone.run("dvc", "repro", ok=False).stderr.lower()
    # What is called so in this folder may hold paths that only the list names.
    other = clone.path / "dvc"
    other.write_text("input()\n", encoding="utf-8")
    with subprocess.Popen(
        ["python", "dvc"],
        cwd=clone.path,
        env=project_environment(),
        stdin=subprocess.PIPE,
    ) as process:
        said = clone.run("reprise", "check", ok=False).stderr
        assert f"process {process.pid}: python dvc runs in this folder" in said
        assert lock.exists()
        process.communicate(b"\n")
    other.unlink()
    assert "removed .dvc/tmp/rwlock" in clone.run("reprise", "check").stdout
    assert clone.repro() == []


def test_the_schema_for_editors_is_up_to_date(example: Project) -> None:
    example.run("python", "-m", "stages.tools.params_schema", "--check")


def test_the_schema_takes_what_is_right_and_nothing_else() -> None:
    validator = Draft202012Validator(SCHEMA)
    Draft202012Validator.check_schema(SCHEMA)
    for recipe in (ROOT / "docs/recipes").glob("*.yaml"):
        assert list(validator.iter_errors(recipe_params(recipe.stem))) == [], recipe

    def change(edit: Callable[[dict[str, dict[str, object]]], object]) -> bool:
        tree = read_yaml(ROOT / "params.yaml")
        edit(tree)
        return validator.is_valid(tree)

    assert change(lambda tree: tree["train"].update(optimizer={"name": "SGD", "lr": 0.1}))
    assert not change(lambda tree: tree["train"].update(optimizer={"name": "SGD", "betas": 1}))
    assert not change(lambda tree: tree["train"].update(optimizer={"name": "Sgd"}))
    assert not change(lambda tree: tree["build"].update(model={"name": "cnn", "depth": 3}))
    assert not change(lambda tree: tree.update(infr={}))
    assert not change(lambda tree: tree.pop("infer"))
    assert not change(lambda tree: tree["evaluate"].update(metrics=["acuracy"]))


def test_a_recipe_shows_what_it_changes_and_loses_no_edits(clone: Project) -> None:
    listed = clone.run("reprise", "recipe").stdout
    names = [line.split()[0] for line in listed.splitlines()]
    assert names == ["cnn", "linear_regression", "logistic_regression", "mlp"]
    shown = clone.run("reprise", "recipe", "linear_regression").stdout
    assert "+  source: data/raw/diabetes.parquet" in shown
    assert "-  source: data/raw/digits.parquet" in shown
    clone.run("reprise", "check")
    written = (clone.path / "params.yaml").read_text(encoding="utf-8")
    assert written == apply_recipe(clone.path / "docs/recipes/linear_regression.yaml")
    # What a recipe writes can be had again.
    clone.run("reprise", "recipe", "cnn")
    assert clone.run("git", "status", "--porcelain").stdout == ""

    clone.edit("params.yaml", "\nseed: 0", "\nseed: 7")
    said = clone.run("reprise", "recipe", "mlp", ok=False).stderr
    assert "not committed" in said
    clone.run("reprise", "recipe", "mlp", "--force")
    said = clone.run("reprise", "recipe", "mpl", ok=False).stderr
    assert "did you mean 'mlp'?" in said


def test_metrics_are_shown_with_the_gates(clone: Project) -> None:
    shown = clone.run("reprise", "metrics").stdout
    assert "accuracy" in shown
    assert "passed: at least 0.95" in shown
    clone.edit("params.yaml", "minimum: 0.95", "minimum: 1.1")
    assert "failed: at least 1.1" in clone.run("reprise", "metrics").stdout
    clone.run("rm", "-r", "data/evaluate", "data/train", "data/prepare")
    assert "run 'dvc repro'" in clone.run("reprise", "metrics", ok=False).stderr
