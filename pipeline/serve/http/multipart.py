"""A form of files and values, `multipart/form-data`, as rows: what `curl -F` and browsers send.

https://www.rfc-editor.org/rfc/rfc7578
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.serve.codec.problems import RequestError, show
from pipeline.serve.codec.rows import Row, too_many_rows
from pipeline.serve.codec.signature import Signature

FORM = b"multipart/form-data"
_BOUNDARY = re.compile(rb';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(
    rb"^content-disposition:\s*form-data\s*(;.*)$", re.IGNORECASE | re.MULTILINE
)
_PARAMETER = re.compile(rb';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A part of a form; `file` is the name of its file, None for a plain value."""

    name: str
    file: str | None
    content: bytes


def read_form(content_type: bytes, body: bytes, signature: Signature, max_rows: int) -> list[Row]:
    """The rows of a form: the first part of each name makes the first row, and so on.

    A file stands for an image; where no part names the key, the file's name does. Raises
    RequestError 400 where the form is broken, 422 where its parts make no rows.
    """
    values: dict[str, list[object]] = {}
    files: dict[str, list[object]] = {}
    for part in split_form(content_type, body):
        given = values.setdefault(part.name, [])
        given.append(_value(part, signature))
        if part.file is not None:
            files.setdefault(part.name, []).append(part.file)
        if len(given) > max_rows:
            raise too_many_rows(len(given), max_rows)
    counts = {name: len(given) for name, given in values.items()}
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"'{name}' {count}" for name, count in list(counts.items())[:12])
        message = f"each column must have a part for each row: {shown}" if counts else "no parts"
        raise RequestError(422, f"the form makes no rows: {message}")
    if signature.key is not None and signature.key not in values and files:
        names = next(iter(files.values()))
        values |= {signature.key: names} if len(names) in counts.values() else {}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _value(part: Part, signature: Signature) -> object:
    """The bytes of an image's file, else a text."""
    if part.file is not None and part.name in signature.image_columns:
        return part.content
    if part.file is not None:
        columns = ", ".join(f"'{name}'" for name in signature.image_columns)
        message = f"the part {show(part.name)} is a file, and no column of images has its name: "
        message += f"send it as {columns}" if columns else "this model reads no images"
        raise RequestError(422, message)
    try:
        return part.content.decode()
    except UnicodeDecodeError:
        raise RequestError(400, f"the part {show(part.name)} is no UTF-8") from None


def split_form(content_type: bytes, body: bytes) -> Iterator[Part]:
    """The parts of a form, with their content byte for byte. Raises RequestError 400."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise RequestError(400, "the form's content type has no boundary")
    line = b"\r\n--" + (found[1] or found[2])
    # The first one may stand at the very start.
    pieces = (b"\r\n" + body).split(line)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise RequestError(400, "the form does not end with its boundary and '--'")
    for piece in pieces[1:-1]:
        head, end, content = piece.partition(b"\r\n\r\n")
        said = _DISPOSITION.search(head.replace(b"\r\n", b"\n"))
        if not end or said is None:
            raise RequestError(400, "a part of the form has no Content-Disposition: form-data")
        named = {key.lower(): text for key, text in _PARAMETER.findall(said[1])}
        if b"name" not in named:
            raise RequestError(400, "a part of the form has no name")
        yield Part(_text(named[b"name"]), _name_of(named.get(b"filename")), content)


def _name_of(file: bytes | None) -> str | None:
    return None if file is None else _text(file)


def _text(quoted: bytes) -> str:
    """A name in quotes, as browsers and curl write it."""
    text = re.sub(rb"\\(.)", rb"\1", quoted).replace(b"%22", b'"')
    return text.decode("utf-8", "replace")
