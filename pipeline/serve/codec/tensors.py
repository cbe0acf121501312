"""Tensors of the Open Inference Protocol: as JSON numbers, or as bytes after the JSON.

The second is the protocol's binary extension, which Triton's and KServe's clients use: numbers
are little-endian, a text is its length in four bytes and then its UTF-8.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.serve.codec.problems import RequestError

Tensor = npt.NDArray[Any]
DTYPES: dict[str, str] = {
    "BOOL": "?",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
TYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "string": "BYTES"}
# What JSON may hold for a type, by NumPy's letter of what it is read as; gaps are null.
_JSON_KINDS = {"BOOL": "b", "INT": "iu", "UINT": "iu", "FP": "iuf"}


def from_json(
    data: object, datatype: str, shape: tuple[int, ...], name: str, *, exact: bool = False
) -> Tensor:
    """A tensor from nested or flat lists; of BYTES, texts and None.

    `exact`: whole numbers may not be rounded. Raises RequestError 400 where they don't fit.
    """
    if not isinstance(data, list):
        must = "its data must be a list, or bytes after the JSON (binary_data_size)"
        raise RequestError(400, f"input '{name}': {must}")
    if datatype != "BYTES":
        tensor = _numbers(data, datatype, len(shape), name)
        values = _flat(data, len(shape)) if exact else []
        for value, read in zip(values, tensor.ravel().tolist(), strict=False):
            if type(value) is int and value != read:
                message = f"{datatype} does not hold {value}: BYTES does, as a text"
                raise RequestError(400, f"input '{name}': {message}")
        return _shaped(tensor, shape, name)
    texts = _flat(data, len(shape))
    if not all(text is None or isinstance(text, str) for text in texts):
        raise RequestError(400, f"input '{name}': BYTES must be texts or null")
    return _shaped(np.array(texts, dtype=object), shape, name)


def from_bytes(raw: bytes, datatype: str, shape: tuple[int, ...], name: str) -> Tensor:
    """A tensor from the binary extension. Raises RequestError 400 where its size is wrong."""
    if datatype == "BYTES":
        return _shaped(np.array(_texts(raw, name), dtype=object), shape, name)
    dtype = np.dtype(DTYPES[datatype])
    if len(raw) % dtype.itemsize:
        raise RequestError(400, f"input '{name}': {len(raw)} bytes are no whole {datatype}")
    return _shaped(np.frombuffer(raw, dtype), shape, name)


def to_bytes(tensor: Tensor, datatype: str) -> bytes:
    """A tensor as the binary extension has it."""
    if datatype != "BYTES":
        return tensor.astype(DTYPES[datatype]).tobytes()
    encoded = [str(text).encode() for text in tensor.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def _numbers(data: object, datatype: str, depth: int, name: str) -> Tensor:
    kinds = _JSON_KINDS[datatype.rstrip("0123456789")]
    try:
        found = np.array(data)
        if found.dtype == object and "f" in kinds:
            found = _with_gaps(_flat(data, depth))
    except ValueError:
        raise RequestError(400, f"input '{name}': its rows are not of one length") from None
    if found.size and found.dtype.kind not in kinds:
        raise RequestError(400, f"input '{name}': its data are no {datatype}")
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind in "iu" and found.size:
        limits = np.iinfo(dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise RequestError(400, f"input '{name}': {datatype} does not hold its numbers")
    with np.errstate(over="ignore"):
        tensor = found.astype(dtype)
    if dtype.kind == "f" and found.size and (np.isinf(tensor) & np.isfinite(found)).any():
        raise RequestError(400, f"input '{name}': {datatype} does not hold its numbers")
    return tensor


def _with_gaps(values: list[object]) -> Tensor:
    """Numbers of any length, and NaN for None."""
    gapless = [np.nan if value is None else value for value in values]
    if {type(value) for value in gapless} <= {int, float}:
        return np.array(gapless, np.float64)
    return np.array(gapless)


def _flat(data: object, depth: int) -> list[object]:
    """The values of lists in lists, at most `depth` of them, in their order."""
    values: list[object] = data if isinstance(data, list) else [data]
    for _ in range(depth - 1):
        values = [
            inner for value in values for inner in (value if isinstance(value, list) else [value])
        ]
    return values


def _shaped(tensor: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    if tensor.size != math.prod(shape):
        raise RequestError(
            400, f"input '{name}': {tensor.size} values do not fill the shape {list(shape)}"
        )
    return tensor.reshape(shape)


def _texts(raw: bytes, name: str) -> list[str]:
    texts: list[str] = []
    start = 0
    try:
        while start < len(raw):
            end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
            if end > len(raw):
                raise ValueError
            texts.append(raw[start + 4 : end].decode())
            start = end
    except ValueError:
        raise RequestError(
            400, f"input '{name}': its bytes are no texts in UTF-8, each after its length"
        ) from None
    return texts
