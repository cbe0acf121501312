"""A first suite of expectations, from what the table is today: a draft for a person to edit."""

from collections.abc import Iterator
from typing import Any, cast

import polars as pl

from stages.features.columns import as_category
from stages.features.schema import Feature, Schema
from stages.tools.init.counts import Counts

# Of the values, as many must be as today: a few new ones are no alarm.
MOSTLY = 0.99
MAX_VALUES = 20
# Beyond them a suite is no longer read by anybody.
MAX_COLUMNS = 100
Rule = dict[str, Any]


def draft_suite(table: pl.DataFrame, schema: Schema, counts: Counts) -> list[Rule]:
    """Rules that the table of today meets, rows without a target among them.

    `table` has some rows or all, `counts` is of all. Critical is what prepare could not do without:
    columns, a key for each row, a target. The rest are warnings.
    """
    rows = {"min_value": max(1, counts.num_rows // 2)}
    rules = [_rule("expect_table_row_count_to_be_between", "warning", **rows)]
    if schema.key is not None:
        rules.append(_about("expect_column_values_to_not_be_null", schema.key, "critical"))
        rules.append(_about("expect_column_values_to_be_unique", schema.key, "critical"))
    target = schema.target
    if not counts.gaps[target.name]:
        rules.append(_about("expect_column_values_to_not_be_null", target.name, "critical"))
    if target.classes is not None and len(target.classes) <= MAX_VALUES:
        classes = {"value_set": list(target.classes)}
        rules.append(
            _about("expect_column_values_to_be_in_set", target.name, "critical", **classes)
        )
    for feature in schema.features[:MAX_COLUMNS]:
        # Prepare itself counts the images that it can't read.
        if not feature.is_array:
            rules += _of_feature(feature, table[feature.name], counts)
    return rules


def _of_feature(feature: Feature, column: pl.Series, counts: Counts) -> Iterator[Rule]:
    if not counts.gaps[feature.name]:
        yield _about("expect_column_values_to_not_be_null", feature.name, "warning")
    else:
        yield _about("expect_column_to_exist", feature.name, "critical")
    if feature.kind == "numeric" and column.dtype.is_numeric():
        values = column.drop_nulls()
        values = values.filter(values.is_finite()) if values.dtype.is_float() else values
        low, high = cast(float, values.min()), cast(float, values.max())
        limits = {"min_value": low, "max_value": high, "mostly": MOSTLY}
        yield _about("expect_column_values_to_be_between", feature.name, "warning", **limits)
    if feature.kind == "categorical" and column.dtype == pl.String:
        names = as_category(column).drop_nulls().unique().sort().to_list()
        if len(names) <= MAX_VALUES:
            allowed = {"value_set": names, "mostly": MOSTLY}
            yield _about("expect_column_values_to_be_in_set", feature.name, "warning", **allowed)


def _about(kind: str, column: str, severity: str, **arguments: object) -> Rule:
    return {"type": kind, "column": column, **arguments, "severity": severity}


def _rule(kind: str, severity: str, **arguments: object) -> Rule:
    return {"type": kind, **arguments, "severity": severity}
