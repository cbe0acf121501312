"""The inputs of a stage that is sent to a work pool: who carries each, and the key of them all."""

import hashlib
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.git import git
from pipeline.elsewhere.refs import KEY_LENGTH
from pipeline.plan.forecast import RESTORABLE, STALE, Forecast
from pipeline.plan.plan import active_graph, describe, in_order, named
from pipeline.plan.run_key import has_key, is_params, is_plain, run_key
from pipeline.plan.working_tree import Content
from pipeline.scheduled.workspace import WORKSPACES
from stages.common.errors import UserError


@dataclass(frozen=True)
class Inputs:
    """The dependencies of a stage, and who carries each.

    `stage` is DVC's; `state` what `dvc repro` would do; `hashes` of its dependencies and values
    of its `params`, both by path.
    DVC's remote carries the outputs `cached`, git the paths `plain`.
    """

    stage: Any
    state: str
    hashes: Mapping[str, str]
    params: Mapping[str, Mapping[str, Any]]
    cached: tuple[Any, ...]
    plain: tuple[str, ...]
    run_key: str | None

    @property
    def lock(self) -> Path:
        """The lock file that has the stage's entry."""
        return Path(self.stage.relpath).with_suffix(".lock")


def find_stage(repo: Any, name: str) -> Any:
    """DVC's stage of that name. Raises UserError where there is none."""
    found = [stage for stage in repo.index.stages if stage.addressing == name]
    return found[0] if found else named([name], repo.index.stages)[0]


def read_inputs(repo: Any, name: str) -> Inputs:
    """The dependencies of the stage `name` now; outputs that are not here count with `dvc.lock`.

    Raises UserError where what is upstream of it is not up to date.
    """
    stage = find_stage(repo, name)
    forecast = Forecast(repo, lock_only=True, merging=True)
    for each in in_order(repo, active_graph(repo), [name]):
        expected = forecast.judge(each)
    found, reasons = expected.inputs, list(expected.reasons)
    unknown = [d for d in stage.deps if d.def_path not in found and (is_plain(d) or is_params(d))]
    if unknown:
        why = [describe(reason) for reason in reasons if reason.kind in ("upstream", "file")]
        names = ", ".join(str(dep) for dep in unknown)
        raise UserError(
            f"'{name}' can't be sent to a work pool: nobody knows yet what {names} will hold"
            + "".join(f"\n  {line}" for line in why)
        )
    restored = forecast.restorable(stage, found, reasons)
    state = STALE if restored is None else RESTORABLE
    cached, plain = _divide(forecast, stage)
    whole = has_key(stage) and all(dep.def_path in found for dep in stage.deps)
    key = run_key(stage, found) if whole else None
    hashes, params = _hashes(stage, found), _params(stage, found)
    return Inputs(stage, state, hashes, params, tuple(cached), tuple(plain), key)


def _divide(forecast: Forecast, stage: Any) -> tuple[list[Any], list[str]]:
    """The outputs that DVC's remote carries, and the paths that git does."""
    cached: dict[str, Any] = {}
    plain = [str(stage.relpath), str(Path(stage.relpath).with_suffix(".lock")), ".dvcignore"]
    for dep in stage.deps:
        outs = forecast.producers_of(dep.fs_path) if dep.protocol == "local" else []
        for out in outs:
            if out.use_cache:
                cached[out.fs_path] = out
            if out.stage.is_data_source:
                plain.append(str(out.stage.relpath))
        inside = any(dep.fs_path == o.fs_path or o.fs.isin(dep.fs_path, o.fs_path) for o in outs)
        if dep.protocol == "local" and not (inside and all(o.use_cache for o in outs)):
            plain.append(str(dep))
    return list(cached.values()), list(dict.fromkeys(plain))


def _hashes(stage: Any, found: Mapping[str, Content]) -> dict[str, str]:
    return {
        dep.def_path: str(found[dep.def_path].hash.value)
        for dep in stage.deps
        if dep.def_path in found and not is_params(dep)
    }


def _params(stage: Any, found: Mapping[str, Content]) -> dict[str, dict[str, Any]]:
    """The values of its parameters, as `dvc.lock` will have them."""
    return {
        dep.def_path: dict(found[dep.def_path].hash.value or {})
        for dep in stage.deps
        if is_params(dep) and dep.def_path in found
    }


def name_run(inputs: Inputs, commit: str, origin: str, pool: str, sender: str) -> str:
    """The key of a run: one sender has the same for one state at one origin and one pool."""
    what = inputs.run_key or commit
    # What lies in object storage is in no commit.
    apart = [str(dep.def_path) for dep in inputs.stage.deps if dep.protocol != "local"]
    stored = [f"{path} {inputs.hashes.get(path)}" for path in apart]
    text = "\0".join([inputs.stage.addressing, what, origin, pool, sender, *stored])
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def name_clone(folder: Path) -> str:
    """A name that no other clone has: two clones must not end or take each other's runs.

    The clone of a scheduled run lives no longer than that: it goes by the name of the repository
    that it was made from.
    """
    top = Path(git(folder, "rev-parse", "--show-toplevel"))
    if top.parent.parts[-len(WORKSPACES.parts) :] == WORKSPACES.parts:
        folder = top.parents[len(WORKSPACES.parts)]
    own = Path(git(folder, "rev-parse", "--absolute-git-dir"))
    path, new = own / "reprise-clone", own / f"reprise-{uuid.uuid4().hex}"
    if not path.exists():
        # Whole, and one of two that are written at once.
        new.write_text(uuid.uuid4().hex, encoding="utf-8")
        with suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
    return path.read_text(encoding="utf-8")
