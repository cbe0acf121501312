"""Categories: gaps apart from what is new, and the most frequent of very many."""

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.columns import MAX_CATEGORIES
from stages.features.kinds import categorical
from stages.features.numbers import Encoded
from stages.features.schema import Feature
from stages.prepare.columns.infer_schema import guess_kind

KEY = "prepare.source"


def fitted(column: pl.Series) -> Feature:
    return categorical.fit(categorical.infer(column, KEY), [column], KEY)


def test_a_gap_has_a_code_of_its_own_where_train_has_one() -> None:
    new = pl.Series("x", ["b", None, "Paris", " ", "a"])
    with_gaps = fitted(pl.Series("x", ["a", "b", None]))
    assert (with_gaps.missing, with_gaps.gap_code) == (True, 3)
    assert categorical.feed_program(with_gaps, new, KEY).tolist() == [2, 3, 0, 3, 1]
    assert categorical.describe(with_gaps, []) == {"categories": ["a", "b"], "missing": True}
    whole = fitted(pl.Series("x", ["a", "b", "a"]))
    assert categorical.feed_program(whole, new, KEY).tolist() == [2, 0, 0, 0, 1]
    assert categorical.describe(whole, []) == {"categories": ["a", "b"]}


def test_gaps_are_a_slice_apart_from_new_values() -> None:
    feature = fitted(pl.Series("x", ["a", "b", None]))
    codes = Encoded(np.array([[1], [0], [3], [2], [3]]), coded=True, gap_code=3)
    labels, rows = categorical.slices(feature, codes, codes, [])
    assert [labels[row] for row in rows] == ["a", "(new or rare)", "(missing)", "b", "(missing)"]
    assert codes.gaps.tolist() == [False, True, True, False, True]


def test_of_very_many_categories_the_most_frequent_are_kept_and_the_others_are_one() -> None:
    names = [f"town {n:04}" for n in range(MAX_CATEGORIES + 200)]
    # Each three times, the last 500 once more.
    column = pl.Series("x", names * 3 + names[-500:])
    feature = fitted(column)
    kept = feature.categories or []
    assert len(kept) == MAX_CATEGORIES - 1
    assert kept == sorted(kept)
    assert set(names[-500:]) < set(kept)
    codes = categorical.feed_program(feature, column, KEY)
    assert (codes == 0).sum() == 3 * 201
    (line,) = categorical.tell(feature, [column])
    assert line.startswith("'x' has 1200 different values: the 999 most frequent in training")
    assert "the others, in 603 of 4100 rows, are one to the model" in line
    assert categorical.tell(fitted(column[:1000]), [column[:1000]]) == []


def test_many_values_that_are_mostly_different_have_to_be_decided() -> None:
    names = [f"ticket {n}" for n in range(MAX_CATEGORIES + 1)]
    column = pl.Series("x", names + names[:499])
    assert categorical.infer(column, KEY).kind == "categorical"
    with pytest.raises(UserError, match="1001 different values in 1500 rows") as caught:
        guess_kind(column)
    assert {"text", "categorical", "exclude"} <= set(caught.value.problems[0].allowed)
