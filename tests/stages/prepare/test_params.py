"""The section `prepare`: what may be said of a column, in one word or in keys."""

import pytest

from stages.common.config import validate
from stages.common.errors import UserError
from stages.prepare.params import PrepareParams

SECTION = {
    "source": "houses.csv",
    "key": None,
    "target": "price",
    "task": "auto",
    "target_transform": None,
    "drop_missing_target": False,
    "structure": None,
    "missing": [],
    "weight": None,
    "duplicates": "warn",
    "image": None,
    "normalize": None,
    "pretrained": None,
    "split": {"seed": 0, "validation": 0.1, "test": 0.2},
    "expectations": None,
}


def test_one_word_says_the_same_as_its_key() -> None:
    columns = {"zip": "categorical", "name": {"kind": "categorical"}}
    section = validate(PrepareParams, {**SECTION, "columns": columns}, "prepare")
    assert section.column("zip") == section.column("name")
    assert section.column("area").kind is None


@pytest.mark.parametrize(
    ("said", "key", "suggestion"),
    [
        ("catgorical", "prepare.columns.zip", "categorical"),
        ({"kind": "catgorical"}, "prepare.columns.zip.kind", "categorical"),
        ({"knd": "categorical"}, "prepare.columns.zip.knd", "kind"),
    ],
)
def test_a_mistake_is_told_once_where_it_stands(said: object, key: str, suggestion: str) -> None:
    with pytest.raises(UserError) as raised:
        validate(PrepareParams, {**SECTION, "columns": {"zip": said}}, "prepare")
    (problem,) = raised.value.problems
    assert (problem.key, problem.suggestion) == (key, suggestion)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"calendar": True}, "calendar is for dates"),
        ({"format": "%d.%m.%Y"}, "format is for dates"),
        ({"unit": "km"}, "unit is for numbers"),
        ({"kind": "numeric"}, "kind is numeric"),
    ],
)
def test_places_beside_what_has_none_are_refused(said: dict[str, object], why: str) -> None:
    columns = {"zip": {**said, "places": 3}}
    with pytest.raises(UserError, match=f"places are for texts, and {why}") as raised:
        validate(PrepareParams, {**SECTION, "columns": columns}, "prepare")
    (problem,) = raised.value.problems
    assert (problem.key, problem.value) == ("prepare.columns.zip.places", "3")


@pytest.mark.parametrize(
    ("said", "key"),
    [({"calendar": True}, "area.calendar"), ("numeric", "area"), ({"kind": "numeric"}, "area")],
)
def test_a_weight_has_no_kind_and_no_calendar(said: object, key: str) -> None:
    section = {**SECTION, "weight": "area", "columns": {"area": said}}
    (problem,) = validate(PrepareParams, section, "prepare").find_conflicts()
    assert problem.key == f"prepare.columns.{key}"
    assert problem.message.endswith(f"leave its {'calendar' if 'calendar' in key else 'kind'} out")
