"""Rules about values of rows that polars counts by itself, as Great Expectations would."""

import polars as pl

from stages.prepare.expectations.suite import Rule

_IS_GAP = "expect_column_values_to_be_null"
_IS_NO_GAP = "expect_column_values_to_not_be_null"
_BETWEEN = "expect_column_values_to_be_between"
_IN_SET = "expect_column_values_to_be_in_set"
_NOT_IN_SET = "expect_column_values_to_not_be_in_set"
_KNOWN = {_IS_GAP, _IS_NO_GAP, _BETWEEN, _IN_SET, _NOT_IN_SET}
_ARGUMENTS = {"column", "mostly", "min_value", "max_value", "strict_min", "strict_max", "value_set"}
# Of a longer whole number, float64 does not know the last digit.
_EXACT = 2**53


def find_mask(rule: Rule, dtype: pl.DataType) -> pl.Expr | None:
    """The rows that offend, if the rule is one of gaps, or of numbers and plain numbers."""
    arguments = rule.arguments
    if rule.type not in _KNOWN or set(arguments) - _ARGUMENTS:
        return None
    column = pl.col(arguments["column"])
    gap = is_missing(arguments["column"], dtype)
    if rule.type in (_IS_GAP, _IS_NO_GAP):
        return ~gap if rule.type == _IS_GAP else gap
    if not (dtype.is_integer() or dtype.is_float()) or dtype in (pl.Int128, pl.UInt128):
        return None
    if rule.type != _BETWEEN:
        return _not_in_set(rule, column, gap, dtype)
    low, high = arguments.get("min_value"), arguments.get("max_value")
    if not all(bound is None or _is_number(bound) for bound in (low, high)):
        return None
    if low is not None and high is not None and low > high:
        return None
    is_wrong = pl.lit(value=False)
    if low is not None:
        is_wrong |= column <= low if arguments.get("strict_min") else column < low
    if high is not None:
        is_wrong |= column >= high if arguments.get("strict_max") else column > high
    return ~gap & is_wrong


def is_missing(name: str, dtype: pl.DataType) -> pl.Expr:
    """The rows without a value, NaN among them."""
    column = pl.col(name)
    return (
        column.is_null() | column.is_nan().fill_null(value=False)
        if dtype.is_float()
        else (column.is_null())
    )


def _not_in_set(rule: Rule, column: pl.Expr, gap: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    values = rule.arguments.get("value_set")
    if not isinstance(values, list) or not all(map(_is_number, values)) or dtype == pl.UInt64:
        return None
    are_whole = dtype.is_integer() and all(isinstance(value, int) for value in values)
    common = pl.Int64() if are_whole else pl.Float64()
    is_in = column.cast(common).is_in(pl.Series(values, dtype=common).implode())
    return ~gap & (~is_in if rule.type == _IN_SET else is_in)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _EXACT
