"""Texts by their words, pairs of neighbouring words and parts of words, each with its weight.

The linear model over TF-IDF that is hard to beat on texts of some thousand rows. `read_words` tells
it which columns have the same word and which words share letters; `fit` counts the train rows and
starts from naive Bayes (Rennie et al. 2003, Wang & Manning 2012), which training goes on from.
"""

import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.model.dropout import Dropout
from stages.model.layers import ByColumn, Flatten, register_constant, wrong_inputs
from stages.model.term_frequency import count_times, dampen, length_of

# Parts of a word are of so many letters, the blanks around it among them; a word has at most so
# many parts.
SIZES, MAX_PARTS = (3, 4, 5), 16
# Codes of no word and of one that train lacks.
NOTHING, FIRST = 0, 2
# Of a column's own words, beside those of all columns.
OWN = 0.5
# Before any row is counted a part or a pair of words weighs this, and a word 2 + ln(rank).
WEIGHT = 2.0
# What a feature is held to have in each class beside what it has, and rows counted at once.
SMOOTHING, ROWS = 0.3, 1024


class Arguments(Config):
    """`pairs` of words and `parts` of words have so many weights, which some of them share.

    `start` is how sure of its classes naive Bayes is where training begins, 0 for a start at zero.
    `dropout` is the share of a text's words that a step leaves out.
    """

    pairs: Annotated[int, Field(ge=1, le=2**24)] = 2**17
    parts: Annotated[int, Field(ge=2, le=2**24)] = 2**16
    start: Annotated[float, Field(ge=0, le=1000)] = 0.5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True)
class Found:
    """Words and pairs of some texts, in their order: all are (rows, places).

    `words` are numbers that columns share and `own` those of each column's own; `pairs` stand for
    two neighbours. How much each counts, 0 where there is none: `values` of words, `own_values`,
    `pair_values`, and `part_values` of what words have in common with those of like letters.
    """

    words: Tensor
    values: Tensor
    own: Tensor
    own_values: Tensor
    pairs: Tensor
    pair_values: Tensor
    part_values: Tensor


