"""Mistakes in `params.yaml`, found without the start of a process: each once, in our words."""

import pytest
from ruamel.yaml import YAML

from pipeline.params.check import find_problems
from stages.common.errors import Problem
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT

METRICS = "metrics:\n  - accuracy\n  - f1_macro\n  - log_loss\n  - roc_auc"
# Old text of params.yaml, new text, and (key, what it must say) of every problem there is.
LONELY: list[tuple[str, str, list[tuple[str, str]]]] = [
    (
        "train.optimizer.lr: {low: 1e-4, high: 1e-1, log: true}",
        "train.loss.label_smoothing: {low: 0.0, high: 0.2}",
        [("tune.space.train.loss.label_smoothing", "trials are compared by this very loss")],
    ),
    (
        "columns: {}",
        "columns: {size: numeric}",
        [("prepare.columns.size", "DVC's cache would not see its value change")],
    ),
    (
        "train.optimizer.lr: {low: 1e-4, high: 1e-1, log: true}",
        "train.schedule.name: [StepLR, CosineAnnealingLR]",
        [("tune.space.train.schedule.name", "'StepLR': StepLR needs 'step_size'")],
    ),
    (
        "train.optimizer.lr: {low: 1e-4, high: 1e-1, log: true}",
        "train.optimizer.name: [AdamW, Rprop]",
        [
            (
                "tune.space.train.optimizer.name",
                "Rprop takes no 'weight_decay'\ntake train.optimizer.weight_decay out of params",
            )
        ],
    ),
    (
        "task: auto ",
        "task: regression ",
        [
            ("evaluate.gates.accuracy", "a metric that the task has not"),
            ("evaluate.metrics.0", "no metric 'accuracy' for regression"),
            ("evaluate.metrics.1", "no metric 'f1_macro' for regression"),
            ("evaluate.metrics.2", "no metric 'log_loss' for regression"),
            ("evaluate.metrics.3", "no metric 'roc_auc' for regression"),
            ("train.loss.name", "no loss 'CrossEntropyLoss' for regression"),
        ],
    ),
    ("source: data/raw/digits.parquet", "source: data", [("prepare.source", "which comes after")]),
    (
        "source: data/raw/digits.parquet",
        "source: data/raw.d",
        [("prepare.source", ".parquet, .csv")],
    ),
    ("raw/digits_new.parquet", "raw/digits_new.xlsb", [("infer.input", "not a kind of table")]),
    (
        "raw/digits_new.parquet",
        "infer/predictions.parquet",
        [("infer.input", "the stage 'infer' itself writes")],
    ),
    (
        "raw/digits.parquet",
        "evaluate/predictions.parquet",
        [("prepare.source", "the stage 'evaluate' writes, which comes after 'prepare'")],
    ),
    (
        "raw/digits.expectations.yaml",
        "train",
        [("prepare.expectations", "the stage 'train' writes")],
    ),
    ("seed: 0 ", "seed: 4294967296 ", [("seed", "from 0 to 4294967295")]),
    ("seed: 0,", "seed: 4294967296,", [("prepare.split.seed", "be at most 4294967295")]),
    ("accuracy: {", "acuracy: {", [("evaluate.gates.acuracy", "no 'acuracy' among")]),
    ("{name: cnn, channels: [16, 32], width: 64, dropout: 0.0}", "cnn", [("build.model", "{name")]),
    ("0.95}", "0.95, maximum: 0.1}", [("evaluate.gates.accuracy", "nothing passes")]),
    ("- f1_macro\n", "- accuracy\n", [("evaluate.metrics", "accuracy is listed twice")]),
    ("{minimum: 0.95}", "0.95", [("evaluate.gates.accuracy", "must be keys with values")]),
    (METRICS, "metrics: []", [("evaluate.metrics", "at least 1 item")]),
    ("epochs: 30", "epochs: 1.5", [("train.epochs", "epochs must be a whole number")]),
    ("channels: [16, 32]", "channels: []", [("build.model.channels", "have at least 1 item")]),
    (
        "class_weights:",
        "class_weights: {3: 0}",
        [("train.class_weights.3", "3 must be at least 1e-06")],
    ),
    ("class_weights:", "class_weights: {true: x}", [("train.class_weights.true", "number")]),
    # DVC can't sort these, and fails without a place.
    ("class_weights:", "class_weights: {3: 1, x: 2}", [("train.class_weights", "quotes: 3")]),
    (
        "{name: AdamW, lr: 3e-3, weight_decay: 0.01}",
        "{name: LBFGS, lr: 0.5, line_search_fn: armijo}",
        [
            ("train.clip_norm", "LBFGS goes by how the loss falls along its gradient"),
            ("train.optimizer.line_search_fn", "must be 'strong_wolfe' or null"),
        ],
    ),
    (
        "{name: CrossEntropyLoss}",
        "{name: focal, gamma: -0.5}",
        [("train.loss.gamma", "must be at least 0")],
    ),
    (
        "{name: CosineAnnealingLR}",
        "{name: warmup_cosine, warmup: 1.0}",
        [("train.schedule.warmup", "must be less than 1")],
    ),
    ("dropout: 0.0", "dropout: 1.0", [("build.model.dropout", "must be less than 1")]),
    ("- 32\n", "- [1, a]\n", [("tune.space.build.model.width.0.1", "must be a number")]),
]
# Those that take several edits.
LBFGS = {"{name: AdamW, lr: 3e-3, weight_decay: 0.01}": "{name: LBFGS, lr: 0.5}"}
TOGETHER: list[tuple[dict[str, str], list[tuple[str, str]]]] = [
    (
        {**LBFGS, "clip_norm: 1.0": "clip_norm: null", "clip_value:": "clip_value: 0.1"},
        [("train.clip_value", "a clipped one is of no loss")],
    ),
    (
        {**LBFGS, "clip_norm: 1.0": "clip_norm: null", "precision: auto": "precision: fp16"},
        [("train.precision", "fp16 takes steps until its factor fits")],
    ),
    (
        {**LBFGS, "clip_norm: 1.0": "clip_norm: null", "parallel: ddp": "parallel: fsdp"},
        [("train.parallel", "LBFGS can't be used with fsdp")],
    ),
    (
        {"compile: auto": "compile: true", "parallel: ddp": "parallel: fsdp"},
        [("train.compile", "which is not compiled")],
    ),
    (
        {
            ", weight_decay: 0.01": "",
            "train.optimizer.lr: {low: 1e-4, high: 1e-1, log: true}": (
                "train.optimizer.name: [AdamW, LBFGS]"
            ),
        },
        [("tune.space.train.optimizer.name", "'LBFGS': LBFGS goes by how the loss falls")],
    ),
    (
        {
            "raw/digits.parquet": "raw/digits.tsv",
            "channels_last: auto": "channels_last: true",
            "augment:": "augment: {flip: 0.5, shift: 1, noise: 0.1}",
        },
        [
            ("prepare.source", "does not exist"),
            ("train.augment.flip", "there is no image to flip"),
            ("train.augment.shift", "there is no image to shift"),
            ("train.channels_last", "whose channels could come last"),
        ],
    ),
    (
        {
            "channels_last: auto": "channels_last: true",
            "augment:": "augment: {flip: 0.5, shift: 1, noise: 0.1}",
        },
        [],
    ),
]
JARGON = ("valid", "Input", "instance of", "validation,", "dictionary", "should")


