"""Free text: which columns are it, what is kept of the train rows; test_words.py has the words."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from stages.common.errors import UserError
from stages.features.drift import Observed
from stages.features.kinds import text
from stages.features.numbers import Encoded
from stages.features.schema import Feature, Moments, Statistics
from stages.features.words.count import Counted
from stages.model.layers import TextBag
from stages.prepare.columns.infer_schema import guess_kind

KEY = "prepare.source"
WORDS = pl.DataFrame({"word": ["a", "b"], "rows": [2, 1]})


def series(*values: str | None) -> pl.Series:
    return pl.Series("body", values, pl.String)


def fitted(*values: str | None) -> Feature:
    return text.fit(Feature(name="body", kind="text"), [series(*values)], KEY)


SENTENCES = [f"the {n}th ship has left for Oslo" for n in "abcdefghij"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (SENTENCES, "text"),
        ([*SENTENCES, *[None] * 30], "text"),
        (["今天天气很好", "明天下雨", "我喜欢读书"], "text"),
        # Scripts without blanks, and pictures.
        (["อาหารอร่อยมากจริงๆ", "บริการแย่มากเลย", "ร้านนี้ไม่อร่อยเลย"], "text"),
        (["ອາຫານແຊບຫຼາຍແທ້", "ບໍລິການບໍ່ດີເລີຍ"], "text"),
        (["ម្ហូបឆ្ងាញ់ណាស់", "សេវាកម្មមិនល្អទេ"], "text"),
        (["အစားအစာအရမ်းကောင်းတယ်", "ဝန်ဆောင်မှုမကောင်းဘူး"], "text"),
        (["खाना बहुत अच्छा था", "सेवा बहुत खराब थी"], "text"),
        (["😀👍", "😡", "❤️🔥", "👎"], "text"),
        (["Oslo 🎉", "Rome", "Paris 👍", "Lima"], "categorical"),
        (["😀", "😡"] * 5, "categorical"),
        (["สมชาย", "สมหญิง", "มานี", "ปิติ"], "categorical"),
        ([f"{n}กข {n}234" for n in range(1, 10)], "categorical"),
        # The same few texts again and again, and names of one or two words, are categories.
        (SENTENCES * 3, "categorical"),
        ([f"Ada {n}" for n in "abcdefghij"], "categorical"),
        # Identifiers, paths and numbers have no words, however they are written.
        ([f"550e8400-e29b-41d4-{n}" for n in range(10)], "categorical"),
        ([f"https://a.example/b/c/{n}" for n in range(10)], "categorical"),
        ([f"1 234 {n} 567" for n in range(10)], "categorical"),
    ],
)
def test_a_column_of_different_sentences_is_text(values: list[str | None], kind: str) -> None:
    assert guess_kind(series(*values)) == kind


def test_the_words_of_two_train_rows_are_kept_the_most_frequent_first() -> None:
    feature = fitted("b a", "a b b", "a c", None, "d")
    assert feature.words == ["a", "b"]
    raw = text.feed(feature, series("b A z", "", None, "c"), KEY)
    assert raw.tolist() == [[3, 2, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_columns_stand_side_by_side_and_json_is_coded_as_they_are() -> None:
    values = ["ΣΑΣ b, a²", None, "ﬁn a", "a b c d e", "", "12 a", "東京 a"]
    other = [12, 12, None, 3, 3, 4, 12]
    features = [
        text.fit(Feature(name="body", kind="text"), [series(*values)], KEY),
        text.fit(Feature(name="number", kind="text"), [pl.Series("number", other)], KEY),
    ]
    features[0] = features[0].model_copy(update={"width": 2})
    table = pl.DataFrame({"body": values, "number": other})
    codes = text.encode(features, table, Statistics(numeric={}, image=[], target=None), KEY)
    assert codes.dtype == np.int32
    assert codes[:, 2].tolist() == [2, 2, 0, 3, 3, 1, 2]
    for feature, given, found in zip(
        features, (values, other), (codes[:, :2], codes[:, 2:]), strict=True
    ):
        described = SimpleNamespace(words=feature.words, tokenizer=None, row_shape=(feature.width,))
        assert text.read_values(described, given).tolist() == found.tolist()
    assert text.feed(fitted("a", None), series("a"), KEY).tolist() == [[text.UNKNOWN]]


def test_texts_of_which_no_word_is_known_are_counted() -> None:
    feature = fitted("oil is up", "oil is down", "up and down")
    assert feature.width == 3
    new = series("gas", "oil", None, "gas or coal or oil", "!", "Gas, oil")
    found = observed(feature, new)
    assert found.unknown == 2
    assert found.gaps == 0
    assert found.sums[0].count == 4
    assert observed(feature, series("oil", None)).unknown == 0


def observed(feature: Feature, column: pl.Series) -> Observed:
    statistics = Statistics(numeric={}, image=[], target=None)
    codes = text.encode([feature], column.to_frame(), statistics, KEY)
    return text.observe(feature, column, Encoded(codes), [Moments(mean=2.0, deviation=1.0)])


def test_too_many_words_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted(*"ab")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(text, "count_words", lambda *_: Counted(WORDS, np.array([0, 2]), 3))
    assert fitted(*"ab").words == ["a"]
    assert "a word may count up to 3 rows too few" in capsys.readouterr().out


def test_there_are_places_for_the_words_of_nearly_all_train_rows_and_a_cut_is_said() -> None:
    values = ["one two three"] * 199 + ["word " * 400]
    feature = fitted(*values)
    assert feature.width == 3
    (line,) = text.tell(feature, [series(*values)])
    assert "the rest of 1 of 200 rows is cut off" in line
    assert fitted(*["word " * 900] * 3).width == text.MAX_PLACES
    (line,) = text.tell(fitted("a b", "b"), [series("a b")])
    assert "cut" not in line


def test_a_column_without_a_word_in_the_train_rows_is_told() -> None:
    with pytest.raises(UserError, match="has no word in the train split"):
        text.moments(fitted("!", None), [series("!", None)], KEY)


def test_a_bag_of_words_does_not_depend_on_order_or_places() -> None:
    bag = TextBag([4, 10, 2, 5], 3)
    rows = torch.tensor([[2, 7, 0, 0, 1, 0], [7, 2, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
    first, turned, nothing = bag(rows)
    torch.testing.assert_close(first, turned)
    assert torch.equal(nothing, torch.zeros(6))
    # The rarer word, of the higher code, weighs more; the squares of the weights add up to 1.
    common, rare = (2 + np.log([1, 6])) / np.linalg.norm(2 + np.log([1, 6]))
    table = bag.tables[0]
    assert isinstance(table, torch.nn.Embedding)
    expected = common * table.weight[2] + rare * table.weight[7]
    torch.testing.assert_close(first[:3].double(), expected.double())
