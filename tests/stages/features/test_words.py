"""Words of texts: a column is cut as each text is, and counted in parts as a whole is."""

import re
import subprocess
import sys
import unicodedata
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.features.words import split
from stages.features.words.count import Counted, count_words, merge
from stages.features.words.marks import MARKS
from stages.features.words.split import PLAIN, cut, num_words, portions, split_words
from tests.conftest import ROOT

# What folds, composes, decomposes, depends on its neighbours or is a sign, and plain ones.
PECULIAR = (
    "İıIißẞΣσςŉſǅﬁﬃ²½Ⅻ①ﾊﾞｱ１Ａ．…´¨\u00a0\u00ad_'-. \n\0aBz09éÉe\u0301\u0308\u0327\u0345"
    "\u1100\u1161\u11a8각가東京あカー\u3099・ｰ々〇𠀀豈٣۳३कि\u094dไทยяЖё\u200d\ufe0f😀🇳🇴🏽❤⭐𝐀น้ำခြ𝟘\U0001e900\u05d0\u064b"
)
TEXTS = st.lists(st.text() | st.text(PECULIAR) | st.text("ab ", max_size=9), max_size=6)


def series(values: list[str]) -> pl.Series:
    return pl.Series("body", values, pl.String)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("Oil prices SOAR, again!", ["oil", "prices", "soar", "again"]),
        ("it's 3.5 % up", ["it", "s", "3", "5", "up"]),
        ("cafe\u0301 café CAFÉ", ["café", "café", "café"]),
        ("ｆｕｌｌ ﬁsh Ⅻ", ["full", "fish", "xii"]),
        ("東京に行く", ["東", "京", "に", "行", "く"]),
        ("Tromsø\u00a0– Ænes\nÅl", ["tromsø", "ænes", "ål"]),
        ("ΟΔΟΣ ΟΣΑ", ["οδος", "οσα"]),
        (" \t…!?", []),
        ("\ud800 x", ["x"]),
        # Vowel signs, points and accents are part of their word, and none without one.
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("வணக்கம் আমি বাংলা", ["வணக்கம்", "আমি", "বাংলা"]),
        ("مُحَمَّد שָׁלוֹם", ["مُحَمَّد", "שָׁלוֹם"]),
        ("x\u0304y ẹ\u0300 \u0301a _\u0301", ["x\u0304y", "ẹ\u0300", "a", "_\u0301"]),
        ("İzmir I\u0307STANBUL", ["izmir", "istanbul"]),
        ("ශ්\u200dරී ශ්රී", ["ශ්රී", "ශ්රී"]),
        # Of scripts without blanks each letter is one, and digits and other scripts are not.
        ("ดีมาก ๒๕๖๐ok", ["ดี", "ม", "า", "ก", "๒๕๖๐ok"]),
        ("ນ້ຳ", ["ນ້\u0ecd", "າ"]),
        ("ភាសាខ្មែរ", ["ភា", "សា", "ខ្", "មែ", "រ"]),
        ("မြန်မာ၁၂", ["မြ", "န်", "မာ", "၁၂"]),
        ("カ\u3099 ア\u3099 \u3099", ["ガ", "ア\u3099"]),
        # Pictures, without what only changes their looks.
        ("good😀😀 day❤\ufe0f★", ["good", "😀", "😀", "day", "❤", "★"]),
        ("👍🏽👍 👩🏽\u200d💻", ["👍", "👍", "👩", "💻"]),
        ("🇳🇴🇸🇪 🇳 🇳🇴🇸", ["🇳🇴", "🇸🇪", "🇳", "🇳🇴", "🇸"]),
        ("1\ufe0f\u20e3 © 2005 → a", ["1", "2005", "a"]),
    ],
)
def test_a_text_is_cut_into_words(value: str, words: list[str]) -> None:
    assert split_words(value) == words


def test_capitals_make_no_other_words() -> None:
    assert split_words("नमस्ते दुनिया") == split_words("नमस्ते दुनिया".upper())


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FF, exclude_characters="İ´¨¯¸\u02d8-\u02dd")))
def test_of_latin_texts_words_are_runs_of_letters_and_digits(value: str) -> None:
    runs = re.findall(r"\w+", unicodedata.normalize("NFKC", value).lower())
    assert split_words(value) == runs


def test_marks_are_unicodes_but_for_variation_selectors() -> None:
    is_mark = re.compile(f"[{MARKS}]")
    every = [chr(number) for number in range(sys.maxunicode + 1)]
    found = {each for each in every if is_mark.match(each)}
    marks = {each for each in every if unicodedata.category(each) in ("Mn", "Mc")}
    selectors = {each for each in marks if "VARIATION SELECTOR-" in unicodedata.name(each)}
    assert len(selectors) == 256
    assert marks - found == selectors
    # A later Unicode has marks where this one has nothing.
    assert {unicodedata.category(each) for each in found - marks} <= {"Cn"}


@pytest.mark.parametrize("script", ["THAI", "LAO", "KHMER", "MYANMAR"])
def test_each_letter_of_a_script_without_blanks_is_a_word(script: str) -> None:
    every = [chr(number) for number in range(sys.maxunicode + 1)]
    of_script = [each for each in every if unicodedata.name(each, "").startswith(f"{script} ")]
    letters = {each for each in of_script if unicodedata.category(each).startswith("L")}
    # Some are a mark and a letter to NFKC, such as ำ, or two letters.
    simple = {each for each in letters if unicodedata.normalize("NFKC", each) == each}
    assert len(letters - simple) < 4 < 30 < len(simple)
    for each in simple:
        assert split_words(f"a{each}{each}0") == ["a", each, each, "0"]
    digits = [each for each in of_script if unicodedata.category(each) == "Nd"]
    assert split_words("".join(digits)) == ["".join(digits)]


