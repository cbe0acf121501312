"""The model card: nothing of the template is left open, and its numbers are those measured."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from markdown_it import MarkdownIt

from stages.common.files import md5
from stages.evaluate.measure.bootstrap import Interval
from stages.evaluate.measure.coverage import Covered
from stages.evaluate.outputs.card import Facts, write_card
from stages.evaluate.outputs.seeds import spread_of
from stages.evaluate.outputs.slices import Slice
from stages.features.schema import Feature, Schema, Target
from stages.model.calibration import UNCALIBRATED, Calibration
from stages.model.conformal import Conformal
from tests.support.names import NAMES

SLICES = [
    Slice("town", "Bergen", 50, Interval(0.9, 0.8, 0.95)),
    Slice("town", "Os|lo", 1200, Interval(0.7, 0.65, 0.75)),
    Slice("town", "Tromsø", 3, Interval(0.1, 0.05, 0.5)),
]
FEATURES = [
    Feature(name="size", kind="numeric"),
    Feature(name="weight", kind="numeric", missing=True),
    Feature(name="town", kind="categorical"),
]
CLASSES = Target(name="y", task="classification", classes=["ill", "well"])
VALUES = Target(name="y", task="regression")
RECIPE: dict[str, Any] = {
    "seed": 3,
    "train": {
        "epochs": 9,
        "optimizer": {"name": "Adam", "lr": 0.01},
        "calibration": {"temperature": True, "threshold": "f1"},
    },
    "rows": {"train": 12_000, "validation": 2000},
    "epochs": {"kept": 7, "trained": 8},
}


def facts(made_from: Path, target: Target, metric: str) -> Facts:
    made_from.write_text("x", encoding="utf-8")
    return Facts(
        schema=Schema(key=None, features=FEATURES, target=target),
        model={"name": "mlp", "arguments": {"width": 8}},
        recipe=RECIPE,
        calibration=UNCALIBRATED,
        conformal=None,
        covered=None,
        counts={"train": [11_500, 500], "test": [2990, 10]} if target.classes else {},
        num_test=3000,
        intervals={metric: Interval(0.8, 0.75, 0.85), "max_error": Interval(3.5)},
        spreads={metric: spread_of([0.8, 0.9]), "max_error": spread_of([3.5, 3.5])},
        slices=SLICES,
        questions=[],
        lineage=[made_from],
    )


def card(tmp_path: Path, target: Target, metric: str = "accuracy", **changes: Any) -> list[str]:
    made_from = tmp_path / "made_from"
    write_card(tmp_path / "card.md", replace(facts(made_from, target, metric), **changes))
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "$" not in text
    for said in (
        f"{md5(made_from)} |",
        "| max_error | 3.5 |  |  |",
        "12,000 rows to train on, 2,000 to validate on, 3,000 to test on; "
        "columns: 2 numeric, 1 categorical.",
        "| `width` | `8` |",
        "| `train.optimizer.lr` | `0.01` |",
        "| `train.calibration.temperature` | `true` |",
        "From seed 3; the weights are those of epoch 7 of 8.",
        "`y` from `size`, `weight`, `town`, of rows",
        "2 seeds were trained",
        f"| {metric} | 0.85 | 0.07071 |",
        "| max_error | 3.5 | 0 |",
    ):
        assert said in text, said
    return text.splitlines()


@pytest.mark.parametrize(
    ("metric", "order"),
    [("accuracy", ["Os\\|lo", "Bergen"]), ("rmse", ["Bergen", "Os\\|lo"])],
)
def test_the_worst_slices_come_first_and_small_ones_not_at_all(
    tmp_path: Path, metric: str, order: list[str]
) -> None:
    lines = card(tmp_path, VALUES, metric)
    assert [line.split(" | ")[1] for line in lines if line.startswith("| town")] == order
    assert not any("class" in line for line in lines)


def test_a_card_without_slices_says_so(tmp_path: Path) -> None:
    lines = card(tmp_path, CLASSES, slices=SLICES[2:])
    assert "None were judged." in lines


def test_classes_have_their_rows(tmp_path: Path) -> None:
    lines = card(tmp_path, CLASSES)
    assert "| `ill` | 11,500 | 2,990 |" in lines
    assert "| `well` | 500 | 10 |" in lines
    many = Target(name="y", task="classification", classes=list(range(25)))
    lines = card(tmp_path, many, counts={"train": [100] * 25, "test": [40] * 25})
    assert "| `19` | 100 | 40 |" in lines
    assert "| `20` | 100 | 40 |" not in lines
    assert "and 5 classes more." in lines
    odd = Target(name="y", task="classification", classes=["a|b", "c\nd"])
    lines = card(tmp_path, odd)
    assert "| `a\\|b` | 11,500 | 2,990 |" in lines
    assert "| `c d` | 500 | 10 |" in lines


def test_limits_follow_from_facts(tmp_path: Path) -> None:
    text = "\n".join(card(tmp_path, CLASSES))
    assert "fewer than 30 rows were tested" in text
    assert "hardly known: `well (10 rows)`." in text
    assert "may lie is not known: `max_error`." in text
    assert "1 of 3 slices has fewer than 30 rows and is not judged: `town Tromsø`." in text
    unnamed = [replace(part, column="") for part in SLICES]
    assert "is not judged: `'' Tromsø`." in "\n".join(card(tmp_path, CLASSES, slices=unnamed))
    # `weight` had gaps.
    assert "no gap in these columns; one is taken as the mean, or as false: `size`." in text
    assert "are all one to the model in `town`." in text
    text = "\n".join(
        card(tmp_path, CLASSES, slices=[], counts={"train": [11_500, 500], "test": [2970, 30]})
    )
    assert "fewer than 30" not in text
    assert "bad luck" not in text
    assert "- accuracy is perfect on all" in "\n".join(
        card(tmp_path, CLASSES, questions=["accuracy is perfect on all 80 test rows."])
    )
    # A name of a column is text there, whatever it holds.
    (asked,) = (
        line
        for line in card(tmp_path, CLASSES, questions=["is it 'a*b*\n# c'?"])
        if "is it" in line
    )
    assert asked == "- is it 'a\\*b\\* # c'?"


def test_what_was_fitted_on_validation(tmp_path: Path) -> None:
    fitted = Calibration(temperature=1.372468, threshold=0.4125)
    text = "\n".join(card(tmp_path, CLASSES, calibration=fitted))
    assert "divided by the temperature 1.372." in text
    assert "`well` is predicted where its probability is above 0.4125" in text
    assert "the best f1 on the validation rows" in text
    assert "temperature 1" not in "\n".join(card(tmp_path, CLASSES))


def test_names_are_text() -> None:
    """The target, a column, a class and a slice of any name leave the page as it is."""
    plain = shape_of("y")
    for name in NAMES:
        assert shape_of(name) == plain, name


def shape_of(name: str) -> list[str]:
    """What the card is made of, without its texts, where everything has this name."""
    target = Target(name=name, task="classification", classes=[name, f"{name}."])
    features = [Feature(name=name, kind="numeric"), Feature(name=name, kind="categorical")]
    with TemporaryDirectory() as folder:
        named = replace(
            facts(Path(folder) / "made_from", target, "accuracy"),
            schema=Schema(key=None, features=features, target=target),
            model={"name": "mlp", "arguments": {name: name}},
            slices=[Slice(name, name, 50, Interval(0.9, 0.8, 0.95))],
        )
        write_card(Path(folder) / "card.md", named)
        text = (Path(folder) / "card.md").read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inner = [each for token in tokens for each in (token, *(token.children or []))]
    return [each.type for each in inner if each.type not in ("text", "text_special")]


def test_the_interval_of_a_prediction_is_told_with_what_it_held(tmp_path: Path) -> None:
    covered = Covered(Interval(0.912, 0.88, 0.94, "wilson"), "interval_width", 40.0)
    conformal = Conformal(coverage=0.9, bound=20.0)
    lines = card(tmp_path, VALUES, "rmse", conformal=conformal, covered=covered)
    assert (
        "Each value comes with an interval, ± 20, that is to hold the target of 0.9 of the rows; "
        "of the test rows 91.2% (at 95 %: 88.0% to 94.0%) lie in it."
    ) in lines
    covered = replace(covered, name="set_size", size=1.25)
    conformal = Conformal(coverage=0.9, bound=0.31)
    lines = card(tmp_path, CLASSES, conformal=conformal, covered=covered)
    (said,) = (line for line in lines if line.startswith("Each class comes with a set"))
    assert "of a probability of 0.31 or more" in said
    assert said.endswith("It has 1.25 classes on average.")
