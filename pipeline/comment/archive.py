"""One file of a ZIP archive that nobody has to trust, read in memory and never unpacked."""

import io
import lzma
import zipfile
import zlib

BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
)


def read_member(archive: bytes, name: str, limit_bytes: int) -> bytes:
    """The bytes of the file `name` in a ZIP archive.

    What the archive says of sizes is not believed: reading ends after `limit_bytes`. Raises
    ValueError when there is no such file, when it is larger, or when the archive is broken.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(name) as file:
            content = file.read(limit_bytes + 1)
    except KeyError:
        raise ValueError(f"the archive has no {name}") from None
    except BROKEN as error:
        raise ValueError(f"the archive is broken: {error}") from None
    if len(content) > limit_bytes:
        raise ValueError(f"{name} is larger than {limit_bytes:,} bytes")
    return content
