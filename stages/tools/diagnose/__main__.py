"""Measures what a training that fails, or learns nothing, lacks: `reprise doctor` starts it.

    python -m stages.tools.diagnose labels layers

Each name is a file of this folder, but for those in `APART`. Nothing of what it trains is kept: no
output, no checkpoint. Findings are lines of JSON behind `measured: `; one that can't be measured
says why, and the next one is.
"""

import importlib
import sys
from pathlib import Path
from typing import cast

from stages.common.errors import UserError
from stages.common.params import Params
from stages.tools.diagnose.measured import Measured, Probe, tell
from stages.tools.training_tool import run_tool

APART = ("__main__", "by_heart", "measured", "sample")


def names() -> list[str]:
    """The measurements there are."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in APART)


def probe_of(name: str) -> Probe:
    """The measurement of this name. Raises UserError."""
    if name not in names():
        raise UserError(f"there is no measurement '{name}': there are {', '.join(names())}")
    return cast(Probe, importlib.import_module(f"stages.tools.diagnose.{name}"))


def measure_all(asked: list[str]) -> None:
    """Tell what each of them finds."""
    for name in asked:
        try:
            for measured in probe_of(name).measure():
                tell(measured)
        except Exception as error:  # a training that fails is what is looked at here
            reason = str(error).split("\n")[0] or type(error).__name__
            tell(Measured("note", f"{name} could not be measured: {reason}"))


def main() -> None:
    """Measure what the command line names."""

    def work(_params: Params) -> None:
        measure_all(sys.argv[1:])

    run_tool("diagnose", work)


if __name__ == "__main__":
    main()
