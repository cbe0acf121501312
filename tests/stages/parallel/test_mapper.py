"""A function of many parts on threads and processes of this machine."""

from functools import partial

import numpy as np
import polars as pl
import pytest

import stages.prepare.rows.keys as keys
from stages.common.errors import Problem, UserError
from stages.parallel.mapper import Local
from stages.prepare.rows.keys import KeyPiece, Keys, hash_keys
from stages.prepare.table.table import in_memory


def refuse_seven(number: int) -> int:
    if number == 7:
        raise UserError(Problem("seven", key="prepare.key", value="7", allowed=("8",)))
    return number


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_results_and_errors_come_in_order(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("REPRISE_THREADS", "2")
    results = Local().map(refuse_seven, range(20), in_python=kind == "processes")
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(UserError) as caught:
        next(results)
    # From a process, too, with the place to edit.
    assert caught.value.problems == [Problem("seven", "prepare.key", "7", ("8",))]


def test_processes_hash_as_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    table = in_memory(pl.DataFrame({"id": [f"row {n}" for n in range(1000)]}))
    hashes = []
    monkeypatch.setattr(keys, "NAMES_AT_ONCE", 300)
    for many, threads in ((10**6, "1"), (0, "2")):
        monkeypatch.setattr(keys, "MANY_NAMES", many)
        monkeypatch.setenv("REPRISE_THREADS", threads)
        pieces = [KeyPiece(shard, "id", np.arange(1000)) for shard in table.each_part()]
        hashes.append(hash_keys(pieces, Keys("id", False, 8), 0, table, Local()))
    assert len(np.unique(hashes[0])) == 1000
    np.testing.assert_array_equal(*hashes)
    assert list(Local().map(partial(pow, 2), [3])) == [8]
