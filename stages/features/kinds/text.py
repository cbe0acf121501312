"""Free text, (rows, places) int32: a code for each word in its order, and behind the last zeros.

A text is cut into words as `stages/features/words/split.py` says: runs of letters and digits,
signs, pictures. Code 1 is a word that no two train rows have, 2 the most frequent of the others.
There are places for as many words as 99 % of the train rows have, at most 512; what stands behind
them is cut off. A text without a word is a gap. Where a pretrained model's tokenizer cuts the text,
it is tokens in place of words (`stages/features/words/tokens.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from stages.features.drift import Observed, Sums
from stages.features.graph import Graph
from stages.features.kind import BY_VALUES, Described
from stages.features.kinds.categorical import read_category
from stages.features.numbers import (
    Encoded,
    Sliced,
    join_spreads,
    moments_of,
    quartiles,
    spread_of,
    with_missing,
)
from stages.features.schema import Array, Feature, Moments, Statistics
from stages.features.spelling import as_markdown
from stages.features.words.count import MAX_SEEN, count_words, merge
from stages.features.words.recognise import are_texts
from stages.features.words.split import Numbers, cut, num_words, portions, split_words
from stages.features.words.tokens import code_tokens, count_tokens, least_places, with_places

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

TYPE: Final = "int64"
PROGRAM_TYPE: Final = "int64"
GAP = "zeros"
NUMBERS = False
MAX_WORDS, MIN_ROWS = 30_000, 2
MAX_PLACES, SHARE_WHOLE = 512, 0.99
NOTHING, UNKNOWN, FIRST = 0, 1, 2
# The codes of the last few lists of words.
_KNOWN: dict[int, tuple[Sequence[str], dict[str, int]]] = {}
_MAX_KNOWN = 16


def guess(column: "pl.Series") -> float:
    """Return BY_VALUES for texts of several words that are mostly different."""
    import polars as pl

    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return 0.0
    return BY_VALUES if are_texts(column.cast(pl.String).drop_nulls()) else 0.0


def infer(column: "pl.Series", key: str) -> Feature:
    """Describe a column of single values, each of which is a text."""
    _texts(column)
    return Feature(name=column.name, kind="text")


def fit(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> Feature:
    """Return `feature` with the words of the train rows, and places for them."""
    most = feature.places or MAX_PLACES
    if feature.tokenizer is not None:
        lengths = np.concatenate([_lengths(feature, part) for part in parts])
        width = int(np.quantile(np.minimum(lengths, most), SHARE_WHOLE, method="higher"))
        width = max(width, least_places(feature.tokenizer))
        tokenizer = with_places(feature.tokenizer, width)
        return feature.model_copy(update={"tokenizer": tokenizer, "width": width})
    counted = merge(count_words(_texts(part), most) for part in parts if part.len())
    if counted.missed:
        print(
            f"warning  '{feature.name}' has more than {MAX_SEEN:,} different words in the train "
            f"split: the rarest were forgotten in between, so that a word may count up to "
            f"{counted.missed} rows too few, and have another place among the rare ones"
        )
    words = counted.most_frequent(MIN_ROWS, MAX_WORDS)
    return feature.model_copy(update={"words": words, "width": max(counted.length(SHARE_WHOLE), 1)})


def moments(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> list[Moments]:
    """Return one entry, of the number of words of the train rows that have some."""
    from stages.common.errors import Problem, UserError

    found = (np.minimum(_lengths(feature, part), feature.width) for part in parts)
    filled = (numbers[numbers > 0] for numbers in found)
    spreads = [spread_of(numbers.astype(np.float64)) for numbers in filled if len(numbers)]
    if not spreads:
        message = f"the column '{feature.name}' has no word in the train split: exclude it"
        raise UserError(Problem(message, f"prepare.columns.{feature.name}", allowed=("exclude",)))
    return [moments_of(join_spreads(spreads))]


def encode(
    features: list[Feature], table: "pl.DataFrame", statistics: Statistics, key: str
) -> Array:
    """Return the codes of the words of all columns, one column behind the other."""
    places = np.cumsum([0, *(feature.width for feature in features)])
    codes = np.full((table.height, places[-1]), NOTHING, np.int32)
    for feature, start, end in zip(features, places, places[1:], strict=False):
        _put_codes(feature, table[feature.name], codes[:, start:end])
    return codes


def must(feature: Feature) -> str:
    """Name the values that it takes."""
    return "a text"


def from_text(feature: Feature, texts: "pl.Series") -> "pl.Series":
    """Return the texts."""
    return texts


def feed(feature: Feature, column: "pl.Series", key: str) -> Array:
    """Return the codes of its words: ONNX has no operator that cuts a text."""
    codes = np.full((column.len(), feature.width), NOTHING, np.int64)
    _put_codes(feature, column, codes)
    return codes


feed_program = feed


def to_onnx(graph: Graph, features: list[Feature], names: list[str], statistics: Statistics) -> str:
    """Put one column behind the other."""
    return graph.node("Concat", names, "/text", axis=1)


def constants(features: list[Feature], statistics: Statistics) -> dict[str, Array]:
    """Return none."""
    return {}


def to_torch(
    features: list[Feature], raw: "Tensor", constant: Callable[[str], "Tensor"]
) -> "tuple[Tensor, Tensor | None]":
    """Return the codes, as they are."""
    return raw, None


def tell(feature: Feature, parts: "Iterable[pl.Series]") -> list[str]:
    """Describe the words of a column, and count the texts that are cut."""
    if feature.tokenizer is not None:
        whole = with_places(feature.tokenizer, None)
        feature = feature.model_copy(update={"tokenizer": whole})
    lengths = np.concatenate([_lengths(feature, part) for part in parts])
    known = feature.num_tokens or len(feature.words or [])
    line = f"'{feature.name}' is text: {known:,} {_unit(feature)}, {feature.width} a row"
    cut = int((lengths > feature.width).sum())
    return [f"{line}; the rest of {cut} of {len(lengths)} rows is cut off" if cut else line]


def describe(feature: Feature, moments: list[Moments]) -> dict[str, Any]:
    """Return the words, in the order of their codes, from 2 on; or what cuts a text to tokens."""
    if feature.tokenizer is not None:
        return {"tokenizer": feature.tokenizer, "num_tokens": feature.num_tokens}
    return {"words": feature.words}


def read_values(described: Described, values: list[object]) -> npt.NDArray[Any]:
    """Return the codes of the words of texts; a number or a truth is its text."""
    texts = [_read(value) for value in values]
    if described.tokenizer is not None:
        return code_tokens(described.tokenizer, texts, *described.row_shape)
    known, (places,) = _look_up(described.words), described.row_shape
    found = np.full((len(texts), places), NOTHING, np.int64)
    for row, text in enumerate(texts):
        codes = [known.get(word, UNKNOWN) for word in split_words(text)[:places]]
        found[row, : len(codes)] = codes
    return found


def _read(value: object) -> str:
    try:
        return read_category(value)
    except ValueError:
        raise ValueError("a text or null") from None


def read_tensor(described: Described, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return int64, of codes of words."""
    codes = tensor.astype(np.int64)
    num = described.num_tokens + 1 if described.tokenizer else len(described.words) + FIRST
    if (codes != tensor).any() or (codes < 0).any() or (codes >= num).any():
        what = "ids of tokens plus 1" if described.tokenizer else "codes of words"
        raise ValueError(f"{what}, whole numbers below {num}")
    return codes


