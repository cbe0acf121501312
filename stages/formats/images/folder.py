"""The files of a folder of images: their classes and parts, by paths and first bytes alone."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from stages.common.errors import Problem, UserError, shorten

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff")
# The columns of a folder that is read as a table; SPLIT where it has parts.
PATH, IMAGE, LABEL, SPLIT = "path", "image", "label", "split"
# Names of folders that hold parts of a data set, and no class of it.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
_DIGITS = re.compile(r"([0-9]+)")


def find_files(folder: Path, key: str) -> list[str]:
    """The files under `folder` by their paths in it, sorted.

    Hidden ones are left aside, and folders such as `__MACOSX`. Raises UserError at a link to a
    folder, and at a name that is not UTF-8; `key` is the parameter that names `folder`.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for name in (*folders, *names):
            _check_name(Path(parent), name, key)
        for link in (Path(parent, name) for name in sorted(folders)):
            if link.is_symlink():
                message = f"{link} is a link to a folder, into which DVC does not look: "
                message += "put the folder itself there"
                raise UserError(Problem(message, key=key, value=str(folder)))
        inside = Path(parent).relative_to(folder)
        found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def _check_name(parent: Path, name: str, key: str) -> None:
    """Raise UserError at bytes that are no text: neither JSON nor DVC could name the file."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        message = f"the name {os.fsencode(name)!r} in {parent} is not UTF-8: rename it"
        raise UserError(Problem(message, key=key)) from None


def is_image(path: Path) -> bool:
    """Check whether a file's name or its first bytes say that it is an image."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(12)
    return start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def find_parts(names: Sequence[str]) -> list[str]:
    """The folders among the first ones of paths that are parts of a data set, sorted.

    None where they are classes: one alone whose images lie right in it may be called so.
    """
    named = {name.split("/")[0] for name in names if name.split("/")[0].lower() in PARTS}
    deep = {name.split("/")[0] for name in names if name.count("/") > 1}
    return sorted(named) if len(named) > 1 or named & deep else []


def find_images(folder: Path, key: str) -> tuple[list[str], list[str]]:
    """The images of a folder to learn from, by their paths, and the other files.

    Raises UserError where one has no class, and where a class has none.
    """
    names = find_files(folder, key)
    images = [name for name in names if is_image(folder / name)]
    parts = find_parts(images)
    problems = []
    if parts:
        others = sorted({name.split("/")[0] for name in images} - set(parts))
        if others:
            problems.append(
                f"{folder} holds the parts {', '.join(parts)} of a data set, and beside them "
                f"{', '.join(others[:3])}, which is none: put that into a part, or take it away"
            )
    depth = 2 if parts else 1
    bare = [name for name in images if name.count("/") < depth]
    if bare:
        message = f"{folder / bare[0]} lies in no class: each class is a folder of its images"
        problems.append(f"{message} ({len(bare)} such files)")
    filled = {tuple(name.split("/")[:num]) for name in images for num in (1, 2)}
    for parent in [folder, *(folder / part for part in parts)]:
        what = "part" if parts and parent == folder else "class"
        for each in sorted(parent.iterdir(), key=lambda path: in_numbers(path.name)):
            hidden = each.name.startswith((".", "__"))
            if each.is_dir() and not hidden and each.relative_to(folder).parts not in filled:
                problems.append(f"the {what} {each} has no images: fill or remove it")
    if not images and not problems:
        shown = ", ".join(SUFFIXES)
        problems = [f"{folder} has no images: each class is a folder of {shown}"]
    if problems:
        raise UserError(*(Problem(text, key=key, value=str(folder)) for text in problems[:5]))
    return images, [name for name in names if name not in set(images)]


def in_numbers(name: str) -> list[tuple[int, int, str]]:
    """The place of a name in an order for people: 2 before 10."""
    parts = [part for part in _DIGITS.split(name) if part]
    return [(0, int(p), p) if _DIGITS.fullmatch(p) else (1, 0, p) for p in parts]


def as_some(names: Sequence[str]) -> str:
    """The first of some names."""
    return ", ".join(shorten(name) for name in names[:3]) + (", …" if len(names) > 3 else "")
