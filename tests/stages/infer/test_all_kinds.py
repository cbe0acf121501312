"""A table that mixes all kinds of columns: through every stage, the same in each way back in."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.serve.bundle import load_bundle
from stages.features.encode import encode
from stages.features.schema import KINDS, load_arrays
from stages.formats.read import read_chunks
from stages.infer.notes import Notes
from stages.infer.rejected import encode_whole
from stages.model.attribution import attribute
from stages.model.predictor import Predictor, load_predictor
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project

KEY = "infer.input"
DAY = "%d/%m/%Y"
FITTED = ("schema.json", "statistics.json", "train")


def all_kinds() -> pl.DataFrame:
    """`mixed_table` with two texts, a date as people write it, times of a zone, and images."""
    table = mixed_table(150)
    random = np.random.default_rng(1)
    words = ["rain", "sun", "wind", "Öl", "東京", "fish", "price", "2024"]
    texts = [" ".join(random.choice(words, 3 + row % 9)) + f" n{row}" for row in range(150)]
    start = datetime(2019, 3, 30, tzinfo=UTC)
    days = [(start + timedelta(days=11 * row)).strftime(DAY) for row in range(150)]
    times = pl.Series([start + timedelta(hours=37 * row) for row in range(150)], dtype=pl.Datetime)
    images = random.integers(0, 255, (150, 2, 3), np.uint8)
    number = pl.int_range(pl.len())
    return table.with_columns(
        title=pl.Series([f"the {text}" for text in texts]),
        body=pl.when(number % 9 != 4).then(pl.Series(texts[::-1])),
        day=pl.when(number % 8 != 2).then(pl.Series(days)),
        seen=times.dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Oslo"),
        sold=times.dt.offset_by("3h"),
        picture=pl.Series(images, dtype=pl.Array(pl.UInt8, (2, 3))),
    ).select("id", "y", pl.exclude("id", "y"))


TABLE = all_kinds()


@pytest.fixture(scope="module", params=["linear", "mlp"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp(request.param) / "p"
    model = {"name": request.param}
    columns = {"sold": {"calendar": True}}
    changes = {"prepare.key": "id", "build.model": model, "prepare.columns": columns}
    made = small_project(folder, TABLE, changes)
    run_stages(made, "prepare", "build", "tune", "train", "evaluate", "infer")
    return made


@pytest.fixture(scope="module")
def predictor(project: Project) -> Predictor:
    return load_predictor(project.path / "data", coverage=0.9)


def new_rows() -> pl.DataFrame:
    """Rows with what training has not seen, one thing a row."""
    changes: list[tuple[str, object]] = [
        *(("town", "Paris"), ("town", None), ("body", "words that nobody wrote " * 30)),
        *(("title", "!"), ("day", "29/02/2040"), ("day", None), ("smoker", None), ("size", None)),
    ]
    rows = TABLE[: len(changes)].drop("y")
    number = pl.int_range(pl.len())
    for row, (name, value) in enumerate(changes):
        changed = pl.when(number == row).then(pl.lit(value)).otherwise(pl.col(name))
        rows = rows.with_columns(changed.alias(name))
    return rows


def test_every_kind_is_there(predictor: Predictor) -> None:
    assert {feature.kind for feature in predictor.schema.features} == set(KINDS)
    found = {feature.name: feature for feature in predictor.schema.features}
    assert (found["day"].format, found["seen"].zone) == (DAY, "Europe/Oslo")


def test_evaluate_says_of_each_column_how_it_matters(project: Project) -> None:
    names = {name for name in TABLE.columns if name not in ("id", "y", "picture")}
    importance = pl.read_csv(project.path / "data/evaluate/plots/importance.csv")
    assert set(importance["column"]) == names
    slices = pl.read_csv(project.path / "data/evaluate/slices.csv")
    # Of a calendar there are none.
    assert set(slices["column"]) == names - {"sold"}
    town = slices.filter(pl.col("column") == "town")["slice"].to_list()
    assert "(missing)" in town


def test_the_columns_add_up_to_what_sets_a_row_apart(predictor: Predictor) -> None:
    arrays = encode(TABLE[:20], predictor.schema, predictor.statistics, KEY)
    found = attribute(predictor, arrays, np.zeros(20, np.int64))
    assert found.left_out == []
    assert {"title", "body", "day", "seen", "town", "picture top left"} <= set(found.columns)
    moved = np.abs(found.values.sum(axis=1)).max()
    assert found.errors.max() < 0.02 * max(moved, 1)
    assert (np.abs(found.values[:, found.columns.index("title")]) > 0).any()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_and_the_server_predict_as_the_table_is_predicted(
    project: Project, predictor: Predictor, tmp_path: Path, suffix: str
) -> None:
    table = new_rows()
    expected = predictor.predict(table)
    path = tmp_path / f"new{suffix}"
    texts = table.with_columns(pl.col("seen").dt.convert_time_zone("UTC").dt.to_string("iso"))
    texts.write_ndjson(path) if suffix == ".jsonl" else table.write_parquet(path)
    (chunk,) = read_chunks(path, predictor.schema, KEY)
    whole, arrays = encode_whole(chunk, predictor.schema, predictor.statistics, KEY)
    assert whole.damaged == []
    found = predictor.decode(predictor.scores(arrays))
    assert found.equals(expected.drop("id"))

    bundle = load_bundle(project.path / "data/infer")
    rows = [json.loads(line) for line in texts.write_ndjson().splitlines()]
    classes, chances, sets = bundle.run(bundle.encode(rows))
    assert classes.tolist() == expected["prediction"].to_list()
    np.testing.assert_allclose(chances, expected[:, 2:4].to_numpy(), atol=1e-6)
    assert sets.tolist() == expected[:, 4:].to_numpy().tolist()


def test_texts_without_a_known_word_are_said(predictor: Predictor) -> None:
    table = TABLE.drop("y")[:6].with_columns(
        title=pl.Series(["wholly", "unknown", "???", None, "unbekannt", "ไม่รู้จัก"])
    )
    notes = Notes(predictor.schema, predictor.statistics)
    for part in (table[:2], table[2:]):
        one = Notes(predictor.schema, predictor.statistics)
        one.add(part, encode(part, predictor.schema, predictor.statistics, KEY))
        notes.merge(one)
    said = [line for line in notes.lines() if "known word" in line]
    assert said == [
        "note: 'title' has no known word in 4 of 6 rows: a model can say little of these texts"
    ]


def test_a_gap_and_an_unseen_category_are_two_things(predictor: Predictor) -> None:
    """NASTY 19."""
    table = TABLE.drop("y")[[0] * 4].with_columns(town=pl.Series(["Paris", None, "Oslo", "Rome"]))
    arrays = encode(table, predictor.schema, predictor.statistics, KEY)
    unseen, gap, known, other = arrays["categorical"][:, 0].tolist()
    assert unseen == other == 0
    assert len({unseen, gap, known}) == 3
    chances = predictor.scores(arrays)[:, 0].tolist()
    assert chances[0] == chances[3] != chances[1]
    notes = Notes(predictor.schema, predictor.statistics)
    notes.add(table, arrays)
    said = [line for line in notes.lines() if "'town'" in line]
    assert said == [
        "drift: 'town' has 2 values unseen in training, in 2 of 4 rows: 'Paris', 'Rome'"
    ]


def test_a_date_in_another_format_is_set_aside_with_its_row(
    predictor: Predictor, tmp_path: Path
) -> None:
    """NASTY 11 and 12, in new rows."""
    days, times = ["2024-01-31", "31/01/2024", "01/31/2024"], ["2024-01-31T10:30"] * 3
    times[1] += "+02:00"
    table = TABLE.drop("y")[:3].with_columns(day=pl.Series(days), seen=pl.Series(times))
    table.write_ndjson(tmp_path / "new.jsonl")
    (chunk,) = read_chunks(tmp_path / "new.jsonl", predictor.schema, KEY)
    whole, _ = encode_whole(chunk, predictor.schema, predictor.statistics, KEY)
    assert whole.rows.tolist() == [1]
    reasons = {damage.row: damage.reason for damage in whole.damaged}
    assert reasons[0] == "'2024-01-31' is not a date as '%d/%m/%Y'"
    only = table.with_columns(day=pl.lit("31/01/2024"))
    only.write_ndjson(tmp_path / "new.jsonl")
    (chunk,) = read_chunks(tmp_path / "new.jsonl", predictor.schema, KEY)
    whole, _ = encode_whole(chunk, predictor.schema, predictor.statistics, KEY)
    assert [damage.column for damage in whole.damaged] == ["seen", "seen"]
    assert "with an offset from UTC" in whole.damaged[0].reason


def test_the_server_reads_rows_without_polars_and_torch(project: Project) -> None:
    code = """
