"""Kills, cancels and lost connections of a stage in a work pool: nothing lost, nobody left."""

import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import Project, project_environment
from tests.pipeline.elsewhere.conftest import Served
from tests.pipeline.elsewhere.places import Place, going_for, log_of, wait_for_nobody
from tests.support.dags import END_SECONDS, ask, family, going_in, wait_until
from tests.support.pipeline.flows import proxy


@pytest.fixture
def seed(slow: Served) -> None:
    """The stage has to run again, from its begin."""
    (slow.clone.path / ".reprise/checkpoints/slow").unlink(missing_ok=True)
    path = slow.place.project.path / "seed"
    path.write_text(f"{int(path.read_text()) + 1}\n")


def count_in(clone: Project) -> int:
    """How far the stage has come on a worker."""
    with suppress(FileNotFoundError, ValueError):
        return int((clone.path / ".reprise/checkpoints/slow").read_text())
    return 0


@contextmanager
def held(clone: Project) -> Iterator[Path]:
    """The stage does not end before the block does, or the file is gone."""
    path = clone.path / ".reprise/checkpoints/hold"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def kill(folder: Path, word: str = "") -> int:
    """SIGKILL to every process of a run below `folder` whose command holds `word`."""
    num = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            inside = f"{process.cwd()}/".startswith(f"{folder}/")
            if inside and word in " ".join(process.cmdline()):
                process.kill()
                num += 1
    return num


def resumed_at(said: str) -> list[int]:
    return [int(number) for number in re.findall(r"resumes at (\d+)", said)]


def cancel(url: str, flow_run: str) -> None:
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    ask(url, f"/flow_runs/{flow_run}/set_state", state)


def states_of(place: Place, num: int) -> list[str]:
    return [run["state_type"] for run in place.runs()][-num:]


@pytest.mark.usefixtures("seed")
def test_killed_here_or_there_it_ends_on_both_sides_and_resumes(slow: Served) -> None:
    place, clone = slow.place, slow.clone
    num_before = len(place.runs())
    with held(clone):
        with place.started("slow") as process:
            wait_until(lambda: count_in(clone) >= 3)
            # As by the kernel that is out of memory.
            process.kill()
            assert wait_for_nobody(place, 2 * END_SECONDS) < END_SECONDS
        wait_until(lambda: states_of(place, 1) == ["CANCELLED"])
        first = count_in(clone)
        with place.started("slow") as process:
            wait_until(lambda: count_in(clone) >= first + 3)
            second = count_in(clone)
            assert kill(clone.path, "flow-run execute") + kill(clone.path, "prefect.engine") > 0
            wait_until(lambda: len(place.runs()) == num_before + 3)
            (clone.path / ".reprise/checkpoints/hold").unlink()
            said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said + log_of(place)
    assert "the run in the pool was lost" in said
    # What the killed one has said in its last two seconds is lost with it.
    *_, again = resumed_at(said)
    assert again >= second > first >= 3
    wait_for_nobody(place, END_SECONDS)
    assert states_of(place, 3) == ["CANCELLED", "CRASHED", "COMPLETED"]
    assert place.refs() == ["refs/heads/main"]


@pytest.mark.soak
@pytest.mark.usefixtures("seed")
def test_a_run_is_found_again_and_so_is_its_result(slow: Served) -> None:
    place, clone = slow.place, slow.clone
    project = place.project
    num_before = len(place.runs())
    with held(clone):
        # The machine is gone at one stroke: flow, supervisor, sender.
        with place.started("slow"):
            wait_until(lambda: count_in(clone) >= 3)
            kill(project.path)
            wait_until(lambda: family(project) == [])
        with place.started("slow") as process:
            assert process.stdout is not None
            assert any("joined the run 'slow " in line for line in process.stdout)
            kill(project.path)
    # It ends with nobody there.
    wait_until(lambda: states_of(place, 1) == ["COMPLETED"])
    said = place.run("slow")
    assert "its result is at origin already" in said
    assert "slow │ ran in" in said
    assert len(place.runs()) == num_before + 1
    assert project.run("reprise", "plan", "--check").stdout.strip() == "dvc.lock is current"
    assert place.refs() == ["refs/heads/main"]


@pytest.mark.soak
@pytest.mark.usefixtures("seed")
def test_a_cancel_here_cancels_there(slow: Served) -> None:
    place, clone = slow.place, slow.clone
    with held(clone), place.started("slow") as process:
        wait_until(lambda: count_in(clone) >= 3)
        cancel(place.url, going_in(place.project))
        said, _ = process.communicate(timeout=60)
        wait_for_nobody(place, END_SECONDS)
    assert "cancelled" in said
    wait_until(lambda: states_of(place, 1) == ["CANCELLED"])
    # Where the machine is slow the next run takes the ref along, whatever its state.
    (place.project.path / "seed").write_text("-1\n")
    place.run("slow")
    assert place.refs() == ["refs/heads/main"]


