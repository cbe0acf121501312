"""The model card: what a person who is given the model wants to know, on one page of Markdown.

`card.md` beside this file is its template. After Mitchell et al., 'Model Cards for Model
Reporting', FAT* 2019.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from stages.common.counts import counted
from stages.common.files import md5
from stages.common.yamlfile import yaml_text
from stages.evaluate.measure.bootstrap import LEVEL, Interval
from stages.evaluate.measure.coverage import Covered
from stages.evaluate.outputs.limits import find_limits, name_all
from stages.evaluate.outputs.markdown import code, plain, table
from stages.evaluate.outputs.seeds import Spread
from stages.evaluate.outputs.slices import Slice, worst_first
from stages.features.schema import Schema, TargetTransform
from stages.model.calibration import Calibration
from stages.model.conformal import Conformal

TEMPLATE = Path(__file__).with_suffix(".md")
MAX_CLASSES = 20
MAX_SLICES = 10


@dataclass(frozen=True)
class Facts:
    """The content of the card.

    `model` and `recipe` are the contents of `model.json` and `recipe.json`, `counts` the rows of
    each class by split ('train', 'test'), `covered` what `measure_coverage` found with
    `conformal`, `num_test` the test rows, `spreads` the metrics of all
    replicas, `slices` those by the first of `intervals`, `questions` those that they raise,
    `lineage` the files that are named by hash, `target_transform` that of `prepare`.
    """

    schema: Schema
    model: Mapping[str, Any]
    recipe: Mapping[str, Any]
    calibration: Calibration
    conformal: Conformal | None
    covered: Covered | None
    counts: Mapping[str, Sequence[int]]
    num_test: int
    intervals: Mapping[str, Interval]
    spreads: Mapping[str, Spread]
    slices: Sequence[Slice]
    questions: Sequence[str]
    lineage: Iterable[Path]
    target_transform: TargetTransform | None = None


def write_card(path: Path, facts: Facts) -> None:
    """Fill the template."""
    schema, intervals = facts.schema, facts.intervals
    kinds = Counter(feature.kind for feature in schema.features)
    columns = [f"{count} {kind}" for kind, count in kinds.items()]
    arguments = [(code(name), code(v)) for name, v in facts.model["arguments"].items()]
    limits = find_limits(schema, facts.counts, intervals, facts.slices, facts.questions)
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        target=plain(schema.target.name),
        target_code=code(schema.target.name),
        task=schema.target.task.capitalize(),
        model=code(facts.model["name"]),
        use=_use(schema),
        rows_train=f"{facts.recipe['rows']['train']:,}",
        rows_validation=f"{facts.recipe['rows']['validation']:,}",
        rows_test=f"{facts.num_test:,}",
        columns="columns: " + ", ".join(columns),
        classes=_classes(facts),
        arguments=table(("argument", "value"), arguments) if arguments else "It has no arguments.",
        training=" ".join(_training(facts)),
        parameters=table(
            ("parameter", "value"),
            [(code(path), code(value)) for path, value in _flat("train", facts.recipe["train"])],
        ),
        members=_members(facts.recipe.get("ensemble", ())),
        weighted=_weighted(schema),
        level=f"{LEVEL:.0%}".removesuffix("%"),
        metrics=table(
            ("metric", "value", "low", "high"),
            [(name, *_numbers(interval)) for name, interval in intervals.items()],
        ),
        coverage=_coverage(facts),
        seeds=_seeds(facts.spreads),
        slices=_slices(next(iter(intervals)), facts.slices),
        limits="\n".join(f"- {limit}" for limit in limits),
        lineage=table(
            ("file", "MD5"), [(code(file.as_posix()), md5(file)) for file in facts.lineage]
        ),
    )
    path.write_text(text, encoding="utf-8")


def _use(schema: Schema) -> str:
    what = "the value of" if schema.target.classes is None else "the class of"
    target = code(schema.target.name)
    names = name_all(feature.name for feature in schema.features)
    return f"To predict {what} {target} from {names}, of rows like those of the data."


def _weighted(schema: Schema) -> str:
    if schema.weight is None:
        return ""
    return f" Rows count by their weight in {code(schema.weight)}, as they did in the training."


def _classes(facts: Facts) -> str:
    """The classes with their rows; of many, the first."""
    classes = facts.schema.target.classes
    if classes is None:
        return ""
    rows = zip(classes, facts.counts["train"], facts.counts["test"], strict=True)
    lines = [(code(yaml_text(name)), f"{train:,}", f"{test:,}") for name, train, test in rows]
    rest = len(classes) - MAX_CLASSES
    more = f"\nand {counted(rest, 'class', 'classes')} more.\n" if rest > 0 else ""
    return table(("class", "train rows", "test rows"), lines[:MAX_CLASSES]) + "\n" + more


def _training(facts: Facts) -> Iterator[str]:
    """Yield how it was trained, and what was fitted on the validation rows, in sentences."""
    epochs, seed = facts.recipe["epochs"], facts.recipe["seed"]
    if members := facts.recipe.get("ensemble"):
        number, folds = len(members), facts.model.get("members", 1)
        said = (
            f"{number} recipes, each trained in {folds} folds" if folds > 1 else f"{number} models"
        )
        yield f"What is predicted is the weighted mean of {said}; they are listed below, with seed"
        yield f"and epoch{' of the first fold' if folds > 1 else ''}. Arguments and parameters here"
        yield "are those of the first."
    else:
        yield f"From seed {seed}; the weights are those of epoch {epochs['kept']} of"
        yield f"{epochs['trained']}."
    classes, calibration = facts.schema.target.classes, facts.calibration
    if calibration.temperature != 1:
        yield "So that probabilities are as sure as they are right on the validation rows, scores"
        yield f"are divided by the temperature {calibration.temperature:.4g}."
    if calibration.threshold is not None and classes is not None:
        metric = facts.recipe["train"]["calibration"]["threshold"]
        yield f"{code(yaml_text(classes[1]))} is predicted where its probability is above"
        yield f"{calibration.threshold:.4g}, which has the best {metric} on the validation rows."


def _members(members: Sequence[Mapping[str, Any]]) -> str:
    """The members of an ensemble; nothing where there is one model."""
    if not members:
        return ""
    lines = []
    for each in members:
        changed = [code(f"{path}: {json.dumps(value)}") for path, value in each["set"].items()]
        epochs = f"{each['epochs']['kept']} of {each['epochs']['trained']}"
        weight = _number(each["weight"])
        lines.append((weight, str(each["seed"]), epochs, ", ".join(changed) or "nothing"))
    heads = ("weight", "seed", "epoch", "what it sets on top of params.yaml")
    return "\n" + table(heads, lines) + "\n"


def _coverage(facts: Facts) -> str:
    """The interval of a prediction, and the share of test rows whose target lies in it."""
    conformal, found = facts.conformal, facts.covered
    if conformal is None or found is None:
        return ""
    share, low, high = found.share.value, found.share.low, found.share.high
    tested = f"of the test rows {share:.1%} (at 95 %: {low:.1%} to {high:.1%}) lie in it"
    if facts.schema.target.classes is None:
        scale = "" if facts.target_transform is None else f" in {facts.target_transform}"
        return (
            f"Each value comes with an interval, ± {_number(conformal.bound)}{scale}, that is to "
            f"hold the target of {conformal.coverage:.4g} of the rows; {tested}."
        )
    return (
        f"Each class comes with a set of classes, those of a probability of "
        f"{conformal.bound:.4g} or more, that is to hold the target of {conformal.coverage:.4g} "
        f"of the rows; {tested}. It has {found.size:.3g} classes on average."
    )


def _flat(path: str, value: object) -> Iterator[tuple[str, str]]:
    """The values of nested sections by their dotted paths, as `params.yaml` has them."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}", inner)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _seeds(spreads: Mapping[str, Spread]) -> str:
    num_seeds = len(next(iter(spreads.values())).values)
    if num_seeds == 1:
        return "One seed was trained: how far others would lie from it is not known."
    lines = [
        (name, *map(_number, (spread.mean, spread.deviation or 0.0)))
        for name, spread in spreads.items()
    ]
    said = f"{num_seeds} seeds were trained. The table above is of the first, which is served, "
    said += "not of the best. Over all of them:\n\n"
    return said + table(("metric", "mean", "± over seeds"), lines)


def _slices(name: str, slices: Sequence[Slice]) -> str:
    judged = worst_first(name, slices)
    if not judged:
        return "None were judged."
    lines = [
        (plain(s.column or repr("")), plain(s.label), f"{s.rows:,}", *_numbers(s.metric))
        for s in judged[:MAX_SLICES]
    ]
    said = f"The worst by the better end of the interval of {name}; "
    said += f"`slices.csv` has all {len(slices)}.\n\n"
    return said + table(("column", "slice", "rows", name, "low", "high"), lines)


def _numbers(interval: Interval) -> tuple[str, ...]:
    numbers = (interval.value, interval.low, interval.high)
    return tuple("" if number is None else _number(number) for number in numbers)


def _number(value: float) -> str:
    """Four significant digits; a large number whole, such as dollars."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
