"""The interface of a kind of column, and the look-up of a kind by its name.

    array = kind_of("numeric").encode(features, table, statistics, "infer.input")

A kind is a file of `stages/features/kinds`, with the names of `Kind` as plain constants and
functions; docs/architecture.md says how to add one. It imports neither polars nor torch nor onnx at
its top: `reprise serve` reads JSON values with it, and whoever hands it a column, a tensor or a
graph has loaded that library. From one raw value to a number in a batch there are several ways,
which tests/stages/features/test_kinds.py holds to be one and the same:

    a table's column → `encode`                         prepare, evaluate, infer
    a table's column → `feed` → `to_onnx`               model.onnx
    a table's column → `feed_program` → `to_torch`      model.pt2
    JSON → `read_values`, a tensor → `read_tensor` → `to_onnx`      reprise serve
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy.typing as npt

from stages.features.graph import Graph
from stages.features.numbers import Encoded, Sliced
from stages.features.schema import Array, Decode, Feature, Moments, Statistics

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from stages.features.drift import Observed

FOLDER = Path(__file__).with_name("kinds")
# How sure `guess` is: the type of the column fits, and its values do too.
BY_TYPE, BY_VALUES = 0.5, 1.0
# Of a raw value: a number, with NaN for a gap; a text; an array of numbers; codes of words.
RawType = Literal["float64", "string", "float32", "int64"]
ARRAY: RawType = "float32"


class Described(Protocol):
    """An input of the bundle, as `signature.json` describes it."""

    @property
    def categories(self) -> list[str]:
        """The categories of training."""

    @property
    def words(self) -> list[str]:
        """The words of training."""

    @property
    def tokenizer(self) -> str | None:
        """The `tokenizer.json` that cuts its texts; None: they are cut into words."""

    @property
    def num_tokens(self) -> int:
        """The number of tokens that the tokenizer knows."""

    @property
    def format(self) -> str | None:
        """The format of dates; None: ISO 8601."""

    @property
    def zone(self) -> str | None:
        """The zone of dates in training; None: they have none."""

    @property
    def mean(self) -> float | None:
        """The mean of training."""

    @property
    def deviation(self) -> float | None:
        """The deviation of training."""

    @property
    def decimal(self) -> str | None:
        """The decimal sign in texts of its numbers; None: as in 1234.5."""

    @property
    def thousands(self) -> str | None:
        """The sign between thousands in texts of its numbers."""

    @property
    def unit(self) -> str | None:
        """The unit before or behind texts of its numbers."""

    @property
    def decode(self) -> Decode | None:
        """The way from files to a column of images, if training had files."""

    @property
    def eight_bit(self) -> bool:
        """Check whether images hold what files of 8 bits do."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row's value; () of a column of single values."""


class Kind(Protocol):
    """The names of a kind's file. `key` is the parameter that names the file of the values.

    `TYPE` is that of its raw value in model.onnx, `PROGRAM_TYPE` that in model.pt2; `GAP` is how a
    raw value says that there is none, and `NUMBERS` whether it is a number of any size.
    """

    TYPE: RawType
    PROGRAM_TYPE: Literal["float64", "int64", "float32"]
    GAP: str | None
    NUMBERS: bool

    def guess(self, column: "pl.Series") -> float:
        """Return the certainty that a column is of this kind, from 0 to 1."""

    def infer(self, column: "pl.Series", key: str) -> Feature:
        """Describe a column of this kind. Raises UserError when it is none."""

    def fit(self, feature: Feature, parts: "Iterable[pl.Series]", key: str) -> Feature:
        """Return `feature` with its gaps or categories as the train rows have them."""

    def moments(self, feature: Feature, parts: "Iterable[pl.Series]", key: str) -> list[Moments]:
        """Return the moments of the train rows: one, one a channel, or none."""

    def encode(
        self, features: list[Feature], table: "pl.DataFrame", statistics: Statistics, key: str
    ) -> Array:
        """Return the array of all columns of the kind; Raises UserError for a wrong value."""

    def must(self, feature: Feature) -> str:
        """Name the values that it takes, to follow 'is not'."""

    def from_text(self, feature: Feature, texts: "pl.Series") -> "pl.Series":
        """Return the fields of a CSV file as the column that training would have."""

    def feed(self, feature: Feature, column: "pl.Series", key: str) -> Array:
        """Return a raw column as an input of model.onnx."""

    def feed_program(self, feature: Feature, column: "pl.Series", key: str) -> Array:
        """Return a raw column as model.pt2 takes it."""

    def to_onnx(
        self, graph: Graph, features: list[Feature], names: list[str], statistics: Statistics
    ) -> str:
        """Add the nodes from the inputs `names` to the tensor of the batch; return its name."""

    def constants(self, features: list[Feature], statistics: Statistics) -> dict[str, Array]:
        """Return the buffers that `to_torch` needs, by name; of no features as a rule none."""

    def to_torch(
        self, features: list[Feature], raw: "Tensor", constant: Callable[[str], "Tensor"]
    ) -> "tuple[Tensor, Tensor | None]":
        """Return raw columns as `encode` does, and where the gaps are, (rows, columns).

        They are put behind the values, of the columns that the buffer '{kind}_with_gaps' names.
        None: no gaps are told, and the values are of the type that `encode` gives.
        """

    def tell(self, feature: Feature, parts: "Iterable[pl.Series]") -> list[str]:
        """Describe a fitted column for prepare's screen, a line each."""

    def describe(self, feature: Feature, moments: list[Moments]) -> dict[str, Any]:
        """Return its entries in `signature.json` beyond type and shape."""

    def read_values(self, described: Described, values: list[object]) -> npt.NDArray[Any]:
        """Return JSON values as an input of model.onnx. Raises ValueError: what they must be."""

    def read_tensor(self, described: Described, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a client's tensor as an input of model.onnx. Raises ValueError: what it must hold.

        It holds texts and None only where TYPE is string.
        """

    def json_type(self, described: Described) -> dict[str, object]:
        """Return a value in JSON Schema."""

    def example(self, described: Described) -> object:
        """Return a value in JSON that is nobody's."""

    def slices(
        self, feature: Feature, train: Encoded, test: Encoded, moments: list[Moments]
    ) -> Sliced | None:
        """Divide the test rows by their values. None: a kind without slices."""

    def observe(
        self, feature: Feature, column: "pl.Series", encoded: Encoded, moments: list[Moments]
    ) -> "Observed":
        """Return the sums that tell drift of new rows from training."""

    def profile(self, feature: Feature, encoded: Encoded, moments: list[Moments]) -> list[Moments]:
        """Return the moments by which two revisions of the train rows are compared, or none."""


def kind_of(name: str) -> Kind:
    """The kind of that name: the module of its file."""
    return cast(Kind, importlib.import_module(f"stages.features.kinds.{name}"))


def list_kinds() -> Sequence[str]:
    """The kinds that the folder has, in no order that means something."""
    return sorted(file.stem for file in FOLDER.glob("[!_]*.py"))
