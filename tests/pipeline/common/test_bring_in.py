"""Data from elsewhere: the command that brings it in, and no password on the screen."""

from pathlib import Path

import pytest

from pipeline.common.bring_in import tell_address, tell_path

THEN = "reprise init {} --target y"


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("ssh://h.org/k/houses.csv", "dvc import-url ssh://h.org/k/houses.csv data/raw/houses.csv"),
        ("https://h.org/houses.csv?v=1", "dvc import-url 'https://h.org/houses.csv?v=1' data/raw/"),
        ("https://u:hidden@h.org/houses.csv", "dvc import-url https://h.org/houses.csv data/raw/"),
        ("ftp://u:hidden@h.org/houses.csv", "fetch it to data/raw/houses.csv, then dvc add data/"),
        ("postgresql://u:hidden@h/db", "reprise import-query data/raw/NAME.sql --from NAME_DB"),
        ("https://u:hidden@h.org/o/r.git", "dvc import https://h.org/o/r.git PATH/IN/IT -o data/"),
        ("git@h.org:o/r.git", "dvc import git@h.org:o/r.git PATH/IN/IT -o data/raw/NAME"),
        ("sqlite:///houses.db", "export NAME_DB=sqlite:///FILE"),
    ],
)
def test_an_address_is_told_with_the_command(address: str, command: str) -> None:
    told = tell_address(address, THEN)
    assert command in told
    assert "hidden" not in told
    assert "reprise init data/raw/" in told


def test_another_name_for_a_storage_is_told_by_that_of_dvc() -> None:
    assert "azure://bucket/name" in tell_address("abfs://c/houses.csv", THEN)


def test_a_path_elsewhere_is_copied_or_imported() -> None:
    told = tell_path(Path("/mnt/my data/houses.csv"), THEN)
    assert "cp -r '/mnt/my data/houses.csv' data/raw/houses.csv && dvc add data/raw/hou" in told
    assert "dvc import-url '/mnt/my data/houses.csv' data/raw/houses.csv" in told
