"""Values one below the other: dots with their intervals, or bars, beside their names."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.page.markup import Cell, to_html
from pipeline.report.page.page import WORDS, escape
from pipeline.report.page.scale import Scale, label_ticks, make_tight_scale

# Of a strip's width, left free on each side, in percent.
ROOM = 6


@dataclass(frozen=True)
class Strip:
    """A value under its name, with the ends of its interval where they are known.

    `note` and `mark` ('better', 'noise') stand below the name, `ends` below the value `text`, all
    as they are written. `is_small`: of too few rows to be judged.
    """

    name: Cell
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    ends: str = ""
    note: str = ""
    mark: str = ""
    is_small: bool = False


def draw_forest(heads: tuple[str, str], strips: Sequence[Strip], line: float | None = None) -> str:
    """A table of dots with intervals, one of few rows hollow; empty without strips.

    `heads` name the first and the last column; `line` is a value that all are seen against.
    """
    ends = [end for s in strips for end in (s.value, s.low, s.high) if end is not None]
    if not ends:
        return ""
    scale = make_tight_scale(ends if line is None else [*ends, line])
    drawn = [_dot(strip, scale, line) for strip in strips]
    return _strips(heads, strips, drawn, scale)


def draw_differences(heads: tuple[str, str], strips: Sequence[Strip]) -> str:
    """A table of differences with intervals about an upright line at 0; empty without strips.

    Each has a scale of its own, since metrics have different units. More must be better.
    """
    pictures = []
    for strip in strips:
        reach = max(abs(e) for e in (strip.value, strip.low, strip.high) if e is not None) or 1.0
        pictures.append(_dot(strip, Scale(-reach, reach, ()), 0.0))
    if not pictures:
        return ""
    sides = '<div class="sides"><span>worse</span><span>better</span></div>'
    return _table(heads, sides, strips, pictures)


def draw_bars(heads: tuple[str, str], strips: Sequence[Strip]) -> str:
    """A table of bars from zero, with lines from `low` to `high`; empty without strips."""
    ends = [end for s in strips for end in (s.value, s.low, s.high) if end is not None]
    if not ends:
        return ""
    scale = make_tight_scale([0.0, *ends])
    return _strips(heads, strips, [_bar(strip, scale) for strip in strips], scale)


def _strips(
    heads: tuple[str, str], strips: Sequence[Strip], drawn: Sequence[str], scale: Scale
) -> str:
    grid = "".join(_upright(scale, tick, "grid") for tick in scale.ticks)
    pictures = [grid + each for each in drawn]
    return _table(heads, _numbers(scale), strips, pictures)


def _table(
    heads: tuple[str, str], middle: str, strips: Sequence[Strip], pictures: Sequence[str]
) -> str:
    rows = "".join(map(_row, strips, pictures))
    head = f"<th>{escape(heads[0])}</th><th>{middle}</th><th>{escape(heads[1])}</th>"
    return f'<div class="scroll wide"><table class="strips"><tr>{head}</tr>{rows}</table></div>'


def _row(strip: Strip, picture: str) -> str:
    note, ends = (
        f"<small>{escape(text)}</small>" if text else "" for text in (strip.note, strip.ends)
    )
    # A mark has its colour.
    note += f'<small class="{strip.mark}">{strip.mark}</small>' if strip.mark in WORDS else ""
    return (
        f'<tr><td>{to_html(strip.name)}{note}</td><td><svg aria-hidden="true">{picture}</svg>'
        f"</td><td>{escape(strip.text)}{ends}</td></tr>"
    )


def _numbers(scale: Scale) -> str:
    texts = zip(scale.ticks, label_ticks(scale.ticks), strict=True)
    parts = [
        f'<text x="{_at(scale, tick)}" y="75%" text-anchor="middle">{text}</text>'
        for tick, text in texts
    ]
    return f'<svg aria-hidden="true">{"".join(parts)}</svg>'


def _at(scale: Scale, value: float) -> str:
    return f"{_percent(scale, value):.2f}%"


def _percent(scale: Scale, value: float) -> float:
    """The place across a strip; a number below either end has room beside it."""
    return ROOM + (100 - 2 * ROOM) * scale.share(value)


def _upright(scale: Scale, value: float, style: str) -> str:
    x = _at(scale, value)
    return f'<line class="{style}" x1="{x}" x2="{x}" y1="0" y2="100%"/>'


def _interval(strip: Strip, scale: Scale) -> str:
    if strip.low is None or strip.high is None:
        return ""
    ends = f'x1="{_at(scale, strip.low)}" x2="{_at(scale, strip.high)}"'
    return f'<line class="whisker" {ends} y1="50%" y2="50%"/>'


def _dot(strip: Strip, scale: Scale, line: float | None) -> str:
    seen_against = "" if line is None else _upright(scale, line, "axis")
    hollow = ' class="hollow"' if strip.is_small else ""
    dot = f'<circle{hollow} cx="{_at(scale, strip.value)}" cy="50%" r="4"/>'
    return seen_against + _interval(strip, scale) + dot


def _bar(strip: Strip, scale: Scale) -> str:
    start, end = sorted((_percent(scale, 0.0), _percent(scale, strip.value)))
    place = f'x="{start:.2f}%" width="{end - start:.2f}%"'
    return f'<rect {place} y="25%" height="50%"/>{_interval(strip, scale)}'
