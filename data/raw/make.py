"""The bundled tables, from scikit-learn's copies: `python data/raw/make.py`.

Writes digits.parquet, digits_new.parquet, diabetes.parquet and breast_cancer.parquet beside
this file. No network: the numbers come with scikit-learn. Same bytes on every run.
"""

from pathlib import Path

import numpy as np
import polars as pl
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

HERE = Path(__file__).parent
# The rest of the digits are the new rows that the stage infer predicts.
NUM_LABELLED_DIGITS = 1700
# scikit-learn's own description of the columns, as names; s1 to s6 are blood serum.
DIABETES_NAMES = {
    "bp": "blood_pressure",
    "s1": "total_cholesterol",
    "s2": "ldl",
    "s3": "hdl",
    "s4": "cholesterol_ratio",
    "s5": "log_triglycerides",
    "s6": "glucose",
}


def make_digits() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Labelled rows (id, image 8 x 8 of 0 to 16, label), and new rows (id, image)."""
    digits = load_digits()
    table = pl.DataFrame(
        {
            "id": np.arange(len(digits.target), dtype=np.int64),
            "image": pl.Series(digits.images.astype(np.uint8), dtype=pl.Array(pl.UInt8, (8, 8))),
            "label": digits.target.astype(np.int64),
        }
    )
    return table[:NUM_LABELLED_DIGITS], table[NUM_LABELLED_DIGITS:].drop("label")


def make_diabetes() -> pl.DataFrame:
    """Ten measurements of 442 patients in their own units, and the disease a year later."""
    diabetes = load_diabetes(scaled=False)
    names = [DIABETES_NAMES.get(name, name) for name in diabetes.feature_names]
    table = pl.DataFrame(diabetes.data, schema=names, orient="row")
    return _with_id(table.with_columns(progression=pl.Series(diabetes.target)))


def make_breast_cancer() -> pl.DataFrame:
    """Thirty measurements of the cell nuclei in 569 samples, and the diagnosis as a word."""
    cancer = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in cancer.feature_names]
    table = pl.DataFrame(cancer.data, schema=names, orient="row")
    words = [str(cancer.target_names[code]) for code in cancer.target]
    return _with_id(table.with_columns(diagnosis=pl.Series(words)))


def _with_id(table: pl.DataFrame) -> pl.DataFrame:
    ids = pl.Series("id", np.arange(table.height, dtype=np.int64))
    return table.insert_column(0, ids)


def main() -> None:
    """Write the four files."""
    digits, new_digits = make_digits()
    tables = {
        "digits": digits,
        "digits_new": new_digits,
        "diabetes": make_diabetes(),
        "breast_cancer": make_breast_cancer(),
    }
    for name, table in tables.items():
        table.write_parquet(HERE / f"{name}.parquet", compression="zstd", statistics=False)
        print(f"{name}.parquet: {table.height} rows, {table.width} columns")


if __name__ == "__main__":
    main()
