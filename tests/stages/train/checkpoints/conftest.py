"""A training of a small project, to kill and to stop."""

from collections.abc import Iterator

import pytest

from tests.conftest import Project
from tests.support.samples import mixed_table, ready_to_train, set_params


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project with dropout, trained without interruption."""
    changes = {
        "train.epochs": 150,
        "train.early_stopping": {"metric": "loss", "patience": 120},
        "train.schedule": {"name": "warmup_cosine"},
        "train.augment": {"flip": 0, "shift": 0, "noise": 0.1},
        "build.model": {"name": "mlp", "width": 8, "dropout": 0.2},
        "train.ema": 0.99,
        "train.micro_batch_size": 50,
    }
    project = ready_to_train(tmp_path_factory.mktemp("trained"), changes, mixed_table(400))
    project.run("python", "-m", "stages.train")
    return project


@pytest.fixture(scope="module")
def divided(trained: Project) -> Iterator[Project]:
    """The same one, trained by two processes that divide the weights."""
    set_params(trained, {"train.parallel": "fsdp"})
    trained.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"})
    yield trained
    set_params(trained, {"train.parallel": "ddp"})
    trained.run("python", "-m", "stages.train")
