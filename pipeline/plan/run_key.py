"""The key under which DVC finds a stage's outputs in its run cache."""

from collections.abc import Mapping
from typing import Any

from pipeline.plan.working_tree import Content


def run_key(stage: Any, found: Mapping[str, Content]) -> str:
    """The run-cache's key of `stage` with the inputs `found`."""
    from dvc.stage.cache import _get_cache_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    kept = [(dep, dep.hash_info, dep.meta) for dep in stage.deps]
    try:
        for dep in stage.deps:
            content = found[dep.def_path]
            dep.hash_info, dep.meta = content.hash, content.meta or dep.meta
        key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
    finally:
        for dep, hash_info, meta in kept:
            dep.hash_info, dep.meta = hash_info, meta
    assert isinstance(key, str)
    return key


def has_key(stage: Any) -> bool:
    """Check whether DVC's run-cache takes this stage at all."""
    return bool(
        stage.cmd
        and stage.deps
        and stage.outs
        and not stage.frozen
        and not stage.always_changed
        and all(dep.protocol == "local" and dep.def_path for dep in stage.deps)
        and all(o.protocol == "local" and not o.persist and o.is_in_repo for o in stage.outs)
    )


def is_params(dep: Any) -> bool:
    """Check whether a dependency is keys of a file of parameters."""
    from dvc.dependency import ParamsDependency

    return isinstance(dep, ParamsDependency)


def is_plain(dep: Any) -> bool:
    """Check whether a dependency is a file or folder of this machine."""
    from dvc.dependency import Dependency

    return type(dep) is Dependency and dep.protocol == "local"


def params_hash(values: dict[str, Any]) -> Any:
    """The hash of a params dependency with these values."""
    from dvc_data.hashfile.hash_info import HashInfo

    # DVC keeps the values themselves where others have a hash.
    return HashInfo("params", values)  # type: ignore[arg-type]
