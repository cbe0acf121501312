"""Addresses of the example's source in the tests' own storage."""

from pathlib import Path

from tests.conftest import ROOT
from tests.pipeline.commands.sources.conftest import BUCKET

SOURCE = "data/raw/digits.parquet"
ONE, FOLDER = f"s3://{BUCKET}/digits.parquet", f"s3://{BUCKET}/digits/"


def source_file() -> Path:
    return ROOT / SOURCE
