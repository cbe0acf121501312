"""The columns that moved each prediction most, for `reprise predict --explain`."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from stages.features.schema import Array
from stages.model.attribution import Attribution, attribute, say_doubts
from stages.model.predictor import Predictor

COLUMN = "moved_by"
NUM_COLUMNS = 3


@dataclass
class Explanations:
    """Sums over all rows: how far their columns moved them, and how much of the whole these miss.

    Both in units of the target, or of the score of the class, and of rows that are believed; of
    the others there are `doubted`, of `rows` in all.
    """

    moved: float = 0.0
    missed: float = 0.0
    rows: int = 0
    doubted: int = 0
    left_out: list[str] = field(default_factory=list)

    def add(self, found: Attribution) -> None:
        """Take the rows of an attribution in."""
        believed = found.believed
        self.moved += float(np.abs(found.values[believed]).sum())
        self.missed += float(found.errors[believed].sum())
        self.rows += len(believed)
        self.doubted += int((~believed).sum())
        self.left_out = found.left_out

    def lines(self) -> list[str]:
        """Notes for a reader of the explanations."""
        share = self.missed / self.moved if self.moved else 0.0
        lines = [
            f"'{COLUMN}' is by integrated gradients against the average row of training: the "
            f"columns add up to what sets a row apart from it, except {share:.2%} of what they move"
        ]
        return lines + say_doubts(
            self.rows, self.doubted, self.left_out, f"'{COLUMN}' is empty for"
        )


def explain(
    predictor: Predictor, arrays: dict[str, Array], predictions: pl.DataFrame
) -> Attribution:
    """The contribution of each column to each of `predictions`, of the predicted class."""
    classes = predictor.schema.target.classes
    codes = np.zeros(predictions.height, np.int64)
    if classes is not None:
        places = {name: code for code, name in enumerate(classes)}
        codes = np.array([places[name] for name in predictions["prediction"]])
    return attribute(predictor, arrays, codes)


def in_words(found: Attribution) -> pl.Series:
    """A text for each row: `size +1.32, town -0.4`, the column that moved it most first.

    Null where it is not to be believed.
    """
    texts: list[str | None] = []
    for values, believed in zip(found.values, found.believed, strict=True):
        if not believed:
            texts.append(None)
            continue
        order = np.argsort(-np.abs(values), kind="stable")[:NUM_COLUMNS]
        names = [found.columns[i] or repr("") for i in order]
        moved = zip(names, values[order], strict=True)
        texts.append(", ".join(f"{name} {value:+.3g}" for name, value in moved))
    return pl.Series(COLUMN, texts, pl.String)
