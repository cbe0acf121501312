"""Texts cut by the tokenizer of a pretrained model, which is a file `tokenizer.json`.

A code is the id of a token plus 1, so that 0 is none, as it is of words. The special tokens that
the model was trained with (`[CLS]`, `[SEP]`) are among them; a text without anything in it is a
gap and has none. The library `tokenizers` reads the file as transformers does.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.common.errors import Problem, UserError
from stages.common.extras import check_extra
from stages.features.model_folder import KEY, TOKENIZER, read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LIBRARIES = {"tokenizers": "0.23.3"}
Codes = npt.NDArray[np.int64]
ENDLESS = 2**31


def find_tokenizer(folder: Path) -> tuple[str, int]:
    """Return the tokenizer of a model, without a length of its own, and its number of tokens.

    Raises UserError where the folder has none.
    """
    path = folder / TOKENIZER
    text = read_text(path)
    check_extra("a tokenizer", LIBRARIES, KEY)
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises this class itself
        message = f"{path} is no tokenizer that tokenizers {LIBRARIES['tokenizers']} reads: {error}"
        raise UserError(Problem(message, KEY)) from error
    # Ids may have holes: an embedding has a row for each of them all the same.
    num_tokens = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    return _with_places(tokenizer, None), num_tokens


def with_places(text: str, places: int | None) -> str:
    """Return a tokenizer that keeps at most `places` tokens of each text; None: all of them.

    The special tokens stay, where there are as many as `least_places`.
    """
    from tokenizers import Tokenizer

    return _with_places(Tokenizer.from_str(text), places)


def least_places(text: str) -> int:
    """Return the places that the special tokens of a text and one other take."""
    return int(_load(text).num_special_tokens_to_add(is_pair=False)) + 1


def _with_places(tokenizer: "Tokenizer", places: int | None) -> str:
    tokenizer.no_padding()
    # The end at which a text is cut: 'left' is kept by a length that no text has.
    end = (tokenizer.truncation or {}).get("direction", "right")
    if places is None and end == "right":
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(ENDLESS if places is None else places, direction=end)
    text: str = tokenizer.to_str()
    return text


def cut_texts(text: str, texts: Iterable[str]) -> list[list[int]]:
    """Return the ids of the tokens of each text, none of a text without anything in it."""
    given = list(texts)
    found = _load(text).encode_batch_fast(given)
    return [each.ids if raw.strip() else [] for each, raw in zip(found, given, strict=True)]


def count_tokens(text: str, texts: Iterable[str]) -> Codes:
    """Return the number of tokens of each text (rows,)."""
    return np.array([len(ids) for ids in cut_texts(text, texts)], np.int64)


def code_tokens(text: str, texts: Sequence[str], places: int) -> Codes:
    """Return the codes of the tokens of each text (rows, places), and behind the last zeros."""
    codes = np.zeros((len(texts), places), np.int64)
    for row, ids in enumerate(cut_texts(text, texts)):
        codes[row, : len(ids)] = np.array(ids[:places], np.int64) + 1
    return codes


@lru_cache(maxsize=8)
def _load(text: str) -> "Tokenizer":
    check_extra("a tokenizer", LIBRARIES, KEY)
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text)
