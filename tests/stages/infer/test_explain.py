"""Classes by themselves, the surest mistakes, and what the model goes by."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from stages.common.files import read_csv
from stages.evaluate.measure.bootstrap import wilson
from stages.evaluate.measure.predictions import Classified
from stages.evaluate.measure.weighted_metrics import Floats
from stages.evaluate.outputs.importance import MAX_COLUMNS, OF_MANY, REPEATS, write_importance
from stages.evaluate.outputs.mistakes import (
    MAX_MISTAKES,
    find_mistakes,
    write_classes,
    write_mistakes,
)
from stages.features.schema import Array, Class, Feature, Schema, Target
from tests.stages.evaluate.measured import guesses


def test_each_class_has_its_shares_and_how_sure_they_are(tmp_path: Path) -> None:
    target, probabilities = guesses(4)
    write_classes(tmp_path / "classes.csv", ["a", "b", "c", "d"], target, probabilities)
    lines = read_csv(tmp_path / "classes.csv")
    expected = precision_recall_fscore_support(target, probabilities.argmax(axis=1))
    for index, name in enumerate(("precision", "recall", "f1")):
        found = [float(line[name]) for line in lines]
        np.testing.assert_allclose(found, expected[index], rtol=1e-6)
    for line in lines:
        for name, of in (("recall", "rows"), ("precision", "predicted")):
            ends = wilson(float(line[name]), int(line[of]))
            found = [float(line[f"{name}_{end}"]) for end in ("low", "high")]
            assert found == pytest.approx(ends, rel=1e-6)


def test_a_class_that_no_row_has_is_left_empty(tmp_path: Path) -> None:
    write_classes(tmp_path / "c.csv", ["a", "b"], np.array([0, 0]), np.array([[0.9, 0.1]] * 2))
    never = read_csv(tmp_path / "c.csv")[1]
    assert never.pop("class") == "b"
    assert [never.pop(name) for name in ("rows", "predicted")] == ["0", "0"]
    assert set(never.values()) == {""}


def test_the_surest_mistakes_come_first(tmp_path: Path) -> None:
    target, probabilities = guesses(3, num_rows=600)
    keys = np.array([f"row {number}" for number in range(600)])
    names: list[Class] = ["a", "b", "c"]
    found = find_mistakes(keys, names, target, probabilities)
    assert [found[0].key, found[-1].key] == [keys[found[0].row], keys[found[-1].row]]
    write_mistakes(tmp_path / "m.csv", "id", names, found)
    lines = read_csv(tmp_path / "m.csv")
    assert len(lines) == MAX_MISTAKES
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != target)
    said = [float(line["probability"]) for line in lines]
    assert said == sorted(said, reverse=True)
    np.testing.assert_allclose(
        said, np.sort(probabilities[wrong].max(axis=1))[::-1][:100], rtol=1e-6
    )
    for line in lines:
        row = int(line["id"].removeprefix("row "))
        assert row in wrong
        assert line["target"] == "abc"[target[row]]
        assert line["prediction"] == "abc"[probabilities[row].argmax()]
        assert float(line["probability_of_target"]) == pytest.approx(
            probabilities[row, target[row]]
        )


def test_a_threshold_makes_other_mistakes(tmp_path: Path) -> None:
    target, probabilities = guesses(2, num_rows=200)
    codes = (probabilities[:, 1] > 0.2).astype(np.int64)
    predicted, names = Classified(codes, probabilities), ["a", "b"]
    found = find_mistakes(np.arange(200), ["a", "b"], target, predicted)
    assert sorted(m.row for m in found) == np.flatnonzero(codes != target)[:MAX_MISTAKES].tolist()
    for mistake in found:
        assert mistake.prediction == names[codes[mistake.row]]
        said = probabilities[mistake.row, codes[mistake.row]]
        assert mistake.probability == pytest.approx(said, rel=1e-6)
    # Some were said although they were the less likely.
    assert 0.2 < min(m.probability or 0.0 for m in found) < 0.5
    write_classes(tmp_path / "classes.csv", ["a", "b"], target, predicted)
    taken = [int(line["predicted"]) for line in read_csv(tmp_path / "classes.csv")]
    assert taken == np.bincount(codes).tolist()


def test_of_values_it_is_those_that_are_furthest_off(tmp_path: Path) -> None:
    values, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 1.0])
    write_mistakes(
        tmp_path / "m.csv", "row", None, find_mistakes(np.arange(3), None, values, predicted)
    )
    write_classes(tmp_path / "c.csv", None, values, predicted)
    lines = read_csv(tmp_path / "m.csv")
    assert [line["row"] for line in lines] == ["2", "0", "1"]
    assert lines[0] == {"row": "2", "target": "4.0", "prediction": "1.0", "residual": "3.0"}
    assert read_csv(tmp_path / "c.csv") == []


@pytest.mark.parametrize("metric", ["r2", "mae"])
def test_what_the_model_goes_by_is_important(tmp_path: Path, metric: str) -> None:
    random = np.random.default_rng(0)
    kinds = {"much": "numeric", "little": "numeric", "yes": "boolean", "town": "categorical"}
    gaps = ("little", "yes")
    features = [Feature(name=n, kind=k, missing=n in gaps) for n, k in kinds.items()]
    features.append(Feature(name="photo", kind="image", shape=[1, 1, 1], layout="HW"))
    schema = Schema(key=None, features=features, target=Target(name="y", task="regression"))
    arrays: dict[str, Array] = {
        "numeric": random.normal(size=(400, 3)),
        "boolean": (random.random((400, 2)) < 0.5).astype(np.float64),
        "categorical": random.integers(4, size=(400, 1)),
        "image": random.normal(size=(400, 1, 1, 1)),
        "key": np.arange(400),
    }
    before = {kind: array.copy() for kind, array in arrays.items()}

    def score(given: dict[str, Array]) -> Floats:
        numbers, truths = given["numeric"].astype(float), given["boolean"].astype(float)
        # A gap goes with its value: their difference says nothing once they are torn apart.
        return 3 * numbers[:, 0] + numbers[:, 2] + truths[:, 1]

    target = score(arrays)
    write_importance(tmp_path / "i.csv", metric, schema, arrays, target, score, {})
    lines = read_csv(tmp_path / "i.csv")
    assert [line["column"] for line in lines] == ["much", "little", "yes", "town"]
    found = [float(line["importance"]) for line in lines]
    assert found[0] > found[1] > found[2] > found[3] == 0
    if metric == "r2":
        # Shuffled, a part of the target leaves twice its variance unexplained.
        part = 2 * (3 * arrays["numeric"][:, 0].astype(float)).var() / target.var()
        assert found[0] == pytest.approx(part, rel=0.15)
    assert all((before[kind] == arrays[kind]).all() for kind in arrays)


def test_images_alone_have_no_importance_by_column(tmp_path: Path) -> None:
    image = Feature(name="photo", kind="image", shape=[1, 1, 1], layout="HW")
    schema = Schema(key=None, features=[image], target=Target(name="y", task="regression"))
    arrays: dict[str, Array] = {"key": np.arange(3), "image": np.zeros((3, 1, 1, 1))}
    write_importance(
        tmp_path / "i.csv", "mae", schema, arrays, np.arange(3.0), lambda _: np.zeros(3), {}
    )
    assert read_csv(tmp_path / "i.csv") == []


def test_of_many_columns_those_that_move_most_are_shuffled(tmp_path: Path) -> None:
    names = [f"x{number}" for number in range(MAX_COLUMNS + 50)]
    features = [Feature(name=name, kind="numeric") for name in names]
    schema = Schema(key=None, features=features, target=Target(name="y", task="regression"))
    values = np.random.default_rng(0).normal(size=(60, len(names))).astype(np.float32)
    arrays: dict[str, Array] = {"key": np.arange(60), "numeric": values}
    asked = 0

    def score(given: dict[str, Array]) -> Floats:
        nonlocal asked
        asked += 1
        return given["numeric"][:, -1].astype(np.float64)

    moved = {name: float(place) for place, name in enumerate(names)}
    write_importance(tmp_path / "i.csv", "mae", schema, arrays, score(arrays), score, moved)
    lines = read_csv(tmp_path / "i.csv")
    assert {line["column"] for line in lines} == set(names[-OF_MANY:])
    assert lines[0]["column"] == names[-1]
    assert asked == 2 + REPEATS * OF_MANY
