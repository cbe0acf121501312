"""The problems of `benchmarks/advise.py`: tables that are drawn, so that fresh rows have no end."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.optimize import brentq
from scipy.special import expit

NUM_COLUMNS = 5
FEW: dict[str, object] = {"train.batch_size": 8, "train.epochs": 60}
Draw = Callable[[np.random.Generator, int], pl.DataFrame]


@dataclass(frozen=True)
class Problem:
    """A table of `num_rows` that `draw` makes, with changes of a good recipe, and the metric."""

    name: str
    axis: str
    draw: Draw
    num_rows: int
    changes: dict[str, object]
    metric: str = "accuracy"


def teacher(random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A function of rows (rows, columns) to one number each: a sum of their products."""
    products = random.normal(size=(NUM_COLUMNS, NUM_COLUMNS))
    return lambda rows: np.einsum("ni,ij,nj->n", rows, products, rows)


def classes(world: int, flipped: float = 0.0, share: float = 0.5, sharp: float = 10.0) -> Draw:
    """Two classes by a teacher, `share` of the rows of the second; `flipped` labels are wrong.

    `world` is the teacher's seed: all rows of a problem have the same.
    """

    def draw(random: np.random.Generator, num_rows: int) -> pl.DataFrame:
        source = np.random.default_rng([world, 7])
        function = teacher(source)
        known = function(source.normal(size=(20_000, NUM_COLUMNS)))
        known, scale = known / known.std(), known.std()
        # The cut at which the second class has its share.
        cut = brentq(lambda c: expit(sharp * (known - c)).mean() - share, -9, 9)
        rows = random.normal(size=(num_rows, NUM_COLUMNS))
        logits = sharp * (function(rows) / scale - cut)
        label = random.random(num_rows) < expit(logits)
        label ^= random.random(num_rows) < flipped
        return as_table(rows, label)

    return draw


def leaking(world: int) -> Draw:
    """Two classes with much noise, and a column that was written when the target was known."""
    inner = classes(world, sharp=1.5)

    def draw(random: np.random.Generator, num_rows: int) -> pl.DataFrame:
        table = inner(random, num_rows)
        told = (table["target"] == "b").cast(pl.Float64)
        noise = pl.Series(random.normal(size=num_rows) * 0.15)
        return table.with_columns((told + noise).alias("after"))

    return draw


def straight(world: int) -> Draw:
    """Two classes by the sign of a sum, with noise: a straight line is as good as it gets."""

    def draw(random: np.random.Generator, num_rows: int) -> pl.DataFrame:
        weights = np.random.default_rng([world, 8]).normal(size=NUM_COLUMNS)
        rows = random.normal(size=(num_rows, NUM_COLUMNS))
        label = random.random(num_rows) < expit(2 * rows @ weights)
        return as_table(rows, label)

    return draw


def as_table(rows: np.ndarray, label: np.ndarray) -> pl.DataFrame:
    """The rows under names, with their class."""
    columns = {f"x{number}": rows[:, number] for number in range(rows.shape[1])}
    return pl.DataFrame({**columns, "target": np.where(label, "b", "a")})


def faults(seed: int) -> list[Problem]:
    """Six problems with one fault each, of which `axis` is the right one."""
    return [
        Problem("flipped labels", "data", classes(seed, flipped=0.1), 2000, {}),
        Problem("60 rows", "data", classes(seed), 60, FEW),
        Problem(
            "a learning rate 30 times too low",
            "optimizer",
            classes(seed),
            2000,
            {"train.optimizer": {"name": "AdamW", "lr": 1e-4, "weight_decay": 0.01}}
            | {"train.early_stopping": None, "train.epochs": 10},
        ),
        Problem(
            "a width of 4",
            "model",
            classes(seed),
            4000,
            {"build.model": {"name": "mlp", "width": 4, "layers": 1}},
        ),
        Problem("1 in 50, by F1", "loss", classes(seed, share=0.02, sharp=1.5), 6000, {}, "f1"),
        Problem("a leaking column", "data", leaking(seed), 2000, {}),
    ]


def tuned(seed: int) -> Problem:
    """A problem whose recipe is the best there is."""
    changes = {"build.model": {"name": "linear"}, "train.epochs": 60}
    return Problem("a straight line", "", straight(seed), 6000, changes)
