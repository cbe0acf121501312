"""What a suite says of files of images and of texts, beside the columns of the table."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.params.source_check import check_expected
from pipeline.params.source_head import Head
from stages.common.config import validate
from stages.common.errors import UserError
from stages.prepare.expectations.long import pieces
from stages.prepare.expectations.run import FAILED_PAGE, check_expectations, check_files
from stages.prepare.params import PrepareParams
from stages.prepare.table.table import Table, in_memory
from tests.stages.prepare.test_params import SECTION

SUITE = Path("suite.yaml")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with files of images: two alike, a small one, a grey one, a broken one."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (5, 20, 30, 3), dtype=np.uint8)
    images = Path("pets")
    images.mkdir()
    for number, name in enumerate("abcd"):
        Image.fromarray(pixels[number]).save(images / f"{name}.png")
    (images / "twin.png").write_bytes((images / "b.png").read_bytes())
    Image.fromarray(pixels[4, :7]).save(images / "low.png")
    Image.fromarray(pixels[4, ..., 0]).save(images / "grey.png")
    (images / "torn.png").write_bytes((images / "a.png").read_bytes()[:900])
    return tmp_path


def make_table() -> pl.DataFrame:
    files = ["a", "b", "c", "d", "twin", "low", "grey", "torn", "lost"]
    texts = [None, "", "Two words", "Été, l'an 2000", "a b c d e f g h", "ดี हिन्दी", *["one"] * 3]
    return pl.DataFrame({"image": [f"{name}.png" for name in files], "body": texts})


def rule(kind: str, column: str, rest: str = "", severity: str = "critical") -> str:
    about = f"type: expect_column_values_to_be_{kind}, column: {column}"
    return f"{{{about}, severity: {severity}{rest}}}"


def screen(table: Table, *rules: str) -> list[str]:
    SUITE.write_text("".join(f"- {rule}\n" for rule in rules))
    with pytest.raises(UserError) as caught:
        check_files(table, SUITE, Path("pets"))
    return [problem.message for problem in caught.value.problems[1:-1]]


def test_files_of_images_are_told_by_name() -> None:
    said = screen(
        in_memory(make_table()),
        rule("in_set", "image.decodes", ", value_set: [true]"),
        rule("unique", "image.hash"),
        rule("between", "image.height", ", min_value: 10"),
        rule("in_set", "image.mode", ", value_set: [RGB]"),
        rule("between", "image.width", ", min_value: 30, max_value: 30"),
    )
    assert said == [
        "'image.decodes' is one of True: fails in 2 of 9 rows (22.2 %), such as image 'torn.png', "
        "image.decodes False (row 7); image 'lost.png', image.decodes False (row 8)",
        said[1],
        "'image.height' is at least 10: fails in 1 of 8 rows with a value (12.5 %), such as image "
        "'low.png', image.height 7 (row 5)",
        "'image.mode' is one of RGB: fails in 1 of 8 rows with a value (12.5 %), such as image "
        "'grey.png', image.mode 'L' (row 6)",
    ]
    assert "fails in 2 of 8 rows with a value (25 %), such as image 'b.png'" in said[1]
    assert "image 'twin.png'" in said[1]
    assert "image.width" in FAILED_PAGE.read_text()


def test_texts_have_words_and_letters_in_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table().select("body")
    rules = (
        rule("between", "body.num_words", ", min_value: 1, max_value: 4"),
        rule("between", "body.num_letters", ", max_value: 13"),
    )
    said = screen(in_memory(table), *rules)
    assert "2 of 8 rows with a value (25 %), such as 0 (row 1); 8 (row 4)" in said[0]
    assert "2 of 8 rows with a value (25 %), such as 14 (row 3); 15 (row 4)" in said[1]
    monkeypatch.setattr(pieces, "PIECE_ROWS", 2)
    assert screen(Table(table.schema, [4, 5], [table[:4], table[4:]]), *rules) == said


def test_the_outcomes_stand_with_those_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    table = in_memory(make_table())
    in_order = (
        rule("between", "body.num_words", ", max_value: 4", "warning"),
        "{type: expect_table_row_count_to_equal, value: 9, severity: warning}",
        rule("unique", "image.hash", severity="warning"),
    )
    SUITE.write_text("".join(f"- {rule}\n" for rule in in_order))
    outcomes = check_expectations(
        table, SUITE, "pets", Path(), check_files(table, SUITE, Path("pets"))
    )
    assert [outcome.status for outcome in outcomes] == ["warning", "passed", "warning"]
    assert capsys.readouterr().out.count("warning  ") == 2
    page = Path("expectations.html").read_text()
    assert "2 warnings, 1 of 3 expectations met" in page


def test_facts_are_of_columns_that_have_them() -> None:
    SUITE.write_text(f"- {rule('unique', 'number.hash')}\n- {rule('unique', 'number.num_words')}\n")
    with pytest.raises(UserError) as caught:
        check_files(in_memory(pl.DataFrame({"number": [1]})), SUITE, Path("pets"))
    assert [problem.message for problem in caught.value.problems] == [
        "'number.hash': 'number' holds Int64, and no files of images",
        "'number.num_words': 'number' holds Int64, and no texts",
    ]
    head = Head(Path("pets"), {"image": "text", "label": "text"})
    section = {**SECTION, "columns": {}, "source": "pets", "expectations": str(SUITE)}
    params = validate(PrepareParams, section, "prepare")
    SUITE.write_text(f"- {rule('unique', 'image.hash')}\n- {rule('unique', 'image.hush')}\n")
    [problem] = check_expected(params, head)
    assert "image.hush" in problem.message
    assert "image.hash" not in problem.message
