"""The section `train` of `params.yaml`."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.section import Named, Section

Positive = Annotated[int, Field(ge=1)]


class EarlyStopping(Section):
    """Which validation metric picks the best epoch, and how long to wait for a better one.

    `patience` is in epochs; null trains all of them and still keeps the best one's weights.
    """

    metric: Literal["loss", "accuracy", "rmse"]
    patience: Positive | None


class TrainParams(Section):
    """How to train. Names are classes of `torch.nn`, `torch.optim`, `torch.optim.lr_scheduler`.

    Without early stopping all epochs are trained and the last weights are kept. A batch goes
    through the model whole, or in parts of `micro_batch_size` rows that fit a small memory. `ema`
    keeps an average of the weights over the steps, with that decay, in place of the last ones.
    """

    epochs: Positive
    batch_size: Positive
    micro_batch_size: Positive | None
    loss: Named
    optimizer: Named
    schedule: Named
    clip_norm: Annotated[float, Field(gt=0)] | None
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    early_stopping: EarlyStopping | None
