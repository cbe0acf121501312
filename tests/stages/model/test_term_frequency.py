"""Equal numbers in the places of a row."""

import torch

from stages.model.term_frequency import count_times, dampen, length_of


def test_places_are_counted_as_by_comparing_each_with_each() -> None:
    numbers = torch.randint(0, 6, (50, 9), generator=torch.Generator().manual_seed(0))
    expected = (numbers[:, :, None] == numbers[:, None]).sum(dim=2)
    assert torch.equal(count_times(numbers), expected.float())
    assert count_times(torch.zeros(2, 1, dtype=torch.int64)).tolist() == [[1.0], [1.0]]


def test_a_length_is_that_of_the_sums_of_equal_numbers() -> None:
    numbers = torch.tensor([[3, 1, 3, 3, 0], [2, 2, 2, 2, 2]])
    times = count_times(numbers)
    values = dampen(times) * torch.tensor([[2.0, 1.0, 2.0, 2.0, 5.0], [1.0] * 5])
    sums = torch.zeros(2, 4).scatter_add(1, numbers, values)
    torch.testing.assert_close(length_of(values, times)[:, 0], sums.norm(dim=1))
    assert sums[1, 2] == 1 + torch.log(torch.tensor(5.0))
