"""The Open Inference Protocol, version 2: a request's tensors to feeds, outputs to an answer.

An input is called as its column, whatever the graph calls it.

https://github.com/open-inference/open-inference-protocol
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from pipeline.serve.bundle import Bundle
from pipeline.serve.codec.problems import Answer, RequestError, show
from pipeline.serve.codec.rows import Arrays, too_many_rows
from pipeline.serve.codec.signature import Input
from pipeline.serve.codec.tensors import DTYPES, TYPES, Tensor, from_bytes, from_json, to_bytes
from stages.common.errors import shorten
from stages.features.kind import kind_of
from stages.features.spelling import is_word, word_numbers

LENGTH_HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class WantedOutputs:
    """The outputs of an answer in their order, and whether each goes as bytes."""

    id: str | None
    outputs: list[tuple[str, bool]]


def describe(bundle: Bundle, name: str) -> dict[str, object]:
    """The model's metadata; -1 is the number of rows."""
    signature = bundle.signature
    return {
        "name": name,
        "versions": [bundle.version],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": each.column, "datatype": _datatype(each), "shape": [-1, *each.row_shape]}
            for each in signature.inputs
        ],
        "outputs": [
            {"name": each.name, "datatype": TYPES[each.type], "shape": [-1, *each.shape[1:]]}
            for each in signature.outputs
        ],
    }


def read_request(
    content: object, binary: bytes, bundle: Bundle, max_rows: int
) -> tuple[Arrays, int, WantedOutputs]:
    """Feeds, the number of rows and what is wanted, of a request's JSON and the bytes after it.

    Raises RequestError 400 with the input and what is wrong with it.
    """
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), list):
        raise RequestError(400, 'the body must be {"inputs": [{"name": …, "shape": …, …}, …]}')
    known = {each.column: each for each in bundle.signature.inputs}
    columns: Arrays = {}
    for item in content["inputs"]:
        name, datatype, shape, parameters = _described(item, known, columns)
        size = parameters.get("binary_data_size")
        if size is None:
            exact = _datatype(known[name]) == "BYTES"
            tensor = from_json(item.get("data"), datatype, shape, name, exact=exact)
        else:
            if "data" in item:
                raise RequestError(400, f"input '{name}' has both data and binary_data_size")
            if type(size) is not int or not 0 <= size <= len(binary):
                raise RequestError(400, f"input '{name}': its binary_data_size is not there")
            tensor = from_bytes(binary[:size], datatype, shape, name)
            binary = binary[size:]
        columns[name] = _to_feed(tensor, known[name])
    if binary:
        raise RequestError(400, f"{len(binary)} bytes belong to no input")
    if missing := [name for name in known if name not in columns]:
        raise RequestError(400, f"these inputs are missing: {', '.join(missing[:12])}")
    num_rows = {len(tensor) for tensor in columns.values()}
    if len(num_rows) != 1:
        raise RequestError(400, f"the inputs differ in their rows: {sorted(num_rows)}")
    (num,) = num_rows
    if num == 0:
        raise RequestError(400, "there must be at least one row")
    if num > max_rows:
        raise too_many_rows(num, max_rows)
    feeds = {known[name].name: tensor for name, tensor in columns.items()}
    return feeds, num, _wanted(content, bundle)


