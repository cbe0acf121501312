"""The place of the data: by their sizes and the memory, of which mapped data take little."""

from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.features.schema import load_arrays
from stages.training.data import memmap as mapped
from stages.training.data.batching import epoch_batches
from stages.training.data.memmap import choose_place, open_split, size_on_device
from stages.training.device.environment import _limits, memory_of
from tests.support.training.prepared import CPU, STATISTICS

pytestmark = pytest.mark.usefixtures("one_thread")


def anonymous_bytes() -> int:
    """What this process holds that is no file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells it")
def test_mapped_data_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_rows, width = 10_000, 2000
    monkeypatch.setattr(mapped, "GATHER_BYTES", 2_000_000)
    file = np.lib.format.open_memmap(
        tmp_path / "numeric.npy", mode="w+", dtype=np.float32, shape=(num_rows, width)
    )
    file[::100] = 1
    del file
    np.save(tmp_path / "target.npy", np.zeros(num_rows, np.int64))
    np.save(tmp_path / "key.npy", np.arange(num_rows))
    split = open_split(load_arrays(tmp_path), STATISTICS, CPU)
    assert size_on_device(split.features) == 80_000_000
    before, most, total = anonymous_bytes(), 0, 0.0
    for batch, _ in split.feed(list(epoch_batches(num_rows, 64, 0, 1)), 0):
        total += batch["numeric"].sum().item()
        most = max(most, anonymous_bytes() - before)
    assert total == num_rows / 100 * width
    assert most < 20_000_000
    whole = mapped.read_split(split)
    assert anonymous_bytes() - before > 75_000_000
    del whole


def test_the_place_follows_from_sizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "memory_of", lambda _: 10_000_000_000)
    assert choose_place(14_000_000, CPU) == ("device", "data on cpu: 14 MB")
    assert choose_place(5_000_000_000, CPU)[0] == "device"
    words = "data mapped: 30,000 MB, more than half of 10,000 MB"
    assert choose_place(30_000_000_000, CPU) == ("mapped", words)
    assert choose_place(1_300_000_000, CPU, 3)[0] == "device"
    words = "data mapped: 1,300 MB in each of 4 processes, more than half of 10,000 MB"
    assert choose_place(1_300_000_000, CPU, 4) == ("mapped", words)
    monkeypatch.setenv("REPRISE_DATA", "device")
    words = "data on cpu: 30,000 MB (REPRISE_DATA)"
    assert choose_place(30_000_000_000, CPU) == ("device", words)
    monkeypatch.setenv("REPRISE_DATA", "mapped")
    assert choose_place(350_000, CPU) == ("mapped", "data mapped: 350 kB (REPRISE_DATA)")
    monkeypatch.setenv("REPRISE_DATA", "disk")
    with pytest.raises(UserError, match="REPRISE_DATA is 'disk': it must be device or mapped"):
        choose_place(1, CPU)


@pytest.mark.parametrize(
    ("line", "folder", "file"),
    [
        ("0::/jobs/ours", "sys/fs/cgroup", "memory.max"),
        ("7:cpu,memory:/jobs/ours", "sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ],
)
def test_the_memory_of_a_cpu_is_what_its_control_groups_allow(
    tmp_path: Path, line: str, folder: str, file: str
) -> None:
    for name, text in (("jobs/ours", "max"), ("jobs", "3000"), ("", "5000")):
        group = tmp_path / folder / name
        group.mkdir(parents=True, exist_ok=True)
        (group / file).write_text(f"{text}\n", encoding="utf-8")
    own = tmp_path / "proc/self/cgroup"
    own.parent.mkdir(parents=True)
    own.write_text(f"3:cpuset:/\n{line}\n", encoding="utf-8")
    assert sorted(_limits(tmp_path)) == [3000, 5000]
    assert list(_limits(tmp_path / "nowhere")) == []
    assert 2**27 < memory_of(CPU) < 2**50
