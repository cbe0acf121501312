"""Rows that are varied: what is done to them, and that the processes see the same."""

import pytest
import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch
from stages.training.params import Augment
from stages.training.step.augmentation import flip, make_augment, shift

ALL = Augment(flip=0.5, shift=2, noise=0.1)


def masks(num_rows: int, mine: slice = slice(None), step: int = 0, epoch: int = 1) -> DropoutRng:
    made = DropoutRng(torch.device("cpu"))
    made.begin_epoch(7, epoch)
    made.begin_step(step, num_rows, mine)
    return made


def images(num_rows: int) -> Tensor:
    return torch.arange(num_rows * 2 * 5 * 6, dtype=torch.float32).reshape(num_rows, 2, 5, 6)


def vary(num_rows: int, mine: slice = slice(None), **at: int) -> Batch:
    batch = {"numeric": torch.zeros(num_rows, 3), "image": images(num_rows)}
    own = {kind: values[mine] for kind, values in batch.items()}
    augment = make_augment(ALL, own, masks(num_rows, mine, **at))
    assert augment is not None
    before = {kind: values.clone() for kind, values in own.items()}
    varied = augment(own)
    for kind, values in before.items():
        assert torch.equal(own[kind], values), "what the split holds stays as it is"
    return varied


def test_every_image_is_its_own_or_its_mirror() -> None:
    whole = images(400)
    flipped = flip(whole, 0.25, masks(400))
    same = (flipped == whole).all(dim=(1, 2, 3))
    assert ((flipped == whole.flip(-1)).all(dim=(1, 2, 3)) ^ same).all()
    assert 0.18 < 1 - same.double().mean() < 0.32


def test_every_image_moves_by_whole_pixels_and_its_border_repeats() -> None:
    whole, most = images(300), 2
    padded = torch.nn.functional.pad(whole, (most,) * 4, mode="replicate")
    moves = {
        (y, x): padded[:, :, most + y : most + y + 5, most + x : most + x + 6]
        for y in range(-most, most + 1)
        for x in range(-most, most + 1)
    }
    shifted = shift(whole, most, masks(300))
    counts = {m: int((shifted == v).all(dim=(1, 2, 3)).sum()) for m, v in moves.items()}
    assert sum(counts.values()) == 300
    assert min(counts.values()) > 0, "all moves are drawn"


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    augment = make_augment(
        Augment(flip=0, shift=0, noise=0.3), {"numeric": torch.zeros(1, 4)}, masks(5000)
    )
    assert augment is not None
    noise = augment({"numeric": torch.zeros(5000, 4)})["numeric"]
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert abs(noise.mean().item()) < 0.01


def test_processes_and_micro_batches_draw_what_one_draws() -> None:
    whole = vary(11)
    for mine in (slice(0, 11, 2), slice(1, 11, 2), slice(3, 9)):
        part = vary(11, mine)
        for kind, values in part.items():
            assert torch.equal(values, whole[kind][mine])


def test_each_step_and_epoch_draws_anew_and_the_same_again() -> None:
    first = vary(9)
    assert torch.equal(vary(9)["numeric"], first["numeric"])
    assert not torch.equal(vary(9, step=1)["numeric"], first["numeric"])
    assert not torch.equal(vary(9, epoch=2)["numeric"], first["numeric"])


def test_what_the_features_can_not_have_is_refused() -> None:
    def refused(params: Augment, sample: Batch) -> str:
        with pytest.raises(UserError) as caught:
            make_augment(params, sample, masks(1))
        return str(caught.value)

    said = refused(ALL, {"categorical": torch.zeros(1, 2, dtype=torch.int64)})
    assert "no image to flip" in said
    assert "no image to shift" in said
    assert "no numeric columns" in said
    said = refused(Augment(flip=0, shift=5, noise=0), {"image": images(1)})
    assert "5 x 6 pixels" in said
