"""What pages are drawn with: axes, charts, strips, a confusion matrix, the gates."""

import random
import re

import polars as pl
import pytest

from pipeline.metrics.gates import Verdict
from pipeline.report.page.chart import (
    BOTTOM,
    HEIGHT,
    LETTER,
    NAME,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    draw_chart,
)
from pipeline.report.page.confusion import draw_confusion
from pipeline.report.page.page import STYLES, make_page, table
from pipeline.report.page.scale import label_ticks, make_scale, make_tight_scale
from pipeline.report.page.strips import ROOM, Strip, draw_bars, draw_differences, draw_forest
from pipeline.report.page.verdict import gates_headline
from stages.prepare.expectations.html import STYLE, render
from stages.prepare.table.table import in_memory


def test_an_axis_holds_its_values_between_round_ticks() -> None:
    drawn = random.Random(0)
    for _ in range(500):
        size = 10.0 ** drawn.randint(-6, 9)
        values = [drawn.uniform(-size, size) for _ in range(drawn.randint(1, 4))]
        for scale in (make_scale(values), make_tight_scale(values)):
            assert all(-1e-9 <= scale.share(value) <= 1 + 1e-9 for value in values)
            assert 2 <= len(scale.ticks) <= 7, values
            texts = label_ticks(scale.ticks)
            assert len(set(texts)) == len(texts), (values, texts)
            for tick, text in zip(scale.ticks, texts, strict=True):
                assert float(text) == pytest.approx(tick, rel=0.01, abs=1e-9 * size)
    assert make_scale([0.03, 1.24]).ticks == pytest.approx((0, 0.5, 1.0, 1.5))
    assert label_ticks(make_scale([0.9336, 0.9766]).ticks) == ["0.92", "0.94", "0.96", "0.98"]
    assert make_scale([1, 2, 3], whole=True).ticks == (1, 2, 3)
    assert make_scale([5.0]).share(5.0) == 0.5


def test_a_chart_puts_points_where_its_axes_say() -> None:
    curve, other = [(0.0, 0.0), (5.0, 2.0), (10.0, 1.0)], [(0.0, 2.0), (5.0, float("nan"))]
    chart = draw_chart("Loss", "epoch", "loss", [Series("a", curve), Series("b", other)])
    # The upright axis stands further in the longer its numbers are, here '0.0' to '2.0'.
    left, right, top, bottom = NAME + 3 * LETTER, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    middle = ((left + right) / 2, (top + bottom) / 2)
    places = f"M{left:.1f},{bottom:.1f} L{middle[0]:.1f},{top:.1f} L{right:.1f},{middle[1]:.1f}"
    assert f'class="series first" d="{places}"' in chart
    # A line of one point is a dot, and what is no number is no point.
    assert f'<circle class="series second" cx="{left:.1f}" cy="{top:.1f}"' in chart
    # The key tells the lines apart without colours, and all that is named is there.
    assert f'class="series second" stroke-dasharray="7 4" d="M{left + 47:g},12' in chart
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", chart)
    assert {"a", "b", "epoch", "loss", "7.5", "10.0", "0.0", "2.0"} <= set(texts)
    close = draw_chart("L", "x", "y", [Series("a", [(0.0, 0.8655), (1.0, 0.8675)])])
    assert f"M{NAME + 6 * LETTER},{TOP} V" in close
    assert draw_chart("Loss", "epoch", "loss", [Series("a", [])]) == ""
    dots = draw_chart("R", "x", "y", [Series("rows", curve, dots=True)], (5.0, "kept"))
    assert dots.count("<circle") == 4
    assert "kept</text>" in dots


