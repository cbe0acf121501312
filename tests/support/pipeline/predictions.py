"""Predictions of which it is said which rows are right."""

import numpy as np
import polars as pl


def predictions(right: list[bool], sure: float = 0.9) -> pl.DataFrame:
    """A table as evaluate writes it: rows of two classes, right or not."""
    target = ["a" if row % 2 else "b" for row in range(len(right))]
    other = {"a": "b", "b": "a"}
    predicted = [t if r else other[t] for t, r in zip(target, right, strict=True)]
    chance = [sure if p == "a" else 1 - sure for p in predicted]
    return pl.DataFrame(
        {
            "id": np.arange(len(right)),
            "target": target,
            "prediction": predicted,
            "probability_a": chance,
            "probability_b": [1 - c for c in chance],
        }
    )
