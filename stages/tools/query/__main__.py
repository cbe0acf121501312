"""The rows of a query as Parquet: `python -m stages.tools.query QUERY.sql VARIABLE OUTPUT`.

It prints what it has written as JSON. What is wrong is told on standard error, and ends with 1;
then OUTPUT is not there.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from stages.common.errors import UserError, format_problem
from stages.tools.query import postgres, sqlite
from stages.tools.query.address import read_address
from stages.tools.query.rows import Rows


def main() -> None:
    """Write the file, or say what is wrong."""
    parser = argparse.ArgumentParser(prog="reprise import-query")
    parser.add_argument("query", type=Path)
    parser.add_argument("variable")
    parser.add_argument("output", type=Path)
    words = parser.parse_args()
    try:
        done = _write_query(words.query, words.variable, words.output)
    except UserError as error:
        sys.exit("\n".join(map(format_problem, error.problems)))
    except OSError as error:
        sys.exit(f"{error.strerror or error}: {words.output}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    print(json.dumps(done))


def _write_query(path: Path, variable: str, output: Path) -> dict[str, Any]:
    query = path.read_text(encoding="utf-8").strip().rstrip(";").rstrip()
    if not query:
        raise UserError(f"{path} has no query in it")
    address = read_address(variable)
    open_rows = sqlite.open_rows if address.is_sqlite else postgres.open_rows
    try:
        with open_rows(address, query) as rows:
            number = _write(rows, output)
        if not number:
            raise UserError(f"the query of {path} gives no row: the snapshot stays as it was")
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    columns = [
        {"name": c.name, "declared": c.declared, "type": str(c.type), "lost": rows.lost.get(c.name)}
        for c in rows.columns
    ]
    return {"rows": number, "columns": columns}


def _write(rows: Rows, output: Path) -> int:
    """Write the batches as they come, each a row group: no more than one is held in memory."""
    number = 0
    # Its own open file, of which it is known when all has reached the disk.
    with output.open("wb") as file:
        with parquet.ParquetWriter(file, rows.schema, compression="zstd") as writer:
            for batch in rows.converted():
                writer.write_table(pa.Table.from_batches([batch]))
                number += batch.num_rows
        file.flush()
        os.fsync(file.fileno())
    return number


if __name__ == "__main__":
    main()
