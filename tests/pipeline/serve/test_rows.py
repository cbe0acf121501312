"""JSON values to the model's inputs: the rules of the batch stage, a second time, and equal."""

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.serve.bundle import Bundle, load_bundle
from pipeline.serve.codec.problems import RequestError
from pipeline.serve.codec.rows import PLAIN, make_encoder
from pipeline.serve.codec.signature import Input
from stages.common.errors import UserError
from stages.features.columns import as_boolean, as_category, as_numeric
from stages.features.kinds.boolean import read_truth
from stages.features.kinds.categorical import read_category
from stages.features.kinds.image import read_images
from stages.features.spelling import TRUE_WORDS
from stages.model.predictor import Predictor, load_predictor
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project
from tests.support.serving import signature

KEY = "infer.input"
NUMBERS: list[object] = [
    *(0, 1, -3, 2.5, 1e300, True, None, math.inf, -math.inf, math.nan),
    *("1.5", "+1", "1e3", ".5", "5.", "inf", "-Infinity", "nan", "NaN", "1E5"),
    *("", " 1", "1 ", "1_0", "0x10", "١", "tall", "1d", "--1", "é"),
]
TRUTHS: list[object] = [
    *(True, False, 0, 1, 0.0, 1.0, None, math.nan),
    *("yes", "No", "TRUE", "f", "T", "1", "", "maybe", " yes", "no\u3000", "\x1fno"),
    *("0", "1.0", "0.0", "-0.0", "+1", "1e0", " 1.0 ", "1.5", "nan", "inf", "0x1", "1_0"),
    *(2, 0.5, -1, math.inf),
]
CATEGORIES: list[object] = [
    *("Oslo", "", "1", "1.0", True, False, 0, 1, -7, 2**62, 1.0, 2.5, -0.0, 1e15, 1e16, 1e20),
    *(0.1, 0.0001, 0.00012, 1e-5, 1.25e-5, 1e-6, 1.5e-7, 1e-10, 5e-324, 1.5e300, 123456.7, 1e22),
    *(9.2e18, -9.3e18, None, math.nan, math.inf),
    *(
        "Oslo ",
        "\tOslo",
        "Oslo\xa0",
        "\x1fOslo",
        "Os lo",
        " ",
        "é",
        "e\u0301",
        "e\u0301 ",
        "\ufb01",
    ),
]


def column(kind: str, **more: object) -> Input:
    values = {"name": "x", "column": "x", "kind": kind, "shape": ["rows"], **more}
    return Input.model_validate(values)


def ours(each: Input, value: object) -> object:
    """What the server feeds for one value; 'refused' when it refuses it."""
    try:
        return make_encoder(signature(each))([{"x": value}])["x"][0]
    except RequestError:
        return "refused"


def same(ours: object, theirs: object) -> bool:
    if isinstance(theirs, float) and math.isnan(theirs):
        # The bundle takes infinities for gaps too.
        return isinstance(ours, float) and not math.isfinite(ours)
    return ours == theirs


AS_STAGE = {"numeric": as_numeric, "boolean": as_boolean}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("numeric", value) for value in NUMBERS),
        *(("boolean", value) for value in TRUTHS),
    ],
    ids=repr,
)
def test_a_value_is_read_as_the_stage_reads_it(kind: str, value: object) -> None:
    moments = {"mean": 0.0, "deviation": 1e300} if kind == "numeric" else {}
    try:
        read = AS_STAGE[kind](pl.Series([value]), KEY)
        theirs = read.cast(pl.Float64).fill_null(math.nan)[0]
    except UserError:
        theirs = "refused"
    assert same(ours(column(kind, **moments), value), theirs)


@pytest.mark.parametrize("value", CATEGORIES, ids=repr)
def test_a_category_is_called_as_the_stage_calls_it(value: object) -> None:
    theirs = as_category(pl.Series([value])).fill_null("")[0]
    assert ours(column("categorical"), value) == theirs


def test_many_random_numbers_are_called_as_the_stage_calls_them() -> None:
    random = np.random.default_rng(0)
    values = (random.normal(size=2000) * 10.0 ** random.integers(-12, 25, 2000)).tolist()
    theirs = as_category(pl.Series(values)).to_list()
    assert [read_category(value) for value in values] == theirs


def test_the_words_of_truths_are_read_in_capitals_too() -> None:
    assert [read_truth(word.upper()) for word in TRUE_WORDS] == list(TRUE_WORDS.values())


def test_a_number_that_float32_can_not_hold_is_refused_alone_and_among_others() -> None:
    each = column("numeric", mean=10.0, deviation=0.5)
    for value in (1e300, -1e39, 10**400):
        assert ours(each, value) == "refused"
        with pytest.raises(RequestError, match=r"row 2, column 'x'.*computed with"):
            make_encoder(signature(each))([{"x": 1}, {"x": None}, {"x": value}, {"x": "2"}])
    assert ours(each, 1e38) == 1e38


def test_plain_and_mixed_values_give_the_same_numbers() -> None:
    inputs = [
        column("numeric", name=name, column=name, mean=0.0, deviation=1.0) for name in ("a", "b")
    ]
    encode_rows = make_encoder(signature(*inputs))
    plain = [{"a": 1, "b": 2.5}, {"a": True, "b": None}]
    texts = [{"a": "1", "b": "2.5"}, {"a": "1", "b": "nan"}]
    assert str in {type(value) for row in texts for value in row.values()} - PLAIN
    for name in ("a", "b"):
        np.testing.assert_array_equal(encode_rows(plain)[name], encode_rows(texts)[name])


