"""`dvc.lock` by itself: the stages that ran on other outputs than it records."""

from typing import Any

import pytest

from pipeline.common.lockfile import find_stale, of_pipeline
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT


def locked(**md5_read: str) -> dict[str, Any]:
    """prepare, tune, train and evaluate, each of which writes `data/NAME` with the hash '1'."""
    above = {"tune": ["prepare"], "train": ["prepare", "tune"], "evaluate": ["train"]}
    entries: dict[str, Any] = {"prepare": {"deps": [{"path": "data/raw/t.csv", "md5": "7"}]}}
    for name, writers in above.items():
        deps = [{"path": f"data/{w}", "md5": md5_read.get(f"{name}_{w}", "1")} for w in writers]
        entries[name] = {"deps": [*deps, {"path": "stages/common", "md5": "5"}]}
    for name, entry in entries.items():
        entry["outs"] = [{"path": f"data/{name}", "md5": "1"}]
    return entries


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ({}, {}),
        ({"evaluate_train": "0"}, {"evaluate": "train"}),
        # What stands below a stale stage is not of the present outputs either.
        ({"train_tune": "0"}, {"train": "tune", "evaluate": "tune"}),
        ({"train_prepare": "0"}, {"train": "prepare", "evaluate": "prepare"}),
        (
            {"tune_prepare": "0", "evaluate_train": "0"},
            {"tune": "prepare", "train": "prepare", "evaluate": "train"},
        ),
    ],
)
def test_a_stage_that_ran_on_other_outputs_is_stale(
    read: dict[str, str], expected: dict[str, str]
) -> None:
    assert find_stale(locked(**read)) == expected
    # In any order of the file, and while an entry is not there yet.
    turned = dict(reversed(locked(**read).items()))
    assert find_stale(turned) == expected
    del turned["evaluate"]
    assert find_stale(turned) == {k: v for k, v in expected.items() if k != "evaluate"}


def test_nothing_of_the_example_is_stale() -> None:
    assert find_stale(read_yaml(ROOT / "dvc.lock")["stages"]) == {}


def test_what_dvc_yaml_has_no_more_is_of_no_stage() -> None:
    lock = {"stages": locked(evaluate_train="0") | {"each@1": {}, "each@2": {}}}
    pipeline = {"stages": {"prepare": {}, "tune": {}, "train": {}, "each": {"foreach": [1, 2]}}}
    found = of_pipeline(lock, pipeline)
    assert list(found) == ["prepare", "tune", "train", "each@1", "each@2"]
    assert find_stale(found) == {}
    assert of_pipeline({}, pipeline) == of_pipeline(lock, {}) == {}