def test_each_emoji_that_is_shown_as_a_picture_is_a_word() -> None:
    every = series([chr(n) for n in range(sys.maxunicode + 1) if not 0xD800 <= n < 0xE000])
    emoji = every.filter(every.str.contains(r"^\p{Emoji_Presentation}$"))
    # Such as 🈚, which NFKC makes a sign of.
    kept = [each for each in emoji if unicodedata.normalize("NFKC", each) == each]
    left_out = [each for each in kept if split_words(f"a{each}b") != ["a", each, "b"]]
    assert left_out == [chr(number) for number in range(0x1F3FB, 0x1F400)]
    assert len(kept) > 1_000


def test_of_every_plain_character_python_and_polars_think_alike_in_any_text() -> None:
    every = series([chr(n) for n in range(sys.maxunicode + 1) if not 0xD800 <= n < 0xE000])
    # The second of two characters that become one: marks, and the parts of a Hangul syllable.
    parts = [unicodedata.decomposition(each).split() for each in every]
    second = {chr(int(part[1], 16)) for part in parts if len(part) == 2 and part[0][0] != "<"}
    second |= {chr(n) for n in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    plain = every.filter(every.str.contains(PLAIN))
    assert plain.len() > 80_000
    assert "Σ" not in set(plain)
    lower = plain.str.to_lowercase()
    assert lower.str.contains(PLAIN).all()
    assert lower.to_list() == [each.lower() for each in plain]
    assert (lower.str.len_chars() == 1).all()
    for each, words in zip(plain, cut(plain).to_list(), strict=True):
        wide = unicodedata.normalize("NFKC", each)
        assert words == split_words(each), each
        assert wide == each or not split_words(each), each
        assert wide[0] not in second, each
        assert not unicodedata.combining(wide[0]), each


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_column_is_cut_as_each_of_its_texts(values: list[str]) -> None:
    words = [split_words(value) for value in values]
    assert cut(series(values)).to_list() == words
    assert num_words(series(values)).tolist() == [len(each) for each in words]


def test_portions_hold_all_texts_in_order_and_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "PORTION_BYTES", 200)
    values = ["a" * n for n in (*range(40), 900, 0, 0, 300, *range(40))]
    parts = list(portions(series(values)))
    assert [value for part in parts for value in part] == values
    assert all(len(part) == 1 or part.str.len_bytes().sum() < 400 for part in parts)
    assert [part.len() for part in portions(series([]))] == [0]


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_parts_are_counted_as_the_whole(parts: list[list[str]], share: float) -> None:
    texts = [[*part, "a b"] for part in parts]
    counted = merge(count_words(series(part), 4) for part in texts)
    every = [split_words(text) for part in texts for text in part]
    rows = Counter(word for words in every for word in set(words))
    assert dict(counted.words.iter_rows()) == rows
    lengths = [min(len(words), 4) for words in every]
    assert counted.lengths.tolist() == np.bincount(lengths, minlength=5).tolist()
    assert counted.length(share) == np.quantile(lengths, share, method="higher")
    often = sorted((-num, word) for word, num in rows.items() if num >= 2)
    assert counted.most_frequent(2, 3) == [word for _, word in often][:3]


def test_the_length_of_a_share_is_numpys_at_any_number_of_texts() -> None:
    for num in range(1, 1200):
        lengths = np.arange(num) * 7919 % num
        counted = Counted(pl.DataFrame(), np.bincount(lengths))
        assert counted.length(0.99) == np.quantile(lengths, 0.99, method="higher")


def test_many_words_are_added_up_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.features.words.count.WAITING", 50)
    monkeypatch.setattr("stages.features.words.count.AT_ONCE", 20)
    values = [f"a{n} b{n % 7}" for n in range(500)]
    counted = merge(count_words(series(values[n : n + 30]), 4) for n in range(0, 500, 30))
    assert dict(counted.words.iter_rows()) == Counter(" ".join(values).split())


def test_of_too_many_words_the_rarest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.features.words.count.WAITING", 50)
    values = [f"id{n} b{n % 7}" for n in range(5_000)]
    parts = [count_words(series(values[n : n + 30]), 4) for n in range(0, 5_000, 30)]
    rows = Counter(" ".join(values).split())
    counted = merge(parts, max_seen=400)
    assert counted.words.height < 1_000
    assert 0 < counted.missed < 100
    found = dict(counted.words.iter_rows())
    # A word in more rows than `missed` is there, and no count is too low by more than that.
    assert all(found[f"b{n}"] == rows[f"b{n}"] for n in range(7))
    assert all(rows[word] - counted.missed <= num <= rows[word] for word, num in found.items())
    assert merge(parts).missed == 0


def test_json_values_are_coded_without_polars() -> None:
    code = (
        "import sys\nfrom types import SimpleNamespace\nfrom stages.features.kinds import text\n"
        "described = SimpleNamespace(words=['oil'], tokenizer=None, row_shape=(3,))\n"
        "print(text.read_values(described, ['Oil up', None]).tolist(), 'polars' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[[2, 1, 0], [0, 0, 0]] False"
