"""What prepare accepts, new rows may hold: each kind, however it is spelled, from each format.

The same rows go through prepare, through infer (and `reprise predict`, which reads as it does),
and as JSON through the server; all three must make the same numbers of them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.serve.codec.rows import make_encoder
from pipeline.serve.codec.signature import Input, Output, Signature
from stages.features.encode import encode
from stages.features.schema import Array, Schema, Statistics
from stages.formats.read import read_chunks
from stages.infer.rejected import encode_whole
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.fit import fit_schema, fit_statistics
from stages.prepare.table.table import in_memory
from tests.support.samples import prepare_params
from tests.support.tables import read_table

KEY = "prepare.source"
# A field of CSV for each row; the column's name begins with its kind.
SPELLINGS = {
    "boolean digits": ["1", "0", "1", ""],
    "boolean floats": ["1.0", "0.0", "1.0", "0.0"],
    "boolean floats with gaps": ["1.0", "", "0.0", "1.0"],
    "boolean long": ["1.000", "0.00", "+1", "-0.0"],
    "boolean small": ["true", "false", "false", ""],
    "boolean large": ["TRUE", "False", "True", "false"],
    "boolean words": ["yes", "No", "NO", ""],
    "boolean letters": ["T", "f", "t", "F"],
    "boolean mixed": ["1.0", "no", "true", "0"],
    "numeric whole": ["1", "2", "-3", "+4"],
    "numeric gaps": ["1", "", "3", ""],
    "numeric floats": ["1.5", ".5", "5.", "-2e3"],
    "numeric blanks": [" 1 ", "2.5 ", " 3", "4"],
    "numeric infinite": ["inf", "1.0", "-inf", "2.0"],
    "numeric zeros": ["007", "7", "012", "3"],
    "categorical texts": ["Oslo", " Bergen ", "Oslo ", ""],
    "categorical accents": ["\u00e9", "e\u0301", "x", "e\u0301 "],
    "categorical whole": ["1", "2", "1", ""],
    "categorical floats": ["1.0", "2.0", "1.5", "2.0"],
    "categorical truths": ["True", "false", "TRUE", ""],
    "categorical mixed": ["1", "x", "1.0", "true"],
    "categorical zeros": ["007", "7", "07", "0"],
    "categorical long": ["1234567890123456789", "1234567890123456788", "1", "2"],
    "categorical longer": ["12345678901234567890123", "12345678901234567890124", "1", ""],
}
KINDS = {name: name.split()[0] for name in SPELLINGS}


def written(folder: Path, suffix: str) -> Path:
    """The rows in a file of each format; what has types gets those that CSV's fields have."""
    path = folder / f"table{suffix}"
    texts = {"y": ["a", "b", "a", "b"], **SPELLINGS}
    separator = "\t" if suffix == ".tsv" else ","
    lines = [separator.join(row) for row in [texts, *zip(*texts.values(), strict=True)]]
    if suffix in (".csv", ".tsv"):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path
    table = read_table(written(folder, ".csv"), KEY)
    # Parquet itself has no whole numbers of more than 64 bits.
    table = table.with_columns(pl.col(pl.Int128).cast(pl.String))
    if suffix == ".parquet":
        table.write_parquet(path)
    elif suffix == ".texts.parquet":
        pl.DataFrame(texts).select(pl.all().str.strip_chars().replace("", None)).write_parquet(path)
    elif suffix == ".padded.parquet":
        # As columns of a fixed width come out of databases.
        padded = pl.selectors.string() - pl.selectors.starts_with("numeric")
        table.with_columns(padded.str.pad_end(30)).write_parquet(path)
    else:
        table.write_ndjson(path)
    return path


def prepared(table: pl.DataFrame) -> tuple[Schema, Statistics]:
    params = prepare_params(columns=dict(KINDS))
    schema = fit_schema(find_schema(pl.concat([table] * 3), params), in_memory(table))
    return schema, fit_statistics(schema, in_memory(table))


FORMATS = [".csv", ".tsv", ".parquet", ".texts.parquet", ".padded.parquet", ".jsonl"]


# Where a file says that `1.0` is a text, a number of another is none of its categories.
OTHER_FORMATS = [
    *((trained, ".csv") for trained in FORMATS),
    *((trained, ".parquet") for trained in FORMATS if trained != ".texts.parquet"),
]


@pytest.mark.parametrize(
    ("trained", "new"), sorted({*((each, each) for each in FORMATS), *OTHER_FORMATS})
)
def test_infer_reads_the_rows_that_prepare_read(tmp_path: Path, trained: str, new: str) -> None:
    table = read_table(written(tmp_path, trained), KEY)
    schema, statistics = prepared(table)
    (chunk,) = read_chunks(written(tmp_path, new), schema, KEY)
    whole, arrays = encode_whole(chunk, schema, statistics, KEY)
    assert whole.damaged == []
    same(schema, arrays, encode(table, schema, statistics, KEY))


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_server_takes_the_rows_that_prepare_read(tmp_path: Path, suffix: str) -> None:
    table = read_table(written(tmp_path, suffix), KEY)
    schema, statistics = prepared(table)
    expected = encode(table, schema, statistics, KEY)
    rows = [json.loads(json.dumps(row)) for row in table.to_dicts()]
    feeds = make_encoder(signature(schema, statistics))(rows)
    for kind, array in fed(schema, statistics, feeds).items():
        np.testing.assert_array_equal(array, expected[kind][:, : array.shape[1]], kind)


def same(schema: Schema, found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for kind, array in expected.items():
        for place, feature in enumerate(schema.of_kind(kind)):  # type: ignore[arg-type]
            np.testing.assert_array_equal(found[kind][:, place], array[:, place], feature.name)
        np.testing.assert_array_equal(found[kind], array, kind)


def signature(schema: Schema, statistics: Statistics) -> Signature:
    inputs = [
        Input(
            name=feature.name,
            column=feature.name,
            kind=feature.kind,
            shape=["rows"],
            categories=feature.categories or [],
            mean=statistics.numeric[feature.name].mean if feature.kind == "numeric" else None,
            deviation=1.0,
        )
        for feature in schema.features
    ]
    return Signature(
        model_md5="m",
        onnx_md5="o",
        task="classification",
        target="y",
        key=None,
        classes=["a", "b"],
        inputs=inputs,
        outputs=[
            Output(name="prediction", type="string", shape=["rows"]),
            Output(name="probabilities", type="float64", shape=["rows", 2]),
        ],
    )


def fed(schema: Schema, statistics: Statistics, feeds: dict[str, Any]) -> dict[str, Array]:
    """What the bundle's graph makes of its feeds, without the columns that say where gaps are."""
    columns: dict[str, list[Array]] = {}
    for feature in schema.features:
        values = feeds[feature.name]
        if feature.kind == "categorical":
            codes = {text: code for code, text in enumerate(feature.categories or [], start=1)}
            column = np.array([{**codes, "": feature.gap_code}.get(text, 0) for text in values])
        else:
            moments = statistics.numeric.get(feature.name)
            scaled = (values - moments.mean) / moments.deviation if moments else values
            column = np.where(np.isfinite(values), scaled, 0).astype(np.float32)
        columns.setdefault(feature.kind, []).append(column)
    return {kind: np.stack(found, axis=1) for kind, found in columns.items()}
