"""A stage works on inputs that DVC knows, and that stay what they are until it has ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stages.common.errors import UserError
from stages.common.params import PARAMS, Params, declared_outs, read_params
from stages.runtime.audit import audit_process
from stages.runtime.outside import check_zoo
from stages.runtime.snapshot import (
    Snapshot,
    find_input_change,
    find_input_changes,
    read_snapshot,
    remove_snapshot,
    take_snapshot,
    write_snapshot,
)


def begin(stage: str) -> tuple[Snapshot, Params]:
    """The inputs of `stage` as they are now, and its parameters, which are those of the inputs."""
    while True:
        snapshot, params = take_snapshot(stage), read_params(stage)
        # Else `params.yaml` was edited between the two: another look.
        if params.matches(snapshot.params[str(PARAMS)]):
            return snapshot, params


@contextmanager
def watch(snapshot: Snapshot) -> Iterator[None]:
    """End the stage inside when it opens what is not declared, or what has changed since it began.

    Raises UserError, whatever a library has made of it.
    """
    audit = audit_process()
    write_snapshot(snapshot)
    try:
        follow(snapshot)
        try:
            yield
        except Exception:
            audit.stop_if_refused()
            raise
        audit.stop_if_refused()
        check_zoo()
    finally:
        audit.rest()
        remove_snapshot(snapshot.stage)


def join(stage: str) -> Params:
    """The parameters for another process of the running `stage`, which is watched from now on.

    Raises UserError when they are no longer those that the stage began with.
    """
    snapshot, params = read_snapshot(stage), read_params(stage)
    if snapshot is None:
        # Started by hand: there is no stage to end.
        audit_process().rest()
        return params
    follow(snapshot)
    if not params.matches(snapshot.params[str(PARAMS)]):
        changes = find_input_changes(snapshot, objects=False)
        raise UserError(*(change.message for change in changes))
    return params


def follow(snapshot: Snapshot) -> None:
    """Watch this process from now on, as the stage of the snapshot is watched."""
    declared = _list_declared(snapshot)
    audit_process().start(snapshot.stage, declared, partial(find_input_change, snapshot))


def _list_declared(snapshot: Snapshot) -> list[Path]:
    return [*map(Path, snapshot.deps), *declared_outs(snapshot.stage)]