def problems_of(text: str, monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """What the check finds in a `params.yaml` of this text."""
    monkeypatch.chdir(ROOT)
    return find_problems(YAML(typ="safe").load(text))


@pytest.mark.parametrize(("old", "new", "says"), LONELY)
def test_a_mistake_is_said_once_in_our_words(
    old: str, new: str, says: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_said({old: new}, says, monkeypatch)


@pytest.mark.parametrize(("edits", "says"), TOGETHER)
def test_what_does_not_go_together_is_said_without_a_stage(
    edits: dict[str, str], says: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_said(edits, says, monkeypatch)


def edited(text: str, edits: dict[str, str]) -> str:
    for old, new in edits.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def assert_said(
    edits: dict[str, str], says: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    if any(key.startswith("tune.space") for key, _ in says):
        # Without trials nobody searches the space, and it may be that of another model.
        assert not any(
            "must" not in p.message for p in problems_of(edited(text, edits), monkeypatch)
        )
        text = text.replace("trials: 0", "trials: 1")
    text = edited(text, edits)
    problems = problems_of(text, monkeypatch)
    assert sorted(str(problem.key) for problem in problems) == [key for key, _ in says]
    for key, words in says:
        (problem,) = [problem for problem in problems if problem.key == key]
        assert words in problem.message
        assert not any(word in problem.message for word in JARGON)


@pytest.mark.parametrize(
    ("task", "loss", "wrong"),
    [("classification", "MSELoss", ["train.loss.name"]), ("classification", "MultiMarginLoss", [])],
)
def test_a_loss_fits_the_task_that_is_named(
    task: str, loss: str, wrong: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("task: auto", f"task: {task}").replace("CrossEntropyLoss", loss)
    problems = problems_of(text, monkeypatch)
    assert [problem.key for problem in problems] == wrong
    assert all("CrossEntropyLoss" in problem.allowed for problem in problems)


@pytest.mark.parametrize("section", ["prepare", "build", "tune", "train", "evaluate", "infer"])
def test_a_missing_section_is_all_that_is_said(
    section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    tree = read_yaml(ROOT / "params.yaml")
    without = {name: part for name, part in tree.items() if name != section}
    assert [problem.key for problem in find_problems(without)] == [section]
    assert [problem.key for problem in find_problems({**tree, section: None})] == [section]


def test_a_missing_part_is_all_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for key in ("train.optimizer", "train.loss", "train.schedule", "build.model", "prepare.split"):
        tree = read_yaml(ROOT / "params.yaml")
        section, part = key.split(".")
        del tree[section][part]
        assert [problem.key for problem in find_problems(tree)] == [key]
