"""The kinds of folders: IDX files, images with a manifest, shards of a table, or images by class.

The one rule for training and new rows, by the names that stand right in the folder; hidden ones,
and those that begin with '_' such as `_SUCCESS`, are left aside. The first that fits:

1. idx: a file is called as those of MNIST are, `train-images-idx3-ubyte.gz`;
2. shards: every entry is a file of a table;
3. manifest: one is called `manifest`, with the suffix of a table, beside others that are none;
4. images: anything else.
"""

from pathlib import Path
from typing import Literal

from stages.formats.images.idx_files import list_idx
from stages.formats.suffixes import SUFFIXES
from stages.formats.text.compressed import suffix_of

FolderKind = Literal["idx", "manifest", "shards", "images"]


def find_kind(folder: Path) -> FolderKind:
    """The kind of a folder, by the rule of this file."""
    if list_idx(folder):
        return "idx"
    if list_shards(folder):
        return "shards"
    return "manifest" if find_manifests(folder) else "images"


def find_manifests(folder: Path) -> list[Path]:
    """The tables right in a folder that are called `manifest`, by their names."""
    found = sorted(folder.glob("[mM]anifest.*"))
    return [each for each in found if suffix_of(each) in SUFFIXES and each.is_file()]


def list_shards(folder: Path) -> list[Path]:
    """The files of the table, by name; none where the folder holds anything but tables."""
    seen = sorted(each for each in folder.iterdir() if not each.name.startswith((".", "_")))
    return seen if all(suffix_of(each) in SUFFIXES and each.is_file() for each in seen) else []
