"""Rules that new rows are held to: each column as it was in the data of the training.

They are warnings, with room for chance: what they find is a reason to look, no proof.
"""

from collections.abc import Iterator

from stages.features.schema import Feature, Schema
from stages.prepare.expectations.long.facts import Facts, take_facts
from stages.prepare.expectations.long.figures import Figures
from stages.prepare.expectations.long.look import COUNT, VALUE
from stages.prepare.table.table import Table
from stages.tools.expect.draft import Rule, about, category_names, features_of_rules

# The mean may move by so many standard deviations.
MEAN_DEVIATIONS = 0.25
# Between these quantiles were 98 % of the values, and must be so many of the new ones.
LOW, HIGH, MOSTLY = 0.01, 0.99, 0.95
# The share of gaps may rise by so much.
MORE_GAPS = 0.05
# Kullback and Leibler's distance of the shares of categories, in nats: 0.1 is a category of 20 %
# that has become one of 40 %.
MAX_DISTANCE = 0.1
# Of a category that was not there, so large a share is taken for granted: else one value of it
# would be infinitely far.
UNSEEN = 0.01
_MEAN, _DEVIATION = "column.mean", "column.standard_deviation"


def draft_drift(table: Table, schema: Schema) -> list[Rule]:
    """Rules about the features of `schema`, from all rows of the table."""
    features = features_of_rules(schema)
    facts = take_facts(table, [feature.name for feature in features])
    numbers = {
        feature.name: [_MEAN, _DEVIATION]
        for feature in features
        if feature.kind == "numeric"
        and facts[feature.name].ends is not None
        and not facts[feature.name].num_infinite
    }
    figures = Figures(table, facts, ())
    figures.take(numbers)
    rules: list[Rule] = []
    for feature in features:
        rules += _of_gaps(feature, facts[feature.name])
        if feature.name in numbers:
            found = figures.measure(feature.name, None, numbers[feature.name])
            rules += _of_numbers(figures, feature, found[_MEAN], found[_DEVIATION])
        elif feature.kind == "categorical":
            rules += _of_categories(feature, facts[feature.name])
    return rules


def _of_gaps(feature: Feature, facts: Facts) -> Iterator[Rule]:
    share = 1 - facts.missing / facts.height - MORE_GAPS
    if share > 0:
        yield about(
            "expect_column_proportion_of_non_null_values_to_be_between",
            feature.name,
            "warning",
            min_value=_short(share),
        )


def _of_numbers(
    figures: Figures, feature: Feature, mean: float, deviation: float
) -> Iterator[Rule]:
    room = MEAN_DEVIATIONS * deviation
    if not room > 0:
        return
    limits = {"min_value": _short(mean - room), "max_value": _short(mean + room)}
    yield about("expect_column_mean_to_be_between", feature.name, "warning", **limits)
    low, high = (figures.quantile(feature.name, share, "nearest") for share in (LOW, HIGH))
    if low < high:
        limits = {"min_value": _short(low), "max_value": _short(high), "mostly": MOSTLY}
        yield about("expect_column_values_to_be_between", feature.name, "warning", **limits)


def _of_categories(feature: Feature, facts: Facts) -> Iterator[Rule]:
    names = category_names(facts)
    if names is None or facts.counts is None or len(names) < 2:
        return
    counts = facts.counts.sort(VALUE)
    weights = (counts[COUNT] / counts[COUNT].sum()).to_list()
    yield about(
        "expect_column_kl_divergence_to_be_less_than",
        feature.name,
        "warning",
        partition_object={"values": counts[VALUE].to_list(), "weights": weights},
        threshold=MAX_DISTANCE,
        tail_weight_holdout=UNSEEN,
        description=f"the shares of '{feature.name}' are those of the training",
    )


def _short(value: float) -> float:
    """The value with the digits that a person reads."""
    return float(f"{value:.6g}")
