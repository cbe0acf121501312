"""Code of one's own: a mistake in it is one screen with its line, wherever it shows; docs run."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from stages.build.summary import check_gradients
from stages.common.errors import UserError
from stages.common.model import make_model, make_spec
from stages.common.schema import Feature, Schema, Target
from stages.common.section import Named

SCHEMA = Schema(
    key=None,
    features=[Feature(name=name, kind="numeric") for name in "abc"],
    target=Target(name="y", task="classification", classes=["a", "b"]),
)
HEAD = """import torch
from torch import nn
from stages.common.section import Section


"""
MODEL = """class Arguments(Section):
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
        "Arguments(Section)",
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
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages.zoo.models, "__path__", [str(zoo)])
    monkeypatch.delitem(sys.modules, "stages.zoo.models.mine", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def build() -> tuple[nn.Module, Any]:
    """As the stage build does it."""
    spec = make_spec(Named(name="mine"), SCHEMA)
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
