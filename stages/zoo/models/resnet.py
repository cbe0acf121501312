"""A residual network for images (He et al., CVPR 2016), with group norm: no batch statistics."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.model.dropout import Dropout
from stages.model.layers import wrong_inputs

MAX_GROUPS = 4
MAX_WIDTH = 1_000_000
# What is left of the image has at most so many places a side: where something is still tells.
MAX_PLACES = 4
# Pixels that an image is moved by where it is looked at more than once.
MOVED = 1


class Arguments(Config):
    """A stage for each number in `channels`, of `depth` blocks; each but the first halves the
    image.

    The first convolution takes a step of `patch` pixels. `dropout` is the share of the last stage's
    numbers that are set to zero. `views` are other looks at an image when predicting, of whose
    scores the mean is taken: its mirror image, and moved by a pixel to two corners.
    """

    channels: Annotated[list[Annotated[int, Field(ge=1, le=MAX_WIDTH)]], Field(min_length=1)] = (
        Field([32, 64])
    )
    depth: Annotated[int, Field(ge=0, le=1000)] = 1
    patch: Annotated[int, Field(ge=1, le=1000)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    views: list[Literal["mirrored", "moved"]] = Field([])


class Block(nn.Module):
    """Two convolutions whose result is added to what came in; at first it adds nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_convolution(channels, channels), _norm(channels))
        last = _norm(channels)
        nn.init.zeros_(last.weight)
        self.second = nn.Sequential(_convolution(channels, channels), last)

    def forward(self, values: Tensor) -> Tensor:
        """Take and give (rows, channels, height, width)."""
        added: Tensor = self.second(self.first(values).relu())
        return (values + added).relu()


class Model(nn.Module):
    """Stages of residual blocks, then a layer that knows where in the image something is."""

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        if list(inputs) != ["image"]:
            raise wrong_inputs("resnet", "takes images alone", inputs)
        before, *sides = inputs["image"]
        layers: list[nn.Module] = []
        for index, after in enumerate(arguments.channels):
            stride = arguments.patch if index == 0 else 2
            layers += [_convolution(before, after, stride), _norm(after), nn.ReLU()]
            layers += [Block(after) for _ in range(arguments.depth)]
            sides = [-(-side // stride) for side in sides]
            before = after
        height, width = sides
        pool = (-(-height // MAX_PLACES), -(-width // MAX_PLACES))
        self.stages = nn.Sequential(*layers, nn.AvgPool2d(pool))
        self.dropout = Dropout(arguments.dropout)
        self.output = nn.Linear(before * (height // pool[0]) * (width // pool[1]), num_outputs)
        self.views = arguments.views

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        images = [batch["image"]]
        if not self.training:
            images = look(images, self.views)
        scores = [self._score(each) for each in images]
        return sum(scores[1:], scores[0]) / len(scores) if len(scores) > 1 else scores[0]

    def _score(self, images: Tensor) -> Tensor:
        scores: Tensor = self.output(self.dropout(self.stages(images).flatten(1)))
        return scores


def look(images: list[Tensor], views: list[Literal["mirrored", "moved"]]) -> list[Tensor]:
    """`images` and, of each, its `views`; a border that comes in repeats the pixels there."""
    if "moved" in views:
        (image,) = images
        height, width = image.shape[-2:]
        padded = nn.functional.pad(image, (MOVED,) * 4, mode="replicate")
        images = [image, padded[..., :height, :width], padded[..., -height:, -width:]]
    if "mirrored" in views:
        images = [*images, *(image.flip(-1) for image in images)]
    return images


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    # No pixel is left out, whatever the size of the image.
    size = max(3, 2 * stride - 1)
    made = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    return made


def _norm(channels: int) -> nn.GroupNorm:
    groups = max(g for g in range(1, MAX_GROUPS + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)
