"""`--set key=value`: the file changes there and nowhere else, or not at all."""

import shutil
from pathlib import Path

import pytest

from pipeline.commands.run import run
from pipeline.params.overrides import apply_overrides_to_file, parse_overrides
from pipeline.params.template import apply_recipe
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the check looks at, as the current one; its params.yaml."""
    for name in ("params.yaml", "dvc.yaml", "None"):
        shutil.copy2(ROOT / name, tmp_path / name)
    for name in ("stages", "data/raw"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "params.yaml"


def test_a_value_is_read_as_yaml() -> None:
    settings = ["train.epochs=3", "train.optimizer.lr=1e-3", "prepare.key=null", "a.b=[1, x]"]
    assert parse_overrides(settings) == {
        "train.epochs": 3,
        "train.optimizer.lr": 0.001,
        "prepare.key": None,
        "a.b": [1, "x"],
    }
    for wrong in ("train.epochs", "=3", "train.epochs=[1"):
        with pytest.raises(UserError):
            parse_overrides([wrong])
    with pytest.raises(UserError, match=r"'b=null' can't be a stage: each value has its own --set"):
        run(["train", "b=null"], ["a=1"], force=False, parallel=1, wait=False)


def test_one_line_changes_and_comments_stay(params: Path) -> None:
    before = params.read_text(encoding="utf-8").splitlines()
    shown = apply_overrides_to_file({"train.epochs": 3})
    after = params.read_text(encoding="utf-8").splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [("  epochs: 30", "  epochs: 3")]
    assert "-  epochs: 30" in shown
    assert "+  epochs: 3" in shown


def test_an_argument_that_the_name_takes_may_be_new(params: Path) -> None:
    apply_overrides_to_file({"train.optimizer.betas": [0.9, 0.99], "train.early_stopping": None})
    tree = read_yaml(params)
    assert tree["train"]["optimizer"]["betas"] == [0.9, 0.99]
    assert tree["train"]["early_stopping"] is None
    assert "  early_stopping:  " in params.read_text(encoding="utf-8")
    apply_overrides_to_file({"build.model.channels": [8, 8], "prepare.columns": {"id": "exclude"}})
    text = params.read_text(encoding="utf-8")
    assert "channels: [8, 8]" in text
    assert "columns: {id: exclude}" in text


@pytest.mark.parametrize("recipe", sorted((ROOT / "docs/recipes").glob("*.yaml")))
@pytest.mark.parametrize("first", ["dvc", "reprise"])
def test_dvc_and_reprise_change_one_line(params: Path, recipe: Path, first: str) -> None:
    from dvc.utils.hydra import apply_overrides as apply_as_dvc

    params.write_text(apply_recipe(recipe), encoding="utf-8")
    before = params.read_text(encoding="utf-8").splitlines()
    if first == "dvc":
        apply_as_dvc(params, ["train.epochs=3"])
        apply_overrides_to_file({"train.epochs": 4})
    else:
        # A list and nothing, as we write them, are what DVC writes.
        overrides = {"train.epochs": 3, "infer.export": ["onnx"], "train.clip_norm": None}
        apply_overrides_to_file(overrides)
        before = params.read_text(encoding="utf-8").splitlines()
        apply_as_dvc(params, ["train.epochs=4"])
    after = params.read_text(encoding="utf-8").splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert [b for _, b in changed] == ["  epochs: 4"]


def test_nothing_to_change_writes_nothing(params: Path) -> None:
    stamp = params.stat().st_mtime_ns
    assert apply_overrides_to_file({"train.epochs": 30}) == []
    assert params.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"train.epoch": 3}, ("unknown key 'epoch'", "--set  train.epoch: 3", "'epochs'?")),
        ({"trian.epochs": 3}, ("there is no key 'trian'", "did you mean 'train'?")),
        ({"train.epochs": "many"}, ("train.epochs", "many", "whole number")),
        ({"train.epochs.x": 3}, ("'train.epochs' has no keys of its own",)),
        ({"train.optimizer.lrr": 3}, ("AdamW takes no 'lrr'", "did you mean 'lr'?")),
        ({"build.model.name": "cnnn"}, ("cnnn", "did you mean 'cnn'?")),
        ({"prepare.source": "data/raw/digit.parquet"}, ("does not exist", "digits.parquet")),
        ({"train.epochs": 3, "seed": -1}, ("from 0 to 4294967295", "--set  seed")),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    params: Path, overrides: dict[str, object], says: tuple[str, ...]
) -> None:
    before = params.read_bytes()
    with pytest.raises(UserError) as caught:
        apply_overrides_to_file(overrides)
    for words in says:
        assert words in str(caught.value)
    assert params.read_bytes() == before
