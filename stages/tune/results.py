"""The outputs of a search: the best trial, a table of the trials, the data of the plots."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ruamel.yaml import YAML

from stages.common.config import Overrides
from stages.common.files import rounded, write_csv, write_json
from stages.tune.params import TuneParams
from stages.tune.space import make_distributions
from stages.tune.trials import Search, best_trial


def write_nothing(out: Path) -> None:
    """The outputs of a search without trials."""
    _write(out, {}, {}, (), (), {}, ())


def write_results(out: Path, search: Search, params: TuneParams, current: Overrides) -> None:
    """`best.yaml`, `trials.csv`, `search.json` and the plots of a finished search.

    Raises UserError when no trial came to its end.
    """
    paths = list(params.space)
    rows: list[Sequence[object]] = []
    history: list[Sequence[object]] = []
    best: float | None = None
    better = min if search.sign == 1 else max
    for trial in search.trials:
        tried = {**current, **trial.overrides}
        value = "" if trial.value is None else repr(trial.value)
        values = [tried.get(path, "") for path in paths]
        rows.append((trial.number, trial.end, value, len(trial.values), trial.origin, *values))
        if trial.value is not None:
            best = trial.value if best is None else better(best, trial.value)
            history.append((trial.number, rounded(trial.value), rounded(best)))
    first = best_trial(search)
    facts = {
        "reason": search.reason,
        "sampler": search.sampler,
        "trials": dict(sorted(Counter(trial.end for trial in search.trials).items())),
        "epochs": sum(len(trial.values) for trial in search.trials),
        "best": {"trial": first.number, "origin": first.origin, "value": first.value},
    }
    _write(out, first.overrides, facts, rows, history, importances(search, params), paths)
    shown = ", ".join(f"{path} {value}" for path, value in first.overrides.items())
    print(f"best: {first.value:.5f} with {shown or 'the values of params.yaml'}")


def importances(search: Search, params: TuneParams) -> dict[str, float]:
    """The share of the result that each parameter explains, most first.

    Of the complete trials in the space; empty with too few of them.
    """
    complete = [t for t in search.trials if t.value is not None and t.suggested is not None]
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    # Seconds to import: after the search, and not at all when there is none.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    distributions = make_distributions(params)
    study = optuna.create_study(direction=search.direction)
    for trial in complete:
        suggested = trial.suggested or {}
        study.add_trial(
            optuna.create_trial(
                state=TrialState.COMPLETE,
                value=trial.value,
                params=suggested,
                distributions={path: distributions[path] for path in suggested},
            )
        )
    return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))


def _write(
    out: Path,
    overrides: Mapping[str, Any],
    facts: Mapping[str, Any],
    rows: Sequence[Sequence[object]],
    history: Sequence[Sequence[object]],
    importance: Mapping[str, float],
    paths: Sequence[str],
) -> None:
    yaml = YAML()
    yaml.default_flow_style = False if overrides else None
    yaml.dump(dict(overrides), out / "best.yaml")
    write_json(out / "search.json", facts)
    heads = ("trial", "state", "value", "epochs", "origin")
    write_csv(out / "trials.csv", (*heads, *paths), rows)
    write_csv(out / "plots" / "history.csv", ("trial", "value", "best"), history)
    write_csv(
        out / "plots" / "importance.csv",
        ("parameter", "importance"),
        [(path, rounded(share)) for path, share in importance.items()],
    )
