"""ONNX nodes that several kinds need. The graph is handed in: no kind imports onnx."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stages.features.numbers import gap_places
from stages.features.schema import Feature


class Graph(Protocol):
    """An ONNX graph under construction; each method returns the name of what it has added."""

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an operator with one output `name`."""

    def constant(self, value: npt.NDArray[Any], name: str) -> str:
        """Add a constant."""

    def cast(self, value: str, name: str) -> str:
        """Add a conversion to float32."""


def join(graph: Graph, columns: Sequence[str], name: str) -> str:
    """Columns of (rows,) side by side: (rows, columns).

    Three operators however many columns there are: one after the other, and then turned.
    """
    flat = graph.node("Concat", list(columns), f"{name}/flat", axis=0)
    shape = graph.constant(np.array([len(columns), -1]), f"{name}/shape")
    turned = graph.node("Reshape", [flat, shape], f"{name}/turned")
    return graph.node("Transpose", [turned], name, perm=[1, 0])


def fill_gaps(graph: Graph, value: str, gap: str, features: Sequence[Feature], name: str) -> str:
    """`value` (rows, columns) as float32 with 0 in gaps, and behind it where the gaps are."""
    zero = graph.constant(np.array(0.0), f"{name}/zero")
    value = graph.node("Where", [gap, zero, value], f"{name}/filled")
    value = graph.cast(value, f"{name}/value")
    return add_gaps(graph, value, gap, features, name)


def add_gaps(graph: Graph, value: str, gap: str, features: Sequence[Feature], name: str) -> str:
    """`value` (rows, values) float32, and behind it the gaps of columns in which train has some."""
    missing = gap_places(features)
    if not missing:
        return value
    chosen = graph.constant(np.array(missing), f"{name}/missing")
    gap = graph.node("Gather", [gap, chosen], f"{name}/gaps", axis=1)
    gap = graph.cast(gap, f"{name}/is_gap")
    return graph.node("Concat", [value, gap], f"{name}/both", axis=1)
