"""Trials of a model: rows of the shapes that it is given, and weights that hide nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stages.features.schema import CODES, WORDS
from stages.model.model import ModelSpec

PROBE_ROWS = 2
# Draws of rows and weights, by none of which a kind of columns moves a score if it is not read.
NUM_TRIALS = 3


def probe_batch(spec: ModelSpec, seed: int, num_rows: int = PROBE_ROWS) -> dict[str, Tensor]:
    """Random rows of the shapes that the model is given."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for kind, shape in spec.inputs.items():
        if kind in CODES:
            codes = [torch.randint(n, (num_rows,), generator=generator) for n in shape]
            batch[kind] = torch.stack(codes, dim=1)
        elif kind in WORDS:
            pairs = zip(shape[::2], shape[1::2], strict=True)
            words = [torch.randint(n, (num_rows, size), generator=generator) for size, n in pairs]
            batch[kind] = torch.cat(words, dim=1)
        else:
            batch[kind] = torch.randn(num_rows, *shape, generator=generator)
    return batch


@contextmanager
def at_random_weights(model: nn.Module, seed: int) -> Iterator[None]:
    """Give the model random weights for a while; afterwards it is as it was.

    An output layer that begins at zero would pass nothing on to what is below it, nor from there.
    """
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for weight in model.parameters():
            weight.normal_(std=0.1)
    yield
    model.load_state_dict(kept)


@torch.no_grad()
def find_unread(model: nn.Module, spec: ModelSpec, seed: int) -> list[str]:
    """The kinds of columns whose values change no score, be it by a mistake or not."""
    model.eval()
    unread = list(spec.inputs)
    for trial in range(seed, seed + NUM_TRIALS):
        with at_random_weights(model, trial):
            scores = model(probe_batch(spec, trial))
            for kind in [*unread]:
                others = {kind: probe_batch(spec, trial + NUM_TRIALS)[kind]}
                if not torch.equal(scores, model({**probe_batch(spec, trial), **others})):
                    unread.remove(kind)
    return unread
