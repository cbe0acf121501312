"""`build.pretrained`: what a file gives to a model, and that nothing after build drops it."""

import contextlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stages.build.pretrained import compare, read_pretrained
from stages.common.errors import UserError
from stages.common.params import read_params
from stages.model.layers import register_constant
from stages.model.model import read_spec, take_pretrained
from stages.train.recipe import read_recipe
from stages.training.data.fit_model import fit_model
from stages.training.recipe import describe_pretrained, load_weights
from tests.conftest import Project
from tests.support.samples import clusters, mixed_table, run_stages, set_params, small_project

STILL = {"name": "SGD", "lr": 1e-12}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.state_dict().items()}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def other() -> dict[str, Tensor]:
    """The weights of another such network."""
    torch.manual_seed(1)
    return weights_of(network())


def test_what_wraps_the_weights_comes_off(tmp_path: Path, other: dict[str, Tensor]) -> None:
    files = {
        "plain.pt": other,
        "ddp.pth": {f"module._orig_mod.{name}": weight for name, weight in other.items()},
        "folds.pt": {f"members.0.{name}": weight for name, weight in other.items()},
        "checkpoint.ckpt": {"state_dict": other, "epoch": 3},
        "checkpoint.bin": {"model": {f"_orig_mod.{name}": w for name, w in other.items()}},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    save_file(other, tmp_path / "plain.safetensors")
    for name in (*files, "plain.safetensors"):
        read = read_pretrained(str(tmp_path / name), other)
        assert list(read) == list(other) or sorted(read) == sorted(other), name
        assert all(torch.equal(read[key], other[key]) for key in other), name
    # A model may have a layer of that name itself.
    read = read_pretrained(str(tmp_path / "ddp.pth"), ["module._orig_mod.0.weight"])
    assert {"module._orig_mod.0.weight", "0.bias"} <= set(read)


class Harmful:
    """An object whose reading makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save({"state_dict": Harmful(made)}, tmp_path / "torch.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Harmful(made), protocol=2))
    for name in ("torch.pt", "pickle.pt"):
        with pytest.raises(UserError, match="save the weights alone") as caught:
            read_pretrained(str(tmp_path / name), [])
        assert caught.value.problems[0].key == "build.pretrained"
    assert not made.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.safetensors", b"\x00\x01", "can't be read as weights"),
        ("cut.pt", b"PK\x03\x04", "can't be read as weights"),
        ("epochs.pt", {"epochs": 3, "optimizer": {}}, "a dict of epochs, optimizer, where"),
        ("list.pt", [torch.ones(3)], "holds no dict, where"),
    ],
)
def test_a_file_without_weights_is_refused(
    name: str, content: object, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=said):
        read_pretrained(str(path), [])


def table_of(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """The rows of the table by its columns, the first line (what it comes to) before them."""
    first, _, _, _, *rows = compare(model, tensors, "other.pt").splitlines()
    return [[first], *([cell for cell in row.split("  ") if cell] for row in rows)]


def test_the_table_says_what_becomes_of_each_weight(other: dict[str, Tensor]) -> None:
    of_file = {name: weight for name, weight in other.items() if not name.startswith("1.")}
    of_file |= {"2.weight": torch.ones(7, 3), "2.bias": torch.ones(2).int(), "fc": torch.ones(())}
    (first,), *rows = table_of(network(), of_file)
    assert first == (
        "pretrained: other.pt: 2 matched, 5 missing: drawn anew, 2 of another shape: drawn anew, "
        "1 not used"
    )
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["0.weight", "3×4", "3×4", "matched"],
        ["0.bias", "3", "3", "matched"],
        ["1.weight", "3", "missing: drawn anew"],
        ["1.bias", "3", "missing: drawn anew"],
        ["1.running_mean", "3", "missing: drawn anew"],
        ["1.running_var", "3", "missing: drawn anew"],
        ["1.num_batches_tracked", "one number int64", "missing: drawn anew"],
        ["2.weight", "2×3", "7×3", "of another shape: drawn anew"],
        ["2.bias", "2", "2 int32", "of another shape: drawn anew"],
        ["fc", "one number", "not used"],
    ]


def test_a_file_of_which_nothing_fits_is_an_error(other: dict[str, Tensor]) -> None:
    # Statistics of a norm alone are no weights.
    strange = {"body.0.weight": other["0.weight"], "1.running_mean": other["1.running_mean"]}
    with pytest.raises(UserError) as caught:
        compare(network(), strange, "other.pt")
    (problem,) = caught.value.problems
    assert "the model has 0.weight (3×4), 0.bias (3), 1.weight (3)" in problem.message
    assert "the file has body.0.weight (3×4), 1.running_mean (3)" in problem.message
    assert (problem.key, problem.value) == ("build.pretrained", "other.pt")


class Fitted(nn.Module):
    """A model that sets a weight and a buffer by the rows, and draws."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(4)) for _ in range(2))
        register_constant(self, "mean", torch.zeros(4))

    def fit(self, batch: dict[str, Tensor], target: Tensor) -> None:
        for values in (self.weight, self.bias, self.mean):
            values.copy_(batch["numeric"].mean(dim=0))


def test_what_a_model_computes_from_rows_leaves_pretrained_weights() -> None:
    model, rows = Fitted(), clusters(20)
    take_pretrained(model, {"weight": torch.full((4,), 7.0), "mean": torch.full((4,), 7.0)})
    assert list(describe_pretrained(model)) == ["1 of 2 weights are pretrained; anew: bias"]
    fit_model(model, rows, [], seed=0)
    mean = rows.batch["numeric"].mean(dim=0)
    torch.testing.assert_close(model.weight, torch.full((4,), 7.0))
    # A buffer says what these rows are like.
    torch.testing.assert_close(model.bias, mean)
    torch.testing.assert_close(model.mean, mean)
    assert list(describe_pretrained(Fitted())) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a model trained here, of two classes."""
    project = small_project(
        tmp_path_factory.mktemp("other") / "project",
        mixed_table(),
        {"prepare.key": "id", "train.epochs": 1},
    )
    run_stages(project, "prepare", "build", "tune", "train")
    return project.path / "data/train/model.safetensors"


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Project:
    """The same columns with three classes, started from those weights, and hardly trained."""
    classes = pl.int_range(pl.len()).mod(3).cast(pl.String)
    changes = {
        "prepare.key": "id",
        "build.pretrained": "data/raw/other/model.safetensors",
        "train.epochs": 1,
        "train.optimizer": STILL,
    }
    project = small_project(tmp_path, mixed_table().with_columns(y=classes), changes)
    (tmp_path / "data/raw/other").mkdir()
    (tmp_path / "data/raw/other/model.safetensors").write_bytes(trained.read_bytes())
    run_stages(project, "prepare")
    return project


def test_a_model_trained_here_is_where_the_next_begins(
    project: Project, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # By itself, as DVC starts it: what it opens must be declared.
    said = project.run("python", "-m", "stages.build").stdout
    assert "2 matched, 2 of another shape: drawn anew" in said
    assert said == (project.path / "data/build/summary.txt").read_text(encoding="utf-8")
    run_stages(project, "tune", "train")
    said = capsys.readouterr().out
    assert "2 of 4 weights are pretrained; anew: output.weight, output.bias" in said
    source, built = load_file(trained), load_file(project.path / "data/build/weights.safetensors")
    weights = load_file(project.path / "data/train/model.safetensors")
    for name, weight in weights.items():
        first = source if name.startswith("hidden") else built
        torch.testing.assert_close(weight, first[name], rtol=0, atol=1e-9)
    # A replica draws a head of its own, and begins with the same weights elsewhere.
    spec = read_spec(project.path / "data/build")
    with contextlib.chdir(project.path):
        replica = weights_of(load_weights(spec, 1, number=1))
    assert torch.equal(replica["hidden.0.weight"], source["hidden.0.weight"])
    assert not torch.allclose(replica["output.weight"], built["output.weight"], atol=0.01)


@pytest.mark.parametrize("winner", [{"dropout": 0.3}, {"width": 5}, {"layers": 2}], ids=str)
def test_the_winner_of_tune_is_matched_anew(
    winner: dict[str, float], project: Project, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Built with another width than the file has: a winner may fit where build's model did not.
    set_params(project, {"build.model": {"name": "mlp", "width": 8, "layers": 1}})
    run_stages(project, "build", "tune")
    best = "".join(f"build.model.{name}: {value}\n" for name, value in winner.items())
    (project.path / "data/tune/best.yaml").write_text(best, encoding="utf-8")
    monkeypatch.chdir(project.path)
    source, recipe = load_file(trained), read_recipe(read_params("train"))
    for replica in (0, 1):
        weights = weights_of(load_weights(recipe.model, 0, replica))
        for name in ("hidden.0.weight", "hidden.0.bias"):
            same = torch.equal(weights[name], source[name])
            assert same == ("width" not in winner), name
    assert len(weights) == (6 if "layers" in winner else 4)
