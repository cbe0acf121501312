"""A project whose stage `far` runs in a work pool, with one worker, for a module's tests."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import Project
from tests.pipeline.elsewhere.places import Place, clone_for_worker, make_place, worker
from tests.support.dags import make_dag

STAGES = {
    "first": {},
    "far": {
        "after": ["first"],
        "deps": ["Makefile", "new"],
        "cmd": "cat new/note.txt && head -n 1 Makefile && echo '{\"lines\": 1}' > far.json",
        "metrics": [{"far.json": {"cache": False}}],
        "params": [{"stages/versions.yaml": ["numpy"]}],
    },
    "near": {"after": ["far"]},
}
# It keeps a checkpoint, as training does, says where it resumes, and waits while it is held.
SLOW = """\
mkdir -p .reprise/checkpoints
state=.reprise/checkpoints/slow
n=$(cat $state 2>/dev/null || echo 0)
echo "resumes at $n"
while [ $n -lt 10 ] || [ -e .reprise/checkpoints/hold ]; do
  n=$((n+1)); echo $n > $state.new; mv $state.new $state; sleep 0.1
done
rm $state
"""


@dataclass(frozen=True)
class Served:
    """A place, and the clone of its one worker, which is at work."""

    place: Place
    clone: Project


@pytest.fixture(scope="module")
def served(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served") / "dag"
    place = make_place(make_dag(folder, STAGES), prefect_server)
    clone = clone_for_worker(place)
    with worker(place, clone):
        yield Served(place, clone)


@pytest.fixture(scope="module")
def slow(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same, of one stage that takes its time."""
    folder = tmp_path_factory.mktemp("slow") / "dag"
    project = make_dag(folder, {"slow": {"cmd": "sh slow.sh", "deps": ["slow.sh", "seed"]}})
    (folder / "slow.sh").write_text(SLOW)
    (folder / "seed").write_text("0\n")
    place = make_place(project, prefect_server)
    clone = clone_for_worker(place)
    with worker(place, clone):
        yield Served(place, clone)
