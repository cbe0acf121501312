"""What `reprise init` and `dvc repro` make of data, beside a model that needs no tuning.

    python -m benchmarks.own_data houses.csv --target price

In a fresh copy of the project the source is brought in, `reprise init` writes `params.yaml`, and
`dvc repro evaluate` trains and judges; nobody edits anything. On the same train and validation rows
scikit-learn's HistGradientBoosting learns from the encoded columns (texts: TF-IDF of words and
pairs of words, with LinearSVC), and both are judged on the same test rows. The time is the
processor's, of all processes.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.schema import CODES, Schema, load_arrays, read_schema, read_statistics
from tests.conftest import Project, copy_project, project_environment
from tests.support.tables import read_table

Floats = npt.NDArray[np.float64]


def main() -> None:
    """Measure one source and print a row of RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("options", nargs="*", help="more options of reprise init, behind --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder))
        own = project.path / "data/raw" / options.source.name
        copy = shutil.copytree if options.source.is_dir() else shutil.copy2
        copy(options.source, own)
        before = _processor_seconds()
        command = ("reprise", "init", str(own), "--target", options.target, *options.options)
        _run(project, *command, "--force")
        _run(project, "dvc", "repro", "evaluate")
        seconds = _processor_seconds() - before
        metrics = json.loads((project.path / "data/evaluate/metrics.json").read_text())
        name = "rmse" if "rmse" in metrics else "accuracy"
        reference = _reference(project, own)
    print(
        f"| {options.source.name} | {name} | {metrics[name]:.5g} | {reference} | {seconds:.0f} s |"
    )


def _run(project: Project, *command: str) -> None:
    environment = project_environment()
    done = subprocess.run(
        command, cwd=project.path, env=environment, text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reference(project: Project, source: Path) -> str:
    """The figure of scikit-learn's model on the same rows."""
    folder = project.path / "data/prepare"
    schema = read_schema(folder)
    splits = {name: load_arrays(folder / name) for name in ("train", "validation", "test")}
    learn = [splits["train"], splits["validation"]]
    target = np.concatenate([part["target"] for part in learn])
    if schema.of_kind("image"):
        return "—"
    if len(schema.of_kind("text")) == len(schema.features):
        return f"{_text_accuracy(source, schema, splits, target):.5g}"
    rows = np.concatenate([_columns(schema, part) for part in learn])
    return f"{_boosted(folder, schema, rows, target, splits['test']):.5g}"


def _columns(schema: Schema, arrays: dict[str, Any]) -> Floats:
    """All columns that are no text, categories by their codes."""
    kinds = [kind for kind in schema.inputs() if kind != "text"]
    return np.concatenate([np.asarray(arrays[kind], np.float64) for kind in kinds], axis=1)


def _boosted(folder: Path, schema: Schema, rows: Floats, target: Floats, test: Any) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kinds = [kind for kind in schema.inputs() if kind != "text"]
    # A code above its bound of categories would be none.
    is_code = [kind in CODES for kind in kinds for _ in range(test[kind].shape[1])]
    is_code = [code and rows[:, n].max() < 255 for n, code in enumerate(is_code)]
    if schema.target.task == "regression":
        model = HistGradientBoostingRegressor(categorical_features=is_code, random_state=0)
        moments = read_statistics(folder).target
        assert moments is not None
        wrong = model.fit(rows, target).predict(_columns(schema, test)) - test["target"]
        return float(np.sqrt((wrong**2).mean()) * moments.deviation)
    model = HistGradientBoostingClassifier(categorical_features=is_code, random_state=0)
    found = model.fit(rows, target).predict(_columns(schema, test))
    return float((found == test["target"]).mean())


def _text_accuracy(source: Path, schema: Schema, splits: Any, target: Floats) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    names = [feature.name for feature in schema.features]
    whole = read_table(source, "source").select(
        pl.concat_str([pl.col(name).fill_null("") for name in names], separator=" ").alias("text")
    )["text"]
    # Without a key rows are named by their numbers.
    keys = {name: part["key"].tolist() for name, part in splits.items()}
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    learned = words.fit_transform(whole[keys["train"] + keys["validation"]].to_list())
    model = LinearSVC().fit(learned, target)
    found = model.predict(words.transform(whole[keys["test"]].to_list()))
    return float((found == splits["test"]["target"]).mean())


if __name__ == "__main__":
    main()
