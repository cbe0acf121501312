"""The table of layers."""

import subprocess
import sys

from tests.conftest import ROOT

SUMMARISE = """
import sys
from stages.build.summary import summarise
from stages.model.model import ModelSpec, make_model

spec = ModelSpec(name="linear", arguments={}, inputs={"numeric": [4]}, num_outputs=3)
print(summarise(make_model(spec, 0), spec, 0).strip())
print("torch._dynamo" in sys.modules)
"""


def test_counting_does_not_wait_for_the_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SUMMARISE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *table, imported = done.stdout.splitlines()
    assert table[-1].split() == ["total", "15", "12"]
    assert imported == "False"
