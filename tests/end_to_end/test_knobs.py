"""Each knob and exactly the stages that it reruns; and back again from the cache."""

import json
from pathlib import Path

import pytest

from tests.conftest import Project

ALL = ["prepare", "build", "tune", "train", "evaluate", "infer"]
AFTER_TRAIN = ["train", "evaluate", "infer"]

EDITS = {
    "evaluate.metrics": (
        ("params.yaml", "  - f1_macro\n", "  - f1_macro\n  - brier\n"),
        ["evaluate"],
    ),
    "evaluate.slices": (("params.yaml", "slices:", "slices: []"), ["evaluate"]),
    "evaluate.coverage": (
        ("params.yaml", "coverage: 0.9", "coverage: 0.8"),
        ["evaluate", "infer"],
    ),
    "evaluate.gates": (("params.yaml", "minimum: 0.95", "minimum: 0.9"), []),
    "seed": (("params.yaml", "\nseed: 0 ", "\nseed: 1 "), ALL[1:]),
    "train.epochs": (("params.yaml", "epochs: 30", "epochs: 2"), AFTER_TRAIN),
    "train.optimizer.lr": (("params.yaml", "lr: 3e-3", "lr: 2e-3"), ["tune", *AFTER_TRAIN]),
    "tune.trials, a search without a better value": (
        ("params.yaml", "trials: 0 ", "trials: 1 "),
        ["tune"],
    ),
    "build.model.width": (("params.yaml", "width: 64,", "width: 32,"), ALL[1:]),
    # Other rows of the same columns: build's only input, schema.json, keeps its bytes.
    "prepare.split.seed": (
        ("params.yaml", "split: {seed: 0", "split: {seed: 1"),
        ["prepare", "tune", *AFTER_TRAIN],
    ),
    "infer.input": (
        ("params.yaml", "input: data/raw/digits_new", "input: data/raw/digits"),
        ["infer"],
    ),
    "a comment in README": (("README.md", "# Reprise\n", "# Reprise\n<!-- new -->\n"), []),
    "a helper that only evaluate imports": (
        ("stages/evaluate/outputs/plots.py", "NUM_POINTS = 200\n", "NUM_POINTS = 100\n"),
        ["evaluate"],
    ),
    "a helper of prepare": (
        ("stages/prepare/fit.py", '"""Statistics', '"""The statistics'),
        ["prepare"],
    ),
    "the model's own file": (("stages/zoo/models/cnn.py", '"""A small', '"""A  small'), None),
}


# Each of these takes long; what they say of the pipeline, the others and the soak say too.
LONG = (
    "train.epochs",
    "build.model.width",
    "seed",
    "prepare.split.seed",
    "train.optimizer.lr",
    "evaluate.slices",
    "evaluate.coverage",
    "a helper that only evaluate imports",
    "the model's own file",
    "infer.input",
    "tune.trials, a search without a better value",
    "a helper of prepare",
)


def test_a_knob_is_seen_by_its_stages_alone(clone: Project) -> None:
    for knob, ((file, old, new), expected) in EDITS.items():
        clone.edit(file, old, new)
        seen = list(stale(clone))
        clone.edit(file, new, old)
        # Those after the first may wait for what it gives.
        stages = ALL[1:] if expected is None else expected
        assert set(seen) <= set(stages), knob
        assert sorted(seen, key=ALL.index)[:1] == stages[:1], knob
    assert stale(clone) == {}


@pytest.mark.parametrize(
    "knob", [pytest.param(k, marks=[pytest.mark.soak] if k in LONG else []) for k in EDITS]
)
def test_a_knob_reruns_exactly_its_stages(clone: Project, knob: str) -> None:
    (file, old, new), expected = EDITS[knob]
    before = clone.outputs()
    clone.edit(file, old, new)
    ran = clone.repro()
    if expected is None:
        # Everything that loads a model runs; whether the rest does depends on the bytes.
        assert {"build", "tune", "train", "evaluate", "infer"} >= set(ran) >= {"build", "train"}
        assert "prepare" not in ran
    else:
        assert ran == expected
    clone.edit(file, new, old)
    assert clone.repro() == [], "going back must come from the cache"
    assert clone.outputs() == before


def stale(project: Project) -> dict[str, str]:
    """The stages that DVC finds changed, without running them."""
    changed: dict[str, object] = json.loads(project.run("dvc", "status", "--json").stdout)
    return {name: json.dumps(what) for name, what in changed.items()}


def test_library_versions_rerun_their_users(clone: Project) -> None:
    versions = (clone.path / "stages/versions.yaml").read_text(encoding="utf-8")
    pin = next(line for line in versions.splitlines() if line.startswith("torch:"))
    clone.edit("stages/versions.yaml", pin, "torch: 2.99.0")
    assert sorted(stale(clone)) == sorted(["build", "tune", "train", "evaluate", "infer"])
    stopped = clone.run("dvc", "repro", ok=False).stderr
    assert "stages/versions.yaml says 2.99.0" in stopped
    clone.edit("stages/versions.yaml", "torch: 2.99.0", pin)
    assert stale(clone) == {}

    sklearn = next(line for line in versions.splitlines() if line.startswith("scikit-learn:"))
    clone.edit("stages/versions.yaml", sklearn, "scikit-learn: 9.9.9")
    assert sorted(stale(clone)) == ["evaluate"]


def test_a_new_version_of_a_library_that_no_stage_uses_reruns_nothing(clone: Project) -> None:
    constraints = clone.path / "constraints.txt"
    pins = constraints.read_text(encoding="utf-8").splitlines()
    changed = ["click==9.9.9" if pin.startswith("click==") else pin for pin in pins]
    assert changed != pins
    constraints.write_text("\n".join([*changed, "prefect==9.9.9"]) + "\n", encoding="utf-8")
    clone.run("reprise", "deps")
    assert stale(clone) == {}


def test_a_new_file_in_the_zoo_reruns_nothing(clone: Project) -> None:
    source = (clone.path / "stages/zoo/models/mlp.py").read_text(encoding="utf-8")
    (clone.path / "stages/zoo/models/mine.py").write_text(source, encoding="utf-8")
    clone.run("reprise", "deps")
    assert stale(clone) == {}
    assert clone.repro() == []


def test_a_file_of_a_dataset_reruns_what_trains(clone: Project) -> None:
    clone.edit("stages/zoo/datasets/random_erasing.py", "TRIES = 100\n", "TRIES = 101\n")
    assert sorted(stale(clone)) == ["train", "tune"]


def test_the_number_of_processes_reruns_nothing(clone: Project) -> None:
    assert clone.repro(env={"PET_NPROC_PER_NODE": "2", "REPRISE_THREADS": "2"}) == []


def test_one_version_of_python_bytecode_is_no_change(clone: Project) -> None:
    clone.run("python", "-m", "compileall", "-q", "stages")
    assert list(Path(clone.path / "stages").rglob("*.pyc"))
    assert stale(clone) == {}
