"""The one reading of what is a row of CSV: strict, counted, a damaged line named by its number.

Fields are divided by the separator, lines by LF, CRLF or CR. A field that begins with a quote
ends with one; quotes within it are doubled, and separators and line breaks are part of it. Text
after the closing quote, a quote that never closes, more or fewer fields than the header has, a
NUL byte and bytes that are no UTF-8 are damage, of one line: the next line begins anew. Blanks
around a field are no part of it, a quote inside a field that does not begin with one is text, and
an empty line is no row (it is one, with a gap, in a file of one column).

`scan` hands on whole records in one plain form, which no parser can read in two ways. Clean
parts, nearly all, are checked with NumPy; a part with anything else in it goes record by record.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.formats.reading import Damage
from stages.formats.text.pieces import describe_utf8_error, mark_last

LINE_END = re.compile(rb"\r\n|\n|\r")
# A quote that opens and does not close is looked for so far; no memory holds more at once.
MAX_RECORD_BYTES = 32 << 20
_QUOTE, _LF, _CR = b'"\n\r'


class Form:
    """The division of a file into fields, and their number; `width` 0 takes any."""

    def __init__(self, separator: str, width: int = 0) -> None:
        self.separator = separator.encode()
        self.width = width
        self.blanks = b" " if separator == "\t" else b" \t"
        blank = b"[" + self.blanks + b"]*+"
        quoted = rb'"((?:[^"]++|"")*+)"' + blank
        plain = rb'((?!")[^\r\n' + re.escape(self.separator) + rb"]*+)"
        self.field = re.compile(blank + rb"(?:" + quoted + rb"|" + plain + rb")")
        self.may_stand_around_quotes = np.zeros(256, np.bool_)
        self.may_stand_around_quotes[[self.separator[0], _LF, _QUOTE, _CR]] = True


@dataclass(frozen=True)
class Block:
    """Rows that follow each other: `content` holds the whole ones, `damaged` the others."""

    start: int
    content: bytes
    num_whole: int
    damaged: list[Damage]

    def rows(self) -> npt.NDArray[np.int64]:
        """The numbers of the whole rows, (num_whole,)."""
        numbers = np.arange(self.start, self.start + self.num_whole + len(self.damaged))
        return np.setdiff1d(numbers, [damage.row for damage in self.damaged], assume_unique=True)


class Record(NamedTuple):
    """The finding at a place: `content` of a row, or the `reason` that it is none, or neither."""

    end: int
    content: bytes | None = None
    reason: str = ""


def scan(pieces: Iterable[bytes], form: Form, line: int) -> Iterator[Block]:
    """The records of `pieces`, of which the first begins in line `line` of the file (from 1)."""
    rest, row = b"", 0
    for piece, is_last in mark_last(pieces):
        data = rest + piece
        if not data:
            continue
        clean = take_clean(data, form, is_last=is_last)
        if clean is not None:
            content, num_rows, rest = clean
            yield Block(row, content, num_rows, [])
            row, line = row + num_rows, line + content.count(b"\n")
            if not (is_last and rest):
                continue
            data = rest
        block, rest, line = _take_slowly(data, form, row, line, is_last=is_last)
        row += block.num_whole + len(block.damaged)
        yield block


def take_clean(data: bytes, form: Form, *, is_last: bool) -> tuple[bytes, int, bytes] | None:
    """The records at the start of `data`, their number, and the rest; None if any is not plain."""
    held = b"\r" if data.endswith(b"\r") and not is_last else b""
    data = data[: len(data) - len(held)]
    if is_last and not data.endswith((b"\n", b"\r")):
        data += b"\n"
    if b"\0" in data:
        return None
    has_quotes = b'"' in data
    if b"\r" in data:
        if not has_quotes:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif data.count(b"\r") != data.count(b"\r\n"):
            return None
    codes = np.frombuffer(data, np.uint8)
    is_end, is_separator = codes == _LF, codes == form.separator[0]
    if has_quotes:
        outside = np.bitwise_xor.accumulate((codes == _QUOTE).view(np.uint8)) == 0
        is_end &= outside
        is_separator &= outside
    places = np.flatnonzero(is_end)
    if not len(places) or not _have_width(is_separator[: places[-1] + 1], places, form.width):
        return None
    content, rest = data[: places[-1] + 1], data[places[-1] + 1 :]
    if not content.isascii() and describe_utf8_error(content) is not None:
        return None
    if has_quotes:
        if not _quotes_are_plain(codes[: len(content)], places, form):
            return None
        content = _without_cr(content, places)
    return content, len(places), rest + held


def _have_width(
    is_separator: npt.NDArray[np.bool_], ends: npt.NDArray[np.int64], width: int
) -> bool:
    """Check whether each line, up to its place in `ends`, has the separators of `width` fields."""
    num_separators = width - 1
    if num_separators < 0 or np.count_nonzero(is_separator) != len(ends) * num_separators:
        return False
    # The sums of single bytes, six times as fast as others, are right up to a multiple of 256.
    fits = np.uint8 if width <= 256 else np.int64
    starts = np.concatenate([[0], ends[:-1] + 1])
    found = np.add.reduceat(is_separator.view(np.uint8), starts, dtype=fits)
    return bool((found == num_separators).all())


def _quotes_are_plain(
    codes: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], form: Form
) -> bool:
    """Check whether every quote opens a field, closes one, or is doubled.

    No text has many lines.
    """
    quotes = np.flatnonzero(codes == _QUOTE)
    before = codes[np.maximum(quotes[0::2] - 1, 0)]
    before[quotes[0::2] == 0] = _LF
    after = codes[quotes[1::2] + 1]
    if not (form.may_stand_around_quotes[before] & (before != _CR)).all():
        return False
    if not form.may_stand_around_quotes[after].all():
        return False
    breaks = np.flatnonzero(codes == _LF)
    records = np.searchsorted(ends, breaks)
    return bool((np.bincount(records) <= 2).all())


def _without_cr(content: bytes, ends: npt.NDArray[np.int64]) -> bytes:
    if b"\r" not in content:
        return content
    codes = np.frombuffer(content, np.uint8)
    keep = np.ones(len(codes), np.bool_)
    keep[ends[(ends > 0) & (codes[ends - 1] == _CR)] - 1] = False
    return codes[keep].tobytes()


def _take_slowly(
    data: bytes, form: Form, row: int, line: int, *, is_last: bool
) -> tuple[Block, bytes, int]:
    """The records of `data` one by one, what is left of it, and the line where that begins."""
    place, start, contents, damaged = 0, row, [], []
    while place < len(data):
        record = next_record(data, place, form, line, is_last=is_last)
        if record is None:
            break
        if record.reason:
            damaged.append(Damage(row, record.reason))
            row += 1
        elif record.content is not None:
            contents.append(record.content)
            row += 1
        line += len(LINE_END.findall(data, place, record.end))
        place = record.end
    content = b"".join(each + b"\n" for each in contents)
    return Block(start, content, len(contents), damaged), data[place:], line


def next_record(data: bytes, place: int, form: Form, line: int, *, is_last: bool) -> Record | None:
    """The record that begins at `place`; None where more bytes are needed to tell."""
    found = LINE_END.search(data, place)
    is_open = found is None or (found.end() == len(data) and found[0] == b"\r")
    if is_open and not is_last:
        if len(data) - place > MAX_RECORD_BYTES:
            raise ValueError(f"line {line} is longer than {MAX_RECORD_BYTES >> 20} MB")
        return None
    end, following = found.span() if found else (len(data), len(data))
    text = data[place:end]
    if b'"' in text:
        record = _quoted_record(data, place, form, line, is_last=is_last)
        if record is None or record.content is not None:
            return record
        # Whatever a wrong quote swallowed: the damage is of this line, the next begins anew.
        return Record(following, reason=record.reason)
    count = text.count(form.separator) + 1
    if count != form.width and form.width != 1 and not text.strip(form.blanks):
        return Record(following)
    reason = _wrong_bytes(text, line) or _wrong_count(text, count, form, line)
    return Record(following, reason=reason) if reason else Record(following, text)


def _quoted_record(
    data: bytes, place: int, form: Form, line: int, *, is_last: bool
) -> Record | None:
    """As `next_record`, of a record whose first line holds a quote; `end` only of a whole one."""
    fields: list[bytes] = []
    at, after = place, form.separator
    while after == form.separator:
        found = form.field.match(data, at)
        if found is None:
            if not is_last and len(data) - place <= MAX_RECORD_BYTES:
                return None
            return Record(0, reason=f"{_where(data, place, at, line)} the quote never closes")
        if found.end() == len(data) and not is_last:
            return None
        after = data[found.end() : found.end() + 1]
        if after not in (form.separator, b"\n", b"\r", b""):
            said = "text follows the quote that closes this field; a quote within a text is doubled"
            return Record(0, reason=f"{_where(data, place, at, line)} {said}")
        if _looks_like_rows(found[1] or b"", form):
            said = "the quote that opens this field closes only after whole rows"
            return Record(0, reason=f"{_where(data, place, at, line)} {said}")
        fields.append(_plain_field(found))
        end = found.end()
        at = end + 1
    text = data[place:end]
    reason = _wrong_bytes(text, line) or _wrong_count(text, len(fields), form, line)
    if reason:
        return Record(0, reason=reason)
    if data[end:] == b"\r" and not is_last:
        return None
    end += len(b"\r\n") if data[end : end + 2] == b"\r\n" else len(after)
    return Record(end, form.separator.join(fields))


def split_fields(record: bytes, form: Form) -> list[bytes]:
    """The fields of a whole record, without quotes and with the doubled ones once."""
    fields: list[bytes] = []
    at = 0
    while at <= len(record):
        found = form.field.match(record, at)
        assert found is not None
        fields.append(found[2] if found[1] is None else found[1].replace(b'""', b'"'))
        at = found.end() + 1
    return fields


def _plain_field(found: re.Match[bytes]) -> bytes:
    """The field with quotes where a parser needs them, and doubled ones within."""
    if found[1] is not None:
        return b'"' + found[1] + b'"'
    text = found[2]
    return b'"' + text.replace(b'"', b'""') + b'"' if b'"' in text else text


def _looks_like_rows(text: bytes, form: Form) -> bool:
    """Check whether half of a quoted text's whole lines have as many fields as a row has."""
    if form.width < 3 or not (b"\n" in text or b"\r" in text):
        return False
    inner = [line.count(form.separator) for line in LINE_END.split(text)[1:-1]]
    return bool(inner) and 2 * inner.count(form.width - 1) >= len(inner)


def _wrong_bytes(text: bytes, line: int) -> str:
    if b"\0" in text:
        column = text.index(b"\0") + 1
        return f"line {line}: a NUL byte stands in column {column}; remove it"
    reason = None if text.isascii() else describe_utf8_error(text)
    return f"line {line}: {reason}" if reason else ""


def _wrong_count(text: bytes, count: int, form: Form, line: int) -> str:
    if form.width in (0, count):
        return ""
    hint = " (a comment?)" if text.lstrip().startswith(b"#") else ""
    return f"line {line} has {count_fields(count)}, and the header {form.width}{hint}"


def count_fields(count: int) -> str:
    """`count` as a person says it."""
    return "1 field" if count == 1 else f"{count} fields"


def _where(data: bytes, place: int, at: int, line: int) -> str:
    """The line and the column, counted in characters, where the field at `at` begins."""
    line += len(LINE_END.findall(data, place, at))
    start = max(place, data.rfind(b"\n", place, at) + 1, data.rfind(b"\r", place, at) + 1)
    return f"line {line}, column {len(data[start:at].decode('utf-8', 'replace')) + 1}:"
