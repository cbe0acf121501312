"""A CSV file read as texts, some thousands of rows at a time, with pyarrow's reader."""

import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

CSV_BLOCK_BYTES = 4 << 20
MAX_WAIT_SECONDS = 2.0


def read_batches(
    path: Path, separator: str, wanted: list[str], set_aside: Callable[[csv.InvalidRow], str]
) -> Iterator[pa.RecordBatch]:
    """The columns `wanted`, as texts, in batches; a line of another length goes to `set_aside`.

    At the end it waits until pyarrow's reading thread, which works ahead, has let go of the
    function: a process that ends before that is aborted by that thread.
    """

    def handle(line: csv.InvalidRow) -> str:
        return set_aside(line)

    held, reader = weakref.ref(handle), None
    try:
        reader = csv.open_csv(
            path,
            csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
            csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=handle
            ),
            csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.large_string())
            ),
        )
        with reader:
            yield from reader
    finally:
        del handle, reader
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while held() is not None and time.monotonic() < deadline:
            time.sleep(0.001)
