"""The summary of a model, and the rows by which it is tried."""

import torch
from torch import Tensor, nn

from stages.build.probe import probe_batch
from stages.build.summary import summarise
from stages.model.model import ModelSpec, make_model
from tests.support.stages.models import IMAGES, SPEC, spec_of


def figures(model: nn.Module, spec: ModelSpec) -> dict[str, tuple[str, int, int]]:
    """Each layer's output, parameters and multiply-adds, as the summary says."""
    lines = summarise(model, spec, seed=0).splitlines()
    table = {}
    for line in lines[4:]:
        if set(line) != {"-"}:
            name, *_, parameters, macs = line.split()
            shape = line.split()[2] if len(line.split()) == 5 else ""
            table[name] = shape, int(parameters.replace(",", "")), int(macs.replace(",", ""))
    return table


def test_the_summary_of_cnn_is_what_one_computes_by_hand() -> None:
    spec = spec_of({"name": "cnn", "channels": [16, 32], "width": 64}, IMAGES)
    table = figures(make_model(spec, seed=0), spec)
    assert table == {
        "blocks.0": ("16×8×8", 16 * 9 + 16, 16 * 9 * 64),
        "blocks.1": ("16×8×8", 32, 0),
        "blocks.2": ("16×8×8", 0, 0),
        "blocks.3": ("32×8×8", 32 * 16 * 9 + 32, 32 * 16 * 9 * 64),
        "blocks.4": ("32×8×8", 64, 0),
        "blocks.5": ("32×8×8", 0, 0),
        "blocks.6": ("32×4×4", 0, 0),
        "hidden.0": ("512", 0, 0),
        "hidden.1": ("64", 512 * 64 + 64, 512 * 64),
        "hidden.2": ("64", 0, 0),
        "hidden.3": ("64", 0, 0),
        "output": ("10", 64 * 10 + 10, 640),
        "total": ("", 160 + 32 + 4640 + 64 + 32832 + 650, 9216 + 294912 + 32768 + 640),
    }


def test_the_summary_of_mlp_counts_every_code_of_a_category() -> None:
    spec = spec_of({"name": "mlp", "width": 7})
    # Two numbers and an indicator, a boolean, and 2 + 3 categories.
    width = 3 + 1 + 2 + 3
    table = figures(make_model(spec, seed=0), spec)
    assert table["hidden.0"] == ("7", width * 7 + 7, width * 7)
    assert table["total"] == ("", width * 7 + 7 + 7 * 3 + 3, width * 7 + 21)


class Recurrent(nn.Module):
    """Weights of its own beside its layers, and a layer that returns a state too."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 3))
        self.cell = nn.GRU(3, 4, batch_first=True)
        self.output = nn.Linear(4, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        states, _ = self.cell((batch["numeric"] @ self.scale)[:, None])
        scores: Tensor = self.output(states[:, -1])
        return scores


def test_the_summary_leaves_no_parameter_of_a_model_of_ones_own_out() -> None:
    table = figures(Recurrent(), SPEC)
    assert table["mine"] == ("3", 9, 9)
    assert table["output"] == ("3", 15, 12)
    assert table["cell"][0] == "1×4"
    rows = [row for name, row in table.items() if name != "total"]
    assert sum(row[1] for row in rows) == table["total"][1]
    assert sum(row[2] for row in rows) == table["total"][2]


def test_the_probe_has_the_shapes_of_the_data() -> None:
    batch = probe_batch(spec_of({"name": "linear"}), seed=0)
    assert {kind: tuple(tensor.shape) for kind, tensor in batch.items()} == {
        "numeric": (2, 3),
        "boolean": (2, 1),
        "categorical": (2, 2),
    }
