"""docs/words.md shows what a person sees: the commands of its part on DVC run, in their order."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project

PAGE = (ROOT / "docs/words.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
# Another machine has other ones.
NUMBERS = re.compile(r"\b[0-9a-f]{32}\b|\d+(\.\d+)?")


@pytest.mark.soak
def test_the_commands_on_dvc_show_what_the_page_shows(clone: Project, tmp_path: Path) -> None:
    part = PAGE.split("\n## DVC\n")[1].split("\n## Prefect\n")[0]
    num_shown, shown = 0, ""
    for language, block in BLOCK.findall(part):
        if language:
            for line in block.strip().splitlines():
                assert plain(line) in plain(shown), f"{line!r} is not in:\n{shown}"
            num_shown += 1
            clone.run("git", "checkout", "--quiet", "params.yaml")
            continue
        # As the text above these asks for.
        if block in ("dvc status\n", "reprise plan\n"):
            clone.edit("params.yaml", "\n  epochs: 30", "\n  epochs: 29")
        for command in block.replace("/tmp/shelf", str(tmp_path / "shelf")).splitlines():
            done = clone.run(*command.split())
            shown = done.stdout + done.stderr
    assert num_shown == 7
    assert clone.run("git", "status", "--porcelain").stdout == ""
    assert "up to date" in clone.run("dvc", "status").stdout


def plain(text: str) -> str:
    """The words of a text, without numbers, hashes and the width of a table."""
    return " ".join(NUMBERS.sub("0", text).split())


def test_the_deployments_are_those_of_the_page() -> None:
    content = YAML(typ="safe").load(ROOT / "prefect.yaml")
    for deployment in content["deployments"]:
        assert f"`{deployment['name']}`" in PAGE
        assert f"pool '{deployment['work_pool']['name']}'" in PAGE
        function = deployment["entrypoint"].split(":")[1]
        assert f"`{function}`" in PAGE
    assert "prefect deployment run scheduled/on-demand" in PAGE


def test_every_word_of_the_table_is_explained() -> None:
    table = re.findall(r"^\| ([a-z ,]+) \|", PAGE, re.MULTILINE)[1:]
    text = PAGE.split("\n## All words")[0].lower()
    assert len(table) == 13
    for word in [word for cell in table for word in cell.split(", ")]:
        assert re.search(rf"\*{word}\*|^### .*\b{word}\b", text, re.MULTILINE), word
