"""README tells the truth: its commands run, and every file that it names is there."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project

README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs/training.md").read_text(encoding="utf-8")
# Made by the road or by a person who follows the text; not in a fresh clone.
MADE = (
    ".reprise/",
    "report.md",
    "data/evaluate/",
    "data/infer/",
    "data/prepare/",
    "data/train/",
    "data/tensorboard",
)


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"\]\(([^)#:]+)\)", README))
    named |= {
        word
        for word in re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:md|txt|toml|yaml|lock))`", README)
        if "://" not in word
    }
    assert len(named) > 15
    missing = [n for n in named if not (ROOT / n).exists() and not n.startswith(MADE)]
    assert missing == []


def test_every_link_into_the_training_page_leads_to_a_part_of_it() -> None:
    parts = re.findall(r"^## (.+)$", TRAINING, flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", part).lower().replace(" ", "-") for part in parts]
    linked = set(re.findall(r"\]\(docs/training\.md#([\w-]+)\)", README))
    assert linked
    assert linked <= {*anchors}
    assert re.findall(r"\]\(#([\w-]+)\)", TRAINING) == anchors
    # Files, from where the page lies.
    for target in re.findall(r"\]\(([^)#:]+)\)", TRAINING):
        assert (ROOT / "docs" / target).is_file(), target


def test_every_key_that_they_name_is_in_params() -> None:
    from stages.common.config import subtree
    from stages.common.yamlfile import read_yaml

    params = read_yaml(ROOT / "params.yaml")
    pattern = r"`((?:prepare|build|tune|train|evaluate|infer)\.[a-z_.]+)`"
    keys = set(re.findall(pattern, README + TRAINING))
    assert len(keys) > 12
    for key in keys:
        subtree(params, key)


def test_the_mistake_that_it_shows_stands_on_the_line_that_it_names() -> None:
    from stages.common.yamlfile import find_place

    shown = re.search(r"params\.yaml:(\d+)  ([\w.]+): ", README)
    assert shown is not None
    assert find_place(ROOT / "params.yaml", shown[2])[0] == int(shown[1])


def commands_of_blocks() -> list[str]:
    """The commands of the blocks, as a person types them."""
    found = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
    return [
        line.split("#")[0].strip()
        for language, text in found
        if not language
        for line in text.splitlines()
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
        assert " ".join(command.split()[:2]) in README
        clone.run(*command.split())
    assert any(file.is_file() for file in (tmp_path / "remote").rglob("*"))


@pytest.mark.soak
def test_the_shell_commands_run(clone: Project, prefect_server: str, tmp_path: Path) -> None:
    commands = [*commands_of_blocks(), "reprise report", *SHORT[:4]]
    commands += ["dvc repro infer", f"dvc remote add --default NAME {tmp_path / 'remote'}"]
    commands += ["dvc push", "reprise check"]
    commands += ["reprise recipe", "reprise recipe linear_regression"]
    commands += ["reprise metrics", "reprise deps --check", "reprise schema --check"]
    commands += [
        "dvc plots show",
        "dvc exp show --csv",
        "python -m stages.tools.rebuild_tensorboard",
    ]
    assert any(command.startswith("dvc exp run -S") for command in commands)
    for command in commands:
        assert f"{command.split()[0]} {command.split()[1]}" in README
        # A recipe takes the place of params.yaml, and refuses to while edits would be lost.
        clone.commit("before the next command")
        clone.run(*command.split(), env={"PREFECT_API_URL": prefect_server})
    assert any(file.is_file() for file in (tmp_path / "remote").rglob("*"))


def test_the_python_snippet_runs(clone: Project) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in snippet.splitlines() if line.strip()]) == 3
    shown = clone.run("python", "-c", snippet).stdout
    assert "prediction" in shown
    assert "(97, 12)" in shown


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make (\w+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