def test_strips_put_values_and_intervals_side_by_side() -> None:
    strips = [Strip("a", 0.0, -1.0, 1.0, "0"), Strip("b", 3.0, is_small=True)]
    forest = draw_forest(("slice", "rmse"), strips, line=1.0)
    quarter = (100 - 2 * ROOM) / 4
    assert f'<circle cx="{ROOM + quarter:.2f}%" cy="50%"' in forest
    assert f'x1="{ROOM:.2f}%" x2="{ROOM + 2 * quarter:.2f}%" y1="50%"' in forest
    assert f'class="axis" x1="{ROOM + 2 * quarter:.2f}%"' in forest
    # One of few rows is hollow, and nothing is drawn of an interval that is not known.
    assert f'<circle class="hollow" cx="{100 - ROOM:.2f}%"' in forest
    assert forest.count("whisker") == 1
    bars = draw_bars(("column", "importance"), [Strip("a", 3.0), Strip("b", -1.0)])
    widths = re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', bars)
    assert [tuple(map(float, each)) for each in widths] == [
        pytest.approx((ROOM + quarter, 3 * quarter)),
        pytest.approx((ROOM, quarter)),
    ]
    assert draw_bars(("column", "importance"), []) == draw_forest(("a", "b"), []) == ""


def test_a_confusion_matrix_counts_and_shades() -> None:
    pairs = [("a", "a")] * 3 + [("a", "b")] + [("b", "b")] * 2
    matrix = draw_confusion(pairs)
    cells = re.findall(r"<td([^>]*)>(\d*)</td>", matrix)
    assert [number for _, number in cells] == ["3", "1", "", "2"]
    assert cells[0][0] == ' class="right" style="--share:0.75"'
    assert "--share:0.25" in cells[1][0]
    assert draw_confusion([]) == ""
    assert draw_confusion([(str(n), str(n)) for n in range(31)]) == ""

    # Long names do not stand side by side.
    long = draw_confusion([(f"species number {n}", f"species number {n}") for n in range(10, 20)])
    heads = re.findall(r"<th>([^<]*)</th>", long)
    assert heads[:11] == ["", *map(str, range(1, 11))]
    assert heads[11:] == [f"{n - 9}: species number {n}" for n in range(10, 20)]


def test_differences_lie_about_zero_each_on_its_own_scale() -> None:
    strips = [Strip("a", 5.0, 0.0, 10.0, "+5", mark="better"), Strip("b", -0.1, mark="<i>")]
    drawn = draw_differences(("metric", "difference"), strips)
    assert drawn.count('<line class="axis" x1="50.00%"') == 2
    assert f'<line class="whisker" x1="50.00%" x2="{100 - ROOM:.2f}%"' in drawn
    assert f'<circle cx="{ROOM:.2f}%"' in drawn
    assert '<small class="better">better</small>' in drawn
    assert "<i>" not in drawn
    assert draw_differences(("a", "b"), []) == ""


def test_a_wide_table_shows_its_columns_names_on_a_phone() -> None:
    narrow, wide = table(("a", "b"), [("1", "2")]), table(("a", "b"), [("1", "x" * 60)])
    assert 'class="narrow"' in narrow
    assert 'class="stacked"' in wide
    assert re.findall('data-column="([^"]*)"><span>([^<]*)', wide) == [("a", "1"), ("b", "x" * 60)]
    style = make_page("t", [])
    assert ".stacked td::before { content: attr(data-column)" in style


def test_all_pages_share_a_style() -> None:
    shared = STYLES[0].read_text(encoding="utf-8")
    assert STYLES[0].samefile(STYLE)
    assert "prefers-color-scheme: dark" in shared
    assert f"<style>\n{shared}" in make_page("t", [])
    expected = render(in_memory(pl.DataFrame({"a": [1]})), [], "t.csv", "suite.yaml", {})
    assert f"<style>\n{shared}" in expected


def test_the_worst_gate_stands_first() -> None:
    passed = Verdict("accuracy", 0.9, "at least 0.8", "pass")
    failed = Verdict("log_loss", 0.9, "at most <0.5>", "fail")
    unknown = Verdict("f1", 0.9, "not worse by 0.1", "inconclusive", "no base")
    block = gates_headline([passed, unknown, failed])
    assert '<div class="verdict fail">✕ 1 of 3 gates failed' in block
    lines = re.findall(r"<small>(\w+): (\w+)", block)
    assert lines == [("failed", "log_loss"), ("inconclusive", "f1"), ("passed", "accuracy")]
    assert "&lt;0.5&gt;" in block
    assert "✓ the gate passed" in gates_headline([passed])
    assert "No gates are set" in gates_headline([])