class Model(nn.Module):
    """scores = W x + b. Words and pairs of x have the length 1 in a text, and so do its parts.

    The parts of a word are one number of x: what they say together is found in `fit`.
    """

    shared: Tensor
    word_weights: Tensor
    pair_weights: Tensor
    part_sizes: Tensor

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        if "text" not in inputs or "image" in inputs:
            raise wrong_inputs("ngrams", "takes texts, with columns of a table or without", inputs)
        self.lengths, self.nums = inputs["text"][::2], inputs["text"][1::2]
        self.start, self.num_outputs = arguments.start, num_outputs
        num = sum(self.nums)
        self.unknown = [1 + sum(self.nums[:column]) for column in range(len(self.nums))]
        ranks = torch.cat([torch.arange(1.0, size + 1) for size in self.nums])
        self.num_parts, self.num_pairs = arguments.parts, arguments.pairs
        register_constant(self, "shared", torch.arange(num))
        register_constant(self, "word_weights", WEIGHT + ranks.log())
        register_constant(self, "pair_weights", torch.full((self.num_pairs,), WEIGHT))
        register_constant(self, "part_sizes", torch.ones(num))
        self.words = nn.Parameter(torch.zeros(num, num_outputs))
        self.own = nn.Parameter(torch.zeros(num, num_outputs))
        self.pairs = nn.Parameter(torch.zeros(self.num_pairs, num_outputs))
        self.alike = nn.Parameter(torch.zeros(num, num_outputs))
        # Of the numbers in `shared`, for `fit` alone.
        self.spelling: dict[int, str] = {}
        self.bias = nn.Parameter(torch.zeros(num_outputs))
        others = {kind: shape for kind, shape in inputs.items() if kind != "text"}
        self.flatten = Flatten(others) if others else None
        self.others = (
            nn.Linear(self.flatten.width, num_outputs, bias=False) if self.flatten else None
        )
        if self.others is not None:
            nn.init.zeros_(self.others.weight)
        self.dropout = Dropout(arguments.dropout)
        self.by_column = ByColumn()
        self.column_of = [column for column, n in enumerate(self.lengths) for _ in range(n)]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        found = self._find(batch["text"])
        scores: Tensor = self.bias
        for values, table, numbers in (
            (found.values, self.words, found.words),
            (found.own_values, self.own, found.own),
            (found.pair_values, self.pairs, found.pairs),
            (found.part_values, self.alike, found.words),
        ):
            # All that follows is linear in the values.
            values = self.by_column(values, "text", self.column_of)
            scores = scores + _sum(self.dropout(values), table, numbers)
        if self.flatten is not None and self.others is not None:
            scores = scores + self.others(self.flatten(batch))
        return scores

    def read_words(self, words: list[list[str]]) -> None:
        """Take the words of each column, in the order of their codes."""
        numbers: dict[str, int] = {}
        start = 0
        for column, num in zip(words, self.nums, strict=True):
            for code, word in enumerate(column, start=start + FIRST):
                self.shared[code] = numbers.setdefault(word, code)
            start += num
        self.spelling = {number: word for word, number in numbers.items()}

    def fit(self, batch: dict[str, Tensor], target: Tensor) -> None:
        """Set the weights of words by the rows that have them, and begin at naive Bayes."""
        codes = batch["text"]
        parts_of = self._list_parts().to(codes.device)
        part_weights = self._weigh(codes, parts_of)
        self.part_sizes.copy_(part_weights[parts_of].square().sum(dim=1).sqrt())
        if not target.is_floating_point() and self.start:
            self._begin(codes, target, parts_of, part_weights)

    def _list_parts(self) -> Tensor:
        """The parts of each word (words, MAX_PARTS) int64, from 1 on; 0 is none."""
        parts = {number: _parts(word, self.num_parts) for number, word in self.spelling.items()}
        # A part of one word alone says what the word does.
        words_with = Counter(part for found in parts.values() for part in found)
        listed = torch.zeros(len(self.shared), MAX_PARTS, dtype=torch.int64)
        for number, found in parts.items():
            kept = sorted((words_with[part], part) for part in found if words_with[part] > 1)
            listed[number, : len(kept)] = torch.tensor([part for _, part in kept[:MAX_PARTS]])
        return listed

    def _weigh(self, codes: Tensor, parts_of: Tensor) -> Tensor:
        """Set inverse document frequencies, and return those of parts (parts,)."""
        num_rows, device = len(codes), codes.device
        rows_with = torch.zeros(len(self.word_weights), device=device)
        pairs_with = torch.zeros(len(self.pair_weights), device=device)
        for some in torch.split(codes, ROWS):
            found = self._find(some)
            rows_with += _count_rows(found.words, found.values, len(rows_with))
            pairs_with += _count_rows(found.pairs, found.pair_values, len(pairs_with))
        parts_with = torch.zeros(self.num_parts, device=device)
        for column in parts_of.unbind(dim=1):
            parts_with.index_add_(0, column, rows_with)
        parts_with[0] = 0
        self.word_weights.copy_(_inverse(rows_with, num_rows))
        # Words that train lacks are not one word.
        self.word_weights[self.unknown] = 0
        self.pair_weights.copy_(_inverse(pairs_with, num_rows))
        return _inverse(parts_with.clamp(max=num_rows), num_rows)

    def _begin(self, codes: Tensor, target: Tensor, parts_of: Tensor, part_weights: Tensor) -> None:
        """Set the first weights to the log odds of complement naive Bayes."""
        words, own, pairs, alike = (
            torch.zeros_like(weight) for weight in (self.words, self.own, self.pairs, self.alike)
        )
        for some, classes in zip(torch.split(codes, ROWS), torch.split(target, ROWS), strict=True):
            found = self._find(some)
            _add(words, found.words, found.values, classes)
            _add(own, found.own, found.own_values, classes)
            _add(pairs, found.pairs, found.pair_values, classes)
            _add(alike, found.words, found.part_values, classes)
        # From words to their parts, and with the odds of these back again.
        sizes = self.part_sizes.clamp(min=1.0)[:, None]
        parts = alike.new_zeros(self.num_parts, self.num_outputs)
        for column in parts_of.unbind(dim=1):
            parts.index_add_(0, column, alike / sizes * part_weights[column, None])
        sums = (words, own, pairs, parts)
        totals = torch.stack([each.sum(dim=0) for each in sums]).sum(dim=0)
        words, own, pairs, parts = (_odds(each, totals) for each in sums)
        alike = sum(
            (parts[column] * part_weights[column, None] for column in parts_of.unbind(dim=1)),
            torch.zeros_like(alike),
        )
        weights = (self.words, self.own, self.pairs, self.alike)
        for weight, each in zip(weights, (words, own, pairs, alike / sizes), strict=True):
            weight.copy_(self.start * each)
        # A text of which nothing is known has the classes' shares.
        counts = torch.bincount(target, minlength=self.num_outputs).float() + SMOOTHING
        self.bias.copy_((counts / counts.sum()).log())

    def _find(self, codes: Tensor) -> Found:
        columns = torch.split(codes, self.lengths, dim=1)
        # Of a column the words stand behind those of the columns before it.
        starts = [sum(self.nums[:column]) for column in range(len(self.nums))]
        own = torch.cat([column + at for column, at in zip(columns, starts, strict=True)], dim=1)
        words, filled = self.shared[own], codes != NOTHING
        values = self.word_weights[words] * filled

        # Two neighbours are one of a table's places, by a hash.
        befores = torch.cat(
            [_shift(each) for each in torch.split(words, self.lengths, dim=1)], dim=1
        )
        # Of words that train lacks two are no pair that it has.
        known = codes >= FIRST
        paired = torch.cat(
            [_shift(each) for each in torch.split(known, self.lengths, dim=1)], dim=1
        )
        pairs = (befores * 1_000_003 + words * 10_007) % self.num_pairs
        pair_values = self.pair_weights[pairs] * (paired & known)

        # What stands in a text n times counts 1 + ln(n): each time its share of that.
        times, pair_times = count_times(words), count_times(pairs)
        values = values * dampen(times)
        pair_values = pair_values * dampen(pair_times)
        size = length_of(values, times, pair_values, pair_times)
        own_values, own_times = self.word_weights[words] * filled, count_times(own)
        own_values = own_values * dampen(own_times)
        split = [torch.split(each, self.lengths, dim=1) for each in (own_values, own_times)]
        of_columns = [each / length_of(each, n) for each, n in zip(*split, strict=True)]
        # As if no two words had the same parts.
        part_values = self.part_sizes[words] * filled * dampen(times)
        return Found(
            words=words,
            values=values / size,
            own=own,
            own_values=OWN * torch.cat(of_columns, dim=1),
            pairs=pairs,
            pair_values=pair_values / size,
            part_values=part_values / length_of(part_values, times),
        )


