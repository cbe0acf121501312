"""docs/params.md: every key, from the docstrings; out of date it is told."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.common.yamlfile import read_yaml
from stages.tools import params_schema
from stages.tools.params_links import MORE
from stages.tools.params_page import STAGES, Reruns, field_docs
from stages.training.params import Group, TrainParams
from tests.conftest import ROOT

PAGE = (ROOT / "docs/params.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def keys(tree: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """The keys of `params.yaml` down to those whose own keys are names or arguments."""
    for name, value in tree.items():
        key = f"{at}{name}"
        yield key
        named = isinstance(value, Mapping) and "name" in value
        if isinstance(value, Mapping) and not named and name not in ("space", "gates", "columns"):
            yield from keys(value, f"{key}.")


def test_the_page_has_every_key_with_its_words() -> None:
    found = list(keys(read_yaml(Path("params.yaml"))))
    assert len(found) > 45
    for key in found:
        assert f"`{key}` | " in PAGE or f"\n## {key}\n" in PAGE, key
    for section in params_schema.sections_schema()["$defs"].items():
        name, part = section
        for field, about in part["properties"].items():
            assert name == "ClassSpec" or about.get("description"), f"{name}.{field} says nothing"
    assert set(MORE) <= {*found}


def test_what_an_edit_reruns_follows_from_dvc_yaml() -> None:
    reruns = Reruns(read_yaml(Path("dvc.yaml"))["stages"])
    assert reruns.of("prepare.target") == "everything"
    assert reruns.of("seed") == "build, tune, train, evaluate, infer"
    assert reruns.of("train.optimizer") == "tune, train, evaluate, infer"
    assert reruns.of("train.replicas") == "train, evaluate, infer"
    assert reruns.of("evaluate.metrics") == "evaluate"
    assert reruns.of("evaluate.gates") == "nothing"
    assert set(STAGES) <= set(read_yaml(Path("dvc.yaml"))["stages"])


def test_docstrings_are_read_from_under_the_fields() -> None:
    assert list(field_docs(Group)) == ["match", "lr", "frozen"]
    assert set(field_docs(TrainParams)) == set(TrainParams.model_fields)


def test_a_page_that_is_out_of_date_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "params.md"
    page.write_text(PAGE.replace("The number of times to go over", "How often to go over"), "utf-8")
    monkeypatch.setattr(params_schema, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["params_schema", "--check"])
    with pytest.raises(SystemExit) as ended:
        params_schema.main()
    assert ended.value.code == 1
    assert capsys.readouterr().out == f"{page} is out of date; 'reprise schema' writes it\n"
    monkeypatch.setattr(sys, "argv", ["params_schema"])
    with pytest.raises(SystemExit) as ended:
        params_schema.main()
    assert ended.value.code == 0
    # What is written is the page of the repository, so that is current too.
    assert page.read_text("utf-8") == PAGE
