"""Targets that are lists of labels in a text are told."""

import polars as pl
import pytest

from stages.common.errors import UserError
from stages.prepare.columns.labels import say_labels
from tests.support.stages.doubts import found


def test_several_labels_in_a_cell_are_told_and_can_be_meant() -> None:
    tags = ["home;sky", "pet", "home;pet", "sky"] * 20
    table = pl.DataFrame({"x": [float(n * n % 37) for n in range(80)], "y": tags})
    (line,) = found(table)[1]
    assert line.startswith(
        "the target 'y' seems to hold several labels a row, as 'home;pet', 'home;sky': each of its "
        "4 combinations is a class of its own; "
    )
    assert line.endswith('if classes are meant, columns: {"y": categorical}')
    assert found(table, columns={"y": "categorical"})[1] == []
    assert found(table, columns={"y": {"missing": ["?"]}})[1] == [line]
    assert say_labels("y", ["['home', 'sky']", "['pet']", "['home', 'pet']", "['sky']"])
    # Rare combinations stop prepare, which tells why there are so many.
    with pytest.raises(UserError, match=r"fewer than 3 rows(.|\n)*several labels a row"):
        found(table.with_columns(y=pl.Series([*tags[:-2], "home;pet;sky", "pet;sky"])))


@pytest.mark.parametrize(
    "classes",
    [
        ["Smith, John", "Doe, Jane", "Roe, Ann"],
        ["Married / spouse present", "Single"],
        ["trade, transport", "trade", "farming"],
        ["A+", "A", "B+", "B"],
        ["Springfield, IL", "Springfield, MO", "Kansas City, MO", "Chicago, IL"],
        ["1,0", "1,3", "2,0", "2,3", "3"],
        [0, 1, 2],
    ],
)
def test_names_with_signs_are_no_lists(classes: list[object]) -> None:
    assert say_labels("y", classes) is None
