"""The training loop of a pack: as `stages.training.loop`, for all members at once.

Members reach the end of an epoch together. One that ends (its epochs are over, it waited long
enough for a better one, it diverged, or the caller says so) is taken out of the pack: from there on
it costs nothing. Each comes to what it comes to alone, within rounding.
"""

from collections.abc import Callable, Collection, Generator, Mapping
from typing import cast

from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stages.training.data.batching import LocalBatch, epoch_batches
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import end_epoch, is_out_of_patience, monitored_value
from stages.training.optim.monitored_metric import monitored_direction
from stages.training.optim.schedule import moves_by_step
from stages.training.packed.feed import Group, feed
from stages.training.packed.pack import Member, Pack
from stages.training.packed.step import take_step, update_averages
from stages.training.packed.validate import evaluated_weights, validate_pack
from stages.training.state import Epoch, EpochTotals, Result
from stages.training.step.divergence import DivergedError, divergence_error, has_diverged

ALONE = World()
# The model of a member with the weights that were validated: read it, don't keep it.
ModelOf = Callable[[int], nn.Module]
# Called with the epochs of all members that still train, by number.
OnEpochEnd = Callable[[Mapping[int, Epoch], ModelOf], None]
OnDiverged = Callable[[int, DivergedError], None]
PackEpochs = Generator[tuple[Mapping[int, Epoch], ModelOf], Collection[int] | None, None]


def stop_all(_: int, error: DivergedError) -> None:
    """Raise the error of a member that diverged: the others end with it."""
    raise error


def train_pack(
    pack: Pack,
    on_epoch_end: OnEpochEnd,
    on_diverged: OnDiverged = stop_all,
    load_state: Callable[[Pack], None] = lambda _: None,
    on_step_end: Callable[[Pack], None] = lambda _: None,
) -> list[Result]:
    """Train the members of `pack`; return of each the history and the weights to keep.

    Of a member that diverged these are what it had come to. The callbacks are those of
    `stages.training.loop.train`, once for all members. `on_diverged` is called with the number of a
    member, from 0, and may raise. A pack that resumes from what `load_state` loads ends with the
    same bits; with other members its bits are others.
    """
    load_state(pack)
    for epochs in run_pack(pack, on_diverged, on_step_end):
        on_epoch_end(*epochs)
    return pack.results


def run_pack(
    pack: Pack,
    on_diverged: OnDiverged = stop_all,
    on_step_end: Callable[[Pack], None] = lambda _: None,
) -> PackEpochs:
    """Train epoch by epoch from where `pack` is, as `train_pack`, for a caller that goes on itself.

    It yields the epochs of all members that still train, and may be sent the numbers of those that
    shall end there; their results are what they had come to.
    """
    while pack.numbers:
        train_epoch(pack, on_step_end, on_diverged)
        ended = yield from _end_epoch(pack, on_diverged)
        for number in ended:
            _finish(pack, number)
        pack.leave([pack.numbers.index(number) for number in ended])
        pack.failed.clear()
        pack.epoch, pack.step = pack.epoch + 1, 0
        on_step_end(pack)


def train_epoch(pack: Pack, on_step_end: Callable[[Pack], None], on_diverged: OnDiverged) -> None:
    """Take the steps of one epoch that are still to do; they add to the members' totals."""
    members = [pack.members[number] for number in pack.numbers]
    orders = []
    for number, member in zip(pack.numbers, members, strict=True):
        context, state = pack.assemblies[number].context, pack.assemblies[number].state
        if pack.step == 0:
            state.totals.learning_rate = state.optimizer.param_groups[0]["lr"]
        context.dropout_rng.begin_epoch(member.seed, pack.epoch)
        size = member.params.batch_size
        orders.append(epoch_batches(len(member.data.train), size, member.seed, pack.epoch))
    pack.template.train()
    sources = [cast(TensorSource, member.data.train) for member in members]
    left_out: set[int] = set()
    for groups in feed(sources, orders, pack.step, left_out):
        for group in groups:
            take_step(pack, group)
            steps = [(pack.epoch - 1) * len(orders[place]) + group.step for place in group.places]
            update_averages(pack, group.places, steps)
            for row, place in enumerate(group.places):
                if error := _after_step(pack, group, row, len(orders[place])):
                    pack.failed[pack.numbers[place]] = error
                    left_out.add(place)
                    on_diverged(pack.numbers[place], error)
        pack.step += 1
        on_step_end(pack)


