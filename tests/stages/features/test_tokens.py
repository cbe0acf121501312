"""Texts by the tokenizer of a pretrained model: the ids of transformers plus 1, and a way back."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.features.kinds import text
from stages.features.model_folder import read_scale
from stages.features.schema import Feature, Schema, Statistics, Target
from stages.features.words.tokens import find_tokenizer
from stages.prepare.columns.pretrained import with_pretrained
from tests.support.huggingface import model_folder
from tests.support.samples import prepare_params

KEY = "prepare.source"
TEXTS = ["The ship has left for Oslo!", "a ship", "unheard-of Café, çà", "ship " * 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"), "bert", TEXTS)


def described(folder: Path, **changes: object) -> Feature:
    feature = Feature(name="body", kind="text", **changes)  # type: ignore[arg-type]
    target = Target(name="y", task="regression")
    schema = Schema(key=None, features=[feature], target=target)
    return with_pretrained(schema, prepare_params(pretrained=str(folder))).features[0]


def series(*values: str | None) -> pl.Series:
    return pl.Series("body", values, pl.String)


def test_codes_are_the_ids_of_transformers_plus_one_however_a_text_comes(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    feature = text.fit(described(folder, places=12), [series(*TEXTS)], KEY)
    assert feature.width == 12
    expected = np.zeros((len(TEXTS), 12), np.int64)
    for row, each in enumerate(TEXTS):
        ids = tokenizer(each, truncation=True, max_length=12)["input_ids"]
        expected[row, : len(ids)] = np.array(ids) + 1
    assert expected[-1, -1] == tokenizer.sep_token_id + 1
    column = series(*TEXTS)
    nothing = Statistics(numeric={}, image=[], target=None)
    of_table = text.encode([feature], column.to_frame(), nothing, KEY)
    signature = SimpleNamespace(row_shape=(12,), **text.describe(feature, []))
    found = (of_table, text.feed(feature, column, KEY), text.read_values(signature, TEXTS))
    for codes in found:
        np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(text.read_tensor(signature, found[2]), expected)
    schema = Schema(key=None, features=[feature], target=Target(name="y", task="regression"))
    assert schema.inputs() == {"text": [12, feature.num_tokens + 1]}
    assert expected.max() <= feature.num_tokens
    with pytest.raises(ValueError, match="ids of tokens plus 1, whole numbers below"):
        text.read_tensor(signature, found[2] + feature.num_tokens)


def test_places_are_for_nearly_all_train_rows_and_a_cut_is_said(folder: Path) -> None:
    values = series(*["a ship"] * 199, TEXTS[-1])
    feature = text.fit(described(folder), [values], KEY)
    short = len(text.feed(feature, series("a ship"), KEY)[0])
    assert feature.width == short
    (line,) = text.tell(feature, [values])
    assert line.endswith(f"tokens, {short} a row; the rest of 1 of 200 rows is cut off")
    assert text.slices(feature, *[_encoded(feature, values)] * 2, [])[0][0].endswith("tokens")


def _encoded(feature: Feature, values: pl.Series) -> text.Encoded:
    nothing = Statistics(numeric={}, image=[], target=None)
    return text.Encoded(text.encode([feature], values.to_frame(), nothing, KEY))


def test_the_special_tokens_have_places_however_few_are_asked_for(folder: Path) -> None:
    for values, places in ((TEXTS, 1), (["", None, ""] * 100 + ["a"], None)):
        feature = text.fit(described(folder, places=places), [series(*values)], KEY)
        assert feature.width == 3
        (codes,) = text.feed(feature, series("a ship"), KEY)
        assert [codes[0], codes[2]] == [3, 4]  # [CLS] and [SEP]


def test_a_text_is_cut_at_the_end_that_the_file_says(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(9, direction="left")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    feature = text.fit(described(tmp_path, places=4), [series(*TEXTS)], KEY)
    (codes,) = text.feed(feature, series(TEXTS[0]), KEY)
    whole = tokenizer.encode(TEXTS[0]).ids
    assert list(codes - 1) == [2, *whole[-3:-1], 3]
    (line,) = text.tell(feature, [series(*TEXTS)])
    assert "the rest of 3 of 4 rows is cut off" in line


def test_a_text_without_anything_in_it_is_a_gap(folder: Path) -> None:
    feature = text.fit(described(folder), [series(*TEXTS)], KEY)
    codes = text.feed(feature, series(None, "", " \n", "a"), KEY)
    assert not codes[:3].any()
    assert codes[3].any()


def test_a_folder_without_what_the_columns_need_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        described(tmp_path / "gone")
    with pytest.raises(UserError, match=r"has no tokenizer.json, which is the whole tokenizer"):
        described(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is no tokenizer that tokenizers") as caught:
        find_tokenizer(tmp_path)
    assert caught.value.problems[0].key == "prepare.pretrained"


def test_images_have_the_scale_of_the_folder(folder: Path, tmp_path: Path) -> None:
    model_folder(tmp_path, "vit")

    def scaled(channels: int = 3, **changes: object) -> object:
        feature = Feature(name="x", kind="image", shape=[channels, 8, 8], layout="CHW")
        schema = Schema(key=None, features=[feature], target=Target(name="y", task="regression"))
        params = prepare_params(pretrained=str(tmp_path), **changes)
        return with_pretrained(schema, params).features[0].scale

    said = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "said": False}
    assert scaled().model_dump() == said  # type: ignore[attr-defined]
    own = {"mean": [0.1] * 3, "std": [1.0] * 3}
    assert scaled(normalize=own).model_dump() == {**own, "said": True}  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="takes images of 3 channels, not 1"):
        scaled(channels=1)
    file = tmp_path / "preprocessor_config.json"
    file.write_text('{"do_rescale": false, "image_mean": [51.0], "image_std": [102.0]}', "utf-8")
    expected = {"mean": [0.2], "std": [0.4], "said": False}
    assert scaled(channels=1).model_dump() == expected  # type: ignore[attr-defined]
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="has no image_mean and image_std"):
        scaled()
    file.unlink()
    with pytest.raises(UserError, match=r"has no preprocessor_config.json"):
        scaled()


@pytest.mark.parametrize(
    ("said", "message", "key"),
    [
        ({"image_mean": ["a"]}, "image_mean.0 must be a number", "image_mean.0"),
        ({"rescale_factor": None}, "rescale_factor must be a number", "rescale_factor"),
        ({"rescale_factor": 0}, "rescale_factor must be greater than 0", "rescale_factor"),
        ({"image_std": [1.0, 0.0]}, "image_std.1 must be greater than 0", "image_std.1"),
        ({"image_processor": None}, "image_processor must be keys", "image_processor"),
        ({"image_processor": {"do_rescale": 3}}, "must be true", "image_processor.do_rescale"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order: true", "prepare.pretrained"),
        ({"rescale_offset": True}, "rescale_offset: true", "prepare.pretrained"),
        ({"image_mean": [0.0], "image_std": [1.0, 1.0]}, "1 numbers in", "prepare.pretrained"),
    ],
)
def test_a_scale_that_can_not_be_is_told(
    said: dict[str, object], message: str, key: str, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_scale(tmp_path, 3)
    assert caught.value.problems[0].key == key
