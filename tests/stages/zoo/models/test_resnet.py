"""The residual network: what it computes, of images of any size, and what it looks at."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from stages.zoo.models.resnet import Arguments, Model

SIDES = [(1, 1), (8, 8), (13, 7), (28, 28), (64, 48), (97, 224)]


def model_of(inputs: list[int], **arguments: Any) -> nn.Module:
    """A model at weights of which none is zero, for two classes."""
    generator = torch.Generator().manual_seed(1)
    model = Model(Arguments(**arguments), {"image": inputs}, 2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(generator=generator)
    return model.eval()


def images_of(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def test_it_is_stages_of_blocks_whose_result_is_added() -> None:
    model = model_of([1, 9, 8], channels=[4, 6], patch=2)
    w = model.state_dict()

    def layer(values: Tensor, at: str, norm: str, groups: int, stride: int = 1) -> Tensor:
        found = F.conv2d(values, w[f"{at}.weight"], stride=stride, padding=1)
        return F.group_norm(found, groups, w[f"{norm}.weight"], w[f"{norm}.bias"])

    def block(values: Tensor, at: str, groups: int) -> Tensor:
        inner = layer(values, f"{at}.first.0", f"{at}.first.1", groups).relu()
        return (values + layer(inner, f"{at}.second.0", f"{at}.second.1", groups)).relu()

    image = images_of(3, 1, 9, 8)
    x = block(layer(image, "stages.0", "stages.1", 4, stride=2).relu(), "stages.3", 4)
    # As many groups as divide the channels, four at most.
    x = block(layer(x, "stages.4", "stages.5", 3, stride=2).relu(), "stages.7", 3)
    assert x.shape == (3, 6, 3, 2)
    expected = x.flatten(1) @ w["output.weight"].T + w["output.bias"]
    torch.testing.assert_close(model({"image": image}), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_it_takes_images_of_any_size(height: int, width: int, channels: int) -> None:
    arguments = {"channels": [4, 4, 8], "patch": 3, "views": ["moved", "mirrored"]}
    model = model_of([channels, height, width], **arguments)
    # What the last layer sees has four places a side at most.
    assert model.get_parameter("output.weight").shape[1] <= 8 * 4 * 4
    image = images_of(2, channels, height, width)
    assert model({"image": image}).isfinite().all()


def test_every_pixel_counts_whatever_the_stride() -> None:
    for patch in range(1, 6):
        model = model_of([1, 11, 10], channels=[4], depth=0, patch=patch)
        image = images_of(1, 1, 11, 10).requires_grad_()
        model({"image": image})[0, 0].backward()
        assert image.grad is not None
        assert (image.grad != 0).all(), patch


def test_when_predicting_the_mean_over_views_is_taken() -> None:
    plain = model_of([2, 12, 9])
    image = images_of(4, 2, 12, 9)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    moved = [image, padded[:, :, :12, :9], padded[:, :, 2:, 2:]]
    looks = {
        ("mirrored",): [image, image.flip(3)],
        ("moved",): moved,
        ("mirrored", "moved"): [*moved, *(each.flip(3) for each in moved)],
    }
    for views, seen in looks.items():
        model = model_of([2, 12, 9], views=list(views))
        expected = torch.stack([plain({"image": each}) for each in seen]).mean(dim=0)
        torch.testing.assert_close(model({"image": image}), expected)
        # A training sees the image alone.
        model.train()
        assert torch.equal(model({"image": image}), plain({"image": image}))


def test_a_block_adds_nothing_at_first() -> None:
    model = Model(Arguments(channels=[4], depth=2), {"image": [1, 6, 6]}, 2)
    without = Model(Arguments(channels=[4], depth=0), {"image": [1, 6, 6]}, 2)
    weights = model.state_dict()
    without.load_state_dict({key: weights[key] for key in without.state_dict()})
    image = images_of(2, 1, 6, 6)
    torch.testing.assert_close(model({"image": image}), without({"image": image}))
