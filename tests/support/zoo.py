"""What the models of the zoo are tried on: schemas of the kinds that each takes, and rows of them.

A model whose file is new is found by listing, and so is a kind of column: nothing is written here.
"""

import contextlib
import functools
import itertools
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.features.encode import encode
from stages.features.kind import kind_of
from stages.features.schema import KINDS, Array, FeatureKind, Schema, Statistics, Target
from stages.model.model import ModelSpec, make_model, make_spec
from stages.prepare.columns.infer_schema import guess_kind
from stages.prepare.fit import fit_schema, fit_statistics
from stages.prepare.table.table import in_memory
from stages.tensors.batch import Batch, to_batch
from tests.conftest import ROOT
from tests.support.huggingface import argument
from tests.support.stages.kinds import COLUMNS

KEY = "infer.input"
FILES = sorted(file.stem for file in (ROOT / "stages/zoo/models").glob("[!_]*.py"))
# Of a file that makes several models, each of them and its arguments: 'huggingface bert'.
# A bias of keys is the same for all places: its gradient is what rounding leaves of nothing.
GREY = {"num_channels": 1, "qkv_bias": False}
OF_FILE: dict[str, dict[str, Any]] = {
    "huggingface": {
        "bert": {"config": argument("bert", vocab_size=200, num_hidden_layers=1)},
        "vit": {"config": argument("vit", image_size=[2, 3], patch_size=1, **GREY)},
        "resnet": {"config": argument("resnet", num_channels=1)},
    },
    "tabm": {"": {}, "line": {"line": True}},
}
# What each of those reads. To ask the model is to import transformers, three seconds in each worker
# that collects tests; that it takes these kinds and refuses all others is in the contract.
READS: dict[str, FeatureKind] = {
    "huggingface bert": "text",
    "huggingface vit": "image",
    "huggingface resnet": "image",
}
MODELS = tuple(f"{file} {inner}".strip() for file in FILES for inner in OF_FILE.get(file, {"": {}}))
CLASSES = ["a", "b", "c"]
Kinds = tuple[FeatureKind, ...]
# Kinds that a table may have: one, two, all but one, all.
SIZES = sorted({1, 2, len(KINDS) - 1, len(KINDS)})
CHOICES: list[Kinds] = [each for size in SIZES for each in itertools.combinations(KINDS, size)]


@dataclass(frozen=True)
class Rows:
    """A table with columns of some kinds, as prepare describes it, and what a model is given."""

    table: pl.DataFrame
    schema: Schema
    statistics: Statistics

    @property
    def arrays(self) -> dict[str, Array]:
        """The rows as they are encoded."""
        return encode(self.table, self.schema, self.statistics, KEY)

    @property
    def batch(self) -> Batch:
        """The rows as a model takes them."""
        return to_batch(self.arrays, self.statistics)

    @property
    def target(self) -> Tensor:
        """A target for each row, which nothing in it says."""
        rows = torch.arange(self.table.height)
        if self.schema.target.task == "classification":
            return rows * 7 % len(CLASSES)
        return (rows * 7 % 5 - 2).float()


@functools.cache
def columns_of(kind: FeatureKind) -> list[pl.Series]:
    """The columns that prepare takes for ones of that kind."""
    return [column for column in COLUMNS.values() if guess_kind(column) == kind]


@functools.cache
def rows_of(kinds: Kinds, task: str = "classification", num_rows: int = 24) -> Rows:
    """Rows with two columns of each kind, gaps among them; of a kind of arrays with one."""
    columns: list[pl.Series] = []
    for kind in kinds:
        known = columns_of(kind)
        assert known, f"no column of the kind '{kind}' in tests/support/stages/kinds.py"
        is_array = kind_of(kind).infer(known[0], KEY).is_array
        for number, column in enumerate(known[: 1 if is_array else 2]):
            columns.append(column[:num_rows].alias(f"{kind} {number}"))
    table = pl.DataFrame(columns)
    features = [kind_of(guess_kind(c)).infer(c, KEY) for c in columns]
    classes = CLASSES if task == "classification" else None
    target = Target(name="y", task=task, classes=classes)  # type: ignore[arg-type]
    numbers = table.with_columns(y=pl.Series(range(num_rows), dtype=pl.Float64))
    schema = fit_schema(Schema(key=None, features=features, target=target), in_memory(numbers))
    return Rows(table, schema, fit_statistics(schema, in_memory(numbers)))


def spec_for(name: str, rows: Rows) -> ModelSpec:
    """The spec of a model with the arguments that it has by itself."""
    # The zoo is looked up from the project's root, where every stage runs.
    with contextlib.chdir(ROOT):
        file, _, inner = name.partition(" ")
        arguments = OF_FILE[file][inner] if inner else {}
        return make_spec(ClassSpec(name=file, **arguments), rows.schema)


def model_for(name: str, rows: Rows) -> nn.Module:
    """A model for some rows, at weights of which none is zero, as one may start there."""
    model = make_model(spec_for(name, rows), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator)
    return model


@functools.cache
def takes(name: str) -> list[Kinds]:
    """The choices of kinds that a model can be made for."""
    if (read := READS.get(name)) is not None:
        known = [kinds for kinds in CHOICES if read in kinds]
        return known if read == "image" else [kinds for kinds in known if "image" not in kinds]
    taken = []
    for kinds in CHOICES:
        with contextlib.suppress(UserError):
            make_model(spec_for(name, rows_of(kinds)), seed=0)
            taken.append(kinds)
    return taken


def largest(name: str) -> Kinds:
    """Return as many kinds as a model takes at once."""
    return max(takes(name), key=len)
