"""Curves and dots over two axes, as SVG inside the page.

Series differ by colour and by dashes; the key shows both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.page.page import escape, figure
from pipeline.report.page.scale import Scale, label_ticks, make_scale

WIDTH, HEIGHT = 440, 270
RIGHT, TOP, BOTTOM = 14, 30, 44
# Left of the numbers at the upright axis: its name, written upwards.
NAME = 28
# Of the key: its sample of a line, and about what a letter takes.
SAMPLE, LETTER = 26, 7
STYLES = (("first", ""), ("second", "7 4"), ("third", "2 4"))

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Points (x, y) under a name, joined by a line unless they are `dots`."""

    name: str
    points: Points
    dots: bool = False


@dataclass(frozen=True)
class Frame:
    """Both axes, and where the left one stands: as far in as its numbers are long."""

    across: Scale
    up: Scale
    left: float

    def x(self, value: float) -> float:
        """The place of a value of the x axis."""
        return self.left + self.across.share(value) * (WIDTH - self.left - RIGHT)

    def y(self, value: float) -> float:
        """The place of a value of the y axis."""
        return HEIGHT - BOTTOM - self.up.share(value) * (HEIGHT - TOP - BOTTOM)


def draw_chart(
    caption: str,
    x_name: str,
    y_name: str,
    series: Sequence[Series],
    mark: tuple[float, str] | None = None,
    *,
    counts: bool = False,
) -> str:
    """A figure of up to three series; empty where none has a point.

    `mark` is a place on the x axis and its name; with `counts` that axis has whole numbers. Points
    that are not finite are left out.
    """
    shown = [Series(s.name, _finite(s.points), s.dots) for s in series]
    points = [point for each in shown for point in each.points]
    if not points:
        return ""
    frame = _frame(points, counts=counts)
    parts = [_axes(frame, x_name, y_name)]
    at = frame.left
    for number, each in enumerate(shown):
        if not each.points:
            continue
        style, dashes = STYLES[number % len(STYLES)]
        parts.append(_draw(each, frame, style, dashes))
        parts.append(_key(at, each, style, dashes))
        at += SAMPLE + 14 + LETTER * len(each.name)
    if mark is not None and frame.across.low <= mark[0] <= frame.across.high:
        parts.append(_mark(frame.x(mark[0]), at - 14, mark[1]))
    said = f"{caption}: {y_name} by {x_name}"
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    return figure(caption, f'{svg}aria-label="{escape(said)}">{"".join(parts)}</svg>')


def _finite(points: Points) -> Points:
    return [point for point in points if all(map(math.isfinite, point))]


def _frame(points: Points, *, counts: bool) -> Frame:
    across = make_scale((x for x, _ in points), whole=counts)
    up = make_scale(y for _, y in points)
    longest = max(map(len, label_ticks(up.ticks)))
    return Frame(across, up, NAME + LETTER * longest)


def _axes(frame: Frame, x_name: str, y_name: str) -> str:
    """Both axes with lines, numbers and names."""
    across, up, left = frame.across, frame.up, frame.left
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick, text in zip(up.ticks, label_ticks(up.ticks), strict=True):
        y = frame.y(tick)
        parts.append(f'<path class="grid" d="M{left:g},{y:.1f} H{right}"/>')
        parts.append(_text(left - 6, y + 4, text, "end"))
    for tick, text in zip(across.ticks, label_ticks(across.ticks), strict=True):
        x = frame.x(tick)
        parts.append(f'<path class="axis" d="M{x:.1f},{bottom} v4"/>')
        parts.append(_text(x, bottom + 17, text, "middle"))
    parts.append(f'<path class="axis" d="M{left:g},{TOP} V{bottom} H{right}"/>')
    parts.append(_text((left + right) / 2, HEIGHT - 8, x_name, "middle"))
    middle = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 12 {middle:g})"'
    parts.append(
        f'<text x="12" y="{middle:g}" text-anchor="middle" {turned}>{escape(y_name)}</text>'
    )
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _mark(x: float, at: float, name: str) -> str:
    """An upright dotted line at `x`, and its sample in the key."""
    line = f'd="M{x:.1f},{TOP} V{HEIGHT - BOTTOM} M{at + SAMPLE - 6:g},5 v14"'
    return f'<path class="axis" stroke-dasharray="1 3" {line}/>{_text(at + SAMPLE, 16, name)}'


def _draw(series: Series, frame: Frame, style: str, dashes: str) -> str:
    places = [(frame.x(x), frame.y(y)) for x, y in series.points]
    if series.dots:
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places)
        return f'<g class="dots">{dots}</g>'
    if len(places) == 1:
        # A line of one point has no length.
        ((x, y),) = places
        return f'<circle class="series {style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    path = " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<path class="series {style}"{_dashed(dashes)} d="M{path}"/>'


def _key(at: float, series: Series, style: str, dashes: str) -> str:
    if series.dots:
        sample = f'<g class="dots"><circle cx="{at + SAMPLE / 2:g}" cy="12" r="3.5"/></g>'
    else:
        line = f'd="M{at:g},12 h{SAMPLE}"'
        sample = f'<path class="series {style}"{_dashed(dashes)} {line}/>'
    return sample + _text(at + SAMPLE + 5, 16, series.name)


def _dashed(dashes: str) -> str:
    return f' stroke-dasharray="{dashes}"' if dashes else ""
