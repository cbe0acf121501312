"""A small convolutional network for images: blocks of convolution, norm, ReLU, pooling."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.model.dropout import Dropout
from stages.model.layers import wrong_inputs

MAX_GROUPS = 8
MAX_WIDTH = 1_000_000


class Arguments(Config):
    """One block for each number in `channels`; `width` units between the image and the scores."""

    channels: Annotated[list[Annotated[int, Field(ge=1, le=MAX_WIDTH)]], Field(min_length=1)] = (
        Field([16, 32])
    )
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Model(nn.Module):
    """A stack of blocks, of which every one but the first halves height and width.

    Group norm needs no batch statistics.
    """

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        if list(inputs) != ["image"]:
            raise wrong_inputs("cnn", "takes images alone", inputs)
        before, height, width = inputs["image"]
        blocks: list[nn.Module] = []
        for index, after in enumerate(arguments.channels):
            groups = max(g for g in range(1, MAX_GROUPS + 1) if after % g == 0)
            blocks += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.GroupNorm(groups, after),
                nn.ReLU(),
            ]
            if index > 0:
                blocks.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            before = after
        if height * width == 0:
            message = (
                f"cnn halves the image in each block but the first: {len(arguments.channels)} "
                f"blocks leave nothing of {'×'.join(map(str, inputs['image'][1:]))}"
            )
            value = str(arguments.channels)
            raise UserError(Problem(message, key="build.model.channels", value=value))
        self.blocks = nn.Sequential(*blocks)
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(before * height * width, arguments.width),
            nn.ReLU(),
            Dropout(arguments.dropout),
        )
        self.output = nn.Linear(arguments.width, num_outputs)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        scores: Tensor = self.output(self.hidden(self.blocks(batch["image"])))
        return scores
