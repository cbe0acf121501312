"""As much of wandb as `log_wandb.py` calls; it keeps runs in a file of the current folder."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STORE = Path("fake-wandb.json")


class Settings(dict[str, Any]):
    """As they are given."""


class Run:
    def __init__(self, given: dict[str, Any]) -> None:
        self.runs = json.loads(STORE.read_text()) if STORE.exists() else {}
        identity, online = given["id"], given["mode"] == "online"
        folder = Path(given["dir"]) / "wandb" / f"offline-run-{len(self.runs)}-{identity}"
        if not online:
            folder.mkdir(parents=True)
        # What wandb does online with resume="allow"; files know nothing of each other.
        new = {"rows": [], "summary": {}, "exits": [], "folder": str(folder)}
        if not (online and given["resume"] == "allow" and identity in self.runs):
            self.runs[identity] = new
        self.run = self.runs[identity] | {"given": given}
        self.runs[identity] = self.run
        self.step = self.run["rows"][-1][0] + 1 if self.run["rows"] else 0
        self.url = f"https://wandb.example/{identity}" if online else None
        self.settings = SimpleNamespace(sync_dir=str(folder))
        self.summary = self.run["summary"]

    def log(self, values: dict[str, float], step: int, commit: bool) -> None:  # noqa: FBT001
        assert commit
        assert step >= self.step, "wandb drops it with a warning"
        self.run["rows"].append([step, values])
        self.step = step + 1

    def finish(self, exit_code: int = 0) -> None:
        self.run["exits"].append(exit_code)
        STORE.write_text(json.dumps(self.runs))


def init(**given: Any) -> Run:
    assert isinstance(given["settings"], Settings)
    return Run(given)
