"""Numbers that a model computes from train rows before its first step: bins, first weights."""

from collections.abc import Sequence

import torch
from torch import nn

from stages.model.model import PRETRAINED
from stages.training.data.source import Source, rows_at_once

# Evenly spaced over the train rows. Quantiles of so many are within a third of a percent.
MAX_ROWS = 100_000


@torch.no_grad()
def fit_model(model: nn.Module, source: Source, words: Sequence[Sequence[str]], seed: int) -> None:
    """Call `model.read_words(words)`, and `model.fit(batch, target)` with train rows.

    Each where the model has it. `words` are those of each column of texts, in the order of their
    codes, of which the first is 2.

    It sets buffers, or weights that need not start at random, but for those from a file
    (`build.pretrained`); both travel in the model's file. The rows are on the model's device, at
    most MAX_ROWS of them, and what is drawn follows from `seed`: every process and every resumed
    training gets the same.
    """
    read_words, fit = getattr(model, "read_words", None), getattr(model, "fit", None)
    if read_words is not None and words:
        read_words(words)
    if fit is None:
        return
    # Fewer of large rows, such as images, so that memory holds them.
    step = -(-len(source) // min(MAX_ROWS, max(1, rows_at_once(source) * 32)))
    batch, target = source.take(torch.arange(0, len(source), step))
    pretrained = [(w, w.clone()) for w in model.parameters() if hasattr(w, PRETRAINED)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fit(batch, target)
    for weight, taken in pretrained:
        weight.copy_(taken)
