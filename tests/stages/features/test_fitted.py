"""The moments of a column, learnt from the rows of train alone: mean, deviation, gaps."""

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.columns import as_numeric, fits_float32
from stages.features.encode import encode
from stages.features.kinds import boolean
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.columns.pretrained import with_pretrained
from stages.prepare.fit import fit_statistics
from stages.prepare.table.table import in_memory
from tests.stages.features.encoded import (
    CLASSES,
    KEY,
    MIXED,
    VALUE,
    encoded,
    fit,
    message,
    one_feature,
)
from tests.support.samples import prepare_params


def test_gaps_that_train_does_not_have_are_the_mean_and_need_no_column() -> None:
    schema, statistics = fit(MIXED.filter(pl.col("size").is_not_null()), key="id")
    numeric = encoded(MIXED, schema, statistics)["numeric"]
    assert numeric.shape == (4, 2)
    assert numeric[2, 0] == 0


def test_a_constant_column_is_zero() -> None:
    schema, statistics = fit(MIXED.with_columns(age=pl.lit(5)), key="id")
    numeric = encoded(MIXED.with_columns(age=pl.lit(5)), schema, statistics)["numeric"]
    assert (numeric[:, 1] == 0).all()


@pytest.mark.parametrize(
    "train",
    [
        pl.Series("x", [14.62] * 240),
        pl.Series("x", [0.1] * 7 + [None]),
        pl.Series("x", [14.62] * 240, pl.Float32),
        pl.Series("x", [1e300] * 9),
        pl.Series("x", [0.0] * 9),
        # Equal but for the rounding of a sum.
        pl.Series("x", [0.1 + 0.2, 0.3, 0.3]),
        pl.Series("x", [0.1 + 0.2, 0.3, 0.3], pl.Float32),
    ],
    ids=str,
)
def test_rounding_is_no_spread(train: pl.Series) -> None:
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric")], target=VALUE)
    table = train.to_frame().with_columns(y=pl.int_range(pl.len()))
    moments = fit_statistics(schema, in_memory(table)).numeric["x"]
    assert (moments.deviation, moments.constant) == (1.0, True)
    values = train.cast(pl.Float64).drop_nulls()
    assert values.min() <= moments.mean <= values.max()  # type: ignore[operator]
    # A cent more is a cent more, and not 2e12 deviations.
    statistics = Statistics(numeric={"x": moments}, image=[], target=None)
    new = pl.DataFrame({"x": values + 0.01})
    assert np.abs(encoded(new, schema, statistics)["numeric"]).max() <= 0.0101


def test_a_small_spread_that_is_none_of_rounding_is_kept() -> None:
    seconds = pl.Series("x", [1.7e9, 1.7e9 + 1, 1.7e9 + 2])
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric")], target=VALUE)
    moments = fit_statistics(schema, in_memory(seconds.to_frame().with_columns(y=seconds))).numeric[
        "x"
    ]
    assert moments == Moments(mean=1.7e9 + 1, deviation=float(np.std([0.0, 1.0, 2.0])))
    tiny = pl.Series("x", [1e-200, 2e-200, 3e-200])
    moments = fit_statistics(schema, in_memory(tiny.to_frame().with_columns(y=tiny))).numeric["x"]
    assert moments.deviation == pytest.approx(np.std([1.0, 2.0, 3.0]) * 1e-200)
    assert not moments.constant


def test_a_channel_of_one_brightness_has_no_spread() -> None:
    for value in (0.1, 14.62, 255.0):
        images = np.full((40, 3, 4), value, np.float32)
        images[:, 1:] += np.arange(40, dtype=np.float32)[:, None, None]
        feature = Feature(name="x", kind="image", shape=[1, 1, 4], layout="HW")
        schema = Schema(key=None, features=[feature], target=CLASSES)
        image = pl.Series("x", images[:, :1].tolist(), pl.Array(pl.Float32, (1, 4)))
        assert fit_statistics(schema, in_memory(image.to_frame())).image[0].deviation == 1.0


