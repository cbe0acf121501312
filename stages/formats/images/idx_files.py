"""The IDX files of a folder by their names, as those of MNIST are called: images and labels."""

import re
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import Problem, UserError
from stages.formats.images.folder import PARTS

# `images-idx3-ubyte`, `train-labels-idx1-ubyte.gz`, `t10k-images.idx3-ubyte`.
_IDX = re.compile(r"(?:(\w+?)[-_.])?(images|labels)[-_.]idx\d-ubyte(?:\.gz)?", re.ASCII)
_IDX_PARTS = {**PARTS, "t10k": "test", "emnist": "train"}


@dataclass(frozen=True)
class IdxPair:
    """Images with their labels, if there are any; `part` is the part of the data set, if told."""

    images: Path
    labels: Path | None
    part: str | None


def list_idx(folder: Path) -> list[tuple[Path, str, str]]:
    """Each IDX file with what stands before its word, and that word."""
    matches = [(path, _IDX.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    return [(path, match[1] or "", match[2]) for path, match in matches if match is not None]


def find_idx_pairs(folder: Path, key: str) -> list[IdxPair]:
    """The pairs of IDX files in a folder, train first. Raises UserError at labels alone."""
    found: dict[str, dict[str, Path]] = {}
    for path, prefix, what in list_idx(folder):
        if what in found.setdefault(prefix, {}):
            message = f"{folder} holds {found[prefix][what].name} and {path.name}: which is meant?"
            raise UserError(Problem(message, key, str(folder)))
        found[prefix][what] = path
    pairs = []
    for prefix, files in sorted(found.items()):
        if "images" not in files:
            message = f"{files['labels']} has no file of images beside it"
            raise UserError(Problem(message, key, str(folder)))
        part = _IDX_PARTS.get(prefix.lower()) if prefix else None
        if len(found) > 1 and part is None:
            known = ", ".join(dict.fromkeys(_IDX_PARTS))
            message = f"{files['images'].name}: '{prefix}' is no part of a data set ({known})"
            raise UserError(Problem(message, key, str(folder)))
        pairs.append(
            IdxPair(files["images"], files.get("labels"), part if len(found) > 1 else None)
        )
    order = ["train", "validation", "test", None]
    return sorted(pairs, key=lambda pair: order.index(pair.part))
