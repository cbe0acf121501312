"""`train.parallel: fsdp`: every weight is sharded over the processes (PyTorch's FSDP2).

A process keeps its part of each weight, of its gradient, of what the optimizer remembers and of
the averages. A block's weights are gathered when it computes and let go after it, so a model may
be larger than a device. The optimizer works on the parts as on any other tensors; that is why one
that looks at whole matrices is refused (`compatibility.py`).

Gathering takes all processes: each calls the model equally often, and in the same order. Each
makes the whole model in its host's memory first, and then keeps its part of it.
torch's own modules for this take a second to import, so they are imported where they are needed.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from stages.common.errors import Problem, UserError
from stages.training.device.distributed import World
from stages.training.params import TrainParams

# A block of a list of blocks is gathered by itself from so many weights on: for fewer ones the
# messages would cost more than the memory is worth.
BLOCK_WEIGHTS = 1_000_000
# They hold modules or weights for others to call.
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def shards_weights(params: TrainParams, world: World) -> bool:
    """Check whether the processes of `world` shard the weights; a single one keeps them all."""
    return params.parallel == "fsdp" and world.size > 1


def is_sharded(model: nn.Module) -> bool:
    """Check whether this process has only its part of the weights."""
    return any(hasattr(weight, "to_local") for weight in model.parameters())


def local(values: Tensor) -> Tensor:
    """This process's part of sharded values, which shares their memory; others as they are."""
    part: Tensor = values.to_local() if hasattr(values, "to_local") else values
    return part.detach()


def whole(values: Tensor) -> Tensor:
    """Sharded values put together, for which every process must come here; others as they are."""
    full: Tensor = values.full_tensor() if hasattr(values, "full_tensor") else values
    return full.detach()


def shard_model(model: nn.Module, device: torch.device, world: World) -> None:
    """Shard the weights of `model`, in place, and move each part to the device.

    Raises UserError for weights of no dimension, which can't be sharded.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if names := [name for name, weight in model.named_parameters() if weight.ndim == 0]:
        message = f"fsdp shards weights by their first dimension, which {names[0]} has not"
        raise UserError(Problem(message, "train.parallel", "fsdp", ("ddp",)))
    mesh = init_device_mesh(device.type, (world.size,))
    for module in [*find_blocks(model), model]:
        # The root as well: else its weights would stay gathered from validation on.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    if any(True for _ in model.buffers()):
        model.register_forward_pre_hook(_share_buffers)


def _share_buffers(model: nn.Module, _: object) -> None:
    """Give all processes the first one's buffers, as DistributedDataParallel does."""
    if model.training:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The modules whose weights are gathered by themselves, the inner ones first.

    That is each entry of a list of modules that has more than `BLOCK_WEIGHTS` weights, of which
    none is in an inner block, and none is used outside of it.
    """
    taken: set[nn.Parameter] = set()
    everywhere = _count_uses(model)
    blocks = []
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    # Modules come before those inside them.
    for module in reversed([child for parent in lists for child in parent]):
        uses = _count_uses(module)
        own = [weight for weight in uses if weight not in taken]
        is_called = not isinstance(module, CONTAINERS)
        alone = all(everywhere[weight] == count for weight, count in uses.items())
        if is_called and alone and sum(weight.numel() for weight in own) > BLOCK_WEIGHTS:
            blocks.append(module)
            taken.update(own)
    return blocks


def _count_uses(model: nn.Module) -> dict[nn.Parameter, int]:
    """The number of places in `model` that hold each weight."""
    uses: dict[nn.Parameter, int] = {}
    for _, weight in model.named_parameters(remove_duplicate=False):
        uses[weight] = uses.get(weight, 0) + 1
    return uses


def keep_parts(weights: list[nn.Parameter], optimizer: Optimizer) -> list[nn.Parameter]:
    """Let a new optimizer move this process's parts of the weights, which are returned.

    They share the weights' memory and are handed their gradients as the backward pass has them:
    added up, over several passes.
    """
    parts: dict[Tensor, nn.Parameter] = {}
    for weight in weights:
        parts[weight] = nn.Parameter(local(weight))
        hand_over = _hand_over(parts[weight])
        weight.register_post_accumulate_grad_hook(hand_over)  # type: ignore[no-untyped-call]
    for group in optimizer.param_groups:
        group["params"] = [parts[weight] for weight in group["params"]]
    # Some remember something of every weight from the start on.
    for whole_weight, kept in list(optimizer.state.items()):
        del optimizer.state[whole_weight]
        optimizer.state[parts[whole_weight]] = {
            name: local(value) if isinstance(value, Tensor) else value
            for name, value in kept.items()
        }
    return list(parts.values())


def _hand_over(part: Tensor) -> Callable[[Tensor], None]:
    def move(weight: Tensor) -> None:
        assert weight.grad is not None
        gradient = local(weight.grad)
        if part.grad is None:
            part.grad = gradient
        else:
            part.grad += gradient
        weight.grad = None

    return move


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of the gradients, of which each process has its part."""
    norm = nn.utils.get_total_norm(gradients)
    # In float64, whose range holds the square of any float32.
    square = norm.double().square()
    dist.all_reduce(square)
    return square.sqrt().to(norm.dtype)


def share_scaler(scaler: GradScaler, device: torch.device) -> GradScaler:
    """The same factor on losses in float16, in which the processes agree."""
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    scale, group = scaler.get_scale(), dist.group.WORLD
    return ShardedGradScaler(device.type, init_scale=scale, process_group=group)


def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set all weights and buffers; of sharded ones, this process's parts."""
    if not is_sharded(model):
        model.load_state_dict(weights)
        return
    with torch.no_grad():
        for name, values in model.state_dict().items():
            local(values).copy_(weights[name])


def gather_weights(model: nn.Module, weights: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """`weights`, the parts that the processes have kept of `model`'s, put together one by one.

    They are in the host's memory of the first process of each machine; the others get none.
    `model` takes them.
    """
    put_weights(model, weights)
    gathered = {}
    for name, values in model.state_dict().items():
        full = whole(values)
        if world.is_local_main_process:
            gathered[name] = full.cpu()
    return gathered
