"""`docs/outline.ipynb`: the outline and its chapters as one notebook, with the same snippets.

`python -m stages.tools.outline_notebook` writes it from the pages, which are the source;
`--check` tells when it is out of date.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUTLINE = Path("docs/outline.md")
CHAPTERS = Path("docs/outline")
NOTEBOOK = Path("docs/outline.ipynb")
COMMAND = "python -m stages.tools.outline_notebook"

# A cell of code; what an exercise asks stays text, and its answer stays folded in one cell.
SNIPPET = re.compile(
    r"^```python\n(?P<code>.*?)^```$|^(?P<answer><details>.*?^</details>)$",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
# For readers of the pages alone: the ways to the other chapters, and each chapter's contents.
WAYS = re.compile(
    r"^(?:.*\[the outline\]\(\.\./outline\.md\).*|Next: \[.*|- \[[^]]+\]\(#.*)\n", re.MULTILINE
)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# Jupyter starts in the folder of the notebook, and the snippets read files from the root.
TO_ROOT = """import os

while not os.path.exists("params.yaml"):
    os.chdir("..")"""


def list_chapters(folder: Path = CHAPTERS) -> list[Path]:
    """The chapters in the order of their numbers."""
    return sorted(folder.glob("*.md"), key=lambda page: int(page.name.split("_")[0]))


def make_notebook() -> str:
    """The notebook as the text of its file, without outputs."""
    cells = [*_cells(OUTLINE), _code(TO_ROOT)]
    for page in list_chapters():
        cells += _cells(page)
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _cells(page: Path) -> Iterator[dict[str, Any]]:
    text = WAYS.sub("", page.read_text(encoding="utf-8"))
    end = 0
    for found in SNIPPET.finditer(text):
        yield from _text(text[end : found.start()], page)
        if found["answer"] is None:
            yield _code(found["code"].rstrip())
        else:
            # Room to try.
            yield _code("")
            yield from _text(found["answer"], page)
        end = found.end()
    yield from _text(text[end:], page)


def _code(source: str) -> dict[str, Any]:
    lines = source.splitlines(keepends=True)
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": lines,
    }


def _text(text: str, page: Path) -> Iterator[dict[str, Any]]:
    """A cell of text whose links lead on from the notebook's folder; none where it is blank."""
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if text:
        moved = LINK.sub(lambda link: f"]({_target(page, link[1], link[2])})", text)
        source = moved.splitlines(keepends=True)
        yield {"cell_type": "markdown", "metadata": {}, "source": source}


def _target(page: Path, file: str, anchor: str | None) -> str:
    """A link from the notebook: to a heading of it where it leads to a chapter."""
    if "://" in file:
        return file
    # Without following a link of the file system, as `Path.resolve` would.
    path = Path(os.path.normpath(page.parent / file)) if file else page
    if path == OUTLINE or (path.parent == CHAPTERS and path.suffix == ".md"):
        return f"#{_heading(path, anchor)}"
    relative = Path(os.path.relpath(path, NOTEBOOK.parent)).as_posix()
    return f"{relative}#{anchor}" if anchor else relative


def _heading(page: Path, anchor: str | None) -> str:
    """The heading at `anchor`, or the first, as Jupyter names the place of a heading."""
    for heading in HEADING.findall(page.read_text(encoding="utf-8")):
        slug = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        if anchor in (None, slug):
            return str(heading).replace(" ", "-")
    raise ValueError(f"{page} has no heading '{anchor}'")


def main(arguments: list[str]) -> int:
    """Write the notebook, or with `--check` compare it with what would be written."""
    text = make_notebook()
    if arguments == ["--check"]:
        if NOTEBOOK.exists() and NOTEBOOK.read_text(encoding="utf-8") == text:
            return 0
        print(f"{NOTEBOOK} is out of date: '{COMMAND}' writes it", file=sys.stderr)
        return 1
    if arguments:
        print(f"usage: {COMMAND} [--check]", file=sys.stderr)
        return 2
    NOTEBOOK.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
