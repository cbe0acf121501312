"""Code of one's own: a mistake in it is one screen with its line, wherever it shows; docs run."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stages.zoo
import stages.zoo.metrics
from stages.build.summary import check_gradients
from stages.common.config import ClassSpec
from stages.common.errors import Problem, UserError, format_problem
from stages.common.user_code import own_errors, to_user_error
from stages.evaluate.measure.metrics import compute_metrics
from stages.features.schema import Feature, Schema, Target
from stages.model.model import arguments_class, make_model, make_spec
from stages.training.optim.preflight import check_names
from tests.conftest import ROOT
from tests.support.samples import train_params

SCHEMA = Schema(
    key=None,
    features=[Feature(name=name, kind="numeric") for name in "abc"],
    target=Target(name="y", task="classification", classes=["a", "b"]),
)
HEAD = """import torch
from torch import nn
from stages.common.config import Config


"""
MODEL = """class Arguments(Config):
    width: int = 4


class Model(nn.Module):
    def __init__(self, arguments, inputs, num_outputs):
        super().__init__()
        self.layer = nn.Linear(inputs["numeric"][0], num_outputs)

    def forward(self, batch):
        return self.layer(batch["numeric"])
"""
LAYER = "        self.layer = nn.Linear("
SCORES = 'return self.layer(batch["numeric"])'
# What is wrong with the model: what it has in place of what, what is said, and the line to edit.
MISTAKES: dict[str, tuple[str, str, str, str]] = {
    "no Arguments": (
        MODEL[: MODEL.index("class Model")],
        "",
        "has no class Arguments",
        "import torch",
    ),
    "no Model": ("class Model(", "class Mode(", "has no class Model", "import torch"),
    "Arguments of another kind": (
        "Arguments(Config)",
        "Arguments",
        "a subclass of BaseModel",
        "class Arg",
    ),
    "syntax": (
        "def forward(self, batch):",
        "def forward(self, batch:",
        "SyntaxError: '(' was",
        "def forward",
    ),
    "indentation": (SCORES, f"x = 1\n      {SCORES}", "IndentationError", "return self"),
    "library": (
        "class Arg",
        "import nowhere.at_all\nclass Arg",
        "there is no library 'nowhere'",
        "import nowhere",
    ),
    "name at import": (
        "class Arg",
        "Nothing()\nclass Arg",
        "NameError: name 'Nothing'",
        "Nothing()",
    ),
    "exception in __init__": (
        LAYER,
        f"        1 / 0\n{LAYER}",
        "with width 4: ZeroDivisionError",
        "1 / 0",
    ),
    "raised in __init__": (
        LAYER,
        f"        raise ValueError('too wide')\n{LAYER}",
        "ValueError: too wide",
        "raise V",
    ),
    "no super": (
        "        super().__init__()\n",
        "",
        "AttributeError: cannot assign module",
        LAYER.strip(),
    ),
    "other arguments": (
        "inputs, num_outputs",
        "inputs",
        "TypeError: Model.__init__() takes 3",
        "def __init__",
    ),
    "exception in forward": (
        SCORES,
        f"1 / 0\n        {SCORES}",
        "ZeroDivisionError: division",
        "1 / 0",
    ),
    "a kind that is not there": (
        'batch["numeric"]',
        'batch["image"]',
        "KeyError: 'image'",
        "return self.layer",
    ),
    "shapes": (
        SCORES,
        'return self.layer(batch["numeric"][:, :2])',
        "layer 'layer' (Linear), which was given (2, 2)",
        "return self",
    ),
    "forward of two": (
        "(self, batch)",
        "(self, batch, mask)",
        "missing 1 required positional",
        "def forward",
    ),
    "no forward": ("def forward", "def forwards", "NotImplementedError", "class Model"),
    "tuple": (
        SCORES,
        f"{SCORES}, None",
        "the model returns a tuple of 2; a tensor (2, 2)",
        "def forward",
    ),
    "dict": (SCORES, "return batch", "the model returns a dict; a tensor", "def forward"),
    "nothing": (SCORES, SCORES.replace("return ", ""), "None: 'return' is missing", "def forward"),
    "wrong shape": (SCORES, f"{SCORES}[:, :1]", "returns (2, 1) for 2 rows", "def forward"),
    "squeezed": (SCORES, f"{SCORES}.squeeze()", "returns (2,) for one row", "def forward"),
    "codes": (
        SCORES,
        f"{SCORES}.argmax(1, keepdim=True).expand(-1, 2)",
        "of type int64",
        "def forward",
    ),
    "spare weights": (
        LAYER,
        f"        self.spare = nn.Linear(2, 2)\n{LAYER}",
        "spare.weight",
        "def forward",
    ),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a zoo of its own, in which `stages.zoo.models` is looked up."""
    import stages.zoo.models

    zoo = tmp_path / "stages/zoo/models"
    zoo.mkdir(parents=True)
    (tmp_path / "stages/zoo/objectives").mkdir()
    (tmp_path / "stages/zoo/objectives/supervised.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages.zoo.models, "__path__", [str(zoo)])
    monkeypatch.delitem(sys.modules, "stages.zoo.models.mine", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def build() -> tuple[nn.Module, Any]:
    """As the stage build does it."""
    spec = make_spec(ClassSpec(name="mine"), SCHEMA)
    model = make_model(spec, 0)
    check_gradients(model, spec, 0)
    return model, spec


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_in_a_model_is_told_with_its_line(home: Path, kind: str) -> None:
    old, new, says, line = MISTAKES[kind]
    assert old in MODEL
    code = HEAD + MODEL.replace(old, new)
    (home / "stages/zoo/models/mine.py").write_text(code, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        build()
    sys.modules.pop("stages.zoo.models.mine", None)
    screen = str(caught.value)
    assert says in screen
    assert "params.yaml" not in screen
    assert len(screen.splitlines()) <= 4, screen
    place = re.search(r"edit     stages/zoo/models/mine\.py:(\d+)  (.*)", screen)
    assert place is not None, screen
    assert place[2] == code.splitlines()[int(place[1]) - 1].strip()
    assert place[2].startswith(line)


DOCS = (ROOT / "docs/own_code.md").read_text(encoding="utf-8")


def test_the_model_in_the_docs_works(home: Path) -> None:
    (code,) = re.findall(r"```py\n(from typing.*?)```", DOCS, re.DOTALL)
    (home / "stages/zoo/models/mine.py").write_text(code, encoding="utf-8")
    assert list(arguments_class("mine").model_fields) == ["width", "dropout"]
    model, spec = build()
    assert model.eval()({"numeric": torch.ones(4, 3)}).shape == (4, spec.num_outputs)
    sys.modules.pop("stages.zoo.models.mine", None)


def test_the_metric_in_the_docs_works_and_the_links_lead_somewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (example,) = re.findall(r"```py\n(from sklearn.+?)```", DOCS, re.DOTALL)
    source = (ROOT / stages.zoo.metrics.__file__).read_text(encoding="utf-8")
    space: dict[str, Any] = {"__name__": stages.zoo.metrics.__name__}
    exec(f"{source}\n{example}", space)
    monkeypatch.setattr(stages.zoo.metrics, "jaccard", space["jaccard"], raising=False)
    target, predicted = np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]]
    found = compute_metrics(["jaccard"], "classification", target, predicted)
    assert found["jaccard"] == pytest.approx(0.5)
    anchors = [
        re.sub(r"[^\w -]", "", part).lower().replace(" ", "-")
        for part in re.findall(r"^## (.+)$", DOCS, flags=re.MULTILINE)
    ]
    assert re.findall(r"\]\(#([\w-]+)\)", DOCS) == anchors
    for file in re.findall(r"\]\(([^)#:]+)[^)]*\)", DOCS):
        assert (ROOT / "docs" / file).is_file(), file


def test_the_line_is_found_wherever_it_is_caught(home: Path) -> None:
    file = home / "stages/zoo/models/mine.py"
    file.write_text("def outer(f):\n    return f()\n", encoding="utf-8")
    space: dict[str, Any] = {}
    exec(compile(file.read_text(), file, "exec"), space)

    def broken() -> None:
        raise OSError(2, "No such file", "weights.pt")

    with pytest.raises(UserError, match=re.escape("mine.py:2  return f()")), own_errors(""):
        space["outer"](broken)
    # Of a full memory no line is to blame; nor is one of the user's for what else is raised.
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        assert to_user_error(error, "", space["outer"]) is None
    with pytest.raises(OSError, match="No such file"), own_errors(""):
        broken()


def test_a_long_error_is_a_screen() -> None:
    problem = Problem("x", file="stages/zoo/models/mine.py", line=3, value="y" * 500)
    assert len(format_problem(problem)) < 200


@pytest.mark.parametrize(
    ("file", "code", "key", "says"),
    [
        ("losses", "    def forward(self, scores):\n        pass", "loss", "TypeError"),
        ("losses", "    def forward(self, scores, target):\n        1 / 0", "loss", "Zero"),
        ("losses", "    def forward(self, scores, target):\n        return scores", "loss",
         "in place of one number"),
        ("schedules", "    def get_lr(self):\n        1 / 0", "schedule", "ZeroDivision"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_loss_or_a_schedule_is_told_with_its_line(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    code: str,
    key: str,
    says: str,
) -> None:
    path = home / f"stages/zoo/{file}.py"
    base = "torch.nn.Module" if file == "losses" else "torch.optim.lr_scheduler.LRScheduler"
    own = f"import torch\nclass mine({base}):\n    task = 'classification'\n{code}\n"
    path.write_text(own, encoding="utf-8")
    module = ModuleType(f"stages.zoo.{file}")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(stages.zoo, file, module, raising=False)
    exec(compile(own, path, "exec"), vars(module))
    with pytest.raises(UserError, match=says) as caught:
        check_names(train_params(**{key: {"name": "mine"}}), "classification")
    assert f"stages/zoo/{file}.py:" in str(caught.value)
    assert "params.yaml" not in str(caught.value)


def test_a_file_of_losses_that_cannot_be_read_is_no_traceback(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "stages/zoo/losses.py").write_text("import torch\nclass mine(:\n", encoding="utf-8")
    monkeypatch.setattr(stages.zoo, "__path__", [str(home / "stages/zoo"), *stages.zoo.__path__])
    monkeypatch.delattr(stages.zoo, "losses", raising=False)
    monkeypatch.delitem(sys.modules, "stages.zoo.losses", raising=False)
    with pytest.raises(UserError, match="SyntaxError") as caught:
        check_names(train_params(), "classification")
    assert "edit     stages/zoo/losses.py:2  class mine(:" in str(caught.value)
