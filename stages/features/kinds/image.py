"""An image a row, (rows, channels, height, width), as it came: uint8 or float32.

A value is an array of numbers, or the bytes of an image, which `stages/features/pixels.py` decodes.
`stages/tensors/batch.py` standardises it by channel, on the device.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from stages.common.errors import UserError
from stages.common.files import rounded
from stages.features.drift import Observed, Sums
from stages.features.graph import Graph
from stages.features.kind import BY_TYPE, Described
from stages.features.numbers import (
    Encoded,
    Spread,
    image_shape,
    join_spreads,
    moments_of,
    spread_of,
)
from stages.features.pixels import Form, ImageError, decode, wide
from stages.features.schema import Array, Decode, Feature, Moments, Statistics

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

TYPE: Final = "float32"
PROGRAM_TYPE: Final = "float32"
GAP = None
NUMBERS = False


def guess(column: "pl.Series") -> float:
    """Return BY_TYPE for lists and arrays."""
    import polars as pl

    return BY_TYPE if isinstance(column.dtype, pl.List | pl.Array) else 0.0


def infer(column: "pl.Series", key: str) -> Feature:
    """Describe the images by the first row; `image_array` holds the others to it."""
    from stages.features.columns import first_shape, undecided

    shape = first_shape(column)
    found = Feature(name=column.name, kind="image", shape=shape, layout="CHW")
    if len(shape) == 2:
        found = found.model_copy(update={"shape": [1, *shape], "layout": "HW"})
    elif len(shape) == 3 and shape[2] in (1, 3, 4):
        turned = [shape[2], shape[0], shape[1]]
        found = found.model_copy(update={"shape": turned, "layout": "HWC"})
    elif len(shape) != 3 or shape[0] not in (1, 3, 4):
        message = (
            f"holds arrays of shape {tuple(shape)}; an image is (height, width) or has channels"
        )
        if len(shape) == 1:
            message = f"{message}, and of other lists each number wants a column (docs/files.md)"
        raise undecided(column, message)
    return (
        found
        if _is_eight_bit(found, column, key)
        else found.model_copy(update={"eight_bit": False})
    )


def _is_eight_bit(feature: Feature, column: "pl.Series", key: str) -> bool:
    """Check whether the values are those that a file of 8 bits holds: whole, from 0 to 255."""
    from stages.features.columns import image_array

    try:
        images = image_array(column, feature, key)
    except UserError:
        return True  # prepare comes to the same error where it encodes
    if images.dtype == np.uint8:
        return True
    values = images.astype(np.float32, copy=False)
    return bool(((values >= 0) & (values <= 255) & (values == np.floor(values))).all())


def fit(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> Feature:
    """Return `feature`: its shape is known."""
    return feature


def moments(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> list[Moments]:
    """Return one entry a channel, summed exactly in float64."""
    from stages.features.columns import image_array

    spreads: dict[int, list[Spread]] = {}
    kind: type[np.floating] = np.float64
    for column in parts:
        images = image_array(column, feature, key)
        kind = np.float64 if images.dtype == np.uint8 else np.float32
        for channel in range(images.shape[1] if len(images) else 0):
            values = images[:, channel].astype(np.float64)
            spreads.setdefault(channel, []).append(spread_of(values))
    return [moments_of(join_spreads(found), kind) for found in spreads.values()]


def encode(
    features: list[Feature], table: "pl.DataFrame", statistics: Statistics, key: str
) -> Array:
    """Return the images with their channels first."""
    from stages.features.columns import image_array

    (feature,) = features
    return image_array(table[feature.name], feature, key)


def must(feature: Feature) -> str:
    """Name the values that it takes."""
    return f"an array of numbers of shape {image_shape(feature)}"


def from_text(feature: Feature, texts: "pl.Series") -> "pl.Series":
    """Return the column: no text holds an image."""
    return texts


def feed(feature: Feature, column: "pl.Series", key: str) -> Array:
    """Return float32 in the layout of the column."""
    from stages.features.columns import image_array

    images = image_array(column, feature, key).astype(np.float32)
    if feature.layout == "HW":
        return images[:, 0]
    return images.transpose(0, 2, 3, 1) if feature.layout == "HWC" else images


feed_program = feed


def to_onnx(graph: Graph, features: list[Feature], names: list[str], statistics: Statistics) -> str:
    """Put the channels first, and standardise as `batch.standardise` does."""
    (feature,), (value,) = features, names
    if feature.layout == "HW":
        axis = graph.constant(np.array([1]), "/image/axis")
        value = graph.node("Unsqueeze", [value, axis], "/image/channels")
    elif feature.layout == "HWC":
        value = graph.node("Transpose", [value], "/image/channels", perm=[0, 3, 1, 2])
    means = np.array([m.mean for m in statistics.image], np.float32)[:, None, None]
    deviations = np.array([m.deviation for m in statistics.image], np.float32)[:, None, None]
    value = graph.node("Sub", [value, graph.constant(means, "/image/mean")], "/image/centred")
    return graph.node("Div", [value, graph.constant(deviations, "/image/deviation")], "/image")


def constants(features: list[Feature], statistics: Statistics) -> dict[str, Array]:
    """Return none."""
    return {}


def to_torch(
    features: list[Feature], raw: "Tensor", constant: Callable[[str], "Tensor"]
) -> "tuple[Tensor, Tensor | None]":
    """Put the channels first."""
    if features[0].layout == "HW":
        return raw[:, None], None
    return (raw.permute(0, 3, 1, 2) if features[0].layout == "HWC" else raw), None


def tell(feature: Feature, parts: "Iterable[pl.Series]") -> list[str]:
    """Return nothing."""
    return []


def describe(feature: Feature, moments: list[Moments]) -> dict[str, Any]:
    """Return mean and deviation of training, over its channels."""
    num = len(moments)
    described: dict[str, Any] = {
        "mean": rounded(sum(m.mean for m in moments) / num),
        "deviation": rounded(sum(m.deviation for m in moments) / num),
    }
    if feature.decode is not None:
        described["decode"] = feature.decode.model_dump(exclude_defaults=True)
    return described if feature.eight_bit else described | {"eight_bit": False}


def read_values(described: Described, values: list[object]) -> npt.NDArray[Any]:
    """Return images of the one shape, (rows, *shape) float32.

    A value is an array, a text that holds an image's bytes in base64, or the bytes.
    """
    if any(isinstance(value, str | bytes) for value in values):
        values = [_decoded(described, v) if isinstance(v, str | bytes) else v for v in values]
    try:
        return read_images(values, described.row_shape)
    except ValueError as error:
        if not described.eight_bit:
            raise
        raise ValueError(f"{error}, or an image's bytes in base64") from None


def _decoded(described: Described, value: str | bytes) -> object:
    """Return the pixels of an image's bytes. Raises ValueError: what they must be."""
    if not described.eight_bit:
        must = f"an array of numbers of shape {described.row_shape}"
        raise ValueError(f"{must}: training had other values than the 0 to 255 of an image's file")
    form = Form(described.row_shape, described.decode or Decode())
    must = "an image" if form.how.resize else f"an image of {wide(form.size)} pixels"
    must += " in base64" if isinstance(value, str) else ""
    try:
        if isinstance(value, str):
            # As it is, or as the address that a browser makes of a file.
            text = value.partition(";base64,")[2] if value.startswith("data:") else value
            value = base64.b64decode("".join(text.split()), validate=True)
        return decode(value, form)
    except binascii.Error:
        raise ValueError(f"{must}: it holds other characters, or too few") from None
    except ImageError as error:
        raise ValueError(f"{must}: {error}") from None


