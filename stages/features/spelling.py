"""The spelling of values in texts, for columns of a table and for JSON alike; needs no library."""

import re
from typing import Final

import numpy as np

# The largest number of float32, in which a model computes.
MAX_FLOAT32: Final = float(np.finfo(np.float32).max)
TRUE_WORDS: Final = {"true": True, "false": False, "yes": True, "no": False, "t": True, "f": False}
# Blank to Unicode; named here since Python and Rust differ in it.
BLANKS: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# What makes a number a name: a key, a zip code.
LEADING_ZERO: Final = r"^[+-]?0\d"
# A number as polars reads it in a text.
NUMBER_TEXT: Final = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?inf(?:inity)?|[+-]?nan", re.ASCII | re.IGNORECASE
)


def as_markdown(text: str) -> str:
    """Text as Markdown that shows just this text."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
