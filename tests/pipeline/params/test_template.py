"""The template of `params.yaml`: filled by values and by recipes, with its comments in place."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.commands.suite_file import read_rules, suite_text
from pipeline.params.template import TEMPLATE_FILE, apply_recipe, fill_template
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml, with_location
from tests.conftest import ROOT

VALUES: dict[str, Any] = {
    "seed": 3,
    "prepare.source": "data/raw/it's #1.csv",
    "prepare.target": "yes",
    "prepare.columns": {"zip code": "categorical"},
    "build.model": {"name": "cnn", "channels": [8, 8]},
    "tune.space": {
        "train.optimizer.lr": {"low": 1e-4, "high": 0.1},
        "train.optimizer.name": ["A", "B"],
    },
    "train.early_stopping": None,
    "train.optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True, "foreach": 1},
    "evaluate.metrics": ["accuracy"],
    "infer.input": "true",
}


def filled(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with the values of these tests."""
    for key, value in VALUES.items():
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree)[name] = value
    return tree


def test_every_key_of_params_yaml_is_in_the_template() -> None:
    template, committed = read_yaml(TEMPLATE_FILE), read_yaml(ROOT / "params.yaml")
    assert list(template) == list(committed)
    sections = [name for name, section in committed.items() if isinstance(section, dict)]
    assert [list(template[name]) for name in sections] == [
        list(committed[name]) for name in sections
    ]


def test_values_of_every_kind_are_read_back_as_given() -> None:
    text = fill_template(VALUES)
    assert YAML(typ="safe").load(text) == filled(read_yaml(TEMPLATE_FILE))


def test_only_the_lines_of_the_keys_change_and_comments_keep_their_columns() -> None:
    before = TEMPLATE_FILE.read_text(encoding="utf-8").splitlines()
    after = fill_template({"train.epochs": 7, "train.clip_norm": None, "seed": 12}).splitlines()
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert [new.split("#")[0].strip() for _, new in changed] == [
        "seed: 12",
        "epochs: 7",
        "clip_norm:",
    ]
    assert all(old.find("#") == new.find("#") for old, new in changed)
    assert fill_template({}).splitlines() == before
    assert fill_template({}, "A title").splitlines() == [before[0], "# A title", *before[1:]]
    # Of a longer value, the comment stands after it.
    (line,) = (line for line in fill_template(VALUES).splitlines() if "optimizer: {" in line)
    assert line.endswith("foreach: 1}  # of torch.optim")


def test_a_comment_of_a_recipe_replaces_that_of_the_template(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "# Mine.\n\ntrain:\n  # Why one.\n  epochs: 1\n  # Short.\n  clip_norm: 2.0\n"
        "  replicas: 3     # 'a' # b\n\n  # What is below.\n  loss: {name: MSELoss}\n\n# End.\n",
        encoding="utf-8",
    )
    before = TEMPLATE_FILE.read_text(encoding="utf-8").splitlines()
    after = apply_recipe(recipe).splitlines()
    assert [line for line in after if line not in before] == [
        "# Mine.",
        "  # Why one.",
        "  epochs: 1",
        "  # What is below.",
        "  loss: {name: MSELoss}",
        "  # Short.",
        "  clip_norm: 2.0",
        "  replicas: 3     # 'a' # b",
    ]


def test_keys_that_the_template_does_not_have_are_named_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fill_template({"train.epoch": 1, "prepare.split.seed": 0, "seed": 1})
    first, second = map(with_location, caught.value.problems)
    lines = TEMPLATE_FILE.read_text(encoding="utf-8").splitlines()
    assert (first.key, first.suggestion) == ("train.epoch", "train.epochs")
    assert Path(first.file) == TEMPLATE_FILE.relative_to(ROOT)
    assert first.line == lines.index("train:") + 1
    assert second.key == "prepare.split.seed"

    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(
        "# Wrong.\ntrain:\n  # One.\n  epoch: 1\ntrian: {}\ntune: {epochs: 1}\n", encoding="utf-8"
    )
    with pytest.raises(UserError) as caught:
        apply_recipe(recipe)
    assert [(p.file, p.line, p.key) for p in caught.value.problems] == [
        (str(recipe), 4, "train.epoch"),
        (str(recipe), 5, "trian"),
        (str(recipe), 6, "tune"),
    ]
    recipe.write_text("# Wrong.\ntrain: {\n", encoding="utf-8")
    with pytest.raises(UserError, match="not valid YAML"):
        apply_recipe(recipe)
    recipe.write_text("- train\n", encoding="utf-8")
    with pytest.raises(UserError, match="must hold sections"):
        apply_recipe(recipe)


ODD_TEXTS = [
    "12:30",
    "2:Med",
    "http://x.y/z",
    "?a",
    "? a",
    "- a",
    "a\tb",
    "\u2028",
    "0123",
    "no",
    "a: b",
    "a b: c",
    "a #b",
    "New York",
]


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_texts_are_read_back_as_they_were(text: str, tmp_path: Path) -> None:
    values = {"prepare.target": text, "prepare.columns": {text: {"missing": [text, "z"]}}}
    file, suite = tmp_path / "params.yaml", tmp_path / "suite.yaml"
    file.write_text(fill_template(values), encoding="utf-8")
    section = read_yaml(file)["prepare"]
    assert section["target"] == text
    assert section["columns"] == {text: {"missing": [text, "z"]}}
    rule = {"type": "x", "column": text, "value_set": [text, "z"]}
    suite.write_text(suite_text("of it", [rule]), encoding="utf-8")
    assert read_rules(suite) == [rule]
