"""A long plain CSV file read by the workers of a cluster, each range into a file of its own."""

import os
import secrets
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

import stages.formats.csv as csv
import stages.prepare.table.collected as collected_parts
from stages.formats.reading import Noticed
from stages.formats.text.compressed import suffix_of
from stages.parallel.mapper import Mapper
from stages.prepare.table.collected import Collected, Look, look_at
from stages.prepare.table.csv_ranges import Ranges, find_ranges


@dataclass(frozen=True)
class Reading:
    """All that a worker must know to read any range: `seen` are the types in the first one."""

    ranges: Ranges
    seen: dict[str, pl.DataType]
    as_text: frozenset[str]


@dataclass(frozen=True)
class Place:
    """A range of the file, and the file for its rows."""

    start: int
    end: int
    file: Path


def collect_ranges(
    path: Path, noticed: Noticed, collected: Collected, as_text: frozenset[str], mapper: Mapper
) -> bool:
    """Collect a file by its ranges; False, and nothing is collected, where that can't be done.

    That is a short one, any other format, and one with quotes or damaged lines. The rows lie in a
    folder of this attempt alone: a worker may still be at a part of one that was given up.
    """
    is_csv = path.is_file() and suffix_of(path) in (".csv", ".tsv")
    if not mapper.is_remote or not is_csv or path.stat().st_size <= collected_parts.MEMORY_BYTES:
        return False
    own = Noticed(expected=noticed.expected)
    ranges = find_ranges(path, csv.separator_of(path), own)
    places = None if ranges is None else ranges.cut(csv.PART_BYTES)
    if ranges is None or not places:
        return False
    block = ranges.read(*places[0])
    if block is None:
        return False
    seen: dict[str, pl.DataType] = dict.fromkeys(as_text, pl.String())
    csv.add_types(seen, csv.read_block(block, ranges.separator, ranges.names, seen, as_text))
    reading = Reading(ranges, seen, as_text)
    folder = collected.folder / f"ranges-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    files = (folder / f"{number:06}.arrow" for number in range(len(places)))
    numbered = [Place(*place, file) for place, file in zip(places, files, strict=True)]
    looks = []
    for look in mapper.map(partial(read_place, reading), numbered):
        if look is None:
            shutil.rmtree(folder, ignore_errors=True)
            return False
        looks.append(look)
    noticed.remarks += own.remarks
    noticed.separators |= own.separators
    collected.take(look_at(csv.header_part(ranges.names).table), pl.DataFrame(), noticed)
    for look, place in zip(looks, numbered, strict=True):
        collected.take(look, place.file, noticed)
    return True


def read_place(reading: Reading, place: Place) -> Look | None:
    """Read a range, write its rows into its file, and return what the table must know of it.

    None where a line is not plain.
    """
    block = reading.ranges.read(place.start, place.end)
    if block is None:
        return None
    ranges = reading.ranges
    try:
        part = csv.read_block(block, ranges.separator, ranges.names, reading.seen, reading.as_text)
    except (pl.exceptions.PolarsError, ValueError):
        # The error is told by the reader of the whole, which knows the number of the row.
        return None
    # Another worker may write the same, if this one is taken for lost.
    temporary = place.file.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}")
    part.table.write_ipc(temporary)
    temporary.replace(place.file)
    return look_at(part.table)
