"""Several trained models of one architecture as one: what is predicted is the mean of theirs."""

import math

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of its members: of their values, or of the probabilities that their scores give.

    It is put together from models that are trained already, and is not trained itself.
    """

    def __init__(self, members: list[nn.Module], num_outputs: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.num_outputs = num_outputs

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs): of classes logarithms of the mean probabilities."""
        scores = torch.stack([member(batch) for member in self.members])
        if self.num_outputs == 1:
            return scores.mean(dim=0)
        return scores.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(self.members))
