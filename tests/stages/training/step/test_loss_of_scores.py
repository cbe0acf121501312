"""The loss of scores that a model gives by member."""

import torch
from torch import nn

from stages.training.optim.class_weights import WeightedLoss
from stages.training.step.loss_of_scores import compute_loss, prepare_scores


def test_each_member_learns_by_itself() -> None:
    torch.manual_seed(0)
    scores, codes = torch.randn(7, 3, 4), torch.randint(4, (7,))
    found = compute_loss(nn.CrossEntropyLoss(), prepare_scores(scores, codes), codes, None)
    alone = [nn.functional.cross_entropy(scores[:, member], codes) for member in range(3)]
    torch.testing.assert_close(found, torch.stack(alone).mean())
    mean = scores.mean(dim=1)
    assert not torch.isclose(found, nn.functional.cross_entropy(mean, codes))

    values, weights = torch.randn(7), torch.rand(7)
    outputs = prepare_scores(torch.randn(7, 3, 1), values)
    assert outputs.shape == (7, 3)
    weighted = WeightedLoss(nn.MSELoss(reduction="none"), None)
    found = compute_loss(weighted, outputs, values, weights)
    each = ((outputs - values[:, None]).square() * weights[:, None]).mean()
    torch.testing.assert_close(found, each)
