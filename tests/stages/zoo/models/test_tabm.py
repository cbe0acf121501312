"""What `tabm` computes in a way of its own, beside the plain one."""

import pytest
import torch
from torch import Tensor

from stages.zoo.models import tabm
from stages.zoo.models.tabm import Arguments, Model, Outputs


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_the_heads_of_tabm_have_the_gradients_of_einsum(num_outputs: int) -> None:
    hidden = torch.randn(5, 2, 4, dtype=torch.float64, requires_grad=True)
    heads = Outputs(2, 4, num_outputs).double()
    expected = torch.einsum("rmw,mwo->rmo", hidden, heads.weight) + heads.bias
    torch.testing.assert_close(heads(hidden), expected)
    torch.testing.assert_close(heads.eval()(hidden), expected)
    heads.train()
    assert torch.autograd.gradcheck(lambda *_: heads(hidden), (hidden, *heads.parameters()))


@pytest.mark.parametrize("others", [{}, {"categorical": [3, 4]}])
def test_products_by_column_are_those_of_scaled_weights(
    others: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Model(Arguments(members=3, width=5, bins=4), {"numeric": [6], **others}, 2).double()
    rows = torch.randn(7, 6, dtype=torch.float64)
    batch = {"numeric": rows, **{kind: torch.tensor([[0, 2]] * 7) for kind in others}}
    model.fit(batch, torch.zeros(7))
    model.dropout.p = 0.0
    for layer in model.hidden:
        if hasattr(layer, "p"):
            layer.p = 0.0

    def learn() -> list[Tensor]:
        model.zero_grad()
        scores = model(batch)
        scores.square().sum().backward()
        return [scores.detach(), *(each.grad.clone() for each in model.parameters())]

    found = learn()
    monkeypatch.setattr(tabm, "MAX_PRODUCTS", 0)
    for one, other in zip(found, learn(), strict=True):
        torch.testing.assert_close(one, other)
