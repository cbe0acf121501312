"""`python -m stages.tools.rehearse`: what torch's constructors and the model say of `params.yaml`.

Reads the sections prepare, build and train as JSON from the standard input, all right by their
types and names; writes a list of problems. No training is begun, and no weight is drawn.
"""

import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch
from PIL import Image

from stages.build.folder import find_model
from stages.build.params import BuildParams
from stages.common.config import validate, validate_all
from stages.common.errors import Problem, UserError
from stages.features.pixels import GREY
from stages.features.schema import Feature, Schema, Target
from stages.formats.arrow import read
from stages.formats.csv import open_csv
from stages.formats.folders.folder_kind import find_kind, find_manifests, list_shards
from stages.formats.images.folder import IMAGE, SUFFIXES
from stages.formats.images.load import load_column
from stages.formats.reading import Noticed
from stages.formats.text.compressed import suffix_of
from stages.formats.text.json_scan import parse_lines, read_lines
from stages.formats.text.plain_values import plain, typed
from stages.model.model import ModelSpec, arguments_class, make_model
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.columns.pretrained import with_pretrained
from stages.prepare.columns.written import read_written, with_written
from stages.prepare.images import find_columns
from stages.prepare.params import Kind, PrepareParams
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import losses_of
from stages.training.params import TrainParams

FIRST_ROWS, FIRST_IMAGES = 200, 5


def rehearse(request: Mapping[str, Any]) -> list[Problem]:
    """Mistakes in arguments together, and of the model on such columns."""
    train = validate(TrainParams, request["train"], at="train")
    task = "regression" if train.loss.name in losses_of("regression") else "classification"
    problems: list[Problem] = []
    checks: list[Callable[[], object]] = [
        lambda: check_names(train, task, by_row=bool(request["prepare"].get("weight"))),
        lambda: check_model(request, task),
    ]
    for check in checks:
        try:
            check()
        except UserError as error:
            problems += error.problems
    return problems


def check_model(request: Mapping[str, Any], task: str) -> None:
    """Make the model for columns of these kinds, on no device. Raises UserError as it does."""
    _, prepare = validate_all(PrepareParams, request["prepare"], at="prepare")
    if prepare is None:
        return  # said already
    section = validate(BuildParams, request["build"], at="build")
    schema = find_schema_of(prepare)
    if schema is None or not schema.features:
        return
    model = find_model(section, schema)
    inputs = schema.inputs()
    arguments = validate(arguments_class(model.name), model.arguments, at="build.model")
    num_outputs = 1 if task == "regression" else 2
    spec = ModelSpec(
        name=model.name, arguments=arguments.model_dump(), inputs=inputs, num_outputs=num_outputs
    )
    try:
        with torch.device("meta"):
            make_model(spec, 0)
    except UserError as error:
        # What is not the model's own word may be for the want of a device.
        if error.__cause__ is None:
            raise


def find_schema_of(prepare: PrepareParams) -> Schema | None:
    """The columns of the source by its first rows; None where they can't be told.

    Raises UserError where a pretrained model's folder lacks what they need.
    """
    schema = _look_at_rows(prepare)
    if prepare.pretrained is None or schema is None or not Path(prepare.pretrained).exists():
        return schema
    return with_pretrained(schema, prepare)


def _look_at_rows(prepare: PrepareParams) -> Schema | None:
    path = source = Path(prepare.source)
    if path.is_dir():
        kind = find_kind(path)
        if kind in ("images", "idx"):
            return _of_images(path, prepare) if kind == "images" else None
        path = (find_manifests(path) if kind == "manifest" else list_shards(path))[0]
    table = _first_rows(path, prepare.named)
    if table is None or not table.height:
        return None
    try:
        images = _find_images(table, source, prepare)
    except (UserError, OSError):
        return None  # prepare says so
    table = table.drop(feature.name for feature in images)
    # As prepare finds them, except the target, of which a few rows say little.
    others = table.drop(prepare.target, strict=False)
    others = others.with_columns(pl.int_range(table.height).alias(prepare.target))
    left: dict[str, Kind] = {} if prepare.key is None else {prepare.key: "exclude"}
    columns = {name: k for name, k in (prepare.columns | left).items() if name in table.columns}
    params = prepare.model_copy(update={"task": "regression", "key": None, "columns": columns})
    target = Target(name=prepare.target, task="regression")
    if images and not set(others.columns) - {prepare.target, prepare.key}:
        return Schema(key=None, features=images, target=target)
    try:
        others, written, _ = read_written(others, params)
        found = with_written(find_schema(others, params), written)
    except UserError:
        return None  # prepare says so
    return found.model_copy(update={"features": [*found.features, *images]})


def _find_images(table: pl.DataFrame, source: Path, prepare: PrepareParams) -> list[Feature]:
    """The columns of image files, each with the shape of the first ones."""
    folder = source if source.is_dir() else source.parent
    size = None if prepare.image is None else (prepare.image.height, prepare.image.width)
    found = []
    for name in find_columns(table, prepare):
        files = table[name].head(FIRST_IMAGES)
        pixels = load_column(files, folder, size, "prepare.image").pixels
        _, height, width, *channels = pixels.shape
        shape = [*(channels or [1]), height, width]
        found.append(Feature(name=name, kind="image", shape=shape, layout="CHW"))
    return found


def _of_images(folder: Path, prepare: PrepareParams) -> Schema | None:
    images = (each for each in folder.rglob("*") if each.suffix.lower() in SUFFIXES)
    # Of objects in storage all but one are names alone.
    first = next((each for each in images if each.stat().st_size), None)
    if first is None:
        return None
    try:
        with Image.open(first) as image:
            found, is_grey = (image.height, image.width), image.mode in GREY
    except OSError:
        return None  # prepare says so
    size = prepare.image
    height, width = found if size is None else (size.height, size.width)
    shape = [1 if is_grey else 3, height, width]
    feature = Feature(name=IMAGE, kind="image", shape=shape, layout="CHW")
    target = Target(name=prepare.target, task="regression")
    return Schema(key=None, features=[feature], target=target)


def _first_rows(path: Path, expected: Collection[str]) -> pl.DataFrame | None:
    suffix = suffix_of(path)
    try:
        if suffix == ".parquet":
            return pl.read_parquet(path, n_rows=FIRST_ROWS)
        if suffix in (".arrow", ".feather", ".ipc"):
            return read(path, "prepare.source", Noticed())[0].head(FIRST_ROWS)
        if suffix in (".jsonl", ".ndjson"):
            lines = next(read_lines(path, FIRST_ROWS, Noticed()))
            return parse_lines(lines, None).table
        if suffix not in (".csv", ".tsv"):
            return None  # prepare reads it, and says what is wrong
        file = open_csv(path, Noticed(expected=expected))
        texts = next(file.read(file.names)).table.head(FIRST_ROWS)
        return typed(plain(texts))
    except (pl.exceptions.PolarsError, OSError, ValueError, StopIteration):
        return None


if __name__ == "__main__":
    print(json.dumps([asdict(problem) for problem in rehearse(json.load(sys.stdin))]))