import json, sys
from pathlib import Path
from pipeline.serve.codec.rows import make_encoder
from pipeline.serve.codec.signature import example_row, parse_signature
signature = parse_signature(Path("data/infer/signature.json").read_bytes())
feeds = make_encoder(signature)([example_row(signature)])
print(len(feeds), [name for name in ("polars", "torch", "onnx") if name in sys.modules])
"""
    done = project.run("python", "-c", code, env={"PYTHONPATH": str(Path.cwd())})
    assert done.stdout.strip() == f"{len(TABLE.columns) - 2} []"


def test_nothing_is_fitted_on_rows_of_validation_and_test(tmp_path: Path) -> None:
    """Other values in those rows, new ones among them, change nothing that is fitted."""
    fitted = []
    table = TABLE
    for name in ("before", "after"):
        made = small_project(tmp_path / name, table, {"prepare.key": "id"})
        with contextlib.redirect_stdout(None):
            run_stages(made, "prepare")
        folder = made.path / "data/prepare"
        files = [*folder.glob("*.json"), *(folder / "train").glob("*.npy")]
        fitted.append({f.name: f.read_bytes() for f in files if f.name != "expectations.json"})
        train = load_arrays(folder / "train")["key"].tolist()
        others = ~pl.col("id").is_in(train)
        table = table.with_columns(
            size=pl.when(others).then(1e6).otherwise("size"),
            smoker=pl.when(others).then(None).otherwise("smoker"),
            town=pl.when(others).then(pl.lit("Elsewhere")).otherwise("town"),
            title=pl.when(others).then(pl.lit("new words " * 40)).otherwise("title"),
            body=pl.when(others).then(None).otherwise("body"),
            day=pl.when(others).then(pl.lit("01/01/1900")).otherwise("day"),
            seen=pl.when(others).then(pl.col("seen").max()).otherwise("seen"),
            picture=pl.when(others).then(pl.col("picture").last()).otherwise("picture"),
        )
    assert len(TABLE.filter(others)) > 40
    assert not table.equals(TABLE)
    assert fitted[0] == fitted[1]
    assert set(fitted[0]) >= {"schema.json", "statistics.json", "text.npy", "datetime.npy"}
