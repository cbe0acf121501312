"""An average of the weights over the steps: `train.ema`."""

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def update_average(average: nn.Module, model: nn.Module, decay: float, number: int) -> None:
    """Move the average of the weights towards those after step `number`, from 0.

    It starts from a shorter memory, (1 + t) / (10 + t), so that the first weights don't weigh on
    a short training (Polyak and Juditsky 1992; the warm-up as in TensorFlow's
    ExponentialMovingAverage).
    """
    warm = min(decay, (1 + number) / (10 + number))
    update = get_ema_multi_avg_fn(warm)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        update(list(average.parameters()), list(model.parameters()), number)
        for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
