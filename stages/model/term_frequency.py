"""Equal numbers in the places of a row, such as words of a text: how often each is there.

Every place keeps an entry of its own, so that a sum over places is one over different numbers.
"""

import torch
from torch import Tensor


def count_times(numbers: Tensor) -> Tensor:
    """Count for each place of `numbers` (rows, places) int64 its equals in the row, as float32."""
    num_places = numbers.shape[1]
    ordered, places = numbers.sort(dim=1)
    differs = ordered[:, 1:] != ordered[:, :-1]
    is_first = torch.nn.functional.pad(differs, (1, 0), value=True)
    is_last = torch.nn.functional.pad(differs, (0, 1), value=True)
    groups = is_first.long().cumsum(dim=1)
    # Behind each group, from 1 on, so many places lie; what is no last one goes where none looks.
    seen = torch.arange(1.0, num_places + 1, device=numbers.device).expand(numbers.shape)
    ends = torch.zeros_like(seen[:, :1]).expand(-1, num_places + 2)
    ends = ends.scatter(1, torch.where(is_last, groups, num_places + 1), seen)
    times = ends.gather(1, groups) - ends.gather(1, groups - 1)
    return torch.zeros_like(times).scatter(1, places, times)


def dampen(times: Tensor) -> Tensor:
    """The part of each place where all n equal ones together count 1 + ln(n), as in TF-IDF."""
    return (1 + times.log()) / times


def length_of(*values_and_times: Tensor) -> Tensor:
    """The length (rows, 1) of rows of numbers, by the `values` of their places and their `times`.

    n places of one value are a number n times as large.
    """
    pairs = zip(values_and_times[::2], values_and_times[1::2], strict=True)
    squares = [(values.square() * times).sum(dim=1, keepdim=True) for values, times in pairs]
    return torch.stack(squares).sum(dim=0).clamp(min=1e-6).sqrt()
