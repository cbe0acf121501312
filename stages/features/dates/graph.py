"""Nodes of an ONNX graph that make of times what a model learns from; NumPy alone."""

import math

import numpy as np

from stages.features.dates.cycles import STEPS
from stages.features.graph import Graph
from stages.features.schema import Feature, Statistics
from stages.features.times import PERIODS


def find_gaps(graph: Graph, value: str, name: str) -> str:
    """The output that says where there is no time."""
    gap = graph.node("IsNaN", [value], f"{name}/nan")
    return graph.node("Or", [gap, graph.node("IsInf", [value], f"{name}/inf")], f"{name}/gap")


def compute(graph: Graph, feature: Feature, name: str, statistics: Statistics) -> list[str]:
    """The outputs with what the times in the input `name` become, each float32."""
    own, moments = f"/datetime/{name}", statistics.numeric[feature.name]
    mean = graph.constant(np.array(moments.mean), f"{own}/mean")
    deviation = graph.constant(np.array(moments.deviation), f"{own}/deviation")
    value = graph.node("Sub", [name, mean], f"{own}/centred")
    value = graph.node("Div", [value, deviation], f"{own}/scaled")
    found = [] if feature.calendar else [graph.cast(value, f"{own}/time")]
    for cycle in feature.cycles or []:
        period = graph.constant(np.array(PERIODS[cycle]), f"{own}/{cycle}/period")
        turns = graph.node("Div", [name, period], f"{own}/{cycle}/turns")
        whole = graph.node("Floor", [turns], f"{own}/{cycle}/whole")
        # In float64 the place in the cycle, and in float32, which sines are of, its angle.
        place = graph.node("Sub", [turns, whole], f"{own}/{cycle}/place")
        full = graph.constant(np.array(2 * math.pi), f"{own}/{cycle}/full")
        angle = graph.node("Mul", [place, full], f"{own}/{cycle}/wide")
        angle = graph.cast(angle, f"{own}/{cycle}/angle")
        found += [_wave(graph, kind, angle, f"{own}/{cycle}/{kind}") for kind in ("Sin", "Cos")]
    return found


def _wave(graph: Graph, kind: str, angle: str, name: str) -> str:
    """The output with the sine or cosine of an angle, in whole steps."""
    steps = graph.constant(np.array(STEPS, np.float32), f"{name}/steps")
    value = graph.node("Mul", [graph.node(kind, [angle], f"{name}/exact"), steps], f"{name}/scaled")
    return graph.node("Div", [graph.node("Round", [value], f"{name}/whole"), steps], name)
