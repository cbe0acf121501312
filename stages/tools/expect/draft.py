"""A first suite of expectations, from what the table is today: a draft for a person to edit."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from stages.features.columns import as_category
from stages.features.schema import Feature, Schema
from stages.prepare.expectations.long.facts import Facts, take_facts
from stages.prepare.expectations.long.look import VALUE
from stages.prepare.table.table import Table

# Of the values, as many must be as today: a few new ones are no alarm.
MOSTLY = 0.99
MAX_VALUES = 20
# Beyond them a suite is no longer read by anybody.
MAX_COLUMNS = 100
Rule = dict[str, Any]


def draft_suite(table: Table, schema: Schema) -> list[Rule]:
    """Rules that the table of today meets, rows without a target among them.

    Critical is what prepare could not do without: columns, a key for each row, a target. The rest
    are warnings.
    """
    features = features_of_rules(schema)
    target = schema.target
    facts = take_facts(table, [target.name, *(feature.name for feature in features)])
    rows = {"min_value": max(1, table.height // 2)}
    rules = [rule("expect_table_row_count_to_be_between", "warning", **rows)]
    if schema.key:
        rules.append(about("expect_column_values_to_not_be_null", schema.key, "critical"))
        rules.append(about("expect_column_values_to_be_unique", schema.key, "critical"))
    if not facts[target.name].missing:
        rules.append(about("expect_column_values_to_not_be_null", target.name, "critical"))
    if target.classes is not None and len(target.classes) <= MAX_VALUES:
        counts = facts[target.name].counts
        # Classes of numbers with fractions go by their names; the file has the numbers.
        are_numbers = counts is not None and counts.schema[VALUE].is_float()
        values = [float(each) if are_numbers else each for each in target.classes]
        allowed = {"value_set": values}
        rules.append(about("expect_column_values_to_be_in_set", target.name, "critical", **allowed))
    for feature in features:
        rules += _of_feature(feature, facts[feature.name])
    # Great Expectations takes no empty name, be it of the target.
    return [each for each in rules if each.get("column") != ""]


def features_of_rules(schema: Schema) -> list[Feature]:
    """The features that a draft has rules about.

    Prepare itself counts the images that it can't read; a column without a name has no rules.
    """
    return [each for each in schema.features[:MAX_COLUMNS] if each.name and not each.is_array]


def category_names(facts: Facts) -> list[str] | None:
    """The different texts of a column, in their order; None for a column of others, or of many."""
    if facts.counts is None or facts.counts.schema[VALUE] != pl.String:
        return None
    names: list[str] = as_category(facts.counts[VALUE]).drop_nulls().unique().sort().to_list()
    return names if len(names) <= MAX_VALUES else None


def about(kind: str, column: str, severity: str, **arguments: object) -> Rule:
    """A rule about a column, as it stands in a suite."""
    return {"type": kind, "column": column, **arguments, "severity": severity}


def rule(kind: str, severity: str, **arguments: object) -> Rule:
    """A rule about the table."""
    return {"type": kind, **arguments, "severity": severity}


def _of_feature(feature: Feature, facts: Facts) -> Iterator[Rule]:
    if not facts.missing:
        yield about("expect_column_values_to_not_be_null", feature.name, "warning")
    else:
        yield about("expect_column_to_exist", feature.name, "critical")
    if feature.kind == "numeric" and facts.ends is not None:
        low, high = facts.ends
        limits = {"min_value": low, "max_value": high, "mostly": MOSTLY}
        yield about("expect_column_values_to_be_between", feature.name, "warning", **limits)
    names = category_names(facts) if feature.kind == "categorical" else None
    if names is not None:
        allowed = {"value_set": names, "mostly": MOSTLY}
        yield about("expect_column_values_to_be_in_set", feature.name, "warning", **allowed)
