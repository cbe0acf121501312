"""Numbers embedded by the quantiles of the train rows."""

import io

import pytest
import torch

from stages.model.layers import PiecewiseLinear, find_edges, join_near


def test_edges_are_quantiles_of_the_rows() -> None:
    values = torch.arange(101.0)
    assert find_edges(values, 5).tolist() == [0, 25, 50, 75, 100]
    # Fewer values than edges: each is one, and the last is repeated.
    few = torch.tensor([1.0, 1.0, 2.0, 5.0])
    assert find_edges(few, 6).tolist() == [1, 2, 5, 5, 5, 5]


@pytest.mark.filterwarnings("error")
def test_the_bins_of_one_column_are_exported_without_a_warning() -> None:
    rows = torch.rand(50, 1)
    layer = PiecewiseLinear(num_columns=1, bins=8, width=3)
    layer.fit(rows)
    for buffer in layer.buffers():
        assert buffer.untyped_storage().nbytes() == buffer.nbytes
    torch.export.save(torch.export.export(layer, (rows,)), io.BytesIO())


def test_a_column_that_is_mostly_zero_keeps_its_other_values_apart() -> None:
    # As capital gains are: nine rows in ten have none.
    values = torch.cat([torch.zeros(900), torch.arange(1.0, 101.0)])
    edges = find_edges(values, 21)
    assert edges[0] == 0
    assert edges[-1] == 100
    assert len(edges.unique()) == 21
    assert edges.diff().max() <= 8


def test_it_begins_as_the_normal_score_of_the_rank_and_stays_within_the_train_rows() -> None:
    torch.manual_seed(0)
    rows = torch.cat([torch.rand(1000, 1).exp(), torch.zeros(1000, 1)], dim=1)
    layer = PiecewiseLinear(num_columns=2, bins=32, width=3)
    layer.fit(rows)
    found = layer(rows).reshape(1000, 2, 3).detach()
    ranks = (rows[:, 0].argsort().argsort() + 0.5) / 1000
    expected = torch.special.ndtri(ranks)[:, None] * layer.slope[0] + layer.bias[0]
    inner = (ranks > 0.05) & (ranks < 0.95)
    torch.testing.assert_close(found[inner, 0], expected[inner].detach(), rtol=0, atol=0.06)
    # One value in all rows says nothing, and what lies beyond the rows counts as the last of them.
    assert found[:, 1].std(dim=0).tolist() == pytest.approx([0, 0, 0])
    far = torch.tensor([[-1e6, 5.0], [1e6, -5.0]])
    ends = rows[:, 0].argmin(), rows[:, 0].argmax()
    torch.testing.assert_close(layer(far).reshape(2, 2, 3)[:, 0].detach(), found[list(ends), 0])


def test_values_that_rounding_leaves_apart_are_one() -> None:
    # The sine of noon and midnight, in float64 and as float32 has it.
    sines = torch.tensor([-0.5, -8.7e-8, -2.4e-16, 0.0, 1.2e-16, 0.5]).repeat(50)[:, None]
    layer = PiecewiseLinear(num_columns=1, bins=8, width=3)
    layer.fit(sines)
    noon = layer(torch.tensor([[-8.7e-8], [0.0], [2.4e-16]])).detach()
    torch.testing.assert_close(noon[[1, 2]], noon[[0, 0]], rtol=0, atol=1e-5)
    assert layer.get_buffer("factors").max() < 3
    # Half of the rows lie at noon, whose score is that of the middle.
    ends = layer(torch.tensor([[-0.5], [0.5]])).detach()
    torch.testing.assert_close(ends.mean(dim=0), noon[1], rtol=0, atol=1e-5)


def test_small_values_beside_a_large_one_keep_their_bins() -> None:
    # In deviations they lie a hundred-millionth apart.
    values = torch.cat([torch.arange(1000.0), torch.tensor([1e10])]).double()
    rows = ((values - values.mean()) / values.std()).float()[:, None]
    assert len(find_edges(join_near(rows[:, 0].sort().values), 33).unique()) == 33
