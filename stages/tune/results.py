"""The outputs of a search: the best trial, a table of the trials, and how the search ended."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from stages.common.config import Overrides
from stages.common.files import write_csv, write_json
from stages.features.schema import Array
from stages.features.target_scale import to_units
from stages.training.state import Data
from stages.tune.ensemble import MIN_ROWS, Metric, Rows, describe, propose
from stages.tune.model_size import describe as describe_size
from stages.tune.model_size import find_front, pick
from stages.tune.params import TuneParams
from stages.tune.plots import write_plots
from stages.tune.trials import Search


def write_nothing(out: Path, params: TuneParams) -> None:
    """The outputs of a search without trials."""
    _write(out, {}, {}, (), ())
    _write_scores(out / "scores", {})
    write_json(out / "ensemble.json", {})
    write_plots(out / "plots", None, params, {}, {})


def write_results(
    out: Path, search: Search, params: TuneParams, current: Overrides, sizes: Mapping[int, int]
) -> None:
    """`best.yaml`, `trials.csv`, `search.json` and the plots of a finished search.

    `sizes` are those of all trials by their numbers, none where no size is asked for. Raises
    UserError when no trial came to its end, or none is small enough.
    """
    # An entry of the portfolio may set keys that the space lacks.
    of_trials = (path for trial in search.trials for path in trial.overrides)
    paths, asked = list(dict.fromkeys([*params.space, *of_trials])), params.model_size
    rows: list[Sequence[object]] = []
    picked = pick(search, sizes, asked)
    front = {trial.number for trial in find_front(search, sizes)} if asked else set()
    for trial in search.trials:
        tried = {**current, **trial.overrides}
        value = "" if trial.value is None else repr(trial.value)
        values = [tried.get(path, "") for path in paths]
        size = (sizes[trial.number], "yes" if trial.number in front else "") if asked else ()
        head = trial.number, trial.end, value, len(trial.values), trial.origin
        rows.append((*head, *size, *values))
    facts = {
        "reason": search.reason,
        "sampler": search.sampler,
        "direction": search.direction,
        "trials": dict(sorted(Counter(trial.end for trial in search.trials).items())),
        "epochs": sum(len(trial.values) for trial in search.trials),
        "best": {
            "trial": picked.number,
            "origin": picked.origin,
            "value": picked.value,
            **({"size": sizes[picked.number]} if asked else {}),
        },
    }
    _write(out, picked.overrides, facts, rows, [*(("size", "front") if asked else ()), *paths])
    write_plots(out / "plots", search, params, current, sizes)
    shown = ", ".join(f"{path} {value}" for path, value in picked.overrides.items())
    print(f"best: {picked.value:.5f} with {shown or 'the values of params.yaml'}")
    if asked is not None:
        print(f"size: {describe_size(picked, search, sizes, asked)}")


def write_ensemble(
    out: Path,
    scores: Mapping[int, Array],
    overrides: Mapping[int, Overrides],
    data: Data,
    metric: Metric | None,
    seed: int,
) -> None:
    """`scores`, those of the best trials by number, and `ensemble.json`, what they make together.

    `overrides` are those of each trial. There is nothing to propose of fewer than two, of few rows,
    or without a metric.
    """
    _write_scores(out / "scores", scores)
    target = data.validation.target.cpu().double().numpy()
    weight = data.validation.weight
    weights = np.ones(len(target)) if weight is None else weight.cpu().double().numpy()
    # Rows of weight 0 judge nothing, and a half of them alone could not be judged.
    counting = weights > 0
    if metric is None or len(scores) < 2 or counting.sum() < MIN_ROWS:
        write_json(out / "ensemble.json", {})
        return
    target, weights = target[counting], weights[counting]
    scores = {number: array[counting] for number, array in scores.items()}
    rows = Rows(target, weights)
    if metric == "rmse" and data.transform is None:
        # Of standardised values, in the units of the target.
        rows = Rows(target * data.deviation, weights)
        scores = {n: array.astype(np.float64) * data.deviation for n, array in scores.items()}
    elif metric == "rmse":
        # What is averaged is what the model learns, and the error is that of the value itself.
        rows = Rows(to_units(target, data.scale), weights, data.scale)
    found = propose(scores, rows, metric, seed)
    write_json(out / "ensemble.json", found.to_json(overrides))
    print(describe(found, len(scores)))


def _write_scores(folder: Path, scores: Mapping[int, Array]) -> None:
    folder.mkdir()
    for number, array in scores.items():
        np.save(folder / f"{number}.npy", array, allow_pickle=False)
    if not scores:
        # DVC warns of an empty folder at each run.
        why = "No trial was run, or none of its scores is kept (tune.keep_scores).\n"
        (folder / "none.txt").write_text(why, encoding="utf-8")


def _write(
    out: Path,
    overrides: Mapping[str, Any],
    facts: Mapping[str, Any],
    rows: Sequence[Sequence[object]],
    columns: Sequence[str],
) -> None:
    yaml = YAML()
    yaml.default_flow_style = False if overrides else None
    yaml.dump(dict(overrides), out / "best.yaml")
    write_json(out / "search.json", facts)
    heads = ("trial", "state", "value", "epochs", "origin")
    write_csv(out / "trials.csv", (*heads, *columns), rows)
