"""The bytes of a text file, some megabytes at a time, as UTF-8 without a byte order mark.

A file is UTF-32 or UTF-16 by its mark, or by its share of NULs; else UTF-8. Where no letter
beyond ASCII in the whole file is UTF-8, and each is one of Windows-1252, of which Latin-1's
letters are a part, it is read as that. A file that holds both is UTF-8, and the lines with other
bytes are damaged.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import stages.formats.text.compressed as compressed
from stages.formats.reading import Noticed

SNIFFED_BYTES = 4096
Item = TypeVar("Item")
_MARKS = (
    # That of UTF-32 begins as that of UTF-16 does.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
# In texts of the error handler 'surrogateescape': a letter, a byte that is none, one of no letter.
_LETTER = re.compile("[\x80-\ud7ff\ue000-\U0010ffff]")
_BYTE = re.compile("[\udc80-\udcff]")
_UNDEFINED = re.compile("[\udc81\udc8d\udc8f\udc90\udc9d]")


def read_pieces(path: Path, noticed: Noticed) -> Iterator[bytes]:
    """The file piece by piece; `noticed` is told of another encoding than UTF-8.

    Raises ValueError where UTF-16, UTF-32 or compressed data are damaged.
    """
    pieces = compressed.read_bytes(path, noticed)
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= SNIFFED_BYTES:
            break
    encoding = find_wide(start[:SNIFFED_BYTES])
    if encoding is not None:
        name = encoding[:6].upper()
        noticed.remarks.append(f"{path} is {name}, and read as such")
        yield from _transcode(_cut(chain([start], pieces)), encoding, name)
        return
    start = start.removeprefix(codecs.BOM_UTF8)
    yield from _narrow(_cut(chain([start], pieces)), path, noticed)


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
        shown = wrong.decode("cp1252", errors="ignore")
        hint = f", as the rest is (in Latin-1 it is '{shown}')" if shown else ""
        return (
            f"the byte 0x{wrong.hex().upper()} in column {column} is no UTF-8{hint}: save the "
            "file as UTF-8"
        )
    return None


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are no longer than READ_BYTES."""
    size = compressed.READ_BYTES
    for piece in pieces:
        for place in range(0, len(piece), size):
            yield piece[place : place + size]


def find_wide(start: bytes) -> str | None:
    """The kind of UTF-16 or UTF-32 that a file begins as, by its mark or by where its NULs are."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if start.count(0) <= 0.3 * len(start):
        return None
    if start.count(0) > 0.6 * len(start):
        return "utf-32-be" if start[:1] == b"\0" else "utf-32-le"
    return "utf-16-be" if start[0::2].count(0) > start[1::2].count(0) else "utf-16-le"


def _transcode(pieces: Iterable[bytes], encoding: str, name: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece in pieces:
            yield decoder.decode(piece).encode("utf-8")
        yield decoder.decode(b"", final=True).encode("utf-8")
    except UnicodeError as error:
        raise ValueError(f"it is {name}, but damaged: {error}; save it as UTF-8") from None


def _narrow(pieces: Iterator[bytes], path: Path, noticed: Noticed) -> Iterator[bytes]:
    """UTF-8 as it is, or Windows-1252: the first letter beyond ASCII decides, or all of them."""
    for piece in pieces:
        if piece.isascii():
            yield piece
            continue
        found = _NOT_ASCII.search(piece)
        assert found is not None
        for following in pieces:
            piece += following
            if len(piece) - found.start() >= 4:
                break
        rest = chain([piece], pieces)
        if _begins_with_letter(piece[found.start() :]) or not (num := _count_bytes(path)):
            yield from rest
            return
        shown = piece[found.start() : found.start() + 1]
        noticed.remarks.append(
            f"{path} is not UTF-8: {num:,} of its bytes are read as Windows-1252 (Latin-1), the "
            f"first, 0x{shown.hex().upper()}, as '{shown.decode('cp1252')}'; if that is wrong, "
            "save it as UTF-8"
        )
        yield from _transcode(rest, "cp1252", "Windows-1252")
        return


def _begins_with_letter(text: bytes) -> bool:
    for length in (2, 3, 4):
        try:
            text[:length].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


def _count_bytes(path: Path) -> int:
    """The bytes beyond ASCII of a file of Windows-1252; 0 where it is not one."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    count = 0
    for piece in chain(compressed.read_bytes(path), [b""]):
        text = decoder.decode(piece, final=not piece)
        if text.isascii():
            continue
        if _LETTER.search(text) or _UNDEFINED.search(text):
            return 0
        count += len(_BYTE.findall(text))
    return count
