"""Optimizers: each of them learns, and what weight decay reaches."""

import pytest
import torch

from stages.training.optim.optimizer import make_optimizer
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import allowed
from tests.support.samples import classification, train_params
from tests.support.training.models import model, run


@pytest.mark.parametrize("name", allowed("optimizer"))
@pytest.mark.parametrize("schedule", ["ConstantLR", "OneCycleLR"])
def test_every_optimizer_learns(name: str, schedule: str) -> None:
    # LBFGS without a line search goes astray on batches that differ.
    others = {"line_search_fn": "strong_wolfe", "max_iter": 4} if name == "LBFGS" else {}
    params = train_params(
        epochs=10,
        optimizer={"name": name, "lr": 1.0 if name == "Adadelta" else 0.02, **others},
        schedule={"name": schedule},
    )
    check_names(params, "classification")
    history = run(model(), classification(), params).history
    assert history[-1].train_loss < history[0].train_loss


def test_weight_decay_spares_biases_and_norms() -> None:
    network = model()
    params = train_params(optimizer={"name": "AdamW", "lr": 0.1, "weight_decay": 0.3})
    decay = {}
    for group in make_optimizer(network, params).param_groups:
        for weight in group["params"]:
            decay[id(weight)] = group["weight_decay"]
    by_name = {name: decay[id(weight)] for name, weight in network.named_parameters()}
    assert by_name == {
        "body.0.weight": 0.3,
        "body.0.bias": 0.0,
        "body.1.weight": 0.0,
        "body.1.bias": 0.0,
        "output.weight": 0.3,
        "output.bias": 0.0,
    }


def test_weight_decay_shrinks_what_has_no_gradient() -> None:
    data = classification(num_rows=48)
    # Of a column of zeros the weights get no gradient, and three steps an epoch shrink them.
    data.train.batch["numeric"][:, 0] = 0
    network = model(hidden=False)
    start = network.output.weight[:, 0].detach().clone()
    run(network, data, train_params(optimizer={"name": "SGD", "lr": 0.1, "weight_decay": 0.5}))
    torch.testing.assert_close(network.output.weight[:, 0].detach(), start * (1 - 0.05) ** 9)
