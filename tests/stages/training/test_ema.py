"""The moving average of the weights, against its formula."""

import pytest
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.support.samples import classification, train_params
from tests.support.training.models import assert_same, doubled, model, run, weights_of


def test_the_average_of_the_weights_is_validated_and_kept() -> None:
    data, network = doubled(classification(num_rows=50)), model().double()
    params = train_params(epochs=3, ema=0.8, early_stopping=None)
    average = weights_of(network)
    number = 0

    def follow(module: nn.Module, _inputs: object, _output: object) -> None:
        nonlocal number
        if not module.training:
            return
        # The weights before a step are those after the one before it.
        if number > 0:
            decay = min(0.8, number / (9 + number))
            for name, weight in weights_of(network).items():
                average[name] = decay * average[name] + (1 - decay) * weight
        number += 1

    network.register_forward_hook(follow)
    result = run(network, data, params)
    network.train()
    follow(network, None, None)
    assert_same(result.weights, average, tolerance=1e-12)
    judged = model().double()
    judged.load_state_dict(result.weights)
    scores = judged.eval()(data.validation.batch)
    loss = F.cross_entropy(scores, data.validation.target).item()
    assert result.history[-1].validation_loss == pytest.approx(loss, rel=1e-12)
    last = F.cross_entropy(network.eval()(data.validation.batch), data.validation.target).item()
    assert abs(last - loss) > 1e-6
