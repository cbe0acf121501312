"""The line that a model begins with, beside scikit-learn's and on made rows."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from stages.model import line
from stages.model.line import Line, RegularizationPath, fit_line


def rows_of(num_rows: int, num_columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, num_columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("num_rows", "num_columns"), [(40, 5), (12, 30)])
def test_a_penalty_on_squares_is_that_of_ridge(num_rows: int, num_columns: int) -> None:
    rows, sizes = rows_of(num_rows, num_columns), torch.linspace(0.1, 1, num_columns).double()
    wanted = rows[:, :1] * 2 + rows_of(num_rows, 1, seed=1) + 3
    path = RegularizationPath(rows, wanted, sizes, is_classes=False)
    weight, bias = path.solve(0.02)
    penalty = 0.02 * float(path.variances.max())
    known = Ridge(alpha=penalty).fit((rows * sizes).numpy(), wanted[:, 0].numpy())
    np.testing.assert_allclose(weight[:, 0] / sizes, known.coef_, atol=1e-8)
    assert float(bias[0]) == pytest.approx(known.intercept_)


@pytest.mark.parametrize(("num_rows", "num_columns"), [(60, 4), (20, 30)])
def test_a_penalty_on_cross_entropy_is_that_of_logistic_regression(
    num_rows: int, num_columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "MAX_STEPS", 5_000)
    monkeypatch.setattr(line, "TOLERANCE", 1e-9)
    rows = rows_of(num_rows, num_columns)
    codes = (rows[:, :3] + rows_of(num_rows, 3, seed=1)).argmax(dim=1)
    wanted = nn.functional.one_hot(codes, 3).double()
    path = RegularizationPath(
        rows, wanted, torch.ones(num_columns, dtype=torch.float64), is_classes=True
    )
    weight, bias = path.solve(0.05)
    penalty = 0.05 * float(path.variances.max())
    known = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
    known.fit(rows.numpy(), codes.numpy())
    found = (rows @ weight + bias).softmax(dim=1)
    np.testing.assert_allclose(found, known.predict_proba(rows.numpy()), atol=1e-5)


def test_few_of_many_columns_are_found() -> None:
    rows = rows_of(150, 400)
    truth = torch.zeros(400, dtype=torch.float64)
    truth[:5] = torch.tensor([2.0, -1.5, 1.0, 1.0, -1.0])
    target = rows @ truth + rows_of(150, 1, seed=1)[:, 0] * 0.5
    (weight, bias), explained = fit_line(rows, target, 1)
    new = rows_of(500, 400, seed=2)
    left = (new @ weight + bias)[:, 0] - new @ truth
    # Ridge alone leaves 2.4 of a deviation of 3.
    assert float(left.std()) < 0.3
    assert explained > 0.9
    assert weight[:, 0].abs().argsort()[-5:].sort().values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_classes_are_found_behind_what_all_columns_share(num_classes: int) -> None:
    # As the offset of a spectrum: most of the variance, of which no class depends.
    def made(num_rows: int, seed: int) -> tuple[Tensor, Tensor]:
        own = rows_of(num_rows, num_classes, seed)
        rows = rows_of(num_rows, 1, seed + 10) + rows_of(num_rows, 60, seed + 20) * 0.001
        rows[:, :num_classes] += own * 0.01
        return rows, own.argmax(dim=1)

    (weight, bias), explained = fit_line(*made(200, 1), num_classes)
    rows, target = made(500, 2)
    scores = rows @ weight + bias
    assert float((scores.argmax(dim=1) == target).double().mean()) > 0.8
    judged = nn.functional.cross_entropy(scores, target)
    shares = torch.full((num_classes,), 1 / num_classes, dtype=torch.float64).log()
    constant = nn.functional.cross_entropy(shares.expand(500, -1), target)
    assert explained == pytest.approx(1 - float(judged / constant), abs=0.15)


@pytest.mark.parametrize("is_classes", [True, False])
def test_where_no_column_says_anything_there_is_no_line(*, is_classes: bool) -> None:
    rows, noise = rows_of(60, 3), rows_of(60, 1, seed=5)[:, 0]
    target = (noise > 0.5).long() if is_classes else noise
    (weight, _), explained = fit_line(rows, target, 3 if is_classes else 1)
    assert explained < 0.05
    assert float((rows @ weight).std(dim=0).max()) < 0.3


@pytest.mark.parametrize("num_rows", [1, 2, 7])
def test_it_takes_a_few_rows_and_columns_of_one_value(num_rows: int) -> None:
    rows = torch.cat([torch.full((num_rows, 2), 3.0), torch.arange(num_rows)[:, None]], dim=1)
    for target in (torch.arange(num_rows) % 2, torch.arange(num_rows).float()):
        (weight, bias), _ = fit_line(rows.double(), target, 2)
        assert weight.isfinite().all()
        assert bias.isfinite().all()
        assert torch.equal(weight[:2], torch.zeros(2, 2, dtype=torch.float64))


def test_a_number_far_beyond_the_train_rows_is_held() -> None:
    layer = Line({"numeric": [1], "categorical": [3]}, 1)
    codes = torch.arange(40)[:, None] % 3
    rows = torch.linspace(-1, 1, 40)[:, None]
    layer.fit({"numeric": rows, "categorical": codes}, (rows[:, 0] * 3 + codes[:, 0]).float())
    batch = {"numeric": torch.tensor([[1.0], [2.0], [9.0]]), "categorical": torch.full((3, 1), 2)}
    found = layer(batch)[:, 0]
    assert found.tolist() == pytest.approx([5, 8, 8], abs=0.2)
    assert layer({"numeric": rows[:1], "categorical": codes[:1]}).item() == pytest.approx(
        -3, abs=0.2
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(batch)[:, 0], found)


def test_of_too_many_rows_as_many_as_it_takes_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Tensor] = []

    def note(rows: Tensor, target: Tensor, num_outputs: int) -> tuple[line.Weights, float]:
        taken.append(target)
        return fit_line(rows, target, num_outputs)

    monkeypatch.setattr(line, "fit_line", note)
    monkeypatch.setattr(line, "MIN_ROWS", 20)
    for num_rows, num_taken in ((20, 20), (21, 20), (1_000, 20)):
        rows = torch.arange(float(num_rows))[:, None].expand(-1, 10).contiguous()
        monkeypatch.setattr(line, "MAX_NUMBERS", 200)
        Line({"numeric": [10]}, 1).fit({"numeric": rows}, rows[:, 0])
        assert len(taken[-1]) == num_taken
        assert taken[-1][[0, -1]].tolist() == [0, num_rows - 1]


def test_rows_without_a_finite_number_are_left_out() -> None:
    rows = rows_of(50, 2).float()
    target = rows.sum(dim=1)
    rows[3, 1], rows[7, 0], target[9] = float("nan"), float("inf"), float("nan")
    layer = Line({"numeric": [2]}, 1)
    assert layer.fit({"numeric": rows}, target) > 0.99
    torch.testing.assert_close(layer.weight, torch.ones(1, 2), rtol=0, atol=1e-3)
    none = Line({"numeric": [2]}, 1)
    assert none.fit({"numeric": torch.full((4, 2), float("nan"))}, torch.ones(4)) == 0
    assert torch.equal(none({"numeric": rows[:2]}), torch.zeros(2, 1))
