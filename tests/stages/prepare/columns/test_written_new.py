"""Numbers as people write them, read in new rows as they were in training."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.serve.bundle import load_bundle
from pipeline.serve.codec.problems import RequestError
from stages.common.errors import UserError
from stages.features.schema import Feature, read_schema
from stages.formats.read import read_chunks
from stages.infer.rejected import encode_whole
from stages.model.predictor import load_predictor
from stages.prepare.table.dots import signed_columns
from stages.prepare.table.long_table import apply_writing
from stages.prepare.table.open_table import open_table
from stages.prepare.table.sample import take_sample
from tests.support.samples import prepare_params, run_stages, small_project
from tests.support.stages.columns import KEY

NEW = [
    ("1.299,99", "Oslo", 1299.99),
    ("12", "?", 12.0),
    ("?", "Bergen", None),
    ("#DIV/0!", "x", None),
    ("-1", "Oslo", None),
]
WAY = "1 299km"
WRONG = ["1.5", "1,299.99", "twelve"]


def prices(folder: Path) -> Path:
    """A table of prices as a shop in Europe writes them, and towns, with '?' and -1 for gaps."""
    path = folder / "prices.csv"
    lines = ["id;price;town;way;y"]
    for n in range(90):
        price = "?" if n % 11 == 5 else f"{n // 9 + 1}.{100 + 7 * n},{n % 90 + 10}"
        town = "?" if n % 13 == 6 else ("Oslo", "Bergen")[n % 2]
        lines.append(f"{n};{price};{town};{n + 1} {100 + n} km;{'ab'[n % 3 == 0]}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_new_rows_of_each_kind_of_file_and_in_json_are_read_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "prepare.source": str(prices(tmp_path)),
        "prepare.missing": ["?", -1],
        "prepare.columns": {"way": {"unit": "km"}},
        "infer.input": None,
        "train.epochs": 1,
    }
    project = small_project(tmp_path / "project", pl.DataFrame({"x": [1]}), changes)
    run_stages(project, "prepare", "build", "tune", "train", "infer")
    shown = capsys.readouterr().out
    assert "note: 'price' holds numbers written as 1.234,5: '1.100,10' (row 0) is 1100.1" in shown
    schema = read_schema(project.path / "data/prepare")
    price, town, way = schema.features
    assert (way.kind, way.decimal, way.thousands, way.unit) == ("numeric", ".", " ", "km")
    assert (price.decimal, price.thousands, price.missing_words) == (",", ".", ["?", "-1"])
    assert town == Feature(
        name="town",
        kind="categorical",
        missing=True,
        categories=["Bergen", "Oslo"],
        missing_words=["?", "-1"],
    )
    records = [{"id": n, "price": p, "town": t, "way": WAY} for n, (p, t, _) in enumerate(NEW)]
    records.append({"id": 50, "price": 1299.99, "town": "Oslo", "way": 1299})
    records.append({"id": 51, "price": -1, "town": "?", "way": "-1"})
    texts = pl.DataFrame([{**each, "price": str(each["price"])} for each in records[:5]])
    files = {
        "t.csv": lambda path: texts.write_csv(path, separator=";"),
        "t.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, records))),
        "t.parquet": texts.write_parquet,
    }
    from pipeline.serve.codec.rows import decode

    bundle = load_bundle(project.path / "data/infer")
    answers = decode(bundle.signature, bundle.run(bundle.encode(records)), records)  # type: ignore[arg-type]
    served = [each["probabilities"]["a"] for each in answers]  # type: ignore[index]
    predictor = load_predictor(project.path / "data")
    for name, write in files.items():
        path = tmp_path / name
        write(path)
        (part,) = read_chunks(path, schema, "infer.input")
        found = predictor.predict(part.table)["probability_a"].to_list()
        np.testing.assert_allclose(found, served[: len(found)], rtol=1e-5)
        assert part.table["town"].to_list()[:5] == ["Oslo", None, "Bergen", "x", "Oslo"]
    # One number, however it is told; and a gap, whichever word says so.
    assert served[0] == served[5]
    assert len({served[2], predictor_of_gap(bundle)}) == 1
    wrong = [*({"price": text} for text in WRONG), *({"way": text} for text in ("5 m", "5", "km"))]
    for values in wrong:
        with pytest.raises(RequestError):
            bundle.encode([{"id": 1, "price": 1, "town": "Oslo", "way": 1, **values}])
    # How it is to be written is told.
    told = "; numbers are written as 1 234.5 km in training"
    with pytest.raises(RequestError, match=f"'5 m' is not a number or null{told}"):
        bundle.encode([{"id": 1, "price": 1, "town": "Oslo", "way": "5 m"}])
    pl.concat([texts, texts.with_columns(way=pl.lit("5 m"))]).write_csv(tmp_path / "t.csv")
    (part,) = read_chunks(tmp_path / "t.csv", schema, "infer.input")
    whole, _ = encode_whole(part, schema, predictor.statistics, "infer.input")
    reasons = {damage.reason for damage in whole.damaged}
    assert reasons == {f"'5 m' is not a number that can be computed with{told}"}


def predictor_of_gap(bundle: object) -> object:
    rows = [{"id": 1, "price": None, "town": "Bergen", "way": WAY}]
    outputs = bundle.run(bundle.encode(rows))  # type: ignore[attr-defined]
    return outputs[1][0][0]


@pytest.mark.parametrize(
    ("header", "rows", "asked"),
    [
        ("x;z", ["1.861;1", "967;1", "16.948;1"], True),
        ("x\tz", ["1.861\t1", "967\t1"], True),
        ("x,z", ['1.861,"1,5"', '-1.200,"2"'], True),
        ("x;z", ["1.861;1", "?;1"], True),
        # Programs write so, or no thousand begins so.
        ("x,z", ["1.861,1", "967,1"], False),
        ("x;z", ["0.861;1", "1.861;1"], False),
        ("x;z", ["1.861;1", "1.5;1"], False),
        ("x;z", ["1.861;1", "1861.125;1"], False),
        ("x;z", ["1.500;1", "1.5;1"], False),
        ("x;z", ["967;1", "1;1"], False),
    ],
)
def test_a_dot_before_three_digits_is_asked_about_where_commas_are_decimal_signs(
    tmp_path: Path, header: str, rows: list[str], *, asked: bool
) -> None:
    path = tmp_path / ("t.tsv" if "\t" in header else "t.csv")
    path.write_text("\n".join([header, *rows * 3]), encoding="utf-8")

    def look(**said: object) -> pl.Series:
        params = prepare_params(missing=["?"], target="", columns={"x": said})
        found = signed_columns(params.columns)
        table = open_table(path, KEY, tmp_path / "parts", as_text=found)
        return apply_writing(table, take_sample(table, []), params)[0].column("x")

    if not asked:
        assert look().dtype.is_numeric()
        return
    with pytest.raises(UserError) as caught:
        look()
    (problem,) = caught.value.problems
    assert "1.861: columns: {x: {kind: numeric, decimal: '.'}}" in problem.message
    assert (
        """1861: columns: {x: {kind: numeric, decimal: ',', thousands: "."}}""" in problem.message
    )
    assert look(decimal=".")[0] == 1.861
    assert look(thousands=".")[0] == 1861


def test_signs_that_are_said_count_in_every_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,z\n1.861,1\n967,2\n", encoding="utf-8")
    params = prepare_params(target="", columns={"x": {"thousands": "."}})
    as_text = signed_columns(params.columns)
    table = open_table(path, KEY, tmp_path / "parts", as_text=as_text)
    read = apply_writing(table, take_sample(table, []), params)[0]
    assert read.column("x").to_list() == [1861, 967]