def _parts(word: str, num_parts: int) -> set[int]:
    text = f" {word} "
    found = (text[i : i + size] for size in SIZES for i in range(len(text) - size + 1))
    return {1 + zlib.crc32(part.encode()) % (num_parts - 1) for part in found}


def _odds(sums: Tensor, totals: Tensor) -> Tensor:
    """Of the sums by class of some features, of all of which `totals` are the sums."""
    others = sums.sum(dim=1, keepdim=True) - sums + SMOOTHING
    odds = ((totals.sum() - totals) / others).log()
    return odds - odds.mean(dim=1, keepdim=True)


def _sum(values: Tensor, table: Tensor, numbers: Tensor) -> Tensor:
    """Of each row the sum of its entries of a table, times their values (rows, outputs)."""
    return torch.bmm(values[:, None], nn.functional.embedding(numbers, table))[:, 0]


def _shift(values: Tensor) -> Tensor:
    """Of each word what the one before it has; of the first 0."""
    return nn.functional.pad(values[:, :-1], (1, 0))


def _add(sums: Tensor, numbers: Tensor, values: Tensor, classes: Tensor) -> None:
    """Add the values of some rows to the sums (numbers, classes) of their classes."""
    places = numbers * sums.shape[1] + classes[:, None]
    found = torch.bincount(places.flatten(), values.flatten(), minlength=sums.numel())
    sums += found.reshape(sums.shape)


def _count_rows(numbers: Tensor, values: Tensor, size: int) -> Tensor:
    """Of each number the rows that have it (size,)."""
    rows = torch.arange(len(numbers), device=numbers.device)[:, None]
    found = torch.unique((rows * size + numbers)[values > 0])
    return torch.bincount(found % size, minlength=size).float()


def _inverse(rows_with: Tensor, num_rows: int) -> Tensor:
    """The inverse document frequencies; 0 of what a single row has."""
    weights = 1 + ((1 + num_rows) / (1 + rows_with)).log()
    return weights * (rows_with > 1)