@pytest.mark.soak
@pytest.mark.usefixtures("seed")
def test_a_cancel_there_ends_the_stage_here(slow: Served) -> None:
    place, clone = slow.place, slow.clone
    with held(clone), place.started("slow") as process:
        wait_until(lambda: count_in(clone) >= 3)
        cancel(place.url, place.runs()[-1]["id"])
        said, _ = process.communicate(timeout=60)
        wait_for_nobody(place, END_SECONDS)
    assert process.returncode == 1
    assert "the run in the pool was cancelled in Prefect, not here" in said
    assert place.refs() == ["refs/heads/main"]


@pytest.mark.soak
@pytest.mark.usefixtures("seed")
def test_a_run_that_was_given_up_ends_itself(slow: Served) -> None:
    place, clone = slow.place, slow.clone

    def going() -> int:
        return sum(line.endswith("sh slow.sh") for line in going_for(place))

    with held(clone), place.started("slow") as process:
        wait_until(lambda: count_in(clone) >= 3)
        assert going() >= 1
        # As by a sender that has heard nothing of it for too long.
        state = {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True}
        ask(place.url, f"/flow_runs/{place.runs()[-1]['id']}/set_state", state)
        wait_until(lambda: going() == 0)
        reached = count_in(clone)
        wait_until(lambda: count_in(clone) > reached)
        (clone.path / ".reprise/checkpoints/hold").unlink()
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said + log_of(place)
    assert resumed_at(said)[-1] >= reached
    assert states_of(place, 2) == ["CRASHED", "COMPLETED"]


@pytest.mark.soak
@pytest.mark.parametrize("number", range(20))
def test_a_kill_at_any_moment_on_either_side_loses_nothing(
    slow: Served, tmp_path: Path, number: int
) -> None:
    place, clone = slow.place, slow.clone
    project, dice = place.project, random.Random(number)
    (project.path / "seed").write_text(f"{1000 * (1 + number)}\n")
    num_before, reached = len(place.runs()), 0
    with place.started("slow") as process:
        time.sleep(dice.uniform(3.0, 25.0))
        if number % 2:
            reached = count_in(clone)
            kill(clone.path)
        else:
            process.kill()
        said, _ = process.communicate(timeout=240)
    if number % 2 == 0:
        wait_for_nobody(place, 2 * END_SECONDS)
    else:
        # It is sent again, or its result was at origin already.
        assert process.returncode == 0, said
        # Restored by what the killed one had in the worker's cache already.
        assert re.search(r"slow │ (ran|restored) in", said), said
        # Near its end it may have ended, and forgotten its checkpoint, before the kill.
        if "was lost" in said and 0 < reached < 6:
            assert resumed_at(said)[-1] >= reached, said
    said = place.run("slow")
    assert re.search(
        r"slow │ (ran in|unchanged|restored)" if number % 2 == 0 else r"unchanged", said
    ), said
    assert 1 <= len(place.runs()) - num_before <= 2
    wait_for_nobody(place, END_SECONDS)
    assert place.refs() == ["refs/heads/main"]
    assert project.run("reprise", "plan", "--check").stdout.strip() == "dvc.lock is current"
    project.run("dvc", "pull")
    assert (project.path / "slow.out").read_text() == "slow\n"


@pytest.mark.soak
@pytest.mark.usefixtures("seed")
def test_a_server_that_is_lost_on_the_way_costs_no_result(slow: Served) -> None:
    place, clone = slow.place, slow.clone
    command = ["-m", "pipeline.elsewhere.send", "slow", place.pool]
    with (
        held(clone),
        proxy(place.url) as (url, lose),
        subprocess.Popen(
            [sys.executable, *command],
            cwd=place.project.path,
            env={**project_environment(), **place.environment("slow", PREFECT_API_URL=url)},
            stdout=subprocess.PIPE,
            text=True,
        ) as sender,
    ):
        wait_until(lambda: count_in(clone) >= 3)
        lose()
        (clone.path / ".reprise/checkpoints/hold").unlink()
        said, _ = sender.communicate(timeout=180)
    assert sender.returncode == 0, said
    assert said.count("Prefect's server does not answer") == 1
    assert place.project.run("reprise", "plan", "--check").stdout.strip() == "dvc.lock is current"
