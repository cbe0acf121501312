"""Mistakes in the columns of a table, as they are told."""

from collections.abc import Mapping

import polars as pl
import pytest

from stages.common.errors import Problem, UserError
from stages.prepare.columns.infer_schema import find_schema
from tests.support.samples import prepare_params

KEY = "prepare.source"
# A target that needs no thought, for tests about the features.
Y = pl.Series("y", ["a", "b"] * 10)


def problems(table: pl.DataFrame, **changes: object) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        find_schema(table, prepare_params(**changes))
    return caught.value.problems


def problem(table: Mapping[str, object], **changes: object) -> Problem:
    (only,) = problems(pl.DataFrame({"y": Y, **table}), **changes)
    return only
