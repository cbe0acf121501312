"""Columns of images as arrays: layouts, gaps, shapes, standardised by channel."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from stages.features.columns import image_array
from stages.features.schema import Feature
from stages.tensors.batch import to_batch
from tests.stages.features.encoded import KEY, encoded, fit, message


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("stored", ["array", "list"])
def test_images_come_out_as_channels_height_width(
    layout: str, dtype: type[np.generic], stored: str
) -> None:
    images = np.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4).astype(dtype)
    if layout == "HW":
        images, rows = images[:, :1], images[:, 0]
    else:
        rows = images.transpose(0, 2, 3, 1) if layout == "HWC" else images
    inner = pl.UInt8 if dtype == np.uint8 else pl.Float64
    column = pl.Series("image", rows.tolist(), dtype=pl.Array(inner, rows.shape[1:]))
    if stored == "list":
        column = pl.Series("image", rows.tolist()).cast(_nested_list(inner, rows.ndim - 1))
    shape = list(images.shape[1:])
    feature = Feature.model_validate(
        {"name": "image", "kind": "image", "shape": shape, "layout": layout}
    )
    array = image_array(column, feature, KEY)
    assert array.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert np.array_equal(array, images)


def _nested_list(inner: type[pl.DataType], depth: int) -> pl.DataType:
    nested: pl.DataType = inner()
    for _ in range(depth):
        nested = pl.List(nested)
    return nested


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (pl.Series("image", [[[1, 2]], None]), "row 1 has none"),
        (pl.Series("image", [[[1, 2]], [[1, 2, 3]]]), "shape (1, 2)"),
        (pl.Series("image", [[1, 2], [3, 4]]), "shape (1, 2)"),
        (pl.Series("image", ["a", "b"]), "not String"),
        (pl.Series("image", [[["a", "b"]], [["c", "d"]]]), "not List(List(String))"),
        (pl.Series("image", [[[1, 2]], [[None, 2]]]), "row 1 has gaps in it"),
        (pl.Series("image", [[[1.0, 2.0]], [[float("nan"), 2.0]]]), "row 1 has gaps in it"),
        (pl.Series("image", [[[1, 2]], [None]]), "row 1 has gaps in it"),
        (pl.Series("image", [[[1.0, 2.0]], [[1e300, 2.0]]]), "row 1 has numbers too large to"),
        (pl.Series("image", [[[1.0, 2.0]], [[math.inf, 2.0]]]), "row 1 has gaps in it"),
    ],
)
def test_an_image_that_is_missing_or_of_another_shape_is_an_error(
    images: pl.Series, says: str
) -> None:
    feature = Feature(name="image", kind="image", shape=[1, 1, 2], layout="HW")
    assert says in message(lambda: image_array(images, feature, KEY))


def test_images_are_standardised_channel_by_channel() -> None:
    images = np.random.default_rng(0).integers(256, size=(6, 3, 4, 5), dtype=np.uint8)
    table = pl.DataFrame(
        {"image": pl.Series(images.tolist(), dtype=pl.Array(pl.UInt8, (3, 4, 5))), "y": [1, 2] * 3}
    )
    schema, statistics = fit(table, task="classification")
    arrays = encoded(table, schema, statistics)
    assert arrays["image"].dtype == np.uint8
    batch = to_batch(arrays, statistics)["image"]
    wide = images.astype(np.float64)
    axes = (0, 2, 3)
    expected = (wide - wide.mean(axes, keepdims=True)) / wide.std(axes, keepdims=True)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), expected, rtol=1e-5, atol=1e-6)
