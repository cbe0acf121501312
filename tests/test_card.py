"""The model card: nothing of the template is left open, and its numbers are those measured."""

from pathlib import Path

import pytest

from stages.common.files import md5
from stages.common.schema import Feature, Schema, Target
from stages.evaluate.bootstrap import Interval
from stages.evaluate.card import write_card
from stages.evaluate.seeds import spread_of
from stages.evaluate.slices import Slice

SLICES = [
    Slice("town", "Bergen", 50, Interval(0.9, 0.8, 0.95)),
    Slice("town", "Os|lo", 1200, Interval(0.7, 0.65, 0.75)),
    Slice("town", "Tromsø", 3, Interval(0.1, 0.05, 0.5)),
]


def card(tmp_path: Path, target: Target, metric: str, slices: list[Slice]) -> list[str]:
    schema = Schema(key=None, features=[Feature(name="town", kind="categorical")], target=target)
    made_from = tmp_path / "made_from"
    made_from.write_text("x", encoding="utf-8")
    intervals = {metric: Interval(0.8, 0.75, 0.85), "max_error": Interval(3.5)}
    model = {"name": "mlp", "arguments": {"width": 8}}
    spreads = {metric: spread_of([0.8, 0.9]), "max_error": spread_of([3.5, 3.5])}
    sizes = {"train": 12_000, "test": 3000}
    path = tmp_path / "card.md"
    write_card(path, schema, model, sizes, intervals, spreads, slices, [made_from])
    text = path.read_text(encoding="utf-8")
    assert "$" not in text
    assert f"{md5(made_from)} |" in text
    assert "| max_error | 3.5 |  |  |" in text
    assert "12,000 rows to train on, 3,000 to test on; columns: 1 categorical." in text
    assert "| `width` | `8` |" in text
    assert "2 seeds were trained" in text
    assert f"| {metric} | 0.85 | 0.07071 |" in text
    assert "| max_error | 3.5 | 0 |" in text
    return text.splitlines()


@pytest.mark.parametrize(
    ("metric", "order"),
    [("accuracy", ["Os&#124;lo", "Bergen"]), ("rmse", ["Bergen", "Os&#124;lo"])],
)
def test_the_worst_slices_come_first_and_small_ones_not_at_all(
    tmp_path: Path, metric: str, order: list[str]
) -> None:
    lines = card(tmp_path, Target(name="y", task="regression"), metric, SLICES)
    assert [line.split(" | ")[1] for line in lines if line.startswith("| town")] == order
    assert not any(line.startswith("Classes") for line in lines)


def test_a_card_without_slices_says_so(tmp_path: Path) -> None:
    target = Target(name="y", task="classification", classes=["ill", "well"])
    lines = card(tmp_path, target, "accuracy", SLICES[2:])
    assert "None were judged." in lines
    assert "Classes: `ill`, `well`." in lines
