"""Which row goes where: a function of the row's key and `prepare.split.seed`, stratified.

Rows are ranked by a hash of seed and key, and each class is cut by rank. So the order of the
file does not matter, and a row that is added moves hardly any other: two versions of a table
keep most of their test rows in common, which is what makes their metrics comparable.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from stages.common.errors import Problem, UserError
from stages.features.schema import Array
from stages.prepare.params import Split

Rows = npt.NDArray[np.int64]
SPLITS = ("train", "validation", "test")


def split_rows(keys: Array, classes: Array | None, split: Split) -> dict[str, Rows]:
    """Row numbers of train, validation and test, ascending.

    `keys` (rows,) names the rows; `classes` (rows,) are the strata, or None for one stratum.
    Raises UserError when a split would be empty.
    """
    ranks = np.array([_hash(split.seed, key) for key in keys.tolist()], dtype=np.uint64)
    strata = np.zeros(len(keys), dtype=np.int64) if classes is None else classes
    parts: dict[str, list[Rows]] = {name: [] for name in SPLITS}
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        rows = rows[np.argsort(ranks[rows], kind="stable")]
        num_test, num_validation = _sizes(len(rows), split)
        parts["test"].append(rows[:num_test])
        parts["validation"].append(rows[num_test : num_test + num_validation])
        parts["train"].append(rows[num_test + num_validation :])
    merged = {name: np.sort(np.concatenate(rows)).astype(np.int64) for name, rows in parts.items()}
    for name, rows in merged.items():
        if len(rows) == 0:
            message = f"the split '{name}' would be empty: the table has only {len(keys)} rows"
            raise UserError(Problem(message, key=f"prepare.split.{name}"))
    return merged


def _sizes(num_rows: int, split: Split) -> tuple[int, int]:
    """Test and validation rows of a stratum: at least one of each, and one left for train."""
    num_test = max(1, round(num_rows * split.test))
    num_validation = max(1, round(num_rows * split.validation))
    while num_test + num_validation >= num_rows and max(num_test, num_validation) > 1:
        if num_test >= num_validation:
            num_test -= 1
        else:
            num_validation -= 1
    return num_test, num_validation


def _hash(seed: int, key: int | str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest())
