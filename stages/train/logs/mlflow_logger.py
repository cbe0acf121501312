"""A training as a run of MLflow: `MLFLOW_TRACKING_URI`, else a file of SQLite in `.reprise`.

`MLFLOW_EXPERIMENT_NAME` names the experiment, else it is 'reprise'.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stages.train.logs.logger import BrokenOffError, Log, Run, Values, without_secrets

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STORE = Path(".reprise/mlflow.db")
EXPERIMENT = "reprise"
TOKEN = "reprise.training"  # noqa: S105  # the name of a tag
# In one request, as its servers take them.
MAX_PARAMS = 100
MAX_METRICS = 1000
# Short epochs share a request: a commit of the database takes longer than they do.
SECONDS_BETWEEN = 1.0
STATES = {"failed": "FAILED", "killed": "KILLED"}


@contextmanager
def open_mlflow(run: Run) -> Iterator[Log]:
    """Log to the run of `run.token`, a new one the first time; a point that it has stays alone.

    Raises whatever MLflow raises.
    """
    # It would tell its makers of its use, and say what it does with the database.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        STORE.parent.mkdir(exist_ok=True)
        uri = f"sqlite:///{STORE.absolute()}"
    client = MlflowClient(tracking_uri=uri)
    run_id, is_new = _find_or_create(client, run)
    print(f"mlflow: run {run.name} ({run_id}) at {without_secrets(uri)}", flush=True)
    params = [Param(name, str(value)) for name, value in run.chosen.items()]
    for start in range(0, len(params), MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS])
    last: dict[str, int] = {}
    waiting: list[Metric] = []
    sent_at = -SECONDS_BETWEEN

    def last_step(name: str) -> int:
        if name not in last:
            points = [] if is_new else client.get_metric_history(run_id, name)
            last[name] = max((point.step for point in points), default=-1)
        return last[name]

    def send() -> None:
        nonlocal sent_at
        for start in range(0, len(waiting), MAX_METRICS):
            client.log_batch(run_id, waiting[start : start + MAX_METRICS])
        waiting.clear()
        sent_at = time.monotonic()

    def log(step: int, values: Values) -> None:
        now = int(time.time() * 1000)
        fresh = {name: value for name, value in values.items() if step > last_step(name)}
        waiting.extend(Metric(name, value, now, step) for name, value in fresh.items())
        last.update(dict.fromkeys(fresh, step))
        if time.monotonic() - sent_at >= SECONDS_BETWEEN:
            send()

    try:
        yield log
    except BrokenOffError as error:
        send()
        client.set_terminated(run_id, STATES[error.end])
        raise
    send()
    client.set_terminated(run_id)


def _find_or_create(client: "MlflowClient", run: Run) -> tuple[str, bool]:
    """The id of the run, and whether it is a new one."""
    experiment = _experiment(client)
    assert re.fullmatch(r"\w+", run.token)
    found = client.search_runs([experiment], f"tags.`{TOKEN}` = '{run.token}'", max_results=1)
    if found:
        run_id: str = found[0].info.run_id
        client.update_run(run_id, status="RUNNING")
        return run_id, False
    made = client.create_run(experiment, tags={TOKEN: run.token}, run_name=run.name)
    return made.info.run_id, True


def _experiment(client: "MlflowClient") -> str:
    """The id of the experiment, which is made the first time; another training may be faster."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            made: str = client.create_experiment(name)
            return made
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    found: str = experiment.experiment_id
    return found
