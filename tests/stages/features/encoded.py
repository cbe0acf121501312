"""A small table of every kind of column, fitted and encoded."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.encode import encode
from stages.features.schema import Feature, Schema, Statistics, Target
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.fit import fit_schema, fit_statistics
from stages.prepare.table.table import in_memory
from tests.support.samples import prepare_params

Arrays = dict[str, npt.NDArray[Any]]
# The parameter that names the file, as an error tells it.
KEY = "infer.input"
CLASSES = Target(name="y", task="classification", classes=["ill", "well"])
VALUE = Target(name="y", task="regression")
MIXED = pl.DataFrame(
    {
        "id": [7, 3, 9, 4],
        "size": [1.0, 3.0, None, 5.0],
        "age": [10, 20, 30, 40],
        "smoker": [True, None, False, True],
        "member": [False, False, True, True],
        "town": ["Oslo", "Bergen", None, "Oslo"],
        "y": ["ill", "well", "ill", "well"],
    }
)


def fit(train: pl.DataFrame, **changes: object) -> tuple[Schema, Statistics]:
    """What prepare learns from the rows of train."""
    # Four rows a class, so that finding the classes has nothing to say about the sample.
    schema = find_schema(pl.concat([train] * 4), prepare_params(**changes))
    schema = fit_schema(schema, in_memory(train))
    return schema, fit_statistics(schema, in_memory(train))


def encoded(rows: pl.DataFrame, schema: Schema, statistics: Statistics) -> Arrays:
    return dict(encode(rows, schema, statistics, KEY))


def one_feature(feature: Feature, key: str | None = None) -> Schema:
    return Schema(key=key, features=[feature], target=CLASSES)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert {problem.key for problem in caught.value.problems} == {KEY}
    return str(caught.value)
