"""`reprise advise`: what to improve first, measured: `python -m stages.tools.advise`.

Reads what prepare and build have written and `params.yaml`; writes `.reprise/advise/report.json`
and `suspects.csv`, no output of a stage. It trains the recipe with one thing changed at a time, on
folds of the train and validation rows. Test rows are never read: whoever chooses by them has none
left to judge by.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.build.folder import find_spec
from stages.build.params import BuildParams
from stages.common.config import Overrides, apply_overrides, validate
from stages.common.errors import UserError
from stages.common.files import md5, write_json
from stages.common.params import Params, read_tree, to_plain
from stages.common.yamlfile import read_yaml
from stages.features.schema import read_schema
from stages.model.model import read_spec
from stages.tools.advise.measure.arms import Incumbent
from stages.tools.advise.measure.judge import Metric
from stages.tools.advise.measure.rows import Pool, read_pool
from stages.tools.advise.measure.study import Study
from stages.tools.advise.measure.trainings import Journal
from stages.tools.advise.report import find_all, write_suspects
from stages.tools.training_tool import run_tool
from stages.train.recipe import BEST
from stages.training.device.device import choose_device
from stages.training.device.environment import compute_deterministically
from stages.training.recipe import BUILT, PREPARED, override_model

FOLDER = Path(".reprise/advise")
# The sections of params.yaml that it goes by, beside the metric.
RECIPE = ("seed", "prepare", "build", "train")
# A training as it is tried: one, whose weights are those of one seed.
ALONE = {"replicas": 1, "folds": None, "ensemble": None, "parallel": "ddp", "packed": "auto"}


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="reprise advise", description=__doc__)
    parser.add_argument("--budget-seconds", type=float, default=600)
    asked = parser.parse_args()
    run_tool("advise", lambda params: advise(params, asked.budget_seconds))


def advise(params: Params, budget_seconds: float) -> None:
    """Measure what helps, and write it. Raises UserError where nothing can be measured."""
    for needed in (PREPARED / "schema.json", BUILT / "model.json"):
        if not needed.exists():
            raise UserError(f"there is no {needed}: run 'dvc repro build' first")
    schema, tree = read_schema(PREPARED), read_tree()
    if params.part("train")["dataset"] is not None:
        message = "advise divides the prepared rows anew, and these come from train.dataset"
        raise UserError(message)
    pool = read_pool(schema, params.seed, choose_device())
    metric = Metric(tree["evaluate"]["metrics"][0], schema.target.task)
    incumbent = read_incumbent(params.part("train"), tree, pool, metric.name)
    incumbent.check({})
    recipe, _ = incumbent.recipe({})
    compute_deterministically(deterministic=recipe.deterministic)
    fingerprint = _fingerprint(tree)
    for other in FOLDER.glob("*/runs.jsonl"):
        # Of another recipe, or other rows: nothing of it is of use.
        if other.parent.name != fingerprint:
            shutil.rmtree(other.parent)
    journal = Journal(FOLDER / fingerprint)
    study = Study(incumbent, metric, journal, budget_seconds)
    if journal.outcomes:
        print(f"goes on with {len(journal.outcomes)} trainings of an earlier run")
    columns = dict(tree["prepare"].get("columns") or {})
    answer = find_all(study, columns, tree["evaluate"].get("slices"))
    write_suspects(FOLDER / "suspects.csv", study, answer.suspects)
    # The recipe that it is of, for a page that shows it beside a run.
    own = {name: to_plain(tree[name]) for name in RECIPE}
    write_json(FOLDER / "report.json", {"params": own, **answer.findings.to_json()})


def read_incumbent(
    train: Mapping[str, Any], tree: Mapping[str, Any], pool: Pool, metric: str
) -> Incumbent:
    """The recipe as it stands, with tune's best trial on top. Raises UserError.

    `train` is the section of params.yaml, `tree` the whole of it.
    """
    spec = read_spec(BUILT)
    if spec != find_spec(validate(BuildParams, to_plain(tree["build"]), at="build"), pool.schema):
        raise UserError(
            "data/build has another model than params.yaml: run 'dvc repro build' first"
        )
    best: Overrides = (read_yaml(BEST) or {}) if BEST.exists() else {}
    own = {path: value for path, value in best.items() if path.startswith("train.")}
    section = apply_overrides({**train, **ALONE}, own, "train")
    spec = override_model(spec, {k: v for k, v in best.items() if k not in own}, pool.schema)
    several = [name for name in ("replicas", "folds", "ensemble") if train[name] not in (None, 1)]
    notes = []
    if several:
        keys = " and ".join(f"train.{name}" for name in several)
        notes.append(f"Each training is one: without {keys}, which average several.")
    if best:
        notes.append(
            f"Tune's best trial lies on top of params.yaml ({', '.join(best)}): for another value "
            "of such a key, take it out of tune.space too."
        )
    is_averaged = "folds" in several or "ensemble" in several
    return Incumbent(section, spec, pool, metric, notes, is_averaged)


def _fingerprint(tree: Any) -> str:
    """A digest of all that a training here depends on."""
    files = [file for folder in (PREPARED, BUILT) for file in sorted(folder.rglob("*"))]
    files = [file for file in files if file.is_file() and "test" not in file.parts]
    files += [*sorted(Path("stages").rglob("*.py")), *([BEST] if BEST.exists() else [])]
    content = [
        to_plain({name: tree[name] for name in RECIPE}),
        to_plain(tree["evaluate"]["metrics"]),
    ]
    content += [[str(file), md5(file)] for file in files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
