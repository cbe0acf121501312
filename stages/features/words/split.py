r"""Texts cut into words: NFKC, small letters, then runs of letters and digits, signs and pictures.

A mark, such as a vowel sign or a point, is part of the word that it follows. A sign is a word of
its own, with its marks: one of Chinese and Japanese, and a letter of Thai, Lao, Khmer and Burmese,
which are written without blanks. So is a picture: an emoji, a heart, a star, the two letters of a
flag. What only changes its looks is left out, such as a skin tone, and so is the joiner (ZWJ): a
picture of several that are joined is these.

`split_words` says what a word is, text by text, and needs no library. `cut` does the same for a
column, some three times as fast: polars cuts the texts whose characters are all plain, which are
those below, and `split_words` the others. Of a plain character Python and polars think alike, in
whatever text it stands: it takes part in no composition, its small letter is one plain letter and
does not depend on its neighbours (as that of Σ does), and NFKC leaves it alone or makes no word of
it (`…` becomes three dots, but ² becomes 2). tests/stages/features/test_words.py goes through all
of Unicode for that.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from stages.features.words.marks import MARKS

if TYPE_CHECKING:
    import polars as pl

Numbers = npt.NDArray[np.int64]
# Of the texts that are held as words at once; one alone may be larger. A text counts at least ROW.
PORTION_BYTES, ROW_BYTES = 2_000_000, 32
# Ranges of characters, as the regular expressions of Python and of Rust have them: signs, pictures,
# and the letters of flags.
_SIGNS: Final = (
    # Japanese, Chinese
    r"\u3040-\u3098\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    # Thai, Lao, Khmer
    r"\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46"
    r"\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd\u0ec0-\u0ec6\u0edc-\u0edf"
    r"\u1780-\u17b3\u17d7\u17dc"
    # Burmese
    r"\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081"
    r"\u108e\ua9e0-\ua9e4\ua9e6-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a\uaa7e\uaa7f"
)
PICTURES: Final = (
    r"\u231a\u231b\u23e9-\u23fa\u25fb-\u25fe\u2600-\u2767\u2794-\u27bf\u2b05-\u2b07\u2b1b\u2b1c"
    r"\u2b50\u2b55\U0001f000-\U0001f0ff\U0001f170-\U0001f18f\U0001f191-\U0001f1ad"
    r"\U0001f300-\U0001f3fa\U0001f400-\U0001faff"
)
_OF_FLAGS: Final = r"\U0001f1e6-\U0001f1ff"
_JOINER: Final = "\u200d"
# There is no mark, sign or picture below: that is seen sooner than that it is none of their ranges.
_BEYOND = r"(?![\0-\u02ff])"
_WORD = re.compile(
    f"[^\\W{_SIGNS}]+(?:{_BEYOND}[{MARKS}]+[^\\W{_SIGNS}]*)*"
    f"|{_BEYOND}(?:[{_SIGNS}][{MARKS}]*|[{PICTURES}]|[{_OF_FLAGS}]{{1,2}})"
)
# As Rust's regular expressions alone have them: parts of words, whatever their script; signs; and
# what stands between words.
_PLAIN_LETTERS: Final = (
    r"0-9A-Z_a-z"
    # Latin, without İ and what NFKC takes apart, such as ŉ
    r"\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{12F}\u{131}\u{134}-\u{13E}\u{141}-\u{148}\u{14A}-\u{17E}"
    r"\u{1A0}\u{1A1}\u{1AF}\u{1B0}\u{218}-\u{21B}\u{1EA0}-\u{1EF9}"
    # Greek, without Σ
    r"\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A4}-\u{3CE}"
    # Cyrillic
    r"\u{400}-\u{481}\u{48A}-\u{52F}"
    # Armenian, Hebrew, Arabic, Hangul
    r"\u{531}-\u{556}\u{561}-\u{586}\u{5D0}-\u{5EA}\u{620}-\u{64A}\u{660}-\u{669}"
    r"\u{671}-\u{674}\u{679}-\u{6D3}\u{6F0}-\u{6F9}\u{AC00}-\u{D7A3}"
)
_PLAIN_SIGNS: Final = (
    r"\u{3041}-\u{3096}\u{309D}\u{309E}\u{30A0}-\u{30FE}\u{3400}-\u{4DBF}\u{4E00}-\u{9FFF}"
    r"\u{20000}-\u{2A6DF}"
)
_PLAIN_BETWEEN: Final = (
    r"\u{0}-/:-@\[-\^`\{-\u{A7}\u{A9}\u{AB}-\u{B1}\u{B4}\u{B6}\u{B7}\u{BB}\u{BF}\u{D7}\u{F7}"
    # Dashes, quotes, dots, ‰, €
    r"\u{2000}-\u{200C}\u{200E}-\u{2064}\u{20A0}-\u{20A7}\u{20A9}-\u{20C0}"
    # Arrows, signs of mathematics, boxes, and what changes the looks of pictures
    r"\u{2190}-\u{2319}\u{231C}-\u{23E8}\u{23FB}-\u{245F}\u{2500}-\u{25FA}\u{25FF}"
    r"\u{2768}-\u{2775}\u{27C0}-\u{27FF}\u{FE00}-\u{FE0F}\u{1F3FB}-\u{1F3FF}"
    # Of Chinese and Japanese, and the same as wide as a sign
    r"\u{3000}-\u{3004}\u{3008}-\u{3020}"
    r"\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF20}\u{FF3B}-\u{FF3E}\u{FF40}\u{FF5B}-\u{FF64}"
)
PLAIN: Final = f"^[{_PLAIN_LETTERS}{_PLAIN_SIGNS}{PICTURES}{_OF_FLAGS}{_PLAIN_BETWEEN}]*$"
_PLAIN_WORD: Final = f"[{_PLAIN_LETTERS}]+|[{_PLAIN_SIGNS}{PICTURES}]|[{_OF_FLAGS}]{{1,2}}"


def split_words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    composed = unicodedata.normalize("NFKC", text.replace(_JOINER, ""))
    # Unicode's small letter of İ is an i with a mark, and in Turkish it is an i.
    return _WORD.findall(composed.replace("İ", "i").lower())


def portions(texts: "pl.Series") -> Iterator["pl.Series"]:
    """Texts some at a time, in their order, so that the words of all are never held at once."""
    ends = np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64)
    ends += ROW_BYTES * np.arange(1, len(ends) + 1)
    edges = np.flatnonzero(np.diff(ends // PORTION_BYTES)) + 1
    for start, end in pairwise([0, *edges.tolist(), len(ends)]):
        yield texts[start:end]


def cut(texts: "pl.Series") -> "pl.Series":
    """The words of each text, a list a row; no text is null."""
    import polars as pl

    plain = texts.str.contains(PLAIN)
    if plain.all():
        return _cut_plain(texts)
    turns = np.concatenate([plain.arg_true().to_numpy(), (~plain).arg_true().to_numpy()])
    apart = _cut_plain(texts.filter(plain)), _cut_others(texts.filter(~plain))
    return pl.concat(apart)[np.argsort(turns)]


def _cut_plain(texts: "pl.Series") -> "pl.Series":
    return texts.str.to_lowercase().str.extract_all(_PLAIN_WORD)


def _cut_others(texts: "pl.Series") -> "pl.Series":
    import polars as pl

    # A text a row goes to polars in half the time that a list a row takes; no word has a blank.
    joined = pl.Series(texts.name, [" ".join(split_words(text)) for text in texts], pl.String)
    none = pl.lit([], pl.List(pl.String))
    return pl.select(pl.when(joined != "").then(joined.str.split(" ")).otherwise(none)).to_series()


def num_words(texts: "pl.Series") -> Numbers:
    """The number of words of each text (rows,), without the words."""
    found = np.empty(texts.len(), np.int64)
    plain = texts.str.contains(PLAIN)
    found[plain.to_numpy()] = texts.filter(plain).str.count_matches(_PLAIN_WORD).to_numpy()
    found[~plain.to_numpy()] = [len(split_words(text)) for text in texts.filter(~plain)]
    return found
