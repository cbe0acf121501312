"""A plain CSV file as ranges of its bytes, each of which is a part that another process can read.

The parts are those that `csv.parts` makes, row by row. A file is plain without quotes, carriage
returns, NULs and damaged lines; that it is, each range tells when it is read.
"""

import codecs
import os
from dataclasses import dataclass
from pathlib import Path

import stages.formats.text.compressed as compressed
from stages.common.errors import UserError
from stages.formats.reading import Noticed
from stages.formats.text.csv_scan import Block, Form, take_clean
from stages.formats.text.layout import find_layout
from stages.formats.text.pieces import SNIFFED_BYTES, find_wide
from stages.formats.text.plain_values import refuse_patterns

# A line's end is looked for so far before the place where a part may end.
LOOK_BACK = 1 << 16
_NOT_PLAIN = (b'"', b"\r", b"\0")


@dataclass(frozen=True)
class Ranges:
    """A file with its header read, and the first byte behind it.

    `is_ascii`: its first bytes are, so all must be; else the first two that are read are one.
    `changed` is its time of change in nanoseconds: who reads another file does not go on.
    """

    path: Path
    separator: str
    names: list[str]
    begin: int
    is_ascii: bool
    size: int
    changed: int

    def cut(self, part_bytes: int) -> list[tuple[int, int]] | None:
        """The first byte of each part, and the one behind its last; None at a very long line."""
        step, size = compressed.READ_BYTES, self.size
        start = place = self.begin
        found = []
        with self.path.open("rb") as file:
            while start < size:
                # As blocks are joined: each ends with the last line before a multiple of `step`.
                place = max(place, -(-(start + part_bytes) // step) * step)
                if place == step and not self.is_ascii:
                    place += step
                end = size
                if place < size:
                    low = max(start, place - LOOK_BACK)
                    file.seek(low)
                    end = low + file.read(place - low).rfind(b"\n") + 1
                    if end == low > start:
                        return None
                    if end - start < part_bytes:
                        place += step
                        continue
                found.append((start, end))
                start = end
        return found

    def read(self, start: int, end: int) -> Block | None:
        """The rows of a range; None where they are not plain. Raises UserError at another file."""
        with self.path.open("rb") as file:
            found = os.fstat(file.fileno())
            file.seek(start)
            data = file.read(end - start)
        if (found.st_size, found.st_mtime_ns) != (self.size, self.changed):
            raise UserError(
                f"{self.path} has changed since it was first opened, or a worker sees another file "
                f"there: {found.st_size} bytes and the time {found.st_mtime_ns} ns, at first "
                f"{self.size} bytes and {self.changed} ns"
            )
        if len(data) != end - start:
            raise UserError(f"{self.path} was cut off while it was read, before byte {end}")
        if any(sign in data for sign in _NOT_PLAIN) or (self.is_ascii and not data.isascii()):
            return None
        clean = take_clean(data, Form(self.separator, len(self.names)), is_last=True)
        if clean is None or clean[2]:
            return None
        return Block(0, clean[0], clean[1], [])


def find_ranges(path: Path, separator: str, noticed: Noticed) -> Ranges | None:
    """The file with its header read; None for one that is short, compressed or no plain UTF-8.

    `separator` is that which the suffix promises. `noticed` is told what its head has to say.
    """
    if path.suffix.lower() in compressed.COMPRESSED:
        # One that is not, whatever its name says, is remarked on by the reader of the whole.
        return None
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(compressed.READ_BYTES)
    is_short = len(head) < compressed.READ_BYTES
    if is_short or compressed.is_packed(head) or find_wide(head[:SNIFFED_BYTES]) is not None:
        return None
    data = head.removeprefix(codecs.BOM_UTF8)
    layout = find_layout(data, separator, noticed.expected, is_last=False)
    if layout is None or any(sign in data[: layout.start] for sign in _NOT_PLAIN):
        return None
    noticed.remarks += [f"{path} {remark}" for remark in layout.remarks]
    noticed.separators.add(layout.separator)
    refuse_patterns(layout.names)
    begin = len(head) - len(data) + layout.start
    return Ranges(
        path.resolve(),
        layout.separator,
        layout.names,
        begin,
        data.isascii(),
        status.st_size,
        status.st_mtime_ns,
    )
