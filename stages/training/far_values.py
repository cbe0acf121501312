"""Values that lie absurdly far from the train rows: of a sentinel, not of what a model has learned.

A column is standardised by its train rows, of which none of n can lie beyond √n deviations. A row
of validation can: with `FLT_MAX` in it the loss is not finite, at any learning rate.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.common.errors import Problem, UserError
from stages.features.schema import Moments
from stages.features.target_scale import to_units
from stages.training.data.source import Source, rows_at_once
from stages.training.state import Data

# In deviations of the train rows.
FAR = 1e4
SAY = "what stands for 'not known' (9999999, 3.4e38) belongs out of the data: leave it empty"


@dataclass(frozen=True)
class Far:
    """The farthest value of some rows, and how many rows have one beyond `FAR`."""

    distance: float
    row: int
    column: str
    value: float
    num_rows: int


def find_far(rows: Source, data: Data) -> Far | None:
    """The farthest value of `rows`, of a numeric column or the target; None: none is far."""
    found, num_far = None, 0
    size = rows_at_once(rows)
    for first in range(0, len(rows), size):
        batch, target = rows.take(slice(first, first + size))
        columns = _columns(batch, target, data)
        if not columns:
            return None
        names, values = list(columns), torch.stack(list(columns.values()), dim=1).double()
        away = values.abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
        num_far += int((away > FAR).any(dim=1).sum())
        place = int(away.argmax())
        row, column = divmod(place, len(names))
        distance = float(away[row, column])
        if distance > max(FAR, found.distance if found else 0.0):
            standardised = values[row, column : column + 1].cpu().numpy()
            value = float(to_units(standardised, _moments(names[column], data))[0])
            found = Far(distance, first + row, names[column], value, 0)
    return found and Far(found.distance, found.row, found.column, found.value, num_far)


def stop_when_far(epoch: int, data: Data) -> None:
    """Stop if the loss of validation is not finite for a value that no training could predict from.

    Raises UserError: another learning rate, or another trial, would meet the same.
    """
    far = find_far(data.validation, data)
    if far is not None:
        message = f"the loss of validation is not finite in epoch {epoch}, that of training is"
        text = f"{message}\n{describe_far(far, 'validation', data.validation)}"
        raise UserError(Problem(text, key="prepare.source"))


def describe_far(far: Far, split: str, rows: Source) -> str:
    """Which row of which split, which column and value, and the remedy."""
    key = far.row if rows.keys is None else rows.keys[far.row]
    of = f"the row with the key {key} of {split}"
    more = f"; {far.num_rows} rows have such" if far.num_rows > 1 else ""
    what = f"{far.value:.6g} in {far.column or 'the target'}"
    away = f"{far.distance:.2g} deviations from the mean of the train rows{more}"
    return f"{of} has {what}, {away}\n{SAY}"


def _columns(batch: dict[str, Tensor], target: Tensor, data: Data) -> dict[str, Tensor]:
    """The standardised values (rows,) by column; the target's under no name."""
    columns = {}
    if "numeric" in batch:
        columns = {f"'{name}'": batch["numeric"][:, i] for i, name in enumerate(data.columns)}
    return {**columns, "": target} if target.is_floating_point() else columns


def _moments(column: str, data: Data) -> Moments:
    return data.columns[column[1:-1]] if column else data.scale
