"""When a training stops, and which weights it keeps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import validate
from stages.training.optim.loss import make_loss
from stages.training.params import TrainParams
from stages.training.state import Data
from tests.support.samples import classification, train_params
from tests.support.training.models import assert_same, model, run, weights_of


def test_early_stopping_by_a_metric_of_the_other_task_is_an_error() -> None:
    params = train_params(early_stopping={"metric": "rmse", "patience": 3})
    with pytest.raises(UserError) as caught:
        run(model(), classification(), params)
    (problem,) = caught.value.problems
    assert problem.key == "train.early_stopping.metric"
    assert problem.allowed == ("loss", "accuracy")


def overfitting() -> tuple[Data, TrainParams]:
    """A training that gets worse on validation soon: there is nothing to learn."""
    data = classification(num_rows=30)
    noise = torch.randint(3, (30,), generator=torch.Generator().manual_seed(0))
    params = train_params(epochs=60, optimizer={"name": "Adam", "lr": 0.05})
    return Data(TensorSource(data.train.batch, noise), data.validation, data.task), params


@pytest.mark.parametrize(("metric", "better"), [("loss", min), ("accuracy", max)])
@pytest.mark.parametrize("patience", [1, 4, None])
def test_early_stopping_waits_and_keeps_the_best_weights(
    metric: str, better: Callable[..., float], patience: int | None
) -> None:
    data, params = overfitting()
    stopping = {"metric": metric, "patience": patience}
    params = TrainParams.model_validate({**params.model_dump(), "early_stopping": stopping})
    network = model()
    seen: list[dict[str, Tensor]] = []
    result = run(network, data, params, on_epoch_end=lambda _, m: seen.append(weights_of(m)))
    assert result.best_epoch is not None

    values = [e.validation_loss if metric == "loss" else e.metric for e in result.history]
    best = values.index(better(values))
    assert result.best_epoch == result.history[best]
    assert_same(result.weights, seen[best], tolerance=0.0)
    assert best + 1 < len(values) or patience is None
    if patience is None:
        assert len(values) == 60
    else:
        assert len(values) == best + 1 + patience
    # They are the weights that scored: not those that the model ended with.
    network.load_state_dict(result.weights)
    loss, accuracy = validate(network, data.validation, make_loss(params, data.task), data, World())
    assert (loss, accuracy) == (result.best_epoch.validation_loss, result.best_epoch.metric)


def test_without_early_stopping_the_last_weights_are_kept() -> None:
    data, params = overfitting()
    params = TrainParams.model_validate({**params.model_dump(), "early_stopping": None})
    network = model()
    result = run(network, data, params)
    losses = [epoch.validation_loss for epoch in result.history]
    assert len(losses) == 60
    assert min(losses) < losses[-1], "the last epoch must not be the best, else this shows nothing"
    assert result.best_epoch == result.history[-1]
    assert_same(result.weights, weights_of(network), tolerance=0.0)
