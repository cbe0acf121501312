"""A part of a table from its Arrow file: where all types are plain, mapped and not copied."""

from collections.abc import Collection
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import ipc

# They are the same to polars and to pyarrow; of some others it can't even open the file.
PLAIN = {
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.Boolean, pl.String),
}


def read_part(path: Path, names: Collection[str]) -> pl.DataFrame:
    """Those of the columns `names` that the file has, in its order.

    Polars would copy them, which takes twice the time.
    """
    schema = pl.read_ipc_schema(path)
    there = [name for name in schema if name in names]
    if not there or any(dtype not in PLAIN for dtype in schema.values()):
        return pl.read_ipc(path, columns=there)
    places = [place for place, name in enumerate(schema) if name in names]
    options = ipc.IpcReadOptions(included_fields=places, use_threads=False)
    with pa.memory_map(str(path)) as file, ipc.open_file(file, options=options) as reader:
        table = pl.DataFrame(pl.from_arrow(reader.read_all()))
    # Polars gives a column without a name one of its own.
    table.columns = there
    return table
