"""The bytes of a text file, some megabytes at a time, as UTF-8 without a byte order mark."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from stages.formats.reading import Noticed

READ_BYTES = 2 << 20
SNIFFED_BYTES = 4096
Item = TypeVar("Item")


def read_pieces(path: Path, noticed: Noticed) -> Iterator[bytes]:
    """The file piece by piece. UTF-16 becomes UTF-8, which `noticed` is told.

    Raises ValueError where UTF-16 is damaged.
    """
    with path.open("rb") as file:
        start = file.read(SNIFFED_BYTES)
        file.seek(0)
        encoding = _utf_16(start)
        if encoding is None:
            file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
            while piece := file.read(READ_BYTES):
                yield piece
            return
        noticed.remarks.append(f"{path} is UTF-16, and read as such")
        yield from _transcode(file, encoding)


def mark_last(items: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
    """Each item, and whether it is the last one."""
    iterator = iter(items)
    try:
        item = next(iterator)
    except StopIteration:
        return
    for following in iterator:
        yield item, False
        item = following
    yield item, True


def describe_utf8_error(text: bytes) -> str | None:
    """The first byte of `text` that is no UTF-8, its place and the remedy; None where none is."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = text[error.start : error.start + 1]
        column = len(text[: error.start].decode("utf-8")) + 1
        shown = wrong.decode("cp1252", errors="replace")
        return (
            f"the byte 0x{wrong.hex().upper()} in column {column} is no UTF-8 (in Latin-1 it is "
            f"'{shown}'): save the file as UTF-8"
        )
    return None


def _utf_16(start: bytes) -> str | None:
    """The kind of UTF-16 that a file begins as: by its mark, or by every second byte being 0."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start.count(0) <= 0.3 * len(start):
        return None
    return "utf-16-be" if start[0::2].count(0) > start[1::2].count(0) else "utf-16-le"


def _transcode(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while piece := file.read(READ_BYTES):
            yield decoder.decode(piece).encode("utf-8")
        yield decoder.decode(b"", final=True).encode("utf-8")
    except UnicodeError as error:
        raise ValueError(f"it is UTF-16, but damaged: {error}; save it as UTF-8") from None
