"""One JSON value to what an input of the bundle takes: the rules of the stage's `encode`.

A reader raises ValueError with what the value must be. Gaps are NaN in numbers and truths. The
rules stand here a second time because the server loads no polars; a test holds the two together.
"""

import math
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from pipeline.serve.codec.signature import Input

NAN = math.nan
# In which a model computes.
MAX_FLOAT32 = float(np.finfo(np.float32).max)
TRUE_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "t": 1.0, "f": 0.0}
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
NUMBER = "a number or null"
COMPUTABLE = "a number that can be computed with"
TRUTH = "true, false or null"
_TEXT = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?inf(?:inity)?|[+-]?nan", re.ASCII | re.IGNORECASE
)
Reader = Callable[[object], object]


def make_reader(each: Input) -> Reader:
    """The function that reads a value of this column; images are read by `read_images`."""
    if each.kind == "numeric":
        return _number_reader(*bounds(each))
    if each.kind == "boolean":
        return read_truth
    # Any text that no category has: '' may be one.
    gap = "\0" if "" in each.categories else ""
    return lambda value: read_category(value, gap)


def bounds(each: Input) -> tuple[float, float]:
    """Between which numbers float32 holds the standardised value."""
    mean, reach = each.mean or 0.0, MAX_FLOAT32 * (each.deviation or 1.0)
    return mean - reach, mean + reach


def _number_reader(low: float, high: float) -> Reader:
    def read(value: object) -> float:
        number = value if type(value) is float else _as_float(value)
        if low <= number <= high:
            return number
        if math.isfinite(number):
            raise ValueError(COMPUTABLE)
        return NAN

    return read


def _as_float(value: object) -> float:
    if value is None:
        return NAN
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(COMPUTABLE) from None
    if isinstance(value, str) and _TEXT.fullmatch(value):
        return float(value)
    raise ValueError(NUMBER)


def read_truth(value: object) -> float:
    """1 or 0, or NaN for a gap; words such as 'yes' and 'no' are understood, and '1.0' is 1."""
    if value is None:
        return NAN
    if isinstance(value, str):
        text = value.strip(BLANKS).lower()
        number = float(text) if _TEXT.fullmatch(text) else NAN
        found = TRUE_WORDS.get(text, number)
        if found == 0 or found == 1:
            return abs(found)
    elif isinstance(value, int | float):
        if value == 0 or value == 1:
            return float(value)
        if value != value:
            return NAN
    raise ValueError(TRUTH)


def read_category(value: object, gap: str = "") -> str:
    """The name of a category: 1 and 1.0 are the same, a truth is 'true'; `gap` is for a gap.

    Blanks around a text are no part of it, and `é` is one whether it is composed or not.
    """
    if isinstance(value, str):
        text = value.strip(BLANKS)
        return (text if text.isascii() else unicodedata.normalize("NFC", text)) or gap
    if value is None:
        return gap
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float_text(value) if math.isfinite(value) else gap
    raise ValueError("a text, a number, a truth or null")


def _float_text(value: float) -> str:
    """As polars writes a number: 2.0 as '2', small ones without a zero in the exponent."""
    if value.is_integer() and -(2.0**63) <= value < 2.0**63:
        return str(int(value))
    if 1e-5 <= abs(value) < 1e-4:
        return format(Decimal(repr(value)), "f")
    return repr(value).replace("e-0", "e-")


def read_images(values: list[object], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Images of one shape: (rows, *shape) float32. Raises ValueError when one is none."""
    must = f"an array of numbers of shape {shape}"
    try:
        array = np.array(values)
    except ValueError:
        raise ValueError(must) from None
    if array.shape[1:] != shape or array.dtype.kind not in "iuf":
        raise ValueError(must)
    with np.errstate(over="ignore"):
        images = array.astype(np.float32)
    if not np.isfinite(images).all():
        raise ValueError(must)
    return images
