"""The cost of columns of text: words counted and looked up, beside a loop over the texts.

    python -m benchmarks.texts [--rows 1000000] [FILE COLUMN ...]
    python -m benchmarks.texts --ids 10000000

A million generated short texts, in which one word of two hundred is a number that no other text has
and one text of fifty ends with a letter that has an accent; and columns of a CSV file.
The loop takes the texts one by one, with `split_words`, a Counter and a dictionary, as prepare did.
Each in turns, one thread, by processor time; medians of the rounds. With `--ids` it is the peak
memory of counting so many texts of two words that no other text has, which come in parts.
"""

import argparse
import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ["POLARS_MAX_THREADS"] = "1"

import numpy as np
import polars as pl

from stages.features.kinds import text
from stages.features.schema import Feature
from stages.features.words.count import count_words, merge
from stages.features.words.split import split_words

VOCABULARY, LOOP_ROWS, ROUNDS, PART = 50_000, 100_000, 3, 250_000
KEY = "prepare.source"
LETTERS = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))


def main() -> None:
    """Measure and print rows of RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("columns", nargs="*")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int)
    options = parser.parse_args()
    if options.ids is not None:
        _print_memory(options.ids)
        return
    print("| texts | words a text | what | texts/s | the loop's time over it |")
    print("|---|---|---|---|---|")
    _measure(f"{options.rows:,} generated", _generate(options.rows))
    if options.file is not None:
        table = pl.read_csv(options.file, has_header=False, infer_schema=False)
        for name in options.columns:
            _measure(f"{options.file.name}, {name}", table[name])


def _generate(num_rows: int) -> pl.Series:
    """Texts of 4 to 12 words, of which the n-th most frequent is drawn as often as 1/n."""
    draw = np.random.default_rng(0)
    known = ["".join(draw.choice(LETTERS, size)) for size in draw.integers(2, 10, VOCABULARY)]
    chances = 1 / np.arange(1, VOCABULARY + 1)
    lengths = draw.integers(4, 13, num_rows)
    words = np.array(known, object)[
        draw.choice(VOCABULARY, lengths.sum(), p=chances / chances.sum())
    ]
    own = np.flatnonzero(draw.random(len(words)) < 1 / 200)
    words[own] = [f"no{number}" for number in range(len(own))]
    ends = np.cumsum(lengths)
    accents = np.flatnonzero(draw.random(num_rows) < 1 / 50)
    words[ends[accents] - 1] = "café"
    parts = zip([0, *ends[:-1]], ends, strict=True)
    return pl.Series(
        "text", [" ".join(words[start:end]).capitalize() + "." for start, end in parts]
    )


def _measure(name: str, column: pl.Series) -> None:
    feature = text.fit(Feature(name=column.name, kind="text"), [column], KEY)
    head = column.head(LOOP_ROWS)
    known = {word: code for code, word in enumerate(feature.words or [], start=text.FIRST)}
    assert text.feed(feature, head, KEY).tolist() == _look_up(head, known, feature.width).tolist()
    length = np.mean([len(split_words(value)) for value in head])
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "counted (`fit`)": (lambda: text.fit(feature, [column], KEY), lambda: _count(head)),
        "looked up (`feed`)": (
            lambda: text.feed(feature, column, KEY),
            lambda: _look_up(head, known, feature.width),
        ),
        "moments (the loop looked up)": (
            lambda: text.moments(feature, [column], KEY),
            lambda: _look_up(head, known, feature.width),
        ),
        "lengths (`tell`)": (
            lambda: text.tell(feature, [column]),
            lambda: [len(split_words(value)) for value in head],
        ),
    }
    for what, (ours, loop) in cases.items():
        pairs = [
            (_seconds(ours) / column.len(), _seconds(loop) / head.len()) for _ in range(ROUNDS)
        ]
        rate = 1 / median(own for own, _ in pairs)
        ratios = sorted(theirs / own for own, theirs in pairs)
        print(
            f"| {name} | {length:.0f} | {what} | {rate:,.0f} "
            f"| **{median(ratios):.1f}** ({ratios[0]:.1f} to {ratios[-1]:.1f}) |",
            flush=True,
        )


def _print_memory(num_rows: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts = (
        pl.select(pl.format("a{} of the b{}", number, number)).to_series()
        for start in range(0, num_rows, PART)
        for number in [pl.Series(range(start + 10**8, start + 10**8 + PART))]
    )
    counted = merge(count_words(part, text.MAX_PLACES) for part in parts)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    words = counted.words.height
    print(
        f"{num_rows:,} texts: {peak:,.0f} MiB; {words:,} words left, {counted.missed} rows missed"
    )


def _count(column: pl.Series) -> Counter[str]:
    counts: Counter[str] = Counter()
    for value in column:
        counts.update(set(split_words(value)))
    return counts


def _look_up(column: pl.Series, known: dict[str, int], places: int) -> np.ndarray:
    found = np.zeros((column.len(), places), np.int64)
    for row, value in enumerate(column):
        codes = [known.get(word, text.UNKNOWN) for word in split_words(value)[:places]]
        found[row, : len(codes)] = codes
    return found


def _seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
