"""The top of the page: what was trained, the gates, the metrics with their intervals."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.common.lockfile import describe_stale, find_stale
from pipeline.metrics.gates import EVALUATE
from pipeline.metrics.metrics import format_value
from pipeline.report.page.markup import Cell
from pipeline.report.page.page import escape, paragraph, table
from pipeline.report.page.verdict import ORDER, gates_headline
from pipeline.report.show.outputs import DATA, Run
from stages.common.config import get_path

ENDS = ("_low", "_high")
OF_ROWS = (
    "Between the ends of an interval lies what other test rows of the same kind would give; the "
    "luck of training is not in it."
)


def head(run: Run) -> Iterator[str]:
    """Yield the title, what it was made from in a line, the gates, and what is missing."""
    target = run.records.get("prepare/schema.json", {}).get("target")
    model = run.records.get("train/model.json", {}).get("name")
    named = target is not None and model is not None
    title = f"{target['name']}: {target['task']} by {model}" if target and named else "The last run"
    yield f"<h1>{escape(title)}</h1>"
    yield paragraph("; ".join(_facts(run)), "soft")
    for name, writer in find_stale(run.locked).items():
        yield paragraph(
            f"{describe_stale(name, writer)}. What this page has of {name} is of the run before."
        )
    yield gates_headline(run.gates)
    if edited := edited_keys(run):
        keys = ", ".join(edited)
        yield paragraph(
            f"params.yaml has been edited since this run ({keys}): 'reprise plan' says what would "
            "run."
        )
    if run.missing:
        names = ", ".join(str(DATA / path) for path in run.missing)
        how = "'dvc pull' brings what was pushed, 'dvc repro' makes what was not"
        how = how if run.locked else "'dvc repro' makes them"
        yield paragraph(f"Not on this page, since their files are not here: {names}. {how}.")


def edited_keys(run: Run) -> list[str]:
    """The keys of `params.yaml` whose values are other ones than those of the run."""
    found: dict[str, None] = {}
    for stage in run.locked.values():
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            try:
                now = get_path(run.params, key)
            except (KeyError, TypeError):
                now = None
            if now != value:
                found[key] = None
    return list(found)


def _facts(run: Run) -> Iterator[str]:
    yield str(run.param("prepare", "prepare", "source") or "no dvc.lock: where it is from is lost")
    recipe = run.records.get("train/recipe.json")
    if recipe is not None:
        rows, epochs = recipe["rows"], recipe["epochs"]
        yield f"{rows['train']:,} rows to train on, {rows['validation']:,} to validate on"
        if members := recipe.get("ensemble"):
            folds = run.records.get("train/model.json", {}).get("members", 1)
            each = f"recipes, each trained in {folds} folds" if folds > 1 else "models"
            yield f"the weighted mean of {len(members)} {each}"
        else:
            yield f"seed {recipe['seed']}, epoch {epochs['kept']} of {epochs['trained']} kept"
    num_test = run.records.get("evaluate/intervals.json", {}).get("rows")
    if num_test is not None:
        yield f"{num_test:,} rows to test on"


def metrics(run: Run) -> Iterator[str]:
    """Yield the metrics of evaluate, what they mean, and those of the other stages."""
    found = run.metrics.get(EVALUATE, {})
    intervals = run.records.get("evaluate/intervals.json", {})
    known = {**intervals.get("metrics", {}), "coverage": intervals.get("coverage")}
    known |= _written_out(found)
    seeds = {n: each["seeds"] for n, each in known.items() if each and each.get("seeds")}
    heads = ["metric", "value", "95 % interval", "gate"]
    num_seeds = max((len(each["values"]) for each in seeds.values()), default=1)
    if num_seeds > 1:
        heads.append(f"mean ± deviation over {num_seeds} seeds")
    ends = {f"{name}{end}" for name in _written_out(found) for end in ENDS}
    rows = [
        _row(run, name, value, known.get(name), heads)
        for name, value in found.items()
        if name not in ends
    ]
    if rows:
        yield table(heads, rows)
        yield paragraph(OF_ROWS, "soft")
    yield from _coverage(run, intervals.get("coverage"))
    others = [
        (stage, name, format_value(value))
        for stage, each in run.metrics.items()
        for name, value in each.items()
        if stage != EVALUATE
    ]
    if others:
        yield "<h3>Of the other stages</h3>"
        yield table(("stage", "metric", "value"), others)


def _written_out(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The intervals whose ends are metrics themselves, as those of the worst slice."""
    low, high = ENDS
    return {
        name: {"low": found[name + low], "high": found[name + high]}
        for name in found
        if name + low in found and name + high in found
    }


def _row(
    run: Run, name: str, value: Any, known: Mapping[str, Any] | None, heads: list[str]
) -> list[Cell]:
    known = known or {}
    own = [gate for gate in run.gates if gate.metric == name]
    gates = [f"{g.result}: {g.gate}" for g in sorted(own, key=lambda g: ORDER.index(g.result))]
    cells: list[Cell] = [name, format_value(value), interval_text(known), ", ".join(gates)]
    if len(heads) > 4:
        seeds = known.get("seeds") or {}
        mean, deviation = seeds.get("mean"), seeds.get("deviation")
        spread = "" if deviation is None else f" ± {deviation:.2g}"
        cells.append("" if mean is None else f"{format_value(mean)}{spread}")
    return cells


def interval_text(known: Mapping[str, Any]) -> str:
    """'0.98 to 0.99'; empty where it is not known."""
    low, high = known.get("low"), known.get("high")
    return "" if low is None or high is None else f"{format_value(low)} to {format_value(high)}"


def _coverage(run: Run, known: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what intervals or sets of predictions were to hold, and what they do."""
    promised = run.param("evaluate", "evaluate.coverage")
    if known is None or promised is None:
        return
    low, high = known.get("low"), known.get("high")
    ends = "" if low is None or high is None else f" (95 %: {low:.1%} to {high:.1%})"
    yield paragraph(
        "Coverage: the interval around a value, or the set of classes of a prediction, is to hold "
        f"the target of {promised:.4g} of the rows (evaluate.coverage); of the test rows it holds "
        f"that of {known['value']:.1%}{ends}."
    )
