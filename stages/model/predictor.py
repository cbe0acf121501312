"""Results for a person from scores: the class with its probabilities, or the value in units."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import nn

from stages.common.files import md5
from stages.common.yamlfile import yaml_text
from stages.features.encode import check_columns, encode, row_keys
from stages.features.schema import Array, Schema, Statistics, read_schema, read_statistics
from stages.features.target_scale import invert
from stages.features.written import drop_all_words
from stages.model.calibration import (
    UNCALIBRATED,
    Calibration,
    predict_codes,
    read_calibration,
    to_probabilities,
)
from stages.model.conformal import Conformal, read_conformal
from stages.model.model import load_model
from stages.model.onednn import OneDnnLinear
from stages.tensors.batch import take, to_batch

# What a layer makes of them stays in the processor's cache.
ROWS_AT_A_TIME = 2048


@dataclass(frozen=True)
class Predictor:
    """A trained model with the preparation that it was trained under.

    predictor = load_predictor()
    predictor.predict(polars.read_parquet("new.parquet"))
    """

    model: nn.Module
    schema: Schema
    statistics: Statistics
    # The MD5 of the weights, as `dvc.lock` names them.
    model_md5: str = ""
    calibration: Calibration = UNCALIBRATED
    # Makes of each prediction an interval or a set of classes; None: there is none.
    conformal: Conformal | None = None

    @torch.inference_mode()
    def scores(self, arrays: dict[str, Array]) -> npt.NDArray[np.float64]:
        """The model's output for encoded rows: (rows, outputs) float64."""
        batch = to_batch(arrays, self.statistics)
        num_rows = len(next(iter(batch.values())))
        with OneDnnLinear():
            parts = [self.model(take(batch, rows)).double().numpy() for rows in _slices(num_rows)]
        return np.concatenate(parts)

    def decode(self, scores: npt.NDArray[np.float64]) -> pl.DataFrame:
        """`prediction`, and for classes `probability_<class>` each, a row for each of `scores`.

        With `conformal` then `low` and `high`, or for classes `in_set_<class>` each.
        """
        target = self.schema.target
        if target.classes is None:
            moments = self.statistics.target
            assert moments is not None
            values = scores[:, 0] * moments.deviation + moments.mean
            ends = () if self.conformal is None else self.conformal.interval(values)
            named = zip(("prediction", "low", "high"), (values, *ends), strict=False)
            return pl.DataFrame({name: invert(each, moments.transform) for name, each in named})
        probabilities = to_probabilities(scores, self.calibration.temperature)
        codes = predict_codes(probabilities, self.calibration.threshold)
        names = [yaml_text(value) for value in target.classes]
        columns: dict[str, Array] = {
            f"probability_{name}": probabilities[:, i] for i, name in enumerate(names)
        }
        if self.conformal is not None:
            inside = self.conformal.contains(probabilities, self.calibration.threshold)
            columns |= {f"in_set_{name}": inside[:, i] for i, name in enumerate(names)}
        predicted = pl.Series(target.classes)[codes]
        return pl.DataFrame({"prediction": predicted, **columns})

    def predict(self, table: pl.DataFrame, key: str = "infer.input") -> pl.DataFrame:
        """The row key, then the prediction, for each row of a raw table.

        Raises UserError when a column is missing or holds what it did not hold in training;
        `key` is the parameter that named the table.
        """
        check_columns(table, self.schema, key)
        table = drop_all_words(table, self.schema)
        arrays = encode(table, self.schema, self.statistics, key)
        keys = pl.Series(self.schema.key or "row", row_keys(table, self.schema, key))
        return self.decode(self.scores(arrays)).insert_column(0, keys)


def load_predictor(
    data: Path | str = "data", replica: int = 0, coverage: float | None = None
) -> Predictor:
    """The trained model in `data/train` with the schema and statistics in `data/prepare`.

    Replica 0 is the one that is served; the others lie in `data/train/replicas`. With `coverage`
    each prediction has an interval that holds the target of this share of rows, or a set of
    classes. Raises UserError where the validation rows are too few for it.
    """
    prepared = Path(data) / "prepare"
    trained = Path(data) / "train"
    trained /= f"replicas/{replica}" if replica else ""
    statistics, calibration = read_statistics(prepared), read_calibration(trained)
    conformal = None
    if coverage is not None:
        deviation = None if statistics.target is None else statistics.target.deviation
        conformal = read_conformal(trained / "validation", coverage, calibration, deviation)
    return Predictor(
        load_model(trained),
        read_schema(prepared),
        statistics,
        md5(trained / "model.safetensors"),
        calibration,
        conformal,
    )


def predictor_digest(data: Path, coverage: float | None = None) -> str:
    """The digest of all files that `load_predictor` reads of `data`, for replica 0."""
    names = ["prepare/schema.json", "prepare/statistics.json"]
    names += [f"train/{name}" for name in ("calibration.json", "model.json", "model.safetensors")]
    if coverage is not None:
        names += [f"train/validation/{name}.npy" for name in ("scores", "target", "weight")]
    found = [f"{name} {md5(data / name)}" for name in names if (data / name).exists()]
    return hashlib.md5("\n".join(found).encode(), usedforsecurity=False).hexdigest()


def _slices(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, ROWS_AT_A_TIME):
        yield slice(start, start + ROWS_AT_A_TIME)
