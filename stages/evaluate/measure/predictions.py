"""The predictions of a model, as all that measures it takes it.

Of values it is an array (rows,). Of classes it is the class that is predicted for each row with
the probabilities that the model gives: a threshold may predict another than the likeliest.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.yamlfile import yaml_text
from stages.model.calibration import predict_codes

PROBABILITY = "probability_"
IN_SET = "in_set_"
# The column of the weights of rows, where they have some: the third, behind key and target.
WEIGHT = "weight"


@dataclass(frozen=True)
class Classified:
    """The codes of the predicted classes (rows,), and the probabilities (rows, classes)."""

    codes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> "Classified":
        return Classified(self.codes[rows], self.probabilities[rows])


# Values (rows,), or classes. Probabilities (rows, classes) alone stand for classes too: the
# likeliest is then the predicted one.
Predicted = npt.NDArray[np.float64] | Classified


def codes_of(predicted: Predicted) -> npt.NDArray[np.int64]:
    """Which class is predicted for each row (rows,), by its code."""
    if isinstance(predicted, Classified):
        return predicted.codes
    return predict_codes(predicted, None)


def probabilities_of(predicted: Predicted) -> npt.NDArray[np.float64]:
    """The probability of each class (rows, classes)."""
    return predicted.probabilities if isinstance(predicted, Classified) else predicted


def values_of(predicted: Predicted) -> npt.NDArray[np.float64]:
    """The predicted values (rows,), of a task that has them."""
    assert isinstance(predicted, np.ndarray)
    return predicted


def probability_of(predicted: Predicted) -> npt.NDArray[np.float64]:
    """The probability of the class that is predicted (rows,)."""
    codes = codes_of(predicted)
    return np.asarray(probabilities_of(predicted)[np.arange(len(codes)), codes])


def read_predicted(table: pl.DataFrame) -> Predicted:
    """Predictions from rows of `predictions.parquet`: `prediction`, of classes probabilities."""
    probabilities = table.select(pl.selectors.starts_with(PROBABILITY))
    if not probabilities.width:
        return table["prediction"].to_numpy()
    return Classified(read_codes(table["prediction"], class_names(table)), probabilities.to_numpy())


def part_weight(table: pl.DataFrame) -> tuple[pl.DataFrame, npt.NDArray[np.float64] | None]:
    """Rows of `predictions.parquet` without their weights, and these (rows,).

    None: all count the same.
    """
    # The key may have any name.
    if table.columns[2:3] != [WEIGHT]:
        return table, None
    return table.drop(WEIGHT), table[WEIGHT].cast(pl.Float64).to_numpy()


def without_intervals(table: pl.DataFrame) -> pl.DataFrame:
    """Rows of `predictions.parquet` without interval or set, which only some revisions have."""
    ends = ("low", "high") if not class_names(table) else ()
    dropped = [name for name in table.columns[2:] if name in ends or name.startswith(IN_SET)]
    return table.drop(dropped)


def rename_truths(table: pl.DataFrame) -> pl.DataFrame:
    """Rows of `predictions.parquet` with the classes of a boolean as true and false.

    Earlier versions have the probabilities of True and False.
    """
    if table["target"].dtype != pl.Boolean:
        return table
    old = (f"{PROBABILITY}{value}" for value in (False, True))
    return table.rename({name: name.lower() for name in old}, strict=False)


def class_names(table: pl.DataFrame) -> list[str]:
    """The classes in the order of their codes, as text; none where values are predicted."""
    return [n.removeprefix(PROBABILITY) for n in table.columns if n.startswith(PROBABILITY)]


def read_codes(names: pl.Series, classes: list[str]) -> npt.NDArray[np.int64]:
    """The code of each row's class (rows,); `classes` as text, in the order of their codes."""
    codes = {name: classes.index(yaml_text(name)) for name in names.unique().to_list()}
    return names.replace_strict(codes, return_dtype=pl.Int64).to_numpy()
