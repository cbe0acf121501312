"""Several processes train what one does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.model.model import make_model
from tests.conftest import ROOT
from tests.support.samples import train_params
from tests.support.training.models import (
    SPECS,
    assert_same,
    figures,
    named,
    pixels,
    run,
    weights_of,
)
from tests.support.training.one_of_many import TOGETHER
from tests.support.training.one_of_many import main as train_with_others
from tests.support.training.together import run_together


def in_processes(
    tmp_path: Path, sizes: tuple[int, ...], epochs: int, num_rows: int, dtype: str
) -> list[Any]:
    """By name of `TOGETHER`: history and weights of a training in so many processes, of each."""
    run_together(
        train_with_others,
        [
            (rank, size, epochs, num_rows, dtype, *files)
            for size in sizes
            for files in [(str(tmp_path / f"store {size}"), str(tmp_path / f"{size}.pt"))]
            for rank in range(size)
        ],
    )
    return [torch.load(tmp_path / f"{size}.pt") for size in sizes]


# The last batch of an epoch of three has one row; 68 epochs are two hundred steps and four.
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("epochs", "sizes"), [(4, (3,)), pytest.param(68, (2, 3), marks=pytest.mark.soak)]
)
def test_the_number_of_processes_changes_rounding_alone(
    epochs: int, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    together = in_processes(tmp_path, sizes, epochs, 45, "float64")
    assert SPECS.keys() == {file.stem for file in (ROOT / "stages/zoo/models").glob("[!_]*.py")}
    for name, (kind, changes) in TOGETHER.items():
        params = train_params(**({"epochs": epochs} | changes))
        network = named(kind).double()
        alone = run(network, pixels(kind), params, seed=9)
        assert len(alone.history) == params.epochs
        for history, weights in (results[name] for results in together):
            for ours, theirs in zip(history, alone.history, strict=True):
                assert ours == pytest.approx(figures(theirs), rel=1e-10)
            assert_same(weights, weights_of(network), tolerance=1e-10)
        spec = SPECS.get(kind)
        if spec is None or "dropout" not in spec.arguments:
            continue
        # Something must have been dropped, else this shows nothing of it.
        still = spec.model_copy(update={"arguments": {**spec.arguments, "dropout": 0.0}})
        whole = run(make_model(still, seed=4).double(), pixels(kind), params, seed=9)
        assert abs(whole.history[0].train_loss - alone.history[0].train_loss) > 1e-6


# Ten steps an epoch; a kink lets a last bit grow, so models with one agree in their metric alone.
@pytest.mark.usefixtures("one_thread")
@pytest.mark.soak
def test_the_number_of_processes_hardly_shows_in_float32(tmp_path: Path) -> None:
    epochs, num_rows = 20, 200
    together = in_processes(tmp_path, (2, 3), epochs, num_rows, "float32")
    for kind in (*SPECS, "smooth"):
        network = named(kind)
        params = train_params(**(TOGETHER[kind][1] | {"epochs": epochs}))
        alone = run(network, pixels(kind, num_rows, torch.float32), params, seed=9)
        for history, weights in (results[kind] for results in together):
            assert len(history) == epochs
            ours, theirs = history[-1]["metric"], alone.history[-1].metric
            assert ours == pytest.approx(theirs, abs=1.01 / num_rows)
            if kind in ("linear", "smooth"):
                assert_same(weights, weights_of(network), tolerance=1e-4)
