"""The outputs of prepare on two sides of a change."""

from itertools import pairwise
from typing import Any

import polars as pl

from stages.compare.revision_data import Side
from stages.features.encode import encode, row_keys
from stages.features.schema import Feature, Schema, Target
from stages.prepare.fit import fit_schema, fit_statistics
from stages.prepare.table.table import in_memory


def schema_of(classes: list[str], **kinds: Any) -> Schema:
    features = [Feature(name=name, kind=kind) for name, kind in kinds.items()]
    target = Target(name="y", task="classification", classes=classes)  # type: ignore[arg-type]
    return Schema(key="id", features=features, target=target)


PLAIN = schema_of(["ill", "well"], size="numeric", town="categorical", smoker="boolean")


def prepared(table: pl.DataFrame, schema: Schema = PLAIN) -> Side:
    """As prepare does it: the first 60 % for train, then 20 % each."""
    ends = [0, len(table) * 3 // 5, len(table) * 4 // 5, len(table)]
    parts = [table[start:end] for start, end in pairwise(ends)]
    schema = fit_schema(schema, in_memory(parts[0]))
    statistics = fit_statistics(schema, in_memory(parts[0]))
    splits = {}
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        arrays = encode(part, schema, statistics, "test")
        splits[name] = {**arrays, "key": row_keys(part, schema, "test")}
    return Side(schema, statistics, splits)
