"""Several trained models as one: what is predicted is the weighted mean of what they predict."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of its members: of their values, or of the probabilities that their scores give.

    `weights` say how much each member counts; None: all the same. It is put together from models
    that are trained already, and is not trained itself.
    """

    def __init__(
        self, members: list[nn.Module], num_outputs: int, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.num_outputs = num_outputs
        counts = [1.0] * len(members) if weights is None else list(weights)
        self.total = math.fsum(counts)
        # They stand in `model.json`, so they are no tensors of the file of weights.
        self.register_buffer("weights", torch.tensor(counts), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs): of classes logarithms of the mean probabilities."""
        scores = torch.stack([member(batch) for member in self.members])
        return mean_scores(scores, self.get_buffer("weights"), self.total)


def mean_scores(scores: Tensor, weights: Tensor, total: float) -> Tensor:
    """The mean (rows, outputs) of scores (members, rows, outputs) by weights (members,).

    One output is a value; scores of classes become logarithms of the mean probabilities. `total`
    is the sum of the weights.
    """
    shares = weights[:, None, None]
    if scores.shape[2] == 1:
        return (scores * shares).sum(dim=0) / total
    weighted = scores.log_softmax(dim=2) + shares.log()
    return weighted.logsumexp(dim=0) - math.log(total)