def test_blanks_around_a_name_are_no_part_of_it() -> None:
    each = column("categorical", column="a b", categories=["u", "v"])
    encode = make_encoder(signature(column("numeric", mean=0.0, deviation=1.0, name="n"), each))
    plain, blank = [{"x": 1, "a b": "u"}], [{" x": 1, "a b ": "u"}]
    assert str(encode(blank)) == str(encode(plain))
    # Which of both is meant, nobody knows.
    with pytest.raises(RequestError, match=r"column 'a b'.*missing"):
        encode([{"x": 1, "a b ": "u", " a b": "v"}])
    # A column that is called so is none of those.
    own = make_encoder(signature(column("numeric", column=" x", mean=0.0, deviation=1.0)))
    with pytest.raises(RequestError, match="column ' x': 'abc' is not a number"):
        own([{" x": "abc"}])


def test_the_name_of_a_gap_is_none_of_the_categories() -> None:
    assert ours(column("categorical", categories=["", "a"]), None) == "\0"
    assert ours(column("categorical", categories=["a"]), None) == ""
    # A text without anything in it is one too, as in a table.
    assert ours(column("categorical", categories=["a"]), " ") == ""


def test_a_row_without_any_of_many_columns_is_refused_at_once() -> None:
    many = [column("numeric", name=f"c{n}", column=f"column {n}") for n in range(3000)]
    row = {f"colum {n}": 1 for n in range(20)}
    start = time.process_time()
    with pytest.raises(RequestError, match="many more") as refused:
        make_encoder(signature(*many))([row])
    assert len(refused.value.details) == 20
    # To guess what is meant for 3,000 columns takes seconds, in which nobody is answered.
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    "value", [None, 1, "x", [], [[1, 2]], [[1, 2], [3]], [[1, None], [2, 3]], [["a", 1], [2, 3]]]
)
def test_what_is_no_image_of_the_shape_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        read_images([value], (2, 2))
    with pytest.raises(ValueError, match="shape"):
        read_images([[[1, 2], [3, 1e300]], [[1, 2], [3, 4]]], (2, 2))


IMAGES = np.random.default_rng(3).integers(0, 17, (120, 2, 3), dtype=np.uint8)
TABLE = mixed_table().with_columns(
    picture=pl.Series(IMAGES, dtype=pl.Array(pl.UInt8, (2, 3))),
    floor=pl.Series([float(n % 4) for n in range(120)]),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    columns = {"floor": "categorical"}
    settings = {"prepare.key": "id", "prepare.columns": columns}
    made = small_project(tmp_path_factory.mktemp("values") / "p", TABLE, settings)
    run_stages(made, "prepare", "build", "tune", "train", "infer")
    return made


@pytest.fixture(scope="module")
def bundle(project: Project) -> Bundle:
    return load_bundle(project.path / "data/infer")


@pytest.fixture(scope="module")
def predictor(project: Project) -> Predictor:
    return load_predictor(project.path / "data")


def test_json_rows_are_predicted_as_the_batch_predicts_them(
    bundle: Bundle, predictor: Predictor
) -> None:
    # Gaps, a category that training has not seen, infinity; 1.0 for the category 1.
    table = TABLE.with_columns(
        town=pl.when(pl.col("id") != 1001).then("town").otherwise(pl.lit("Paris")),
        size=pl.when(pl.col("id") != 1002).then("size").otherwise(float("inf")),
    )
    expected = predictor.predict(table)
    # As JSON carries them, but for infinity, for which it has no word.
    rows = [
        json.loads(json.dumps(row)) | ({"size": "inf"} if row["id"] == 1002 else {})
        for row in table.drop("y").to_dicts()
    ]
    rows[5]["floor"] = int(rows[5]["floor"])
    rows[7]["smoker"] = {True: "YES", False: "no", None: None}[rows[7]["smoker"]]
    for step in (1, len(rows)):
        for start in range(0, len(rows), step):
            found = bundle.run(bundle.encode(rows[start : start + step]))
            own = expected[start : start + step]
            assert found[0].tolist() == own["prediction"].to_list()
            np.testing.assert_allclose(found[1], own[:, 2:].to_numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r'"mean": [-\d.e]+', '"mean": NaN', "inputs.*mean': Input should be a finite number"),
        (r'"deviation": [\d.e]+', '"deviation": -1', "greater than or equal to 0"),
        (r'"deviation": [\d.e]+', '"deviation": 1e999', "finite number"),
        (r'"rows",\s+2', '"rows", 0', "greater than 0"),
        (r'"rows",\s+2', '"rows", "two"', "whole numbers"),
        (r'"ill"', '"ill", "x"', "does not run"),
        (r'"column": "size"', '"column": "town"', "two inputs have one name"),
    ],
)
def test_a_signature_with_which_no_request_could_be_answered_is_refused(
    project: Project, tmp_path: Path, old: str, new: str, said: str
) -> None:
    folder = project.path / "data/infer"
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    text, count = re.subn(old, new, (folder / "signature.json").read_text(), count=1)
    assert count == 1
    (tmp_path / "signature.json").write_text(text)
    with pytest.raises(UserError, match=said):
        load_bundle(tmp_path)


def test_the_signature_says_which_model_it_belongs_to(project: Project, tmp_path: Path) -> None:
    folder = project.path / "data/infer"
    for name in ("model.onnx", "signature.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert load_bundle(tmp_path).version == load_predictor(project.path / "data").model_md5
    content = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[:-1])
    with pytest.raises(UserError, match="do not belong together"):
        load_bundle(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model.onnx: 'dvc repro' makes it"):
        load_bundle(tmp_path)
