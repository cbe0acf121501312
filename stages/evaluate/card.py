"""The model card: what a person who is given the model wants to know, on one page of Markdown.

`card.md` beside this file is its template. After Mitchell et al., 'Model Cards for Model
Reporting', FAT* 2019.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from stages.common.files import md5
from stages.common.schema import Schema
from stages.evaluate.bootstrap import LEVEL, Interval
from stages.evaluate.seeds import Spread
from stages.evaluate.slices import SMALL_ROWS, Slice, worst_first

TEMPLATE = Path(__file__).with_suffix(".md")
MAX_CLASSES = 20
MAX_SLICES = 10


def write_card(
    path: Path,
    schema: Schema,
    model: Mapping[str, Any],
    sizes: Mapping[str, int],
    intervals: Mapping[str, Interval],
    spreads: Mapping[str, Spread],
    slices: Sequence[Slice],
    lineage: Iterable[Path],
) -> None:
    """Fill the template: `model` is the content of `model.json`, `sizes` the rows by split,
    `spreads` the metrics of all replicas, `slices` those by the first of `intervals`, `lineage`
    the files that are named by hash.
    """
    kinds = Counter(feature.kind for feature in schema.features)
    columns = [f"{count} {kind}" for kind, count in kinds.items()]
    arguments = [(f"`{name}`", f"`{value}`") for name, value in model["arguments"].items()]
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        target=schema.target.name,
        task=schema.target.task.capitalize(),
        model=model["name"],
        rows_train=f"{sizes['train']:,}",
        rows_test=f"{sizes['test']:,}",
        columns="columns: " + ", ".join(columns),
        classes=_classes(schema),
        arguments=_table(("argument", "value"), arguments) if arguments else "It has no arguments.",
        level=f"{LEVEL:.0%}".removesuffix("%"),
        metrics=_table(
            ("metric", "value", "low", "high"),
            [(name, *_numbers(interval)) for name, interval in intervals.items()],
        ),
        seeds=_seeds(spreads),
        slices=_slices(next(iter(intervals)), slices),
        small=SMALL_ROWS,
        lineage=_table(("file", "MD5"), [(f"`{file.as_posix()}`", md5(file)) for file in lineage]),
    )
    path.write_text(text, encoding="utf-8")


def _classes(schema: Schema) -> str:
    classes = schema.target.classes
    if classes is None:
        return ""
    shown = ", ".join(f"`{name}`" for name in classes[:MAX_CLASSES])
    more = f" and {len(classes) - MAX_CLASSES} more" if len(classes) > MAX_CLASSES else ""
    return f"Classes: {shown}{more}.\n"


def _seeds(spreads: Mapping[str, Spread]) -> str:
    num_seeds = len(next(iter(spreads.values())).values)
    if num_seeds == 1:
        return "One seed was trained: how far others would lie from it is not known."
    lines = [
        (name, *(f"{value:.4g}" for value in (spread.mean, spread.deviation or 0.0)))
        for name, spread in spreads.items()
    ]
    said = f"{num_seeds} seeds were trained. The table above is of the first, which is served, "
    said += "not of the best. Over all of them:\n\n"
    return said + _table(("metric", "mean", "± over seeds"), lines)


def _slices(name: str, slices: Sequence[Slice]) -> str:
    judged = worst_first(name, slices)
    if not judged:
        return "None were judged."
    lines = [(s.column, s.label, f"{s.rows:,}", *_numbers(s.metric)) for s in judged[:MAX_SLICES]]
    said = f"The worst by the better end of the interval of {name}; "
    said += f"`slices.csv` has all {len(slices)}.\n\n"
    return said + _table(("column", "slice", "rows", name, "low", "high"), lines)


def _numbers(interval: Interval) -> tuple[str, ...]:
    numbers = (interval.value, interval.low, interval.high)
    return tuple("" if number is None else f"{number:.4g}" for number in numbers)


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell does not end it."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(
        f"| {' | '.join(str(c).replace('|', '&#124;') for c in row)} |" for row in rows
    )
