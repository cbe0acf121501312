"""A table of ships, and how `reprise init` looks at it."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.common.errors import Problem, format_problem
from stages.tools.init.options import Options, name_option
from stages.tools.init.survey import survey

RANDOM = np.random.default_rng(0)
NUM_ROWS = 400


def ships(**more: object) -> pl.DataFrame:
    """Passengers of a ship, of whom some survive: by sex, age and class."""
    sex = RANDOM.choice(["female", "male"], NUM_ROWS)
    age = RANDOM.normal(35, 12, NUM_ROWS).round(1)
    chance = 0.2 + 0.5 * (sex == "female") + 0.2 * (age < 20)
    return pl.DataFrame(
        {
            "PassengerId": np.arange(1, NUM_ROWS + 1),
            "Sex": sex,
            "Age": pl.Series(age).set(pl.Series(np.arange(NUM_ROWS) % 9 == 4), None),
            "Survived": np.where(RANDOM.random(NUM_ROWS) < chance, "yes", "no"),
            **more,
        }
    )


def look(folder: Path, table: pl.DataFrame, target: str = "Survived", **options: Any) -> Any:
    path = folder / "ships.parquet"
    table.write_parquet(path)
    return survey(Options(str(path), target, **options))


def line(found: Any, name: str) -> Any:
    return next(column for column in found["columns"] if column["name"] == name)


def told(problems: list[Problem]) -> str:
    return "\n".join(format_problem(name_option(problem)) for problem in problems)
