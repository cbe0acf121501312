"""A short training on a few rows, in which nothing stands between the model and these rows."""

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from stages.common.config import ClassSpec
from stages.model.dropout import Dropout
from stages.tools.diagnose.measured import quiet
from stages.tools.diagnose.sample import draw_by_class
from stages.tools.training_tool import Training
from stages.training.data.source import TensorSource
from stages.training.state import State
from stages.training.step.divergence import DivergedError

NUM_ROWS, NUM_STEPS = 32, 200
# So many times the rows are drawn: of equal ones one is taken.
DRAWN = 4
DROPOUTS = (Dropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass(frozen=True)
class Trial:
    """A short training: the loss of its first step and of its last one."""

    first: float
    last: float

    @property
    def fell_to(self) -> float:
        """The last loss as a share of the first."""
        return self.last / self.first if self.first > 0 and math.isfinite(self.last) else math.inf


def of_few_rows(training: Training) -> Training:
    """The same training on a few rows of all classes, all in each step, at a rate that stays.

    What keeps a model from learning rows by heart is left out: other objectives, dropout, labels
    that are smoothed. A loss that this can't bring down is no fault of theirs.
    """
    few = replace(training.data, train=draw_distinct(training))
    plain = {
        "batch_size": len(few.train),
        "micro_batch_size": None,
        "dataset": None,
        "augment": None,
        "objective": ClassSpec(name="supervised"),
        "loss": _without(training.params.loss, "label_smoothing"),
        "ema": None,
        "swa": None,
        "schedule": ClassSpec(name="ConstantLR", factor=1.0),
    }
    model = copy.deepcopy(training.model)
    for module in model.modules():
        if isinstance(module, DROPOUTS):
            module.p = 0.0
    params = training.params.model_copy(update=plain)
    return replace(training, model=model, data=few, params=params)


def _without(spec: ClassSpec, argument: str) -> ClassSpec:
    return ClassSpec(**{name: v for name, v in spec.model_dump().items() if name != argument})


def draw_distinct(training: Training) -> TensorSource:
    """Up to 32 rows that differ in their features, and fewer of few columns or few weights.

    Equal rows of different labels can't be told apart. As many rows as columns, and one more, any
    labels can be told of by a plane; of more it may take thousands of steps, though nothing is
    wrong. A linear model can't learn more rows by heart than it has weights.
    """
    drawn = torch.from_numpy(draw_by_class(training.data.train, DRAWN * NUM_ROWS))
    batch, target = training.data.train.take(drawn)
    numbers = [values.reshape(len(values), -1).double() for values in batch.values()]
    flat = torch.cat(numbers, dim=1).cpu().numpy()
    _, first = np.unique(flat, axis=0, return_index=True)
    distinct = np.sort(first)[:NUM_ROWS]
    num_columns = int(np.linalg.matrix_rank(flat[distinct] - flat[distinct].mean(axis=0)))
    num_outputs = max(1, len(training.data.classes))
    num_weights = sum(w.numel() for w in training.model.parameters() if w.requires_grad)
    most = min(num_columns + 1, num_weights // (2 * num_outputs))
    rows = torch.from_numpy(distinct[: max(2, most)]).to(target.device)
    return TensorSource({kind: values[rows] for kind, values in batch.items()}, target[rows])


def try_rate(training: Training, factor: float) -> Trial:
    """Train a copy of the model with so many times the rate."""
    optimizer = training.params.optimizer
    named = optimizer.model_dump()
    if "lr" in named:
        named["lr"] = named["lr"] * factor
    params = training.params.model_copy(update={"optimizer": ClassSpec(**named)})
    losses: list[float] = []

    def after(state: State) -> None:
        rows = float(state.totals.rows)
        losses.append(float(state.totals.loss) / rows if rows else math.inf)

    model = copy.deepcopy(training.model)
    try:
        with quiet():
            replace(training, model=model, params=params).take_steps(
                NUM_STEPS, lambda _: None, after
            )
    except DivergedError:
        losses.append(math.inf)
    return Trial(losses[0], losses[-1])
