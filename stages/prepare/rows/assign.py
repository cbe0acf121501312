"""The split of each row of a table, and the rows that are left out of all."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from stages.features.numbers import Rows
from stages.features.schema import Array, Schema
from stages.features.spelling import as_name
from stages.formats.reading import Damage
from stages.parallel.mapper import Mapper
from stages.prepare.columns.target import encode_classes, find_target
from stages.prepare.images import Images
from stages.prepare.params import PrepareParams
from stages.prepare.rows.duplicates import describe, digest, find_firsts, set_aside, tie
from stages.prepare.rows.keys import KeyPiece, Keys, hash_keys, named_rows
from stages.prepare.rows.order import judge_order
from stages.prepare.rows.split import SPLITS, Codes, Structure, split_rows
from stages.prepare.rows.structure import find_structure
from stages.prepare.rows.weights import Weights, check_splits, describe_weights, find_weights
from stages.prepare.table.table import Mask, Table, mapper_for

# In place of a split: a row without a target, or a copy of another one.
LEFT_OUT = len(SPLITS)


@dataclass(frozen=True)
class Assigned:
    """The split of each row of the table by its place in SPLITS, its weight and group, (rows,).

    `weights` None: all count the same; `groups` None: each row stands for itself. `copies` are rows
    left out, `lines` what there is to say.
    """

    codes: Codes
    weights: Weights | None
    groups: Rows | None = None
    copies: list[Damage] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def of(self, split: str) -> Mask:
        """The rows of a split, (rows,)."""
        return np.equal(self.codes, SPLITS.index(split))


def assign_rows(
    images: Images,
    usable: Mask | None,
    schema: Schema,
    keys: Keys,
    section: PrepareParams,
    mapper: Mapper,
) -> Assigned:
    """Assign each usable row of the table to a split; `usable` None: all rows.

    Raises UserError for invalid weights, and where a split would be empty.
    """
    table = images.table
    lines: list[str] = []
    copies: list[Damage] = []
    if section.duplicates == "first":
        usable, copies, lines = _without_copies(images, usable, schema, keys)
    chosen = table if usable is None else table.where(usable)
    weights, weight_lines = _weigh(images, chosen, schema)
    structure = find_structure(chosen, section)
    if section.duplicates == "together":
        row_keys = np.concatenate(list(key_parts(images, chosen, schema, keys)))
        firsts = _firsts(chosen, [feature.name for feature in schema.features])
        structure = tie(structure, firsts, row_keys)
        lines += describe(firsts, row_keys, "each is in the split of those that it is equal to")
    codes = _divide(images, usable, chosen, schema, keys, section, structure, mapper)
    lines += _judge_order(chosen, structure, codes, section)
    if weights is not None:
        check_splits(weights, codes)
    groups = None if structure.groups is None else _number(structure.groups, usable)
    return Assigned(codes, weights, groups, copies, [*lines, *weight_lines])


def _judge_order(
    chosen: Table, structure: Structure, codes: Codes, section: PrepareParams
) -> list[str]:
    """A warning where test rows of groups are no later than train rows."""
    tie = section.structure
    if tie is None or tie.group is None or tie.time is None:
        return []
    ways = (
        f"  later rows test earlier ones  structure: {{time: {as_name(tie.time)}}}\n"
        f"  some groups test others       structure: {{group: {as_name(tie.group)}}}"
    )
    own = codes[codes < LEFT_OUT]
    lines = judge_order(chosen.column(tie.time), structure, own, ways)
    return [f"warning  {line}" for line in lines]


def _number(groups: Array, usable: Mask | None) -> Rows:
    """The number of each row's group, (rows,) of the table; of a row that is left out -1."""
    numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    if usable is None:
        return numbers
    found = np.full(len(usable), -1, np.int64)
    found[usable] = numbers
    return found


def key_parts(images: Images, table: Table, schema: Schema, keys: Keys) -> Iterator[Array]:
    """The keys of the rows, part by part."""
    return (named_rows(keys, piece) for piece in _key_pieces(images, table, schema))


def _key_pieces(images: Images, table: Table, schema: Schema) -> Iterator[KeyPiece]:
    """The parts of the table by which its rows are named."""
    # Without a key column any column will do: only the row numbers are used.
    name = schema.target.name if schema.key is None else schema.key
    for shard in table.each_part():
        numbers = np.arange(shard.start, shard.start + sum(shard.table.heights))
        yield KeyPiece(shard, name, images.in_source(numbers))


def _divide(
    images: Images,
    usable: Mask | None,
    chosen: Table,
    schema: Schema,
    keys: Keys,
    section: PrepareParams,
    structure: Structure,
    mapper: Mapper,
) -> Codes:
    seed = section.split.seed
    pieces = _key_pieces(images, chosen, schema)
    hashes = hash_keys(pieces, keys, seed, chosen, mapper_for(chosen, mapper))
    classes = encode_classes(chosen.column_parts(schema.target.name), schema)
    split_codes = split_rows(hashes, classes, section.split, structure)
    if usable is None:
        return split_codes
    codes = np.full(len(usable), LEFT_OUT, np.uint8)
    codes[usable] = split_codes
    return codes


def _without_copies(
    images: Images, usable: Mask | None, schema: Schema, keys: Keys
) -> tuple[Mask, list[Damage], list[str]]:
    """The rows that are equal to no earlier one; those that are, and a line on them."""
    table = images.table
    chosen = table if usable is None else table.where(usable)
    rows = _numbers(chosen)
    row_keys = np.concatenate(list(key_parts(images, chosen, schema, keys)))
    firsts = _firsts(chosen, [*(f.name for f in schema.features), schema.target.name])
    copies = set_aside(firsts, images.in_source(rows), row_keys, named=schema.key is not None)
    kept = np.zeros(sum(table.heights), np.bool_)
    kept[rows[np.unique(firsts)]] = True
    # There may be fewer rows of a class now than three splits need.
    find_target(table.where(kept).column_parts(schema.target.name), schema.target.task)
    return kept, copies, describe(firsts, row_keys, "left out, in data/prepare/rejected.csv")


def _firsts(table: Table, names: list[str]) -> Rows:
    return find_firsts(np.concatenate([digest(part, names) for part in table.parts(names)]))


def _numbers(table: Table) -> Rows:
    every = np.arange(sum(table.heights))
    mask = table.mask
    return every if mask is None else every[mask]


def _weigh(images: Images, chosen: Table, schema: Schema) -> tuple[Weights | None, list[str]]:
    """The weight of each row of the sources, and a line on those that are chosen."""
    if schema.weight is None:
        return None, []
    rows = _numbers(chosen)
    found = find_weights(chosen.column(schema.weight), images.in_source(rows))
    weights = np.zeros(sum(chosen.heights))
    weights[rows] = found
    return weights, [describe_weights(schema.weight, found)]
