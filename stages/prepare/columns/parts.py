"""The parts of a data set, train and others, that columns hold and files are called after."""

from pathlib import Path

import polars as pl

from stages.features.columns import as_category
from stages.formats.folders.folder_kind import list_shards

# Words for the parts of a data set, in small letters.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}


def names_parts(column: pl.Series) -> bool:
    """Check whether every value names a part of a data set, `train` and another one among them."""
    if column.dtype.is_nested() or column.null_count():
        return False
    words = set(as_category(column).str.to_lowercase().unique().to_list())
    parts = {PARTS.get(word) for word in words}
    return {None} & parts == set() and "train" in parts and len(parts) > 1


def say_files(source: Path) -> list[str]:
    """A line on a folder whose tables are called after the parts of a data set."""
    files = list_shards(source) if source.is_dir() else []
    parts = {PARTS.get(file.name.partition(".")[0].lower()) for file in files}
    if "train" not in parts or len(parts - {None}) < 2:
        return []
    names = ", ".join(file.name for file in files)
    return [
        f"{source} holds {names}, whose rows are mixed and divided anew; to keep them apart, give "
        "each file a column that says train, validation or test, and name it in "
        "prepare.split.column; rows without a target are for infer.input, and lie elsewhere"
    ]
