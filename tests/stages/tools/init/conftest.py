"""Draws that are the same for each test, whichever ran before it."""

import numpy as np
import pytest

from tests.support.stages.looks import RANDOM


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    RANDOM.bit_generator.state = np.random.default_rng(0).bit_generator.state
