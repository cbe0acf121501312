"""One of several processes that train without dividing the weights."""

from typing import Any

import torch
import torch.distributed as dist

from stages.train.checkpoints.checkpoint import copied, load_state_dict, rank_state_dict, state_dict
from stages.training.data import source
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.state import Result, State
from tests.support.samples import train_params
from tests.support.training.models import AVERAGED, DROPPED, SPECS, Draws, figures, named, pixels

# What is trained by several processes and by one. A line search carries rounding on faster.
SEARCH = {"name": "LBFGS", "lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"}
TOGETHER: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        kind: (kind, AVERAGED | {name: DROPPED[name] for name in ("batch_size", "optimizer")})
        for kind in (*SPECS, "smooth")
    },
    "LBFGS": ("mlp", {"batch_size": 22, "optimizer": SEARCH, "epochs": 3}),
    # Two passes of a step, with noise and dropout, and what is logged.
    "consistency": (
        "mlp",
        {"batch_size": 22, "objective": {"name": "consistency", "weight": 3.0, "noise": 0.5}},
    ),
}


def main(
    rank: int, size: int, epochs: int, num_rows: int, dtype: str, store: str, out: str
) -> None:
    """Train each model with the others, whole and resumed.

    The first leaves in `out` the weights of all models of `TOGETHER` and what epochs measured.
    """
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=size)
    # Several rounds of validation: in the last one all have rows, and not all as many.
    source.MAX_ROWS = 8
    world, results = World(rank, size), {}
    for name, (kind, changes) in TOGETHER.items():
        model = named(kind).to(getattr(torch, dtype))
        params = train_params(**({"epochs": epochs} | changes), micro_batch_size=5)
        data = pixels(kind, num_rows, getattr(torch, dtype))
        done = train(model, data, params, 9, world, lambda *_: None)
        results[name] = [figures(epoch) for epoch in done.history], model.state_dict()
    for kind in ("cnn", "draws"):
        resume(kind, world)
    if rank == 0:
        torch.save(results, out)
    dist.destroy_process_group()


def resume(kind: str, world: World) -> None:
    """Train whole, then from the first step on: to the same bits, in all processes."""
    kept: list[Any] = []
    ends: list[Result] = []

    def keep(state: State) -> None:
        kept.append(copied(state_dict(state, world.gather(rank_state_dict(state)))))

    def restore(state: State) -> None:
        if kept:
            load_state_dict(kept[0], world, state)

    for _ in range(2):
        model = named(kind).double()
        params = train_params(**{**DROPPED, "epochs": 2})
        ends.append(train(model, pixels(kind), params, 9, world, lambda *_: None, restore, keep))
    whole, rest = ends
    assert rest.history == whole.history
    assert all(torch.equal(rest.weights[name], whole.weights[name]) for name in whole.weights)
    # Whatever each has drawn, all have the same model.
    weights = [weight.tolist() for weight in whole.weights.values()]
    assert world.gather(weights) == [weights] * world.size
    if isinstance(model, Draws):
        # Five steps of three numbers, all others in each process.
        drawn = [number for mine in world.gather(model.drawn[-15:]) for number in mine]
        assert len(set(drawn)) == 15 * world.size
