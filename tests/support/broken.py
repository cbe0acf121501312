"""Stages that fail for real, in this process: code of one's own that breaks, and what is noted."""

import contextlib
import importlib.util
import sys

import pytest

from pipeline.doctor.attempts import Attempt, read_attempts
from stages.common.user_code import own_errors
from stages.runtime.attempt import noted_attempt
from tests.conftest import Project
from tests.support.samples import run_stages

MODEL = """
import torch
from torch import nn
from stages.common.config import Config

class Arguments(Config):
    pass

class Model(nn.Module):
    def __init__(self, arguments, inputs, num_outputs):
        super().__init__()
        width = inputs["numeric"][0]
        {made}

    def forward(self, batch):
        x = batch["numeric"]
        {returned}
"""
DATASET = """
import os, signal, torch
from stages.common.config import Config

class Arguments(Config):
    pass

class Dataset(torch.utils.data.Dataset):
    def __init__(self, arguments, rows, *, train):
        self.rows, self.train = rows, train

    def __getitem__(self, row):
        features, target = self.rows.take(row)
        {returned}
"""


def own_code(
    project: Project, kind: str, name: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put a file into the project's zoo and let this process import it from there."""
    path = project.path / f"stages/zoo/{kind}/{name}.py"
    path.write_text(code, encoding="utf-8")
    module = f"stages.zoo.{kind}.{name}"
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    monkeypatch.setitem(sys.modules, module, loaded)


def fail(project: Project, stage: str) -> Attempt:
    """What a stage has noted that fails."""
    with contextlib.chdir(project.path):
        with pytest.raises(BaseException), noted_attempt(stage), own_errors(""):  # noqa: B017, PT011
            run_stages(project, stage)
        return next(attempt for attempt in read_attempts() if attempt.stage == stage)
