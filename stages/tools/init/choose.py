"""Rules that choose model, loss, optimizer and metrics from what the data are.

Each rule is one line of `Choice`: the key, its value, and why. Figures behind them stand in
benchmarks/RESULTS.md, 'Accuracy'.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.features.schema import CODES, WORDS, Schema

# Of tables up to so many train rows several trainings on other rows, whose mean is served, win more
# than they cost; of small ones more of them.
SMALL_ROWS, MANY_ROWS = 5_000, 50_000
SMALL_FOLDS, FOLDS = 8, 6
UNITS_PER_FOLD = 2
TABLE_STEPS, MAX_TABLE_EPOCHS, TABLE_RATE = 12_000, 200, 5e-3
MIN_PATIENCE, MAX_PATIENCE, PATIENCE_STEPS = 8, 40, 400
# A number becomes 16 by default, and fewer where all of a row would become more than these.
EMBEDDED, EMBEDDING, BINS_PER_NUMBER = 4_096, 16, 3
# Optimizer steps of a training: the epochs follow from them.
NUM_STEPS = 6_000
MIN_EPOCHS, MAX_EPOCHS = 8, 100
# Of texts alone, whose model begins near its end.
NGRAM_STEPS = 250
# The share of texts alone that validates.
TEXT_VALIDATION = 0.05
# Of images a step takes longer, and shows more of what there is to learn.
NUM_IMAGE_STEPS, MAX_IMAGE_EPOCHS = 1_000, 150
MIN_DEPTH, MAX_DEPTH = 2, 4
HALVED_SIDE = 20
COLOURS = 3
# A class with a smaller share of the rows, or of an even share, is rare: accuracy alone would
# overlook it.
RARE_SHARE, RARE_PART = 0.1, 0.5
NUM_CLASSES_SHOWN = 50
# Intervals and sets of nine cases in ten take nine validation rows; a split may have a few less.
FEWEST_JUDGED = 12


@dataclass(frozen=True)
class Facts:
    """Findings that the rules go by. `rarest`: share of the rarest class; None: regression.

    `num_groups`: groups of rows that stay together, of all splits; None: none, or very many. The
    column `group` names them.
    `has_pixels`: the numbers of images are bytes, 0 to 255.
    """

    schema: Schema
    num_train: int
    rarest: float | None = None
    num_groups: int | None = None
    has_pixels: bool = True
    group: str | None = None


@dataclass(frozen=True)
class Choice:
    """A key of params.yaml, its value, and the reason for it."""

    key: str
    value: Any
    why: str


def choose(facts: Facts) -> Iterator[Choice]:
    """Yield the choices in the order of params.yaml."""
    schema = facts.schema
    batch_size = _batch_size(facts.num_train)
    if are_images(schema):
        yield from _for_images(facts, batch_size)
    elif texts_alone(schema):
        yield from _for_texts(facts, batch_size)
    else:
        yield from _for_tables(facts, batch_size)
    yield Choice("train.batch_size", batch_size, f"{facts.num_train:,} train rows")
    yield _stopping(facts, batch_size)
    if _num_judged(facts) < FEWEST_JUDGED:
        why = "the validation rows are too few to say how sure a prediction is"
        yield Choice("evaluate.coverage", None, why)
    yield from _for_amounts() if schema.target.task == "regression" else _for_classes(facts)


def are_images(schema: Schema) -> bool:
    """Check whether there is nothing but an image to learn from."""
    return [feature.kind for feature in schema.features] == ["image"]


def _stopping(facts: Facts, batch_size: int) -> Choice:
    if are_images(facts.schema):
        return Choice("train.early_stopping", None, "the last weights are the best of the schedule")
    if texts_alone(facts.schema) or facts.schema.of_kind("image"):
        stopping = {"metric": "loss", "patience": 12}
        return Choice("train.early_stopping", stopping, "ends when validation gets no better")
    steps = max(1, facts.num_train // batch_size)
    patience = max(MIN_PATIENCE, min(MAX_PATIENCE, round(PATIENCE_STEPS / steps)))
    stopping = {"metric": "loss", "patience": patience}
    why = f"ends when about {PATIENCE_STEPS} steps have brought nothing"
    return Choice("train.early_stopping", stopping, why)


def texts_alone(schema: Schema) -> bool:
    """Check whether a table has texts and nothing else to learn from."""
    return {feature.kind for feature in schema.features} == {"text"}


def _for_texts(facts: Facts, batch_size: int) -> Iterator[Choice]:
    why = "texts alone: words, pairs and parts of words, from naive Bayes on, are hard to beat"
    yield Choice("build.model", {"name": "ngrams"}, why)
    split = {"seed": 0, "validation": TEXT_VALIDATION, "test": 0.2}
    yield Choice("prepare.split", split, "few choices to judge: more rows to learn from")
    epochs = _epochs(facts.num_train, batch_size, NGRAM_STEPS, 3, 30)
    yield Choice("train.epochs", epochs, f"about {NGRAM_STEPS:,} steps, and early stopping")
    is_amount = facts.schema.target.task == "regression"
    # Of a text the squares add up to 2.25 or more: a higher rate overshoots squared errors.
    lr = 0.2 if is_amount else 1.0
    optimizer = {"name": "SGD", "lr": lr, "momentum": 0.9, "nesterov": True}
    yield Choice("train.optimizer", optimizer, "rare words move little, as in a linear SVC")
    yield Choice("train.ema", 0.97, "an average of the last steps' weights varies less")
    space = {"train.optimizer.lr": {"low": lr / 10, "high": lr * 3, "log": True}}
    yield Choice("tune.space", space, "where a search would look")


def _for_tables(facts: Facts, batch_size: int) -> Iterator[Choice]:
    if facts.schema.of_kind("image"):
        yield from _for_mixed(facts, batch_size)
        return
    yield _tabm(facts)
    epochs = _epochs(facts.num_train, batch_size, TABLE_STEPS, MIN_EPOCHS, MAX_TABLE_EPOCHS)
    yield Choice("train.epochs", epochs, "at most; early stopping ends it")
    optimizer = {"name": "AdamW", "lr": TABLE_RATE, "weight_decay": 3e-4}
    yield Choice("train.optimizer", optimizer, "small networks on embedded numbers learn fast")
    yield Choice("train.schedule", {"name": "ConstantLR", "factor": 1.0}, "early stopping ends it")
    yield Choice("train.ema", 0.998, "an average of the last steps' weights varies less")
    if count := _folds(facts):
        why = f"{facts.num_train:,} train rows: the mean of {count} trainings on other rows"
        yield Choice("train.folds", count, why)
    space = {
        "build.model.width": [64, 128, 256],
        "build.model.layers": [1, 2, 3],
        "build.model.dropout": {"low": 0.0, "high": 0.4},
        "train.optimizer.lr": {"low": 5e-4, "high": 1e-2, "log": True},
    }
    yield Choice("tune.space", space, "where a search would look")


def _tabm(facts: Facts) -> Choice:
    """The model of a table; of few rows with a line, of very many numbers with fewer of each.

    The weights grow with both, and few rows to each column tell little of its shape.
    """
    model: dict[str, Any] = {}
    why = "columns of a table: an ensemble of small networks on embedded numbers"
    inputs = facts.schema.inputs()
    shapes = (shape for kind, shape in inputs.items() if kind not in (*CODES, *WORDS))
    embedding = EMBEDDED // max(1, sum(shape[0] for shape in shapes))
    if embedding < EMBEDDING:
        embedding = max(2, embedding)
        model = {"bins": BINS_PER_NUMBER * embedding, "embedding": embedding}
        why += ", in few bins each since they are so many"
    if _takes_line(facts):
        model["line"] = True
        why += "; few rows: half of the networks, or all, learn what a straight line leaves"
    return Choice("build.model", {"name": "tabm", **model}, why)


def _takes_line(facts: Facts) -> bool:
    """Check for few rows that each stand for themselves and count alike, as in the line's folds."""
    schema = facts.schema
    alone = facts.group is None and not schema.ordered and schema.weight is None
    few_classes = len(schema.target.classes or ()) <= NUM_CLASSES_SHOWN
    return facts.num_train <= SMALL_ROWS and alone and few_classes


