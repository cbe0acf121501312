"""Kinds of columns that a model does not look at."""

import torch
from torch import Tensor, nn

from stages.build.probe import find_unread
from stages.model.model import ModelSpec, make_model
from tests.support.zoo import FILES as MODELS_OF_ZOO

INPUTS = {"numeric": [3], "boolean": [2], "categorical": [4, 2], "text": [5, 40]}


class OfNumbers(nn.Module):
    """It has an output that begins at zero, and looks at numbers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 2)
        nn.init.zeros_(self.output.weight)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.output(batch["numeric"])
        return scores


def test_kinds_that_move_no_score_are_found() -> None:
    spec = ModelSpec(name="of_numbers", arguments={}, inputs=INPUTS, num_outputs=2)
    model = OfNumbers()
    assert find_unread(model, spec, 0) == ["boolean", "categorical", "text"]
    assert torch.equal(model.output.weight, torch.zeros(2, 3))


def test_those_of_the_zoo_look_at_all() -> None:
    for name in MODELS_OF_ZOO:
        if name in ("cnn", "resnet", "mixed", "huggingface"):
            continue
        inputs = {"text": INPUTS["text"]} if name == "ngrams" else INPUTS
        spec = ModelSpec(name=name, arguments={}, inputs=inputs, num_outputs=2)
        assert find_unread(make_model(spec, 0), spec, 0) == [], name
