"""Columns of texts told from columns of names and codes, by words as they look from afar.

Here a word has a letter, and blanks around it, so that identifiers, paths and numbers have few.
Of Chinese and Japanese each sign is one, and of Thai, Lao, Khmer and Burmese up to five letters and
marks, which is about the length of their words.
"""

from typing import TYPE_CHECKING, Final

from stages.features.words.split import PICTURES

if TYPE_CHECKING:
    import polars as pl

# Of the values of a column that are different, and words that one has, in the mean: from them on
# it is text. No name or code has a picture: it says as much as that number of words.
MIN_DIFFERENT, MIN_WORDS = 0.5, 3
_SIGN: Final = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
_LETTER: Final = r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_LIKE_WORD: Final = rf"{_SIGN}|{_LETTER}{{1,5}}|\S*\p{{L}}\S*"
_SEVERAL_WORDS: Final = rf"\S\s+\S|{_SIGN}{{2}}|{_LETTER}{{6}}"
_PICTURE: Final = f"[{PICTURES}]"


def are_texts(values: "pl.Series") -> bool:
    """Check whether strings without nulls are mostly different, and of several words."""
    if values.n_unique() <= MIN_DIFFERENT * values.len():
        return False
    words = int(values.str.count_matches(_LIKE_WORD).sum())
    with_pictures = int(values.str.contains(_PICTURE).sum())
    return words + MIN_WORDS * with_pictures >= MIN_WORDS * values.len()


def have_several_words(values: "pl.Series") -> bool:
    """Check whether most of some strings without nulls are of several words."""
    return bool(values.str.contains(_SEVERAL_WORDS).sum() > values.len() / 2)
