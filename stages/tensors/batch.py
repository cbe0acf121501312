"""A split's arrays as tensors: one dict by kind, rows first, standardised, on the device.

A memory map is read once; what a batch takes is then a slice on the device.
"""

import numpy as np
import torch
from torch import Tensor

from stages.features.schema import APART, WORDS, Array, Statistics

Batch = dict[str, Tensor]
# They are kept as they came, in a quarter of the bytes as a rule.
IMAGE = "image"


def to_batch(
    arrays: dict[str, Array], statistics: Statistics, device: torch.device | str = "cpu"
) -> Batch:
    """The features of `arrays` as tensors on `device`, as a model is given them."""
    batch: Batch = {}
    for kind, array in arrays.items():
        if kind in APART:
            continue
        batch[kind] = finish(kind, torch.from_numpy(np.array(array)).to(device), statistics)
    return batch


def finish(kind: str, tensor: Tensor, statistics: Statistics) -> Tensor:
    """The tensor of a kind as a model is given it.

    Of images it is standardised float32, and codes of words, int32 on disk, are int64.
    """
    if kind in WORDS:
        return tensor.long()
    return standardise(tensor, statistics) if kind == IMAGE else tensor


def size_on_device(arrays: dict[str, Array]) -> int:
    """The bytes of features as tensors, whatever they are on disk."""
    sizes = {IMAGE: 4, **dict.fromkeys(WORDS, 8)}
    return sum(sizes.get(kind, a.itemsize) * a.size for kind, a in arrays.items())


def to_target(arrays: dict[str, Array], device: torch.device | str = "cpu") -> Tensor:
    """The target: class codes (rows,) int64, or standardised values (rows,) float32."""
    return torch.from_numpy(np.array(arrays["target"])).to(device)


def to_weight(weight: Array | None, device: torch.device | str = "cpu") -> Tensor | None:
    """The weights of the rows (rows,) float32, scaled to a mean of 1; None: there are none."""
    if weight is None:
        return None
    values = np.array(weight, np.float64)
    return torch.from_numpy((values / values.mean()).astype(np.float32)).to(device)


def standardise(images: Tensor, statistics: Statistics) -> Tensor:
    """Images (rows, channels, height, width) as float32, by channel as in training."""
    means = torch.tensor([m.mean for m in statistics.image], device=images.device)
    deviations = torch.tensor([m.deviation for m in statistics.image], device=images.device)
    return (images.float() - means[:, None, None]) / deviations[:, None, None]


def take(batch: Batch, rows: Tensor | slice) -> Batch:
    """Some rows of every tensor."""
    return {kind: tensor[rows] for kind, tensor in batch.items()}
