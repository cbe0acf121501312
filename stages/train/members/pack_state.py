"""The state of a pack between two steps as tensors and plain values, for a checkpoint."""

from dataclasses import astuple
from typing import Any

from stages.training.packed.pack import Pack
from stages.training.state import Epoch, EpochTotals, State


def pack_state(pack: Pack) -> dict[str, Any]:
    """All that the next step depends on. `position` are the epochs and the steps behind it."""
    return {
        "position": [pack.epoch - 1, pack.step],
        "numbers": list(pack.numbers),
        "weights": [matrix.detach() for matrix in pack.weights],
        "kept": pack.kept,
        "average": pack.average,
        "moments": pack.moments,
        "counts": list(pack.counts),
        "members": [_member_state(assembly.state) for assembly in pack.assemblies],
    }


def load_pack_state(saved: dict[str, Any], pack: Pack) -> None:
    """Put everything back as it was when `pack_state` gave `saved`."""
    done, pack.step = saved["position"]
    pack.epoch = done + 1
    pack.numbers = saved["numbers"]
    pack.weights, pack.kept = saved["weights"], saved["kept"]
    pack.average, pack.moments = saved["average"], saved["moments"]
    pack.counts = saved["counts"]
    pack.choose_constants()
    for assembly, own in zip(pack.assemblies, saved["members"], strict=True):
        _load_member(own, assembly.state)


def _member_state(state: State) -> dict[str, Any]:
    kept = state.result.best_epoch
    return {
        "history": [astuple(epoch) for epoch in state.result.history],
        "kept": None if kept is None else kept.epoch,
        # Of a member that has left; those of the others are rows.
        "kept_weights": state.result.weights,
        # The rates that it has come to, without a weight's numbers.
        "groups": [
            {name: value for name, value in group.items() if name != "params"}
            for group in state.optimizer.param_groups
        ],
        "schedule": state.schedule.state_dict(),
        "sums": {name: v for name, v in vars(state.totals).items() if name != "logged"},
    }


def _load_member(saved: dict[str, Any], state: State) -> None:
    result = state.result
    result.history += [Epoch(*row) for row in saved["history"]]
    result.best_epoch = None if saved["kept"] is None else result.history[saved["kept"] - 1]
    result.weights = saved["kept_weights"]
    for group, values in zip(state.optimizer.param_groups, saved["groups"], strict=True):
        group.update(values)
    state.schedule.load_state_dict(saved["schedule"])
    state.totals = EpochTotals(**saved["sums"])