def test_numbers_without_gaps_are_read_as_those_with_gaps_are() -> None:
    for values in ([0.1, -3.5, 1e-7], [1.5, None, -2.0], [None, None]):
        column = pl.Series("x", values, pl.Float64)
        longer = pl.concat([column, pl.Series("x", [float("nan")])])
        assert as_numeric(column, "k").equals(as_numeric(longer, "k")[:-1], null_equal=True)
    assert as_numeric(pl.Series("x", [0.5], pl.Float32), "k").dtype == pl.Float64


def test_what_float32_holds() -> None:
    for values, fits in (([], True), ([None], True), ([3e38, -3e38], True), ([-4e38, 0.0], False)):
        assert fits_float32(pl.Series("x", values, pl.Float64)) is fits


def test_infinities_are_gaps() -> None:
    rows = MIXED.with_columns(size=pl.Series([1.0, float("inf"), float("nan"), 5.0]))
    schema, statistics = fit(rows, key="id")
    assert statistics.numeric["size"] == Moments(mean=3.0, deviation=2.0)
    numeric = encoded(rows, schema, statistics)["numeric"]
    assert numeric[:, 2].tolist() == [0, 1, 1, 0]


def test_a_column_that_is_empty_in_train_has_to_be_excluded() -> None:
    schema = find_schema(pl.concat([MIXED] * 4), prepare_params(key="id"))
    train = MIXED.filter(pl.col("size").is_null())
    with pytest.raises(UserError, match="no value in the train split") as caught:
        fit_statistics(schema, in_memory(train))
    assert caught.value.problems[0].key == "prepare.columns.size"


def test_a_number_that_float32_can_not_hold_names_its_column() -> None:
    feature = Feature(name="age", kind="numeric")
    table = pl.DataFrame({"age": [1.0, -1e300]})
    statistics = Statistics(numeric={"age": Moments(mean=0, deviation=1)}, image=[], target=None)
    said = message(lambda: encode(table, one_feature(feature), statistics, KEY))
    assert "the column 'age' holds numbers too large to compute with, such as -1e+300" in said
    for column in ([1e300, -1e300, 1.0], [1e308, 1e308, 1.0]):
        train = pl.DataFrame({"age": column, "y": ["ill", "well", "ill"]})
        with pytest.raises(UserError, match=r"the column 'age' holds .* such as 1e\+30"):
            fit_statistics(one_feature(feature), in_memory(train))


def test_a_column_that_becomes_several_numbers_has_moments_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = [Moments(mean=1.0, deviation=2.0), Moments(mean=3.0, deviation=4.0)]
    monkeypatch.setattr(boolean, "moments", lambda *_: several)
    table = pl.DataFrame({"x": [1.0, 3.0], "b": [True, False]})
    wide = Feature(name="b", kind="boolean", width=2)
    target = Target(name="y", task="classification", classes=["a", "b"])
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric"), wide], target=target)
    statistics = fit_statistics(schema, in_memory(table))
    assert statistics.of(wide) == several
    assert list(statistics.numeric) == ["x"]


def test_images_have_the_scale_that_pretrained_weights_had() -> None:
    feature = Feature(name="x", kind="image", shape=[3, 2, 2], layout="CHW")
    schema = Schema(key=None, features=[feature], target=CLASSES)
    black = np.zeros((2, 3, 2, 2), np.uint8)
    image = pl.Series("x", black, pl.Array(pl.UInt8, (3, 2, 2))).to_frame()
    given = {"mean": [0.5, 0.25, 0.0], "std": [0.2, 0.1, 1.0]}
    scaled = with_pretrained(schema, prepare_params(normalize=given))
    statistics = fit_statistics(scaled, in_memory(image))
    # What drift is told by is what the train rows are like.
    assert [m.mean for m in statistics.of(scaled.features[0])] == [0.0] * 3
    found = statistics.image
    assert [(m.mean, m.deviation) for m in found] == [(127.5, 51.0), (63.75, 25.5), (0.0, 255.0)]
    with pytest.raises(UserError) as caught:
        with_pretrained(schema, prepare_params(normalize={"mean": [0.5], "std": [0.2]}))
    problem = caught.value.problems[0]
    assert problem.key == "prepare.normalize.mean"
    assert problem.message == "images of 3 channels take as many numbers, not 1"
