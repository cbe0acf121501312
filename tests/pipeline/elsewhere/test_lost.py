"""Kills, cancels and lost connections of a stage in a work pool: nothing lost, nobody left."""

import re
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import Project
from tests.pipeline.elsewhere.places import (
    Place,
    clone_for_worker,
    going_for,
    log_of,
    make_place,
    wait_for_nobody,
    worker,
)
from tests.support.dags import END_SECONDS, make_dag, wait_until

# It keeps a checkpoint, as training does, and says where it resumes.
SLOW = """\
mkdir -p .reprise/checkpoints
state=.reprise/checkpoints/slow
n=$(cat $state 2>/dev/null || echo 0)
echo "resumes at $n"
while [ $n -lt 50 ]; do n=$((n+1)); echo $n > $state.new; mv $state.new $state; sleep 0.2; done
rm $state
"""


@pytest.fixture
def place(prefect_server: str, tmp_path: Path) -> Place:
    project = make_dag(tmp_path / "dag", {"slow": {"cmd": "sh slow.sh", "deps": ["slow.sh"]}})
    (project.path / "slow.sh").write_text(SLOW)
    return make_place(project, prefect_server)


def count_in(clone: Project) -> int:
    """How far the stage has come on a worker."""
    with suppress(FileNotFoundError, ValueError):
        return int((clone.path / ".reprise/checkpoints/slow").read_text())
    return 0


def processes(place: Place, word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if word in " ".join(process.cmdline()) and process.cwd().startswith(str(place.folder)):
                found.append(process)
    return found


def kill(place: Place, word: str) -> None:
    for process in processes(place, word):
        process.kill()


def resumed_at(said: str) -> list[int]:
    return [int(number) for number in re.findall(r"resumes at (\d+)", said)]


def test_killed_here_or_there_it_ends_on_both_sides_and_resumes(place: Place) -> None:
    clone = clone_for_worker(place)
    with worker(place, clone):
        with place.started("slow") as process:
            wait_until(lambda: count_in(clone) >= 5)
            # As by the kernel that is out of memory.
            process.kill()
            assert wait_for_nobody(place, 2 * END_SECONDS) < END_SECONDS
        assert [run["state_type"] for run in place.runs()] == ["CANCELLED"]
        first = count_in(clone)
        assert 5 <= first < 50
        with place.started("slow") as process:
            wait_until(lambda: count_in(clone) >= first + 5)
            kill(place, "prefect.engine")
            kill(place, "flow-run execute")
            said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said + log_of(place)
    assert "the run in the pool was lost" in said
    start, again = resumed_at(said)
    assert start >= first
    assert again >= first + 5
    assert going_for(place) == []
    states = [run["state_type"] for run in place.runs()]
    assert states == ["CANCELLED", "CRASHED", "COMPLETED"]
    assert place.refs() == ["refs/heads/main"]
