"""Predictions for a file of new rows: `python -m stages.tools.predict_file FILE`.

Without `--output`, they go to the terminal as CSV, and all else that is said to standard error.
"""

import argparse
import io
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from stages.common.config import get_path, validate
from stages.common.counts import counted
from stages.common.errors import Problem, UserError, format_problem
from stages.common.params import read_tree
from stages.common.user_code import own_errors
from stages.formats.suffixes import WRITTEN
from stages.infer.write import PredictionSummary, describe, write_predictions
from stages.model.conformal import KEY, CoverageParams
from stages.model.predictor import Predictor, load_predictor


def main() -> None:
    """Predict, or end with 1 and one screen of text."""
    parser = argparse.ArgumentParser(prog="reprise predict")
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--explain", action="store_true")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Data, as in a file: an alphabet of the terminal's changes no key.
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        with own_errors("the model can't predict"):
            predict(options.file, options.output, explained=options.explain)
    except UserError as error:
        for problem in error.problems:
            # The file is named on the command line, not in params.yaml.
            of_key = problem.key is not None and problem.key != KEY
            plain = replace(problem, key=None, value=None) if of_key else problem
            print(format_problem(plain), file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever reads has seen enough; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def predict(source: Path, target: Path | None, *, explained: bool = False) -> None:
    """Predict the rows of `source`; what is written to `target` appears whole or not at all."""
    write = partial(write_predictions, key="FILE", explained=explained)
    if target is None:
        say(source, write(source, None, None, find_predictor()), None)
        return
    if target.suffix.lower() not in WRITTEN:
        message = f"{target}: not a kind of table that can be written"
        raise UserError(Problem(message, allowed=WRITTEN))
    if not target.parent.is_dir():
        raise UserError(f"the folder {target.parent} does not exist")
    rejected = target.with_name(f"{target.stem}.rejected.csv")
    whole, apart = (file.with_name(f".writing-{file.name}") for file in (target, rejected))
    try:
        summary = write(source, whole, apart, find_predictor())
        whole.replace(target)
        if summary.num_damaged:
            apart.replace(rejected)
        else:
            rejected.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        whole.unlink(missing_ok=True)
        apart.unlink(missing_ok=True)
    say(source, summary, rejected)


def find_predictor() -> Predictor:
    """The trained model of `data/`, with the intervals that `params.yaml` asks for.

    Raises UserError when nothing is trained here.
    """
    tree = read_tree()
    try:
        section = {"coverage": get_path(tree, KEY)}
    except KeyError:
        raise UserError(Problem(f"the key '{KEY}' is missing", key=KEY)) from None
    coverage = validate(CoverageParams, section, at="evaluate").coverage
    try:
        return load_predictor(coverage=coverage)
    except FileNotFoundError as error:
        message = (
            f"there is no {error.filename}: 'dvc repro' trains a model, 'dvc pull' fetches one"
        )
        raise UserError(message) from None


def say(source: Path, summary: PredictionSummary, rejected: Path | None) -> None:
    """Print notes on standard error: how many rows, which were set aside and why."""
    lines = [*summary.notes, f"{source}: {counted(summary.num_predicted, 'row')} predicted"]
    if summary.num_damaged:
        where = "" if rejected is None else f" in {rejected}"
        lines.append(f"{counted(summary.num_damaged, 'row')} set aside{where}, such as:")
        lines += [f"  {describe(damage)}" for damage in summary.examples]
    print("\n".join(lines), file=sys.stderr)


if __name__ == "__main__":
    main()
