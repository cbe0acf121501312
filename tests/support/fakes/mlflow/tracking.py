"""A client whose server is a file; `FAKE_FAILS_AT` and `FAKE_HANGS` say when it is gone."""

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

STORE = Path("fake-mlflow.json")


class MlflowClient:
    def __init__(self, tracking_uri: str) -> None:
        self.uri = tracking_uri
        empty: dict[str, Any] = {"uris": [], "experiments": {}, "runs": {}}
        self.store = json.loads(STORE.read_text()) if STORE.exists() else empty
        self.store["uris"].append(tracking_uri)

    def _save(self) -> None:
        STORE.write_text(json.dumps(self.store))

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        found = self.store["experiments"].get(name)
        return None if found is None else SimpleNamespace(experiment_id=found)

    def create_experiment(self, name: str) -> str:
        if name in self.store["experiments"]:
            raise MlflowException("RESOURCE_ALREADY_EXISTS")
        self.store["experiments"][name] = "1"
        return "1"

    def search_runs(self, experiments: list[str], text: str, max_results: int) -> list[Any]:
        asked = re.fullmatch(r"tags\.`([\w.]+)` = '(\w+)'", text)
        assert asked is not None
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=run_id))
            for run_id, run in self.store["runs"].items()
            if run["tags"].get(asked[1]) == asked[2] and run["experiment"] in experiments
        ][:max_results]

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        run_id = f"run{len(self.store['runs'])}"
        new = {"name": run_name, "tags": tags, "params": {}, "points": [], "experiment": experiment}
        self.store["runs"][run_id] = {**new, "states": ["RUNNING"]}
        self._save()
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, status: str) -> None:
        self.store["runs"][run_id]["states"].append(status)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000
        assert len(params) <= 100
        if os.environ.get("FAKE_HANGS") == "at once":
            time.sleep(60)
        elif os.environ.get("FAKE_HANGS") == "at exit":
            # Python waits for the threads of a pool.
            ThreadPoolExecutor().submit(time.sleep, 60)
        fails_at = int(os.environ.get("FAKE_FAILS_AT", "1000"))
        if any(metric.step >= fails_at for metric in metrics):
            raise MlflowException(f"no route to {self.uri} with {os.environ['WANDB_API_KEY']}")
        assert all(isinstance(param, Param) for param in params)
        self.store["runs"][run_id]["params"] |= dict(params)
        points = [(m.key, m.step, m.value) for m in metrics if isinstance(m, Metric)]
        self.store["runs"][run_id]["points"] += points
        self._save()

    def get_metric_history(self, run_id: str, name: str) -> list[Metric]:
        points = self.store["runs"][run_id]["points"]
        return [Metric(key, value, 0, step) for key, step, value in points if key == name]

    def set_terminated(self, run_id: str, status: str = "FINISHED") -> None:
        self.store["runs"][run_id]["states"].append(status)
        self._save()
