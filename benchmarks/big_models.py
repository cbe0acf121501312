"""Two models of the size that a GPU is bought for, in plain torch: what `benchmarks.gpu` trains."""

import torch
from torch import Tensor, nn

from stages.tensors.batch import Batch


class Bottleneck(nn.Module):
    """A block of ResNet-50: convolutions of 1, 3 and 1 around a shortcut (He et al., CVPR 2016)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.layers = nn.Sequential(
            *_convolution(before, width, 1),
            nn.ReLU(inplace=True),
            *_convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(width, after, 1),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(*_convolution(before, after, 1, stride))

    def forward(self, values: Tensor) -> Tensor:
        """(rows, before, height, width) to (rows, 4 width, height / stride, width / stride)."""
        return torch.relu(self.layers(values) + self.shortcut(values))


class ResNet(nn.Module):
    """ResNet-50 where `blocks` are (3, 4, 6, 3) and `width` is 64: 25.6 million weights."""

    def __init__(self, blocks: tuple[int, ...], width: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            *_convolution(3, width, 7, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        before = width
        for stage, count in enumerate(blocks):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(Bottleneck(before, width * 2**stage, stride))
                before = 4 * width * 2**stage
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.output = nn.Linear(before, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Scores (rows, num_classes) of `image` (rows, 3, height, width)."""
        scores: Tensor = self.output(self.layers(batch["image"]))
        return scores


def _convolution(before: int, after: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(after)]


class Transformer(nn.Module):
    """An encoder over tokens; 12 layers of 768 with 20,000 words have 100 million weights."""

    def __init__(
        self, layers: int, width: int, heads: int, words: int, length: int, num_classes: int
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.output = nn.Linear(width, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        """Scores (rows, num_classes) of `categorical` (rows, length), codes of words."""
        values = self.words(batch["categorical"]) + self.places
        scores: Tensor = self.output(self.encoder(values).mean(dim=1))
        return scores