def _folds(facts: Facts) -> int | None:
    """The number of folds: the fewer rows, the more; None: enough rows, or no folds of them."""
    if facts.schema.ordered or facts.num_train > MANY_ROWS:
        return None
    count = SMALL_FOLDS if facts.num_train <= SMALL_ROWS else FOLDS
    # A fold has a row of its own, or a group.
    units = min(facts.num_train, facts.num_train if facts.num_groups is None else facts.num_groups)
    count = min(count, units // UNITS_PER_FOLD)
    return count if count > 1 else None


def _num_judged(facts: Facts) -> float:
    """The validation rows, about; with folds, all rows are."""
    if _is_table(facts.schema) and _folds(facts):
        return facts.num_train
    share = TEXT_VALIDATION if texts_alone(facts.schema) else 0.15
    return facts.num_train * share / (0.8 - share)


def _is_table(schema: Schema) -> bool:
    return not texts_alone(schema) and not schema.of_kind("image")


def _for_mixed(facts: Facts, batch_size: int) -> Iterator[Choice]:
    """Yield the choices for columns of a table beside images."""
    why = "images and other columns: each its own way in, then common layers"
    yield Choice("build.model", {"name": "mixed"}, why)
    epochs = _epochs(facts.num_train, batch_size, NUM_STEPS, MIN_EPOCHS, MAX_EPOCHS)
    yield Choice("train.epochs", epochs, f"about {NUM_STEPS:,} steps, and early stopping")
    optimizer = {"name": "AdamW", "lr": 2e-3, "weight_decay": 0.05}
    yield Choice("train.optimizer", optimizer, "the usual start for a network on a table")
    yield Choice("train.ema", 0.99, "an average of the last steps' weights varies less")
    space = _space([64, 128, 256], "build.model.width")
    yield Choice("tune.space", space, "where a search would look")


def _for_images(facts: Facts, batch_size: int) -> Iterator[Choice]:
    (image,) = facts.schema.of_kind("image")
    channels, height, width = image.shape or [1, 1, 1]
    side = min(height, width)
    # Small images lose much where the first convolution halves them, and cost little.
    patch = 2 if side >= HALVED_SIDE else 1
    # The last stage leaves about four pixels a side.
    depth = round(math.log2(max(2, side / patch) / 4)) + 1
    stages = [32 * 2**level for level in range(max(MIN_DEPTH, min(MAX_DEPTH, depth)))]
    is_photograph = facts.has_pixels and channels >= COLOURS
    views = ["mirrored"] if is_photograph else []
    model = {"name": "resnet", "channels": stages, "patch": patch, "views": views}
    yield Choice("build.model", model, f"images of {width}×{height}")
    epochs = _epochs(facts.num_train, batch_size, NUM_IMAGE_STEPS, MIN_EPOCHS, MAX_IMAGE_EPOCHS)
    yield Choice("train.epochs", epochs, f"about {NUM_IMAGE_STEPS:,} steps")
    optimizer = {"name": "AdamW", "lr": 2e-3, "weight_decay": 0.05}
    yield Choice("train.optimizer", optimizer, "the usual start for a network on images")
    schedule = {"name": "warmup_cosine", "warmup": 0.1}
    yield Choice("train.schedule", schedule, "the rate ends at 0, with the best weights")
    augment: dict[str, float] | None = None
    if not facts.has_pixels:
        why = (
            "no bytes, so maybe no pictures: nothing is moved, cropped or turned, unless you say so"
        )
    elif is_photograph:
        augment = {"flip": 0.5, "shift": 0, "noise": 0.0, "crop": 0.4, "colour": 0.5}
        why = "photographs: mirrored, cropped, in other light, anew each time"
    else:
        augment = {"flip": 0.0, "shift": side // 12, "noise": 0.0, "crop": 0.2, "turn": 10.0}
        why = "drawings: moved, cropped and turned a little, not mirrored, anew each time"
    yield Choice("train.augment", augment, why)
    yield Choice("train.ema", 0.99, "an average of the last steps' weights varies less")
    yield Choice("tune.space", _space([1, 2], "build.model.depth"), "where a search would look")


def _for_amounts() -> Iterator[Choice]:
    yield Choice("train.loss", {"name": "MSELoss"}, "an amount: the mean is predicted")
    yield Choice("evaluate.metrics", ["rmse", "mae", "r2"], "an amount")


def _for_classes(facts: Facts) -> Iterator[Choice]:
    classes = facts.schema.target.classes or []
    limit = min(RARE_SHARE, RARE_PART / max(1, len(classes)))
    rare = facts.rarest is not None and facts.rarest < limit
    loss: dict[str, Any] = {"name": "CrossEntropyLoss"}
    if are_images(facts.schema):
        loss["label_smoothing"] = 0.1
    yield Choice("train.loss", loss, f"{len(classes)} classes")
    metrics = ["f1_macro", "accuracy"] if rare else ["accuracy", "f1_macro"]
    metrics += ["log_loss", *(["roc_auc"] if len(classes) <= NUM_CLASSES_SHOWN else [])]
    why = f"the rarest class has {facts.rarest or 0:.1%} of the rows"
    yield Choice("evaluate.metrics", metrics, why)


def _batch_size(num_rows: int) -> int:
    """A 64th of the rows, as a power of two from 32 to 1,024."""
    exponent = round(math.log2(max(1, num_rows) / 64))
    return 1 << max(5, min(10, exponent))


def _epochs(num_rows: int, batch_size: int, num_steps: int, low: int, high: int) -> int:
    steps = max(1, num_rows // batch_size)
    return max(low, min(high, round(num_steps / steps)))


def _space(widths: list[int], key: str) -> dict[str, Any]:
    return {key: widths, "train.optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
