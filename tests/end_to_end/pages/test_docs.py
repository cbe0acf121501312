"""README and the pages of docs/ hold together: links, pictures, rooms, commands."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.cli import main
from tests.conftest import ROOT
from tests.test_imports import ROOMS, STAGES

PAGES = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    wrong: list[str] = []
    for file, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", prose(page)):
        if "://" in file:
            continue
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            wrong.append(f"{file} does not exist")
        elif anchor and target.suffix != ".md":
            wrong.append(f"{file}#{anchor}: a link names a file or a symbol, not a line")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{file}#{anchor}: no such heading")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_one_title_and_readme_leads_to_it(page: Path) -> None:
    assert len(re.findall(r"^# .+$", prose(page), re.MULTILINE)) == 1
    # To a chapter leads the page beside its folder.
    outline = page.parent.with_suffix(".md")
    above = outline if outline.exists() else PAGES[0]
    leads = f"]({page.relative_to(above.parent).as_posix()}" in above.read_text(encoding="utf-8")
    assert page == PAGES[0] or leads


def test_the_readme_is_short() -> None:
    assert 900 <= len(PAGES[0].read_text(encoding="utf-8").split()) <= 1300


def test_the_pictures_show_what_is_there() -> None:
    stages = words("pipeline.svg")
    assert [f"stages/{stage}/" for stage in STAGES] == [w for w in stages if w.startswith("stages")]
    assert {f"data/{stage}/" for stage in STAGES} <= {*stages}
    # From top to bottom: the rooms of pipeline, then those of stages.
    rooms = [
        name
        for package in ("pipeline", "stages")
        for row in reversed(ROOMS[package])
        for name in row
    ]
    assert [word for word in words("architecture.svg") if word in rooms] == rooms


def words(picture: str) -> list[str]:
    """The texts of a picture in `docs/`, in their order."""
    tree = ElementTree.parse(ROOT / "docs" / picture)
    return [str(node.text) for node in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_every_command_is_on_the_page_of_commands() -> None:
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    for name in main.commands:
        assert re.search(rf"^\| `reprise {name}\b", page, re.MULTILINE), name
