"""Ranges of a long CSV file read by workers: each attempt has files of its own."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import stages.formats.csv as csv
import stages.formats.text.compressed as compressed
import stages.prepare.table.collected as collected
from stages.common.errors import UserError
from stages.features.schema import Feature, Schema
from stages.parallel.mapper import Local, Mapper
from stages.prepare.fit import fit_schema
from stages.prepare.table.open_table import open_table
from tests.stages.features.encoded import VALUE

ROWS = [f"{n},{n * 7 % 1001},town {n % 13}" for n in range(3000)]


class Workers(Mapper):
    """Workers of a cluster, as far as one process plays them, and all that they were asked for."""

    is_remote = True

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[[Any], Any], Any]] = []

    def map(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        in_python: bool = False,
    ) -> Iterator[Any]:
        for item in items:
            self.calls.append((function, item))
            yield function(item)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "READ_BYTES", 5000)
    monkeypatch.setattr(csv, "LAYOUT_BYTES", 500)
    monkeypatch.setattr(csv, "PART_BYTES", 9000)
    monkeypatch.setattr(collected, "MEMORY_BYTES", 0)


@pytest.mark.parametrize(("line", "kind"), [('"8",8,x', "Int64"), ("8,word,x", "String")])
def test_a_worker_that_is_late_leaves_the_rows_of_the_next_attempt_alone(
    tmp_path: Path, line: str, kind: str
) -> None:
    source = tmp_path / "table.csv"
    source.write_text("\n".join(["id,number,town", *ROWS[:2500], line, *ROWS[2500:]]) + "\n")
    workers = Workers()
    table = open_table(source, "prepare.source", tmp_path / "parts", mapper=workers)
    assert str(table.schema["number"]) == kind
    files = [file for file in table.sources if isinstance(file, Path)]
    assert len(files) > 3
    before = {file: file.stat() for file in files}
    num_late = 0
    for read, place in workers.calls:
        if place.file not in before:
            num_late += 1
            with suppress(FileNotFoundError):
                read(place)
    assert num_late > 3
    assert {file: file.stat() for file in files} == before


def test_the_first_column_with_a_mistake_is_told_whichever_is_fitted_first(tmp_path: Path) -> None:
    source = tmp_path / "table.csv"
    source.write_text("\n".join(["id,number,town", *ROWS, "8,word,x"]) + "\n")
    workers = Workers()
    table = open_table(source, "prepare.source", tmp_path / "parts", mapper=workers)
    # The dates of 'town' are begun before the numbers of 'number'.
    features = [Feature(name="number", kind="numeric"), Feature(name="town", kind="datetime")]
    schema = Schema(key=None, features=features, target=VALUE)
    found = []
    for mapper in (Local(), workers):
        with pytest.raises(UserError, match="number") as caught:
            list(fit_schema(schema, table, mapper))
        found.append(caught.value.problems)
    assert found[0] == found[1]
