"""Random erasing: in each epoch another box of an image is noise (Zhong et al., AAAI 2020)."""

import math
import random
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.utils import data

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.tensors.batch import Batch
from stages.tensors.rows import Rows

TRIES = 100


class Arguments(Config):
    """`probability` that an image has a box erased; `largest` is the share of its area at most.

    The other bounds are those of the paper: 2 % at least, sides of 3 : 10 at most.
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    largest: Annotated[float, Field(gt=0.02, lt=1)] = 0.4


class Dataset(data.Dataset[tuple[Batch, Tensor]]):
    """The rows as they are; of those to train on some images with a box of standard noise."""

    def __init__(self, arguments: Arguments, rows: Rows, *, train: bool) -> None:
        if "image" not in rows.arrays:
            message = "random_erasing is for images, and there are none among the features"
            raise UserError(Problem(message, "train.dataset.name", "random_erasing", ("null",)))
        self.arguments, self.rows, self.train = arguments, rows, train

    def __getitem__(self, row: int) -> tuple[Batch, Tensor]:
        """A row; what is drawn for it is another in each epoch, and the same in each run."""
        features, target = self.rows.take(row)
        if self.train and random.random() < self.arguments.probability:
            erase(features["image"], self.arguments.largest)
        return features, target


def erase(image: Tensor, largest: float) -> None:
    """Overwrite a box of `image` (channels, height, width), as algorithm 1 of the paper draws it.

    A box that does not fit is drawn anew, a hundred times at most.
    """
    height, width = image.shape[1:]
    for _ in range(TRIES):
        area = random.uniform(0.02, largest) * height * width
        ratio = random.uniform(0.3, 1 / 0.3)
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < tall < height and 0 < wide < width:
            y, x = random.randint(0, height - tall), random.randint(0, width - wide)
            box = image[:, y : y + tall, x : x + wide]
            box.copy_(torch.randn(box.shape))
            return
