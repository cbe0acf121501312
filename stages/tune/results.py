"""The outputs of a search: the best trial, a table of the trials, the data of two plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from ruamel.yaml import YAML

from stages.common.files import rounded, write_csv
from stages.tune.params import TuneParams
from stages.tune.study import best_trial, finished, importances, state_of


def write_nothing(out: Path) -> None:
    """The outputs of a search without trials."""
    _write(out, {}, (), (), {}, ())


def write_results(out: Path, study: optuna.Study, params: TuneParams) -> None:
    """`best.yaml`, `trials.csv` and the plots of a finished study."""
    paths = list(params.space)
    rows: list[Sequence[object]] = []
    history: list[Sequence[object]] = []
    best: float | None = None
    better = min if study.direction == optuna.study.StudyDirection.MINIMIZE else max
    for number, trial in enumerate(finished(study)):
        state = state_of(trial)
        value = trial.value if state == "complete" else None
        tried = [trial.user_attrs["tried"].get(path, "") for path in paths]
        rows.append((number, state, "" if value is None else repr(value), *tried))
        if value is not None:
            best = value if best is None else better(best, value)
            history.append((number, rounded(value), rounded(best)))
    first = best_trial(study)
    overrides = first.user_attrs["overrides"]
    _write(out, overrides, rows, history, importances(study), paths)
    shown = ", ".join(f"{path} {value}" for path, value in overrides.items())
    print(f"best: {first.value:.5f} with {shown or 'the values of params.yaml'}")


def _write(
    out: Path,
    overrides: Mapping[str, Any],
    rows: Sequence[Sequence[object]],
    history: Sequence[Sequence[object]],
    importance: Mapping[str, float],
    paths: Sequence[str],
) -> None:
    yaml = YAML()
    yaml.default_flow_style = False if overrides else None
    yaml.dump(dict(overrides), out / "best.yaml")
    write_csv(out / "trials.csv", ("trial", "state", "value", *paths), rows)
    write_csv(out / "plots" / "history.csv", ("trial", "value", "best"), history)
    write_csv(
        out / "plots" / "importance.csv",
        ("parameter", "importance"),
        [(path, rounded(share)) for path, share in importance.items()],
    )