def _described(
    item: object, known: dict[str, Input], seen: Container[str]
) -> tuple[str, str, tuple[int, ...], dict[str, Any]]:
    """Name, datatype, shape and parameters of a request's input."""
    if not isinstance(item, dict):
        raise RequestError(400, "each of inputs must be an object")
    name, datatype, shape = (item.get(key) for key in ("name", "datatype", "shape"))
    if not isinstance(name, str) or name not in known:
        shown = ", ".join(list(known)[:12])
        raise RequestError(400, f"there is no input {_quote(name)}; the model has {shown}")
    if name in seen:
        raise RequestError(400, f"input '{name}' is there twice")
    if not isinstance(datatype, str) or (datatype not in DTYPES and datatype != "BYTES"):
        allowed = ", ".join([*DTYPES, "BYTES"])
        raise RequestError(400, f"input '{name}': datatype {_quote(datatype)} is none of {allowed}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise RequestError(400, f"input '{name}': its shape must be a list of whole numbers")
    expected = known[name].row_shape
    if (tuple(shape[1:]) != expected and not (expected == () and shape[1:] == [1])) or not shape:
        raise RequestError(
            400, f"input '{name}' is of shape {show(shape)}; the model takes {[-1, *expected]}"
        )
    parameters = item.get("parameters") or {}
    if not isinstance(parameters, dict) or "shared_memory_region" in parameters:
        raise RequestError(400, f"input '{name}': its parameters are not supported")
    # A column may come as one of a table.
    return name, datatype, (shape[0], *expected), parameters


def _datatype(each: Input) -> str:
    return TYPES[kind_of(each.kind).TYPE]


def _to_feed(tensor: Tensor, each: Input) -> Tensor:
    """The tensor as the bundle takes it; where its values are none for this column, an error."""
    wrong, datatype = f"input '{each.column}' must hold ", _datatype(each)
    if tensor.dtype == object and datatype != "BYTES":
        raise RequestError(400, f"{wrong}numbers, such as {datatype}, not BYTES")
    if each.missing_words:
        tensor = _without_words(tensor, each)
    try:
        return kind_of(each.kind).read_tensor(each, tensor)
    except ValueError as error:
        raise RequestError(400, f"{wrong}{error}") from None


def _without_words(tensor: Tensor, each: Input) -> Tensor:
    """The tensor with gaps for the column's words."""
    if tensor.dtype == object:
        words = each.missing_words
        values = [None if is_word(v, words, numbers=False) else v for v in tensor]
        return np.array(values, dtype=object)
    is_gap = np.isin(tensor, word_numbers(each.missing_words))
    return np.where(is_gap, np.nan, tensor) if is_gap.any() else tensor


def _wanted(content: dict[str, Any], bundle: Bundle) -> WantedOutputs:
    names = [each.name for each in bundle.signature.outputs]
    number = content.get("id")
    if number is not None and not isinstance(number, str):
        raise RequestError(400, "id must be a text")
    requested = content.get("outputs")
    parameters = content.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError(400, "parameters must be an object")
    all_binary = bool(parameters.get("binary_data_output", False))
    if not requested:
        return WantedOutputs(number, [(name, all_binary) for name in names])
    outputs: list[tuple[str, bool]] = []
    for item in requested if isinstance(requested, list) else [requested]:
        name = item.get("name") if isinstance(item, dict) else None
        if name not in names:
            raise RequestError(
                400, f"there is no output {_quote(name)}; the model has {', '.join(names)}"
            )
        if any(name == before for before, _ in outputs):
            raise RequestError(400, f"output '{name}' is asked for twice")
        parameters = item.get("parameters") or {}
        if not isinstance(parameters, dict) or parameters.get("classification"):
            raise RequestError(400, f"output '{name}': its parameters are not supported")
        outputs.append((name, bool(parameters.get("binary_data", all_binary))))
    return WantedOutputs(number, outputs)


def _quote(value: object) -> str:
    """A name that somebody sent, in quotes; anything else as it is."""
    return f"'{shorten(value)}'" if isinstance(value, str) else show(value)


def answer(bundle: Bundle, name: str, wanted: WantedOutputs, outputs: list[Tensor]) -> Answer:
    """The outputs that are wanted, as JSON, or as JSON with bytes after it."""
    described = bundle.signature.outputs
    by_name = {each.name: (each, tensor) for each, tensor in zip(described, outputs, strict=True)}
    content: dict[str, Any] = {"model_name": name, "model_version": bundle.version}
    if wanted.id is not None:
        content["id"] = wanted.id
    parts: list[bytes] = []
    content["outputs"] = []
    for output_name, as_bytes in wanted.outputs:
        each, tensor = by_name[output_name]
        datatype = TYPES[each.type]
        said: dict[str, Any] = {"name": output_name, "datatype": datatype, "shape": tensor.shape}
        if as_bytes:
            parts.append(to_bytes(tensor, datatype))
            said["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            said["data"] = tensor.ravel().tolist()
        content["outputs"].append(said)
    if not parts:
        return Answer(orjson.dumps(content))
    head = orjson.dumps(content)
    headers = {LENGTH_HEADER: str(len(head))}
    return Answer(b"".join([head, *parts]), 200, "application/octet-stream", headers)
