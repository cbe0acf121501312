"""Values of the right type that no training can be meant by: refused by the check and the stage."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.params.check import find_problems
from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from stages.training.optim.registry import Kind, resolve
from tests.conftest import ROOT

HUGE = 10**30
# Edits that go together, and what is said of each.
NONSENSE: list[dict[tuple[str, str], tuple[str, str]]] = [
    {
        ("lr: 3e-3", "lr: -1"): ("train.optimizer.lr", "must be greater than 0"),
        ("weight_decay: 0.01", "betas: [0.9, 1.5]"): ("train.optimizer.betas.1", "less than 1"),
        ("{name: CosineAnnealingLR}", "{name: CosineAnnealingLR, T_max: -5}"): (
            "train.schedule.T_max",
            "must be at least 1",
        ),
        ("clip_value:  ", "clip_value: 1e308 "): ("train.clip_value", "at most 3.4e+38"),
        ("clip_norm: 1.0", "clip_norm: 1e-300"): ("train.clip_norm", "at least 1e-30"),
        ("class_weights:  ", "class_weights: {3: 1e308} "): (
            "train.class_weights.3",
            "at most 1000000",
        ),
        ("epochs: 30", f"epochs: {HUGE}"): ("train.epochs", "at most 1000000"),
        ("batch_size: 64", f"batch_size: {HUGE}"): ("train.batch_size", "at most 1000000000"),
        ("micro_batch_size:  ", f"micro_batch_size: {HUGE} "): (
            "train.micro_batch_size",
            "at most 1000000000",
        ),
        ("replicas: 3", f"replicas: {HUGE}"): ("train.replicas", "at most 1000"),
        ("trials: 0", f"trials: {HUGE}"): ("tune.trials", "at most 1000000"),
        ("width: 64", f"width: {HUGE}"): ("build.model.width", "at most 1000000"),
    },
    {
        ("lr: 3e-3", "lr: .nan"): ("train.optimizer.lr", "must be a finite number"),
        ("weight_decay: 0.01", "eps: -1"): ("train.optimizer.eps", "must be at least 0"),
        ("{name: CosineAnnealingLR}", "{name: StepLR, step_size: 0}"): (
            "train.schedule.step_size",
            "must be at least 1",
        ),
        ("width: 64", "width: 1e308"): ("build.model.width", "at most 1000000"),
        # DVC's own comparison calls it equal to 64, and so reruns nothing for it.
        ("batch_size: 64", "batch_size: 64.0"): ("train.batch_size", "must be a whole number"),
    },
    {
        ("lr: 3e-3", "lr: .inf"): ("train.optimizer.lr", "must be at most 3.4e+38"),
        ("{name: CosineAnnealingLR}", "{name: CosineAnnealingLR, T_max: 0}"): (
            "train.schedule.T_max",
            "must be at least 1",
        ),
    },
]


@pytest.mark.parametrize("edits", NONSENSE)
def test_nonsense_of_the_right_type_is_refused(
    edits: dict[tuple[str, str], tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = Path("params.yaml").read_text(encoding="utf-8")
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    problems = {p.key: p.message for p in find_problems(YAML(typ="safe").load(text))}
    assert set(problems) == {key for key, _ in edits.values()}
    for key, words in edits.values():
        assert words in problems[key]


def test_what_may_be_null_says_so_beside_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = Path("params.yaml").read_text(encoding="utf-8")
    tree = YAML(typ="safe").load(text)
    tree["train"] |= {"folds": 1, "micro_batch_size": 0, "replicas": 0}
    problems = {p.key: (p.message, p.allowed) for p in find_problems(tree)}
    assert problems == {
        "train.folds": ("folds must be at least 2", ("2 to 100", "null")),
        "train.micro_batch_size": (
            "micro_batch_size must be at least 1",
            ("1 to 1000000000", "null"),
        ),
        "train.replicas": ("replicas must be at least 1", ()),
    }


@pytest.mark.parametrize(
    ("kind", "name", "arguments"),
    [
        ("optimizer", "AdamW", {"lr": float("nan")}),
        ("optimizer", "SGD", {"lr": 0.1, "momentum": 1.5}),
        ("schedule", "CosineAnnealingLR", {"T_max": -5}),
        ("schedule", "MultiStepLR", {"milestones": [3, -1]}),
        ("loss", "CrossEntropyLoss", {"label_smoothing": 1.5}),
    ],
)
def test_a_stage_refuses_them_too(kind: Kind, name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match=rf"edit +params.yaml +train.{kind}.{[*arguments][-1]}"):
        resolve(kind, ClassSpec.model_validate({"name": name, **arguments}, strict=False))


BOMBS = {
    "aliases": "a: &a0 [1, 1]\n"
    + "".join(f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)),
    "merges": "a: &a0 {x: 1}\n"
    + "".join(f"b{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 20)),
    "itself": "a: &a [*a]\n",
    "depth": f"a: {'[' * 5000}{']' * 5000}\n",
    "digits": f"a: {'1' * 5000}\n",
    "date": "a: 2020-13-45\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_stands_for_too_much_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(BOMBS[kind], encoding="utf-8")
    # Without the bound, the first two would take longer than the tests have.
    with pytest.raises(UserError, match=r"params.yaml"):
        read_yaml(file)


def test_what_aliases_are_meant_for_is_read(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: [*a, *a]}\n", encoding="utf-8")
    one = {"x": 1}
    assert read_yaml(file) == {"a": one, "b": one, "c": {"x": 1, "y": [one, one]}}


def test_who_changes_what_was_read_changes_no_other_reading(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("a: [1]\n")
    read_yaml(file)["a"].append(2)
    assert read_yaml(file) == {"a": [1]}
