"""One linear layer: linear regression with MSELoss, logistic regression with CrossEntropyLoss."""

from torch import Tensor, nn

from stages.common.config import Config
from stages.model.layers import Flatten


class Arguments(Config):
    """A linear model has none."""


class Model(nn.Module):
    """scores = W x + b, over all columns of the batch; starts at zero, where the loss is convex."""

    def __init__(self, _: Arguments, inputs: dict[str, list[int]], num_outputs: int) -> None:
        super().__init__()
        self.flatten = Flatten(inputs)
        self.output = nn.Linear(self.flatten.width, num_outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        scores: Tensor = self.output(self.flatten(batch))
        return scores
