"""Each situation of `table.yaml`, through prepare's reading, through chunks, and as JSON."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.serve.codec.problems import RequestError
from pipeline.serve.codec.rows import make_encoder
from pipeline.serve.codec.signature import Input
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from stages.features.columns import as_category, as_numeric
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.formats.read import read_chunks
from stages.formats.reading import Damage
from stages.infer.export.signature import describe_input
from stages.prepare.columns.strays import stop_at_strays
from stages.prepare.columns.written import read_written, with_written
from stages.prepare.table.table import in_memory
from stages.prepare.table.total import stop_at_total
from tests.support.samples import prepare_params
from tests.support.serving import signature
from tests.support.tables import read_table

CASES = read_yaml(Path(__file__).with_name("table.yaml"))
KEY = "prepare.source"


def name_of(case: Mapping[str, Any]) -> str:
    return f"{case['id']}-{case['what']}"


every_case = pytest.mark.parametrize("case", CASES, ids=map(name_of, CASES))


def written(case: Mapping[str, Any], folder: Path) -> Path:
    """The file or the folder of a case."""
    if "parquet" in case:
        (folder / "shards").mkdir()
        for name, columns in case["parquet"].items():
            pl.DataFrame(columns).write_parquet(folder / "shards" / f"{name}.parquet")
        return folder / "shards"
    path = folder / case.get("file", "t.csv")
    line, times = case.get("repeat", ("", 0))
    text = case["text"] + line * times + case.get("then", "")
    content = text.encode(case.get("encoding", "utf-8"))
    if "pack" in case:
        size = -(-len(content) // case["pack"][1])
        parts = (content[at : at + size] for at in range(0, len(content), size))
        content = b"".join(gzip.compress(part) for part in parts)
    path.write_bytes(content[: len(content) - case.get("cut", 0)])
    return path


def prepared(case: Mapping[str, Any], path: Path) -> tuple[pl.DataFrame, Schema, list[str]]:
    """The table as prepare has it, its columns as features, and what is said of it."""
    said: list[str] = []
    params = prepare_params(target="", **case.get("params", {}))
    table, how, lines = read_written(read_table(path, KEY, said.append), params)
    stop_at_total(in_memory(table), KEY)
    features = []
    for column in table.iter_columns():
        if column.dtype == pl.String:
            stop_at_strays(column)
        if column.dtype.is_numeric() and column.dtype != pl.Int128:
            features.append(Feature(name=column.name, kind="numeric"))
        else:
            known = as_category(column).drop_nulls().unique().sort().to_list()
            features.append(Feature(name=column.name, kind="categorical", categories=known))
    schema = Schema(key=None, features=features, target=Target(name="y", task="regression"))
    return table, with_written(schema, how), said + lines


def as_read(feature: Feature, column: pl.Series) -> list[object]:
    """The values that a model is given of a column."""
    if feature.kind == "numeric":
        return list(as_numeric(column, KEY, feature))
    return list(as_category(column))


def in_chunks(path: Path, schema: Schema) -> tuple[dict[str, list[object]], list[Damage]]:
    parts = list(read_chunks(path, schema, KEY))
    values: dict[str, list[object]] = {}
    for feature in schema.features:
        read = [as_read(feature, part.table[feature.name]) for part in parts]
        values[feature.name] = [value for part in read for value in part]
    return values, [damage for part in parts for damage in part.damaged]


def by_hand(holds: Mapping[str, list[object]]) -> Schema:
    """The columns that chunks are asked for where prepare has none to tell."""
    features = [
        Feature(name=name, kind="categorical", categories=sorted(map(str, values)))
        if any(isinstance(value, str) for value in values)
        else Feature(name=name, kind="numeric")
        for name, values in holds.items()
    ]
    return Schema(key=None, features=features, target=Target(name="y", task="regression"))


@every_case
def test_prepare_takes_it_as_it_is_or_stops(case: Mapping[str, Any], tmp_path: Path) -> None:
    path = written(case, tmp_path)
    if "stops" in case:
        with pytest.raises(UserError) as caught:
            prepared(case, path)
        assert case["stops"] in str(caught.value)
        return
    table, schema, said = prepared(case, path)
    for note in case.get("notes", []):
        assert any(note in line for line in said), said
    for name, values in case.get("holds", {}).items():
        feature = next(feature for feature in schema.features if feature.name == name)
        numeric = feature.kind == "numeric"
        found = as_read(feature, table[name]) if numeric and None in values else list(table[name])
        if numeric and None in values and table[name].dtype.is_integer():
            found = list(table[name])
        assert found == values
        assert [type(value) for value in list(table[name]) if value is not None] == [
            type(value) for value in values if value is not None
        ] or None in values
    for name, value in case.get("last", {}).items():
        assert table[name][-1] == value


@every_case
def test_new_rows_are_the_same(case: Mapping[str, Any], tmp_path: Path) -> None:
    path = written(case, tmp_path)
    if "rejects" in case:
        values, damaged = in_chunks(path, by_hand(case["holds"]))
        assert values == {
            name: [float(v) if isinstance(v, int) else v for v in column]
            for name, column in case["holds"].items()
        }
        assert [each.row for each in damaged] == list(case["rejects"])
        for each, reason in zip(damaged, case["rejects"].values(), strict=True):
            assert reason in each.reason
        return
    if "stops" in case:
        # What is decided of a column is prepare's alone.
        reads = True
        try:
            read_table(path, KEY, lambda _: None)
        except UserError:
            reads = False
        if not reads:
            with pytest.raises(UserError) as caught:
                in_chunks(path, by_hand({"a": [1]}))
            assert case["stops"] in str(caught.value)
        return
    table, schema, _ = prepared(case, path)
    values, damaged = in_chunks(path, schema)
    assert damaged == []
    for feature in schema.features:
        assert values[feature.name] == as_read(feature, table[feature.name])


SERVED = [case for case in CASES if "serve" in case]


@pytest.mark.parametrize("case", SERVED, ids=map(name_of, SERVED))
def test_requests_are_the_same(case: Mapping[str, Any], tmp_path: Path) -> None:
    _, schema, _ = prepared(case, written(case, tmp_path))
    moments = {feature.name: Moments(mean=0.0, deviation=1.0) for feature in schema.features}
    statistics = Statistics(numeric=moments, image=[], target=None)
    for name, values in case["serve"].items():
        feature = next(feature for feature in schema.features if feature.name == name)
        each = Input.model_validate(describe_input(feature, "x", statistics))
        encode = make_encoder(signature(each))
        for value, expected in values:
            try:
                found = encode([{name: value}])["x"][0]
            except RequestError:
                found = "refused"
            # A gap is '' among texts and NaN among numbers, which is unlike itself.
            found = None if found == "" or found != found else found
            assert found == expected, value


def test_each_situation_of_a_table_stands_here() -> None:
    # 11, 12: dates; 19 to 26: categories and images, which have tables of their own.
    assert {case["id"] for case in CASES} >= {*range(1, 11), *range(13, 19), 27, 28}