def _after_step(pack: Pack, group: Group, row: int, steps_per_epoch: int) -> DivergedError | None:
    """Move the schedule of the member in `row` of a group; return its error if it has diverged."""
    place = group.places[row]
    number = pack.numbers[place]
    state, context = pack.assemblies[number].state, pack.assemblies[number].context
    if moves_by_step(state.schedule):
        state.schedule.step()
    if not has_diverged(state.totals, steps_per_epoch, scaled=False):
        return None
    pack.layout.put(pack.weights, place, state.model)
    rows = LocalBatch(
        global_batch_size=group.target.shape[1],
        local_rows=slice(None),
        loss_scale=1.0,
        rows=group.rows[row],
        batch={kind: values[row] for kind, values in group.batch.items()},
        target=group.target[row],
        row_weights=None if group.row_weights is None else group.row_weights[row],
    )
    state.model.train()
    source = pack.members[number].data.train
    return divergence_error(context, source, rows, pack.epoch, state)


def _end_epoch(
    pack: Pack, on_diverged: OnDiverged
) -> Generator[tuple[Mapping[int, Epoch], ModelOf], Collection[int] | None, list[int]]:
    """Validate, keep what is best, yield it, and move the schedules; return who leaves the pack."""
    weights = evaluated_weights(pack)
    epochs: dict[int, Epoch] = {}
    for place, judged in enumerate(validate_pack(pack, weights)):
        number = pack.numbers[place]
        state, member = pack.assemblies[number].state, pack.members[number]
        if number in pack.failed:
            continue
        try:
            epoch = end_epoch(pack.epoch, state.totals, judged, member.data, ALONE)
        except DivergedError as error:
            pack.failed[number] = error
            on_diverged(number, error)
            continue
        epochs[number] = epoch
        state.result.history.append(epoch)
        if _is_best(member, epoch, state.result):
            state.result.best_epoch = epoch
            for kept, matrix in zip(pack.kept, weights, strict=True):
                kept[place] = matrix[place]

    def model_of(number: int) -> nn.Module:
        model = pack.members[number].model
        pack.layout.put(weights, pack.numbers.index(number), model)
        return model

    asked = (yield epochs, model_of) or ()
    ended = [*pack.failed, *(number for number in epochs if number in asked)]
    for number, epoch in epochs.items():
        state, params = pack.assemblies[number].state, pack.members[number].params
        if isinstance(state.schedule, ReduceLROnPlateau):
            state.schedule.step(monitored_value(epoch, params))
        elif not moves_by_step(state.schedule):
            state.schedule.step()
        state.totals = EpochTotals(consecutive_skips=state.totals.consecutive_skips)
        over = pack.epoch == params.epochs or is_out_of_patience(state.result, params)
        ended += [number] if over and number not in ended else []
    return ended


def _is_best(member: Member, epoch: Epoch, result: Result) -> bool:
    params = member.params
    best = None if result.best_epoch is None else monitored_value(result.best_epoch, params)
    sign = 1 if monitored_direction(params, member.data.task) == "min" else -1
    if params.early_stopping is None or best is None:
        return True
    return sign * monitored_value(epoch, params) < sign * best


def _finish(pack: Pack, number: int) -> None:
    """Put the kept weights of a member that leaves into its result, as `state_dict` has them."""
    state = pack.assemblies[number].state
    if state.result.best_epoch is None:
        return
    pack.layout.put(pack.kept, pack.numbers.index(number), state.model)
    state.result.weights = {k: v.clone() for k, v in state.model.state_dict().items()}
