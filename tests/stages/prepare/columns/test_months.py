"""Texts that look like numbers or dates: codes, months, seasons."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

from stages.features.kind import kind_of
from tests.support.stages.columns import KEY
from tests.support.stages.doubts import NUMBERS, found, table_of


@pytest.mark.parametrize(
    "zeros", [["01067", "04103"] * 20, ["01067"] * 3, ["00ff4"] * 40, ["01067"] * 100]
)
def test_codes_with_leading_zeros_are_texts_and_nothing_else_is_said(
    tmp_path: Path, zeros: list[str]
) -> None:
    schema, (line,) = found(table_of(tmp_path, [*["10115", "20095", "80331"] * 40, *zeros]))
    assert schema.features[0].kind == "categorical"
    assert line == (
        f"'x' is kept as text, for its leading zeros: '{zeros[0]}' (row 120)"
        + (f", '{zeros[1]}' (row 121)" if zeros[1] != zeros[0] else "")
    )


def test_numbers_with_leading_zeros_may_be_written_without(tmp_path: Path) -> None:
    (line,) = found(table_of(tmp_path, [*NUMBERS * 2, *["007", "08"] * 40]))[1]
    assert line.startswith(
        "'x' is kept as text, for its leading zeros: '007' (row 600), '08' (row "
    )
    assert line.endswith("if they measure something, write them without these zeros in the file")


MONTHS = [(1 + n % 12, 2001 + n % 19) for n in range(228)]
SHOWN = "jan feb mar apr may jun jul aug sep oct nov dec".title().split()


@pytest.mark.parametrize(
    ("shown", "form"),
    [
        ("{m:02d}/{y}", "%m/%Y"),
        ("{m}/{y}", "%m/%Y"),
        ("{y}-{m:02d}", "%Y-%m"),
        ("{m:02d}.{y}", "%m.%Y"),
        ("{name} {y}", "%b %Y"),
        ("{name}-{y}", "%b-%Y"),
        ("{y} {name}", "%Y %b"),
        ("{y}-{name}", "%Y-%b"),
    ],
)
def test_months_are_dates_of_their_first_day(tmp_path: Path, shown: str, form: str) -> None:
    texts = [shown.format(m=m, y=y, name=SHOWN[m - 1]) for m, y in MONTHS]
    table = table_of(tmp_path, texts)
    schema, said = found(table)
    feature = schema.features[0]
    assert (feature.kind, feature.format, said) == ("datetime", form, [])
    own = kind_of("datetime")
    expected = [datetime(y, m, 1, tzinfo=UTC).timestamp() for m, y in MONTHS]
    assert own.feed(feature, table["x"], KEY).tolist() == expected
    described = SimpleNamespace(format=form, zone=None)
    assert own.read_values(described, list(texts)).tolist() == expected  # type: ignore[arg-type]
    # A month has no place in the week.
    assert own.fit(feature, [table["x"]], KEY).cycles == ["year"]
    # Beside words they are categories, with the line that makes dates of the rest.
    table = table_of(tmp_path, [*texts, *["unknown", "n/a"] * 9])
    schema, (line,) = found(table)
    assert schema.features[0].kind == "categorical"
    advice = f"columns: {{x: {{kind: datetime, format: '{form}', missing: ['unknown', 'n/a']}}}}"
    assert f"if '{texts[0]}' is 2001-01 and these stand for no value, {advice}, or" in line
    schema, said = found(table, **YAML(typ="safe").load(advice))
    assert (schema.features[0].kind, said) == ("datetime", [])


@pytest.mark.parametrize(
    "shown", ["{y}-{next:02d}", "{m:02d}/4{n:03d}", "{n:02d}/{y}", "{y}/{n:02d}", "{y}-{h}"]
)
def test_seasons_and_codes_are_no_months(tmp_path: Path, shown: str) -> None:
    pairs = [(n, 2000 + n % 12) for n in range(20)] * 6
    texts = [
        shown.format(n=n, y=y, next=(y + 1) % 100, m=1 + n % 12, h=1 + n % 2) for n, y in pairs
    ]
    schema, said = found(table_of(tmp_path, texts))
    assert (schema.features[0].kind, said) == ("categorical", [])


@pytest.mark.parametrize(
    ("shown", "form"), [("{m:02d}/{y:02d}", "%m/%y"), ("{n}-{y:02d}", "%b-%y")]
)
def test_months_that_may_be_something_else_are_said(tmp_path: Path, shown: str, form: str) -> None:
    texts = [shown.format(m=m, y=y % 100, n=SHOWN[m - 1]) for m, y in MONTHS]
    table = table_of(tmp_path, texts)
    schema, (line,) = found(table)
    assert schema.features[0].kind == "categorical"
    advice = f"columns: {{x: {{kind: datetime, format: '{form}'}}}}"
    assert line.startswith("'x' holds what may be months, taken as 228 categories: ")
    assert f"; if '{texts[0]}' is 2001-01, {advice}, or columns: {{x: exclude}}; if that" in line
    assert found(table, **YAML(typ="safe").load(advice))[1] == []
