"""Expectations in plain English: 'age' is between 0 and 120 in at least 95 % of the rows."""

from collections import defaultdict
from collections.abc import Callable
from string import Formatter
from typing import Any

from stages.prepare.expectations.suite import Rule

Quote = Callable[[str], str]
MAX_ITEMS_SHOWN = 10

# The types that suites use most; the others are told in the words of their own name.
_SENTENCES = {
    "expect_column_distinct_values_to_be_in_set": "the values of {column} are among {value_set}",
    "expect_column_distinct_values_to_contain_set": "{column} has each of {value_set}",
    "expect_column_distinct_values_to_equal_set": "{column} has exactly the values {value_set}",
    "expect_column_max_to_be_between": "the largest {column} is {range}",
    "expect_column_mean_to_be_between": "the mean of {column} is {range}",
    "expect_column_median_to_be_between": "the median of {column} is {range}",
    "expect_column_min_to_be_between": "the smallest {column} is {range}",
    "expect_column_most_common_value_to_be_in_set": "the most common {column} is among {value_set}",
    "expect_column_pair_values_a_to_be_greater_than_b": "{column_A} is {greater} {column_B}",
    "expect_column_proportion_of_non_null_values_to_be_between": (
        "the share of rows with a {column} is {range}"
    ),
    "expect_column_stdev_to_be_between": "the standard deviation of {column} is {range}",
    "expect_column_sum_to_be_between": "the sum of {column} is {range}",
    "expect_column_to_exist": "there is a column {column}",
    "expect_column_unique_value_count_to_be_between": (
        "the number of different values in {column} is {range}"
    ),
    "expect_column_value_lengths_to_be_between": "the length of {column} is {range}",
    "expect_column_values_to_be_between": "{column} is {range}",
    "expect_column_values_to_be_in_set": "{column} is one of {value_set}",
    "expect_column_values_to_be_null": "{column} is missing",
    "expect_column_values_to_be_of_type": "{column} is of type {type_}",
    "expect_column_values_to_be_unique": "{column} is unique",
    "expect_column_values_to_match_regex": "{column} matches {regex}",
    "expect_column_values_to_not_be_in_set": "{column} is none of {value_set}",
    "expect_column_values_to_not_be_null": "{column} is not missing",
    "expect_column_values_to_not_match_regex": "{column} does not match {regex}",
    "expect_compound_columns_to_be_unique": "{columns} together are unique",
    "expect_table_column_count_to_be_between": "the number of columns is {range}",
    "expect_table_column_count_to_equal": "the number of columns is {value}",
    "expect_table_columns_to_match_ordered_list": "the columns are {column_list}, in this order",
    "expect_table_columns_to_match_set": "the columns are {column_set}, in any order",
    "expect_table_row_count_to_be_between": "the number of rows is {range}",
    "expect_table_row_count_to_equal": "the number of rows is {value}",
}
# Words made of several arguments, which are then told.
_MADE_OF = {
    "range": {"min_value", "max_value", "strict_min", "strict_max"},
    "greater": {"or_equal"},
    "columns": {"column", "column_A", "column_B", "column_list"},
}


def sentence(rule: Rule, name: Quote, value: Quote) -> str:
    """The expectation of `rule` in words.

    What comes from the suite goes through `name` or `value`.
    """
    arguments = rule.arguments
    words = defaultdict(str, {key: _items(item, value) for key, item in arguments.items()})
    words |= {key: name(column) for key, column in rule.columns.items()}
    words["columns"] = " and ".join(name(column) for column in rule.columns.values())
    words["greater"] = "at least" if arguments.get("or_equal") else "greater than"
    words["range"] = _range(arguments, value)
    own = rule.type.removeprefix("expect_").removeprefix("column_").replace("_", " ")
    template = _SENTENCES.get(rule.type) or ("{columns}: " if rule.columns else "") + own
    text = template.format_map(words)

    told = {"mostly", "row_condition"}
    for _, word, _, _ in Formatter().parse(template):
        told |= _MADE_OF.get(word or "", {word or ""})
    rest = [f"{key} {words[key]}" for key in arguments if key not in told]
    if rest:
        text += f" ({', '.join(rest)})"
    mostly = arguments.get("mostly", 1)
    if mostly != 1:
        text += f" in at least {value(f'{100 * mostly:.10g} %')} of the rows"
    if arguments.get("row_condition"):
        text += f" where {words['row_condition']}"
    return text


def _range(arguments: dict[str, Any], value: Quote) -> str:
    low, high = arguments.get("min_value"), arguments.get("max_value")
    above = "above" if arguments.get("strict_min") else "at least"
    below = "below" if arguments.get("strict_max") else "at most"
    if high is None:
        return f"{above} {value(str(low))}"
    if low is None:
        return f"{below} {value(str(high))}"
    if arguments.get("strict_min") or arguments.get("strict_max"):
        return f"{above} {value(str(low))} and {below} {value(str(high))}"
    return f"between {value(str(low))} and {value(str(high))}"


def _items(argument: object, value: Quote) -> str:
    if not isinstance(argument, list):
        return value(str(argument))
    rest = len(argument) - MAX_ITEMS_SHOWN
    shown = ", ".join(value(str(item)) for item in argument[:MAX_ITEMS_SHOWN])
    return f"{shown} and {rest:,} more" if rest > 0 else shown
