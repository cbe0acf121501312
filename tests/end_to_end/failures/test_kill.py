"""A kill at any moment: afterwards one `dvc repro` has everything back, byte for byte."""

import os
import random
import signal
import subprocess
import time

import pytest

from tests.conftest import Project, project_environment

# What reruns, and until when it is still at it on a fast machine, in seconds.
EDITS = [
    (("patience: 8}", "patience: null}"), 8.0),
    (("split: {seed: 0", "split: {seed: 5"), 10.0),
    (("  - f1_macro\n", "  - f1_macro\n  - brier\n"), 3.0),
]


def kill_at_random_moments(clone: Project, num_kills: int) -> None:
    before = clone.outputs()
    moments = random.Random(7)
    survived = 0
    for number in range(num_kills):
        (old, new), latest_seconds = EDITS[number % len(EDITS)]
        clone.edit("params.yaml", old, new)
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=clone.path,
            env=project_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moments.uniform(0.5, latest_seconds))
        if process.poll() is None:
            survived += 1
            # The whole group, as when the machine goes down.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
        clone.edit("params.yaml", new, old)
        # Rarely the kill meets DVC while it writes a list of its own; the check removes that.
        clone.run("reprise", "check")
        clone.repro()
        assert clone.outputs() == before, f"after kill {number + 1}"
    # A kill after the end would show nothing.
    assert survived > num_kills // 2


def test_a_killed_pipeline_is_whole_after_one_repro(clone: Project) -> None:
    kill_at_random_moments(clone, 3)


@pytest.mark.soak
def test_a_killed_pipeline_is_whole_after_one_repro_every_time(clone: Project) -> None:
    kill_at_random_moments(clone, 40)
