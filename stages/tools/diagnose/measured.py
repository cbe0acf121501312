"""A finding of a measurement, and the training that several of them start from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Literal, Protocol

import torch

from stages.common.params import read_params
from stages.features.schema import read_schema
from stages.tools.training_tool import Training, prepare
from stages.training.recipe import PREPARED

# The beginning of a line of the output that is one of these, as JSON.
MARK = "measured: "


@dataclass(frozen=True)
class Measured:
    """One finding. `cause` is a name in the table of `pipeline/doctor/causes`, or empty.

    One that is `passing` matters only if nothing comes after it: this process was killed then.
    """

    level: Literal["ok", "note", "wrong"]
    what: str
    cause: str = ""
    mend: tuple[str, ...] = ()
    passing: bool = False


class Probe(Protocol):
    """A file of this folder that measures one thing of the training in `params.yaml`."""

    def measure(self) -> Iterator[Measured]:
        """Yield what is found. May raise UserError: it can't be measured."""


def tell(measured: Measured) -> None:
    """Print a finding for the program that has started this one, at once: it may be killed."""
    print(f"{MARK}{json.dumps(asdict(measured), ensure_ascii=False)}", flush=True)


def training_of(device: torch.device | None = None) -> Training:
    """The training of `params.yaml` with build's weights, on a device of its own if one is given.

    Raises UserError.
    """
    with quiet():
        return prepare(read_params("train"), device)


@contextmanager
def quiet() -> Iterator[None]:
    """Let what a training says of itself go nowhere."""
    with redirect_stdout(StringIO()):
        yield


def columns_of() -> dict[str, list[str]]:
    """The name of the column behind each number of a row, by kind, in the order of its array."""
    schema = read_schema(PREPARED)
    named: dict[str, list[str]] = {}
    for feature in schema.features:
        names = named.setdefault(feature.kind, [])
        if feature.is_array:
            continue
        place = schema.places()[feature.name]
        for at in place.all:
            names.extend([""] * (at + 1 - len(names)))
            names[at] = feature.name
    return named
