"""What the environment decides: the device, processes and threads."""

import pytest
import torch

from stages.common.errors import UserError
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import choose_threads, num_processes


@pytest.mark.parametrize(("asked", "processes"), [("3", 3), ("1", 1)])
def test_the_environment_says_how_many_processes(
    monkeypatch: pytest.MonkeyPatch, asked: str, processes: int
) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", asked)
    assert num_processes() == processes


@pytest.mark.parametrize("asked", ["0", "-1", "two", ""])
def test_a_wrong_number_of_processes_or_threads_is_an_error(
    monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", asked)
    monkeypatch.setenv("REPRISE_THREADS", asked)
    with pytest.raises(UserError, match="PET_NPROC_PER_NODE"):
        num_processes()
    with pytest.raises(UserError, match="REPRISE_THREADS"):
        choose_threads(10, 10, World())


@pytest.mark.parametrize("name", ["meta", "nowhere", "cuda:99"])
def test_a_device_that_can_not_compute_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("REPRISE_DEVICE", name)
    with pytest.raises(UserError, match=f"REPRISE_DEVICE is '{name}', which can't be used"):
        choose_device()


def test_threads_follow_from_sizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        choose_threads(1000, 64, World())
        assert torch.get_num_threads() == 1
        monkeypatch.setattr("os.cpu_count", lambda: 8)
        choose_threads(10_000_000, 64, World(size=2))
        assert torch.get_num_threads() == 4
        monkeypatch.setenv("REPRISE_THREADS", "3")
        choose_threads(1000, 64, World())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
