"""Values of new rows: named, spelled and spread otherwise than in training."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.features.drift import Sums
from stages.features.schema import Moments
from stages.formats.chunk import Chunk
from stages.formats.read import read_chunks
from stages.formats.reading import Noticed
from stages.infer.notes import Notes
from stages.infer.rejected import encode_whole
from stages.model.predictor import Predictor
from tests.support.stages.new_rows import KEY, TABLE


def test_a_row_of_json_names_each_column_that_training_had_in_every_row(
    predictor: Predictor, tmp_path: Path
) -> None:
    features = [
        feature.model_copy(update={"missing": feature.name != "smoker"})
        for feature in predictor.schema.features
    ]
    schema = predictor.schema.model_copy(update={"features": features})
    rows = [
        {"id": 1, "size": 1.5, "town": "Oslo", "smoker": True},
        {"id": 2, "town": "Oslo", "smoker": None},
        {"id": 3, "note": {"town": 1, "smoker": True}},
        {"id": 4, "size": None, "smoker": True},
    ]
    path = tmp_path / "new.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    noticed = Noticed()
    (part,) = read_chunks(path, schema, KEY, noticed)
    assert part.rows.tolist() == [0, 1, 3]
    assert part.table["town"].to_list() == ["Oslo", "Oslo", None]
    (damage,) = part.damaged
    assert (damage.row, damage.column, str(damage.key)) == (2, "smoker", "3")
    assert damage.reason == "it is not named, and each train row has a value: write null for a gap"
    assert noticed.lines() == [
        "note: 'size' is not named in 1 row: taken as gaps",
        "note: 'town' is not named in 1 row: taken as gaps",
    ]


def test_numbers_and_truths_are_categories_however_they_are_written(
    predictor: Predictor, tmp_path: Path
) -> None:
    # What stands in a category's name is compared row by row, whatever the other rows hold.
    renamed = [
        feature.model_copy(update={"categories": ["1", "2.5", "true"]})
        if feature.name == "town"
        else feature
        for feature in predictor.schema.features
    ]
    schema = predictor.schema.model_copy(update={"features": renamed})
    (tmp_path / "new.csv").write_text(
        "id,size,town,smoker\na,1, 1.0 ,yes\nb,1,1,1\nc,,2.50,\nd,1,True,0\ne,1,one,no\n"
    )
    (part,) = read_chunks(tmp_path / "new.csv", schema, KEY)
    _, arrays = encode_whole(part, schema, predictor.statistics, KEY)
    assert arrays["categorical"][:, 0].tolist() == [1, 1, 2, 3, 0]
    assert arrays["boolean"][:, 0].tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("mean", "spread", "num_rows", "says"),
    [
        (0.0, 1.0, 10_000, []),
        (0.2, 1.0, 10_000, []),
        (0.5, 1.0, 1000, ["its mean is 0.5 deviations above that of training"]),
        (-2.0, 1.0, 20, ["its mean is 2 deviations below that of training"]),
        (0.5, 1.0, 20, []),
        (0.0, 3.0, 1000, ["it spreads 3 times as wide as in training"]),
        (0.0, 0.2, 1000, ["it spreads 0.2 times as wide as in training"]),
        (0.0, 3.0, 50, []),
    ],
)
def test_drift_is_what_the_stated_test_says(
    mean: float, spread: float, num_rows: int, says: list[str]
) -> None:
    values = np.random.default_rng(0).normal(size=num_rows)
    values = (values - values.mean()) / values.std() * spread + mean
    sums, moments = Sums(), Moments(mean=10.0, deviation=4.0)
    for part in np.array_split(10 + 4 * values, 3):
        sums.add(part, moments)
    assert sums.drift(num_rows, moments) == says


def test_a_column_that_training_had_constant_has_no_spread_to_drift_from() -> None:
    moments = Moments(mean=14.62, deviation=1.0, constant=True)
    same, other = Sums(), Sums()
    same.add(np.full(500, 14.62), moments)
    other.add(np.array([14.62] * 499 + [14.63]), moments)
    assert same.drift(500, moments) == []
    assert other.drift(500, moments) == ["training had 14.62 in every row, and these have others"]


def test_drift_names_the_column(predictor: Predictor) -> None:
    table = TABLE.with_columns(pl.col("size") * 10, town=pl.lit("Paris"))
    notes = Notes(predictor.schema, predictor.statistics)
    for part in (table[:50], table[50:]):
        whole, arrays = encode_whole(
            Chunk(part, np.arange(part.height)), predictor.schema, predictor.statistics, KEY
        )
        notes.add(whole.table, arrays)
    size, wide, town = notes.lines()
    assert size.startswith("drift: 'size': its mean is ")
    assert wide.startswith("drift: 'size': it spreads ")
    assert town == "drift: 'town' has 1 value unseen in training, in 120 of 120 rows: 'Paris'"
