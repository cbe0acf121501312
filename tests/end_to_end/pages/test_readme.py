"""README and the pages tell the truth: their commands run, the files and keys they name are there.

Links and pictures: `test_docs.py`; the snippets of the outline: `test_outline.py`.
"""

import re
from pathlib import Path

import pytest

from stages.common.files import read_json
from tests.conftest import ROOT, Project

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
# What each of its commands and keys must be is tested elsewhere.
WRITTEN = ("params.md", "outline.md")
# The pages whose commands are run here, after those of README and in this order.
COMMAND_PAGES = ("predict.md", "run.md", "outputs.md")
# Keys that may be left out, with the section that has them.
OPTIONAL = ("prepare.split.column",)
OWN_DATA = "## Your own data"
# Made by the pipeline or by a person who follows the text; not in a fresh clone.
MADE = (
    ".reprise/",
    "report.md",
    "data/evaluate/",
    "data/infer/",
    "data/prepare/",
    "data/train/",
    "data/build/",
    "data/tune/",
    "data/tensorboard",
    "docs/my_outline.ipynb",
)
# Examples of files that a person adds.
YOURS = ("data/raw/", "stages/zoo/models/gated.py")


def test_every_file_that_it_names_exists() -> None:
    pattern = r"`((?:docs|data|stages|pipeline|tests|benchmarks)/[\w./-]+)`"
    named = {word for text in (README, *PAGES.values()) for word in re.findall(pattern, text)}
    assert len(named) > 40
    known = (*MADE, *YOURS)
    missing = [n for n in named if not (ROOT / n).exists() and not n.startswith(known)]
    assert missing == []


def test_every_key_that_they_name_is_in_params() -> None:
    from stages.common.config import get_path
    from stages.common.yamlfile import read_yaml

    params = read_yaml(ROOT / "params.yaml")
    pattern = r"`((?:prepare|build|tune|train|evaluate|infer)\.[a-z_.]+)`"
    texts = [README, *(text for name, text in PAGES.items() if name not in WRITTEN)]
    keys = {key for text in texts for key in re.findall(pattern, text)}
    assert len(keys) > 25
    for key in keys:
        if key in OPTIONAL:
            section, name = key.rsplit(".", 1)
            parts = read_json(ROOT / "stages/params.schema.json")["$defs"]
            assert name in parts["Split"]["properties"]
            get_path(params, section)
        else:
            get_path(params, key)


def test_the_mistake_that_it_shows_stands_on_the_line_that_it_names() -> None:
    from stages.common.yamlfile import find_place

    shown = re.search(r"params\.yaml:(\d+)  ([\w.]+): ", README)
    assert shown is not None
    assert find_place(ROOT / "params.yaml", shown[2])[0] == int(shown[1])


def commands(text: str) -> list[str]:
    """The lines of blocks without a language that call dvc and reprise."""
    found = re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
    blocks = [block for language, block in found if not language]
    return [
        line.split("#")[0].strip()
        for block in blocks
        for line in block.splitlines()
        if line.startswith(("dvc ", "reprise "))
    ]


# Those that neither train nor load torch.
SHORT = (
    *("reprise plan", "reprise plan --check", "reprise accept", "reprise gc --yes"),
    *("reprise recipe", "reprise metrics", "reprise deps --check"),
    *("dvc repro infer", "dvc push", "dvc plots show", "dvc exp show --csv"),
    "dvc metrics diff --md",
)


def test_the_short_shell_commands_run(clone: Project, tmp_path: Path) -> None:
    clone.run("dvc", "remote", "add", "--default", "NAME", str(tmp_path / "remote"))
    clone.commit("a remote")
    for command in SHORT:
        assert any(" ".join(command.split()[:2]) in text for text in (README, *PAGES.values()))
        clone.run(*command.split())
    assert any(file.is_file() for file in (tmp_path / "remote").rglob("*"))


@pytest.mark.soak
def test_the_shell_commands_run(clone: Project, prefect_server: str, tmp_path: Path) -> None:
    # Your own data: below.
    before, after = README.split(OWN_DATA)
    asked = commands(before) + commands(after[after.index("\n## ") :])
    assert any(command.startswith("dvc exp run -S") for command in asked)
    for page in COMMAND_PAGES:
        asked += commands(PAGES[page])
    remote = tmp_path / "remote"
    asked = [command.replace("NAME URL", f"NAME {remote}") for command in asked]
    assert asked[-1] == "dvc push"
    asked += [
        "reprise report",
        "reprise plan",
        "reprise plan --check",
        "reprise accept",
        "reprise gc --yes",
        "dvc repro infer",
        "reprise check",
        "reprise recipe",
        "reprise recipe linear_regression",
        "reprise metrics",
        "reprise deps --check",
        "reprise schema --check",
        "dvc plots show",
        "dvc exp show --csv",
        "python -m stages.tools.rebuild_tensorboard",
    ]
    everything = README + "".join(PAGES.values())
    for command in asked:
        assert f"{command.split()[0]} {command.split()[1]}" in everything
        # A recipe takes the place of params.yaml, and refuses to while edits would be lost.
        clone.commit("before the next command")
        clone.run(*command.split(), env={"PREFECT_API_URL": prefect_server})
    assert any(file.is_file() for file in remote.rglob("*"))


@pytest.mark.soak
def test_own_data_take_three_commands(clone: Project) -> None:
    part = README.split(OWN_DATA)[1].split("\n## ")[0]
    (block,) = re.findall(r"```\n(.*?)```", part, flags=re.DOTALL)
    copied, init, repro = block.splitlines()
    target = clone.path / copied.split()[2] / Path(copied.split()[1]).name
    rows = [f"{40 + i % 97},{i % 5},{3000 * (40 + i % 97) + 900 * (i % 5)}" for i in range(300)]
    target.write_text("\n".join(["area,rooms,price", *rows]) + "\n", encoding="utf-8")
    clone.commit("before the next command")
    assert "regression" in clone.run(*init.split()).stdout
    clone.run(*repro.split())
    assert read_json(clone.path / "data/evaluate/metrics.json")["r2"] > 0.9
    assert (clone.path / "data/infer/predictions.parquet").is_file()


def test_the_python_snippet_runs(clone: Project) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGES["predict.md"], flags=re.DOTALL)
    assert len([line for line in snippet.splitlines() if line.strip()]) == 3
    shown = clone.run("python", "-c", snippet).stdout
    assert "prediction" in shown
    assert "(97, 12)" in shown


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make (\w+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
