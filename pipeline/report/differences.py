"""The differences between two revisions' parameters and recorded inputs of the stages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.page.markup import Code
from stages.common.params import PARAMS, VERSIONS

SEED = "seed"


@dataclass(frozen=True)
class StageChange:
    """A stage whose entry in `dvc.lock` differs, and in what: keys and paths are `Code`."""

    stage: str
    why: tuple[str, ...]


def find_stage_changes(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[StageChange, ...]:
    """The stages whose recorded inputs differ, in the order of `dvc.lock`, and why."""
    changes = []
    for name, entry in after.items():
        old = before.get(name)
        if old is None:
            changes.append(StageChange(name, ("new",)))
            continue
        why: list[str] = [] if old.get("cmd") == entry.get("cmd") else ["its command"]
        sides = [flat(side.get("params", {}).get(PARAMS.name, {})) for side in (old, entry)]
        why += map(Code, differing(*sides))
        sides = [flat(side.get("params", {}).get(str(VERSIONS), {})) for side in (old, entry)]
        why += [
            f"{k} {as_text(was)} → {as_text(now)}" for k, (was, now) in differing(*sides).items()
        ]
        hashes = [{dep["path"]: dep.get("md5") for dep in e.get("deps", [])} for e in (old, entry)]
        why += map(Code, differing(hashes[0], hashes[1]))
        if why:
            changes.append(StageChange(name, tuple(why)))
    changes += [StageChange(name, ("removed",)) for name in before if name not in after]
    return tuple(changes)


def is_seed_alone(params: Mapping[str, Any], changes: Sequence[StageChange]) -> bool:
    """Check that `seed` is all that differs, apart from what the stages wrote with it."""
    outputs = tuple(f"data/{change.stage}/" for change in changes)
    why = {reason for change in changes for reason in change.why if not reason.startswith(outputs)}
    return set(params) == {SEED} and why <= {SEED}


def changed_params(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The parameters that differ, by their dotted keys: (before, after)."""
    return differing(flat(old), flat(new))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by their dotted keys."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values that differ: (before, after) by key, None where a side has none."""
    return {
        key: (old.get(key), new.get(key))
        for key in {**old, **new}
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    }


def as_text(value: object) -> str:
    """A value of `params.yaml` or a lock, as YAML would say it on one line."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False, default=str)
