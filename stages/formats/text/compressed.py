"""The bytes of a file, some megabytes at a time, decompressed where it is gzip or zstd.

Which of them it is says the beginning of the file, not its name. A file of several parts, as
`cat`, bgzip and log shippers leave it, is read to its end, and one that is cut off is an error.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from stages.formats.reading import Noticed

READ_BYTES = 2 << 20
TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson")
# Behind the suffix of a text: `table.csv.gz`.
COMPRESSED = (".gz", ".zst")
_GZIP, _ZSTD, _ZIP, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1"
_OTHERS = {_ZIP: "a zip archive or an Excel file", _PARQUET: "Parquet"}


def suffix_of(path: Path) -> str:
    """The suffix that names the format, in small letters: of `a.csv.gz` it is `.csv`."""
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    return inner if suffix in COMPRESSED and inner in TEXTS else suffix


def read_bytes(path: Path, noticed: Noticed | None = None) -> Iterator[bytes]:
    """The file piece by piece. Raises ValueError where compressed data are cut off or damaged."""
    with path.open("rb") as raw:
        start = raw.read(4)
        raw.seek(0)
        for magic, what in _OTHERS.items():
            if start == magic:
                raise ValueError(f"it is no text, but {what}: give it the suffix of what it is")
        if start.startswith(_GZIP):
            yield from _decompressed(cast(BinaryIO, gzip.GzipFile(fileobj=raw)), raw, "gzip")
        elif start == _ZSTD:
            yield from _decompressed(_open_zstd(raw), raw, "zstd")
        else:
            if noticed is not None and path.suffix.lower() in COMPRESSED:
                noticed.remarks.append(f"{path} is not compressed, whatever its name says")
            while piece := raw.read(READ_BYTES):
                yield piece


def is_packed(start: bytes) -> bool:
    """Check whether a file that begins so is something else than a text, or one compressed."""
    return start.startswith((_GZIP, _ZSTD, *_OTHERS))


def _decompressed(file: BinaryIO, raw: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        while piece := file.read(READ_BYTES):
            yield piece
    except (EOFError, OSError, zlib.error) as error:
        place = raw.tell()
        if isinstance(error, EOFError) or "Truncated" in str(error):
            raise ValueError(
                f"it is cut off: its {name} data end at byte {place:,} without their end mark; "
                "fetch the file again"
            ) from None
        # What was read ahead holds the place.
        raise ValueError(f"its {name} data are damaged before byte {place:,}: {error}") from None


def _open_zstd(raw: BinaryIO) -> BinaryIO:
    import pyarrow

    return cast(BinaryIO, pyarrow.CompressedInputStream(raw, "zstd"))
