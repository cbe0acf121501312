"""Recipes and models that can't be trained in a pack, each with the reason in words."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.common.errors import shorten
from stages.model.dropout import Dropout
from stages.training.data.source import TensorSource
from stages.training.device.rng import put_generators, read_generators
from stages.training.optim.registry import resolve
from stages.training.packed.masks import make_ones
from stages.training.packed.optimizer import NUM_MOMENTS
from stages.training.packed.pack import Member, Pack
from stages.training.params import TrainParams
from stages.training.step.buffer_snapshot import find_buffers

CPU = torch.device("cpu")
# Rows that a pack is tried with.
NUM_ROWS = 2


def why_not_recipe(params: TrainParams, device: str, num_processes: int) -> str | None:
    """The reason why a recipe can't be trained in a pack on this machine; None: its keys allow it.

    `device` is the kind of the devices. Raises UserError for an optimizer that there is not.
    """
    optimizer_class, arguments = resolve("optimizer", params.optimizer)
    known = sorted(each.__name__ for each in NUM_MOMENTS)
    optimizer = f"the optimizer is {params.optimizer.name}, and not {', '.join(known)}"
    reasons = {
        f"packs are proven on a CPU alone, and this is {device}": device != "cpu",
        "each training has several processes": num_processes > 1,
        f"the objective is {params.objective.name}": params.objective.name != "supervised",
        "train.swa averages weights": params.swa is not None,
        "train.micro_batch_size divides batches": params.micro_batch_size is not None,
        "the rows come from a dataset of one's own": params.dataset is not None,
        f"train.precision is {params.precision}": params.precision not in ("auto", "fp32"),
        "train.compile is true": params.compile is True,
        "train.channels_last is true": params.channels_last is True,
        optimizer: optimizer_class not in NUM_MOMENTS,
        "the optimizer has amsgrad": bool(arguments.get("amsgrad")),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def why_not_members(members: Sequence[Member]) -> str | None:
    """The reason why `members` can't be one pack, by what is seen without a step; None: none is."""
    for member in members:
        device = member.data.train.target.device.type
        if reason := why_not_recipe(member.params, device, num_processes=1):
            return reason
        if not all(
            isinstance(s, TensorSource) for s in (member.data.train, member.data.validation)
        ):
            return "the rows are read from disk"
        if names := list(dict.fromkeys(name for _, name in find_buffers(member.model))):
            return (
                "the model has buffers that a step may move, as a batch norm's are: "
                f"{shorten(', '.join(names))}; one that no step moves is registered by "
                "register_constant of stages/model/layers.py"
            )
    if len({form_of(member) for member in members}) > 1:
        return "they differ in more than numbers that change no shape"
    if not _attributes_agree([member.model for member in members]):
        return "what the models keep beside weights and buffers differs"
    return None


def group_by_form(forms: Sequence[Hashable]) -> list[list[int]]:
    """The places of equal forms together, in the order of the first of each."""
    of_form: dict[Hashable, list[int]] = {}
    for place, form in enumerate(forms):
        of_form.setdefault(form, []).append(place)
    return list(of_form.values())


def form_of(member: Member) -> tuple[object, ...]:
    """All that the members of one pack have in common: others belong into other packs."""
    source = member.data.train
    rows, _ = source.take(slice(0, 1))
    return (
        *form_of_recipe(member.model, member.params),
        tuple((kind, values.shape, values.dtype) for kind, values in rows.items()),
        source.weight is None,
        member.data.task,
    )


def form_of_recipe(model: nn.Module, params: TrainParams) -> tuple[object, ...]:
    """The part of `form_of` that is not of the rows."""
    rates = [None, *(group.lr for group in params.groups or ())]
    # Groups of equal rates are one group of the optimizer.
    groups = [(g.match, g.frozen, rates.index(g.lr)) for g in params.groups or ()]
    nesterov = params.optimizer.arguments.get("nesterov")
    return (
        tuple((name, type(module)) for name, module in model.named_modules()),
        tuple((n, w.shape, w.requires_grad) for n, w in model.named_parameters()),
        params.batch_size,
        params.optimizer.name,
        bool(nesterov),
        tuple(groups),
    )


def why_no_step(pack: Pack) -> str | None:
    """The reason why `vmap` can't take a step of a pack that has not begun; None: it can.

    It tries one with the weights as they are, and leaves all as it was.
    """
    sample = [member.data.train.take(slice(0, NUM_ROWS))[0] for member in pack.members]
    batch = {kind: torch.stack([rows[kind] for rows in sample]) for kind in sample[0]}
    num_rows = len(next(iter(sample[0].values())))
    masks = make_ones(pack.calls, len(pack.members), num_rows)
    named = pack.layout.name([matrix.detach().requires_grad_() for matrix in pack.weights])
    before = read_generators(CPU)
    pack.template.train()
    try:
        with warnings.catch_warnings():
            # What torch has no rule for it does member by member, which it warns of.
            warnings.simplefilter("error", UserWarning)
            scores = pack.score(named, pack.constants, batch, masks)
            found = torch.autograd.grad(scores.sum(), list(named.values()), allow_unused=True)
            pack.template.eval()
            with torch.no_grad():
                pack.score(named, pack.constants, batch, ())
    except Exception as error:  # a model of one's own may stop with anything
        reason = str(error).strip() or type(error).__name__
        return f"vmap can't take the model: {reason.splitlines()[0]}"
    finally:
        pack.template.train()
    after = read_generators(CPU)
    put_generators(before, CPU)
    if not _equal(before, after):
        return "the model draws random numbers of its own"
    if any(gradient is None for gradient in found):
        return "some of the model's weights have no part in its scores"
    return None


def _attributes_agree(models: Sequence[nn.Module]) -> bool:
    """Check that all models compute the same from weights and buffers: the first stands for all."""
    first = list(models[0].modules())
    return all(
        _equal(_plain(module), _plain(other))
        for model in models[1:]
        for module, other in zip(first, model.modules(), strict=True)
    )


def _plain(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that are its own, but for the share of Dropout."""
    of_torch = vars(nn.Module()).keys()
    shared = ("p", "apply_rng") if isinstance(module, Dropout) else ()
    return {k: v for k, v in vars(module).items() if k not in of_torch and k not in shared}


def _equal(one: Any, other: Any) -> bool:
    """Check whether two values are surely equal; what can't be compared is not."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    try:
        return bool(one is other or one == other)
    except (RuntimeError, ValueError, TypeError):
        return False
