"""Predictions to a file or to the terminal, and what was set aside to a file of its own."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.formats.chunk import Write
from stages.formats.csv import write_to
from stages.formats.format import find_format
from stages.formats.reading import Damage, Noticed
from stages.formats.reject import open_rejected
from stages.infer.explain import Explanations
from stages.infer.notes import Notes, RepeatedKeys
from stages.infer.stream import Cluster, KeysDifferError, predict_file
from stages.model.predictor import Predictor

# The metadata of a prediction's file name the model under this word.
MODEL = "model_md5"
NUM_SHOWN = 10


@dataclass
class PredictionSummary:
    """The counts of a file's rows; `examples` are the first that were set aside."""

    num_predicted: int = 0
    num_damaged: int = 0
    examples: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_predictions(
    source: Path,
    target: Path | None,
    rejected: Path | None,
    predictor: Predictor,
    key: str,
    *,
    explained: bool = False,
    cluster: Cluster | None = None,
    numbers: npt.NDArray[np.int64] | None = None,
) -> PredictionSummary:
    """Predict the rows of `source` into `target` (None: CSV, here); others go into `rejected`.

    `key` is the parameter that names the source; `explained` adds a column with what moved each
    prediction. `numbers` (rows,) name the rows of `source`; None: their places in it. Raises
    UserError as `predict_file`.
    """
    write = partial(_write, source, target, rejected, predictor, key, explained, cluster, numbers)
    try:
        return write(text_keys=target is None)
    except KeysDifferError:
        return write(text_keys=True)


def _write(
    source: Path,
    target: Path | None,
    rejected: Path | None,
    predictor: Predictor,
    key: str,
    explained: bool,  # noqa: FBT001
    cluster: Cluster | None,
    numbers: npt.NDArray[np.int64] | None,
    *,
    text_keys: bool,
) -> PredictionSummary:
    summary = PredictionSummary()
    explanations = Explanations() if explained else None
    notes, noticed = Notes(predictor.schema, predictor.statistics), Noticed()
    keys = RepeatedKeys()
    with ExitStack() as stack:
        write = stack.enter_context(_open_target(target, predictor.model_md5))
        note = stack.enter_context(open_rejected(rejected))
        parts = predict_file(
            *(source, predictor, notes, noticed, key),
            text_keys=text_keys,
            explanations=explanations,
            cluster=cluster,
        )
        for found in parts:
            part = found if numbers is None else found.renumbered(numbers)
            if part.predictions.height:
                write(part.predictions)
                if predictor.schema.key is not None:
                    keys.add(part.predictions.to_series(0))
            for damage in part.damaged:
                note(damage)
            summary.num_predicted += part.predictions.height
            summary.num_damaged += len(part.damaged)
            summary.examples += part.damaged[: NUM_SHOWN - len(summary.examples)]
    summary.notes = [*noticed.lines(), *keys.lines(), *notes.lines()]
    summary.notes += explanations.lines() if explanations else []
    return summary


def describe(damage: Damage) -> str:
    """A row that was set aside, on one line."""
    key = "" if damage.key is None else f" (key {damage.key})"
    column = "" if damage.column is None else f"'{damage.column}': "
    return f"row {damage.row}{key}: {column}{damage.reason}"


@contextmanager
def _open_target(target: Path | None, model_md5: str) -> Iterator[Write]:
    if target is None:
        yield write_to(sys.stdout)
    else:
        with find_format(target).open_writer(target, {MODEL: model_md5}) as write:
            yield write