def read_images(values: list[object], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return images of one shape: (rows, *shape) float32. Raises ValueError when one is none."""
    must = f"an array of numbers of shape {shape}"
    try:
        array = np.array(values)
    except ValueError:
        raise ValueError(must) from None
    if array.shape[1:] != shape or array.dtype.kind not in "iuf":
        raise ValueError(must)
    images = _as_float32(array)
    if not np.isfinite(images).all():
        raise ValueError(must)
    return images


def read_tensor(described: Described, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return float32 without gaps."""
    images = _as_float32(tensor)
    if not np.isfinite(images).all():
        raise ValueError("numbers that float32 holds, without gaps")
    return images


def _as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def json_type(described: Described) -> dict[str, object]:
    """Return an array of arrays of numbers, or the bytes of an image in base64."""
    schema: dict[str, object] = {"type": "number"}
    for size in reversed(described.row_shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    if described.eight_bit:
        schema |= {"type": ["array", "string"], "contentEncoding": "base64"}
    return schema


def example(described: Described) -> object:
    """Return an even image of the mean of training."""
    value: object = float(f"{described.mean or 0.0:.4g}")
    if (described.deviation or 0.0) > 1:
        value = round(described.mean or 0.0)
    for size in reversed(described.row_shape):
        value = [value] * size
    return value


def slices(feature: Feature, train: Encoded, test: Encoded, moments: list[Moments]) -> None:
    """Return none: no two images are alike."""
    return


def observe(
    feature: Feature, column: "pl.Series", encoded: Encoded, moments: list[Moments]
) -> Observed:
    """Return the sums of each channel."""
    found = []
    for channel, own in enumerate(moments):
        sums = Sums()
        sums.add(encoded.values[:, channel], own)
        found.append(sums)
    return Observed(sums=found)


def profile(feature: Feature, encoded: Encoded, moments: list[Moments]) -> list[Moments]:
    """Return mean and deviation of training, one a channel."""
    return moments
