"""The division of the rows: a function of keys, groups or times and `prepare.split.seed`.

Rows are ranked by a hash of seed and key, and each class is cut by rank. So the order of the
file does not matter, and a row that is added moves hardly any other: two versions of a table
keep most of their test rows in common, which is what makes their metrics comparable. Groups are
ranked in place of rows, and times rank themselves: the latest rows are the test rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.common.counts import counted
from stages.common.errors import Problem, UserError
from stages.features.numbers import Rows
from stages.features.schema import Array
from stages.prepare.params import Split
from stages.prepare.rows.keys import Hashes, hash_names

Codes = npt.NDArray[np.uint8]
SPLITS = ("train", "validation", "test")
# Hashes are looked at so many at a time, and by their first 16 bits.
AT_ONCE, SHIFT = 1 << 18, np.uint64(48)
# A stratum of so few groups is cut together with the others.
MIN_GROUPS = 3


@dataclass(frozen=True)
class Structure:
    """Ties between the rows, each (rows,).

    `groups`: rows of equal ones stay in one split. `times`: validation rows are later than train
    rows, and test rows later than both; of groups the latest time counts. `parts`: the split of
    each row by its name; a split without a row among them gets train rows.
    """

    groups: Array | None = None
    times: npt.NDArray[np.float64] | None = None
    parts: Array | None = None


def split_rows(
    hashes: Hashes, classes: Array | None, split: Split, structure: Structure | None = None
) -> Codes:
    """The split of each row, (rows,): its place in SPLITS.

    `hashes` (rows,) are those of the rows' keys; `classes` (rows,) are the strata, or None for one
    stratum. Raises UserError when a split would be empty.
    """
    structure = structure or Structure()
    shares = (split.validation, split.test)
    if structure.parts is not None:
        codes = _split_parts(structure.parts, hashes, classes, split, structure)
    elif structure.groups is None and structure.times is None:
        codes = _split_alone(hashes, classes, shares)
    else:
        every = np.arange(len(hashes))
        codes = _divide(every, hashes, _strata(classes, every), shares, split.seed, structure)
    for number, name in enumerate(SPLITS):
        if not (codes == number).any():
            raise UserError(_say_empty(name, len(hashes), structure))
    return codes


def _say_empty(name: str, num_rows: int, structure: Structure) -> Problem:
    message = f"the split '{name}' would be empty: the table has only {num_rows} rows"
    if structure.groups is None:
        return Problem(message, key="prepare.split")
    message += (
        f" in {counted(len(np.unique(structure.groups)), 'group')}, and a group stays in one "
        "split; name a column with more groups, or remove 'group' to divide rows"
    )
    return Problem(message, key="prepare.structure.group")


def _strata(classes: Array | None, rows: Rows) -> Rows:
    return np.asarray(np.zeros(len(rows)) if classes is None else classes[rows], np.int64)


def _split_parts(
    parts: Array, hashes: Hashes, classes: Array | None, split: Split, structure: Structure
) -> Codes:
    """By the parts; a split without a row among them gets train rows."""
    codes = np.zeros(len(parts), np.uint8)
    for number, name in enumerate(SPLITS):
        codes[parts == name] = number
    shares = {"validation": split.validation, "test": split.test}
    there = {name: bool((codes == SPLITS.index(name)).any()) for name in shares}
    left = 1 - sum(shares[name] for name in shares if there[name])
    validation, test = (0.0 if there[name] else shares[name] / left for name in shares)
    rows = np.flatnonzero(codes == 0)
    codes[rows] = _divide(
        rows, hashes, _strata(classes, rows), (validation, test), split.seed, structure
    )
    return codes


def _split_alone(hashes: Hashes, classes: Array | None, shares: tuple[float, float]) -> Codes:
    """Rows that have no ties, by the ranks of their hashes in each stratum.

    As `_divide` does, in a tenth of the memory.
    """
    codes = np.zeros(len(hashes), np.uint8)
    for stratum in [0] if classes is None else np.unique(classes):
        # Of one stratum no second copy.
        members = slice(None) if classes is None else classes == stratum
        ranks = hashes[members]
        num_test, num_validation = _sizes(len(ranks), shares)
        # The first of equal hashes would come first; of 64 bits hardly two are.
        own = np.zeros(len(ranks), np.uint8)
        end = min(num_test + num_validation, len(ranks))
        own[ranks <= _find_at(ranks, end - 1)] = SPLITS.index("validation")
        own[ranks <= _find_at(ranks, num_test - 1)] = SPLITS.index("test")
        codes[members] = own
    return codes


def _find_at(hashes: Hashes, place: int) -> np.uint64:
    """The hash at a place of their order: only those are sorted that begin with its 16 bits."""
    parts = [hashes[start : start + AT_ONCE] for start in range(0, len(hashes), AT_ONCE)]
    counts = np.zeros(1 << 16, np.int64)
    for part in parts:
        counts += np.bincount((part >> SHIFT).astype(np.int64), minlength=len(counts))
    place %= len(hashes)
    ends = np.cumsum(counts)
    bits = int(np.searchsorted(ends, place, side="right"))
    near = np.sort(np.concatenate([part[part >> SHIFT == bits] for part in parts]))
    return np.uint64(near[place - ends[bits]])


def _divide(
    rows: Rows,
    hashes: Hashes,
    strata: Rows,
    shares: tuple[float, float],
    seed: int,
    structure: Structure,
) -> Codes:
    """The split of each of `rows`, by the `shares` of validation and test."""
    units = _find_units(rows, hashes, strata, seed, structure)
    num_rows = np.bincount(units.of_row)
    split_of_unit = np.zeros(len(num_rows), np.uint8)
    for stratum in np.unique(units.strata):
        members = np.flatnonzero(units.strata == stratum)
        members = members[np.argsort(units.ranks[members], kind="stable")]
        ends = np.cumsum(num_rows[members])
        num_test, num_validation = _sizes(int(ends[-1]), shares)
        # The first unit with which a split has its rows is its last one.
        test = int(np.searchsorted(ends, num_test)) + 1 if num_test else 0
        taken = int(ends[test - 1]) if test else 0
        validation = test
        if num_validation:
            validation = int(np.searchsorted(ends, taken + num_validation)) + 1
        split_of_unit[members[test:validation]] = SPLITS.index("validation")
        split_of_unit[members[:test]] = SPLITS.index("test")
    return split_of_unit[units.of_row]


@dataclass(frozen=True)
class _Units:
    """Rows that stay together: `of_row` (rows,) has the number of each row's unit.

    `ranks` (units,): the lowest become test rows; `strata` (units,) are divided one by one.
    """

    of_row: Rows
    ranks: Array
    strata: Rows


def _find_units(
    rows: Rows, hashes: Hashes, strata: Rows, seed: int, structure: Structure
) -> _Units:
    """A unit is a row, a group, or all rows of one time."""
    groups, times = structure.groups, structure.times
    if groups is None and times is None:
        return _Units(np.arange(len(rows)), hashes[rows], strata)
    if groups is None:
        assert times is not None
        different, of_row = np.unique(times[rows], return_inverse=True)
        return _Units(of_row, -different, np.zeros(len(different), np.int64))
    names, of_row = np.unique(groups[rows], return_inverse=True)
    if times is not None:
        latest = np.full(len(names), -np.inf)
        np.maximum.at(latest, of_row, times[rows])
        return _Units(of_row, -latest, np.zeros(len(names), np.int64))
    num_strata = int(strata.max()) + 1
    counts = np.bincount(of_row * num_strata + strata, minlength=len(names) * num_strata)
    majority = counts.reshape(len(names), num_strata).argmax(axis=1)
    if np.unique(majority, return_counts=True)[1].min() < MIN_GROUPS:
        majority[:] = 0
    return _Units(of_row, hash_names(seed, names), majority)


def _sizes(num_rows: int, shares: tuple[float, float]) -> tuple[int, int]:
    """Test and validation rows of a stratum: at least one of each, and one left for train."""
    validation, test = shares
    num_test = max(1, round(num_rows * test)) if test else 0
    num_validation = max(1, round(num_rows * validation)) if validation else 0
    while num_test + num_validation >= num_rows and max(num_test, num_validation) > 1:
        if num_test >= num_validation:
            num_test -= 1
        else:
            num_validation -= 1
    return num_test, num_validation
