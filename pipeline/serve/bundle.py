"""The model that is served: the ONNX session and its signature, read, checked and warmed up."""

import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from pipeline.serve.codec.rows import Arrays, Row, decode, make_encoder
from pipeline.serve.codec.signature import Signature, example_row, parse_signature
from stages.common.errors import UserError
from stages.common.telemetry import switch_off_telemetry

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session

FILES = ("model.onnx", "signature.json")
WARM_UP_ROWS = 64
# What a run may take where it also keeps the server from everything else.
INLINE_SECONDS = 0.001
# Of a file: time, size, number; another one in its place differs.
Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Bundle:
    """A model with all that is needed to answer; it never changes.

    `inline_rows`: as many rows as run within INLINE_SECONDS on this machine.
    """

    signature: Signature
    session: "Session"
    encode: Callable[[list[Row]], Arrays]
    inline_rows: int
    stamp: Stamp

    @property
    def version(self) -> str:
        """The hash of the trained weights, as `predictions.parquet` names them."""
        return self.signature.model_md5

    def run(self, feeds: Arrays) -> list[npt.NDArray[Any]]:
        """The outputs in the signature's order, each (rows, ...)."""
        outputs: list[npt.NDArray[Any]] = self.session.run(None, feeds)
        return outputs


class MismatchError(UserError):
    """Two files that do not belong together: one of them is about to be replaced, or was lost."""


def read_stamp(folder: Path) -> Stamp | None:
    """A stamp of the pair of files, another for any other pair; None when one can't be had."""
    try:
        found = [(folder / name).stat() for name in FILES]
    except OSError:
        return None
    return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


def load_bundle(folder: Path) -> Bundle:
    """The model in `folder`, after a first run.

    Raises UserError when there is none, when it can't be read or run, or, as MismatchError, when
    signature and model do not belong together.
    """
    stamp = read_stamp(folder)
    if stamp is None:
        missing = next((name for name in FILES if not (folder / name).exists()), FILES[0])
        message = f"there is no {folder / missing}: 'dvc repro' makes it, 'dvc pull' fetches it"
        raise UserError(message)
    try:
        model, signature = (_read(folder / name) for name in FILES)
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}") from None
    described = parse_signature(signature)
    if _md5(model) != described.onnx_md5:
        raise MismatchError(
            f"{folder}/model.onnx and signature.json do not belong together: the signature is of "
            f"a model with the hash {described.onnx_md5[:12]}, this one has {_md5(model)[:12]}\n"
            "  'dvc checkout' or 'dvc repro' brings both"
        )
    session = _open(model, folder)
    _check_inputs(session, described, folder)
    encode = make_encoder(described)
    return Bundle(described, session, encode, _warm_up(session, described, encode, folder), stamp)


def _read(path: Path) -> bytes:
    """A file's bytes. Raises UserError where it is no file: to read a FIFO would take for ever."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UserError(f"{path} is no regular file: 'dvc checkout' brings the stage's own")
        return file.read()


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def _open(model: bytes, folder: Path) -> "Session":
    if not model:
        raise UserError(f"{folder}/model.onnx is empty: the model was not exported as ONNX")
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.inter_op_num_threads = 1
    # A thread that waits by spinning would take the server's own core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has a class of its own for each reason
        raise UserError(f"cannot load {folder}/model.onnx: {_reason(error)}") from None


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime, which is imported nowhere else here: without its telemetry.

    Its library reads the variable as it is loaded; later there is no way to keep it from looking
    up its collector's address, and from writing an identifier into the user's cache folder.
    """
    switch_off_telemetry()
    import onnxruntime

    return onnxruntime  # type: ignore[no-any-return]


def num_threads() -> int:
    """The threads of one run: REPRISE_THREADS, else one, with which small models are fastest."""
    threads = os.environ.get("REPRISE_THREADS", "1")
    if not threads.isdecimal() or int(threads) < 1:
        raise UserError(f"REPRISE_THREADS is '{threads}': it must be a whole number, 1 or more")
    return int(threads)


def _check_inputs(session: "Session", signature: Signature, folder: Path) -> None:
    for what, model_values, signature_values in (
        ("inputs", session.get_inputs(), signature.inputs),
        ("outputs", session.get_outputs(), signature.outputs),
    ):
        of_model, of_signature = (
            [each.name for each in named] for named in (model_values, signature_values)
        )
        if of_model != of_signature:
            raise UserError(
                f"{folder}/signature.json names the {what} {', '.join(of_signature[:12])}; "
                f"model.onnx has {', '.join(of_model[:12])}\n  'dvc repro infer' writes both anew"
            )


def _warm_up(
    session: "Session",
    signature: Signature,
    encode: Callable[[list[Row]], Arrays],
    folder: Path,
) -> int:
    """Run the example once and often; how many rows run within INLINE_SECONDS, 0 or more."""
    row = example_row(signature)
    try:
        # To its very end: an answer that can't be written would be found by the first request.
        decode(signature, session.run(None, encode([row])), [row])
        one, many = encode([row]), encode([row] * WARM_UP_ROWS)
        seconds = [_seconds(session, feeds) for feeds in (one, many)]
    except Exception as error:
        raise UserError(f"{folder}/model.onnx does not run: {_reason(error)}") from None
    alone, together = seconds
    if alone > INLINE_SECONDS:
        return 0
    each = max((together - alone) / (WARM_UP_ROWS - 1), 1e-9)
    return 1 + int((INLINE_SECONDS - alone) / each)


def _seconds(session: "Session", feeds: Arrays) -> float:
    shortest = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        session.run(None, feeds)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
