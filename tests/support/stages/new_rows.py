"""New rows in a file, and what is predicted of them."""

from pathlib import Path

import polars as pl

from stages.common.files import read_csv
from stages.infer.write import PredictionSummary, write_predictions
from stages.model.predictor import Predictor
from tests.support.samples import mixed_table

KEY = "infer.input"
TABLE = mixed_table()


def written(path: Path, table: pl.DataFrame = TABLE) -> Path:
    if path.suffix == ".parquet":
        table.write_parquet(path)
    elif path.suffix == ".jsonl":
        table.write_ndjson(path)
    else:
        table.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


def predicted(
    source: Path, predictor: Predictor
) -> tuple[pl.DataFrame, list[dict[str, str]], PredictionSummary]:
    target, rejected = source.with_name("out.parquet"), source.with_name("rejected.csv")
    summary = write_predictions(source, target, rejected, predictor, KEY)
    return pl.read_parquet(target), read_csv(rejected), summary