def json_type(described: Described) -> dict[str, object]:
    """Return a text, or null for a gap, with the most frequent words."""
    if described.tokenizer is not None:
        return {"type": ["string", "null"], "description": "cut by the model's own tokenizer"}
    shown = as_markdown(", ".join(described.words[:12]))
    return {"type": ["string", "null"], "description": f"frequent in training: {shown}"}


def example(described: Described) -> object:
    """Return a text of the most frequent words."""
    return " ".join(described.words[:3]) or "a text"


def slices(feature: Feature, train: Encoded, test: Encoded, moments: list[Moments]) -> Sliced:
    """Cut at the quartiles of the number of words of the train rows."""
    seen, numbers = (_count(each.values).astype(np.float64) for each in (train, test))
    found = quartiles(seen[seen > 0], numbers, lambda edge: f"{edge:.0f} {_unit(feature)}")
    return with_missing(*found, numbers == 0)


def observe(
    feature: Feature, column: "pl.Series", encoded: Encoded, moments: list[Moments]
) -> Observed:
    """Return the sums of the numbers of words, where there are some, and texts of none known."""
    numbers, sums = _count(encoded.values), Sums()
    sums.add(numbers[numbers > 0], moments[0])
    # Of a tokenizer every token has a code of its own.
    unknown = (np.asarray(encoded.values) == UNKNOWN).sum(axis=1) * (feature.tokenizer is None)
    none_known = int(((numbers > 0) & (unknown == numbers)).sum())
    return Observed(sums=[sums], of=f"number of {_unit(feature)}", unknown=none_known)


