"""What `tabm` computes in a way of its own, beside the plain one."""

import pytest
import torch
from torch import Tensor

from stages.model.model import PRETRAINED
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


@pytest.mark.parametrize(
    ("noise", "is_classes", "members", "with_line"),
    [
        (0.1, False, 8, 8),  # it explains most of the values
        (3.0, False, 8, 4),
        (0.1, True, 8, 4),
        (3.0, False, 3, 2),
        (3.0, False, 1, 1),
    ],
)
def test_half_of_the_members_learn_what_a_line_leaves(
    noise: float, members: int, with_line: int, *, is_classes: bool
) -> None:
    torch.manual_seed(0)
    rows = torch.randn(200, 4)
    target = rows.sum(dim=1) + noise * torch.randn(200)
    if is_classes:
        target = (target > 0).long()
    model = Model(Arguments(members=members, line=True, dropout=0), {"numeric": [4]}, 2)
    batch = {"numeric": rows}
    before = model(batch)
    assert model.line is not None
    assert torch.equal(model.line(batch), torch.zeros(200, 2))
    model.fit(batch, target)
    line = model.line(batch)
    model.get_buffer("on_line").zero_()
    plain = model(batch)
    assert plain.shape == before.shape
    model.fit(batch, target)
    added = model(batch) - plain
    torch.testing.assert_close(added[:, :with_line], line[:, None].expand(-1, with_line, -1))
    assert torch.equal(added[:, with_line:], torch.zeros(200, members - with_line, 2))
    assert float(line.std()) > 0.1


def test_heads_from_a_file_keep_the_line_that_they_have_learned_beside() -> None:
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    model = Model(Arguments(line=True), {"numeric": [3]}, 1)
    assert model.line is not None
    of_file = model.line.get_buffer("weight").fill_(0.5).clone()
    setattr(model.output.weight, PRETRAINED, True)
    model.fit({"numeric": rows}, rows.sum(dim=1))
    assert torch.equal(model.line.get_buffer("weight"), of_file)
    assert not model.get_buffer("on_line").any()
