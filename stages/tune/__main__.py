"""The search for the best overrides in a search space: `python -m stages.tune`.

Reads the arrays of `data/prepare` and the model of `data/build`; writes `data/tune/best.yaml`
(overrides of `build.model.*` and `train.*`; empty when the values of `params.yaml` are best),
`trials.csv`, `search.json`, the scores of the best trials, `ensemble.json` and plots. With
`tune.trials: 0` it passes through.
"""

import shutil
from contextlib import nullcontext
from pathlib import Path

from stages.common.config import Overrides
from stages.common.params import Params
from stages.model.model import make_model
from stages.runtime.snapshot import fingerprint
from stages.runtime.stage import run_stage
from stages.training.optim.monitored_metric import monitored_metric
from stages.training.optim.preflight import check_names
from stages.training.recipe import override_model, override_train
from stages.tune.ensemble import choose_metric, keep_scores, read_scores
from stages.tune.hparams import write_hparams
from stages.tune.model_size import make_limit, make_measure
from stages.tune.params import TuneParams, check_space
from stages.tune.portfolio import read_portfolio
from stages.tune.pruners import IN_STEP
from stages.tune.results import write_ensemble, write_nothing, write_results
from stages.tune.study import search
from stages.tune.training.batch import Start, current_values, make_train_trials, read_start
from stages.tune.training.shared import check_pruner, is_shared, name_study, share_batches
from stages.tune.trials import rank


def tune(params: Params, out: Path) -> None:
    """Check the space, search, write the best trial and the trials."""
    section = params.section("tune", TuneParams)
    start = read_start(params, section.epochs)

    def check(overrides: Overrides) -> None:
        target, by_row = start.schema.target, start.schema.weight is not None
        recipe = override_train(start.train, overrides)
        spec = override_model(start.spec, overrides, start.schema)
        check_names(recipe, target.task, target.classes, lambda: make_model(spec, 0), by_row=by_row)

    check({})
    if section.trials == 0 or not section.space:
        # The space may be that of another model: nobody searches it.
        write_nothing(out, section)
        print("no trials: train takes the values of params.yaml")
        return
    watched = monitored_metric(override_train(start.train, {}))
    check_space(section, check, watched)

    portfolio: dict[str, Overrides] = {}
    current = current_values(start)
    # A grid tries its own points alone.
    if section.portfolio and section.sampler != "grid":
        task = start.schema.target.task
        portfolio = read_portfolio(start.spec.name, task, current, watched, check)
        print(f"portfolio: {len(portfolio)} recipes for {start.spec.name} and this task")
    _search(out, section, start, portfolio, watched)


def _search(
    out: Path, section: TuneParams, start: Start, portfolio: dict[str, Overrides], watched: str
) -> None:
    """Search, and write what was found."""
    check_pruner(section.pruner)
    # A search that was killed resumes; a finished one leaves nothing to resume from, so that a
    # forced rerun really searches.
    journal = Path(".reprise/tune") / f"{fingerprint('tune')}.journal"
    kept = journal.with_suffix(".scores")
    count, in_step = section.keep_scores, section.pruner in IN_STEP
    asked = section.model_size
    # Before any data are loaded: machines that help look for this one.
    shared = share_batches(name_study(journal.stem), journal) if is_shared() else nullcontext()
    with shared as train_shared:
        train_here, direction, data = make_train_trials(
            start, in_step=in_step, keep_scores=count > 0
        )
        current, sign = current_values(start), 1 if direction == "minimize" else -1
        measure = None if asked is None else make_measure(start, data, asked)
        fits = make_limit(measure, None if asked is None else asked.most)
        # Trial 0 is trained whatever its size; above the limit it is no member of an ensemble.
        first = 0 if count == 0 or fits({}) else 1
        found = search(
            section,
            current,
            direction,
            start.seed,
            journal,
            train_shared or train_here,
            portfolio,
            lambda trials, results: keep_scores(kept, count, sign, trials[first:], results),
            fits,
        )
    sizes = {} if measure is None else {t.number: measure(t.overrides) for t in found.trials}
    write_results(out, found, section, current, sizes)
    task = start.schema.target.task
    metric = choose_metric(override_train(start.train, {}), task, watched)
    overrides = {trial.number: trial.overrides for trial in found.trials}
    write_ensemble(out, read_scores(kept, rank(found)), overrides, data, metric, start.seed)
    paths = dict.fromkeys([*section.space, *(p for t in found.trials for p in t.overrides)])
    write_hparams(journal.stem, found, list(paths), current)
    journal.unlink()
    shutil.rmtree(kept, ignore_errors=True)


if __name__ == "__main__":
    run_stage("tune", tune)