def profile(feature: Feature, encoded: Encoded, moments: list[Moments]) -> list[Moments]:
    """Return the moments of the number of words."""
    return moments


def _texts(column: "pl.Series") -> "pl.Series":
    """The values as texts, '' for a gap. Raises UserError for lists and records."""
    import polars as pl

    from stages.features.columns import as_category, check_single

    check_single(column)
    # Neither blanks around a text nor the way its signs are composed make another word.
    is_text = column.dtype in (pl.String, pl.Categorical, pl.Enum)
    return (column.cast(pl.String) if is_text else as_category(column)).fill_null("")


def _unit(feature: Feature) -> str:
    return "words" if feature.tokenizer is None else "tokens"


def _lengths(feature: Feature, column: "pl.Series") -> Numbers:
    """The numbers of words of its values (rows,)."""
    cutter = feature.tokenizer
    count = num_words if cutter is None else partial(count_tokens, cutter)
    lengths = (count(part) for part in portions(_texts(column)))
    return np.concatenate([np.zeros(0, np.int64), *lengths])


def _put_codes(feature: Feature, column: "pl.Series", found: Array) -> None:
    """Put the codes of the words of a column into zeros, (rows, places)."""
    import polars as pl

    known, num_places, start = pl.Enum(feature.words or []), found.shape[1], 0
    for texts in portions(_texts(column)):
        if feature.tokenizer is not None:
            rows = found[start : start + texts.len()]
            rows[:] = code_tokens(feature.tokenizer, texts.to_list(), num_places)
            start += texts.len()
            continue
        words = cut(texts)
        lengths = words.list.len().to_numpy().astype(np.int64)
        numbers = words.explode(empty_as_null=False).cast(known, strict=False).to_physical()
        codes = (numbers.cast(pl.Int32) + FIRST).fill_null(UNKNOWN).to_numpy()
        if (lengths > num_places).any():
            places = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            codes, lengths = codes[places < num_places], np.minimum(lengths, num_places)
        rows = found[start : start + len(lengths)]
        rows[np.arange(num_places) < lengths[:, None]] = codes
        start += len(lengths)


def _look_up(words: Sequence[str]) -> dict[str, int]:
    """The codes of words. The same list is asked for again and again: its codes are kept."""
    kept = _KNOWN.get(id(words))
    if kept is None or kept[0] is not words:
        if len(_KNOWN) >= _MAX_KNOWN:
            _KNOWN.clear()
        kept = words, {word: code for code, word in enumerate(words, start=FIRST)}
        _KNOWN[id(words)] = kept
    return kept[1]


def _count(codes: Array) -> npt.NDArray[np.int64]:
    """The number of words of each row (rows,)."""
    return np.asarray((np.asarray(codes) != NOTHING).sum(axis=1))
