"""Rows that are varied: what is done to them, and that the processes see the same."""

import pytest
import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch
from stages.training.params import Augment
from stages.training.step.augmentation import make_augment
from stages.training.step.image_variation import colour, crop_and_turn, cutout, flip, shift

ALL = Augment(flip=0.5, shift=2, noise=0.1, crop=0.4, turn=20, colour=0.3, cutout=0.3)


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


def test_a_turn_moves_each_pixel_around_the_middle_whatever_the_sides() -> None:
    # A dot above the middle of a wide image: turned by 90 degrees it is beside the middle.
    whole = torch.zeros(200, 1, 9, 13)
    whole[:, :, 2, 6] = 1
    turned = crop_and_turn(whole, 0, 90, masks(200))
    y, x = torch.meshgrid(torch.arange(9.0) - 4, torch.arange(13.0) - 6, indexing="ij")
    share = turned[:, 0] / turned[:, 0].sum(dim=(1, 2), keepdim=True)
    up, right = -(share * y).sum(dim=(1, 2)), (share * x).sum(dim=(1, 2))
    assert (up.square() + right.square()).sqrt().sub(2).abs().max() < 0.4
    angles = torch.atan2(right, up).rad2deg()
    assert angles.min() < -75
    assert angles.max() > 75
    assert angles.abs().max() < 91


def test_a_crop_is_a_part_of_the_image_at_the_full_size() -> None:
    ramp = torch.arange(12.0).expand(300, 1, 8, 12)
    cropped = crop_and_turn(ramp, 0.75, 0, masks(300))
    span = (cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]) / 11
    assert cropped.min() >= 0
    assert cropped.max() <= 11
    # Half of the width where a quarter of the area is left, and a sixth less where it is narrow.
    assert 0.4 < span.min() < 0.5
    assert span.max() > 0.9
    assert cropped[:, 0, 0, 0].min() < 0.5
    assert cropped[:, 0, 0, -1].max() > 10.5


def test_colours_change_by_channel_and_a_square_is_cut_out() -> None:
    whole = torch.randn(500, 3, 6, 8)
    varied = colour(whole, 0.2, masks(500))
    ratio = varied.std(dim=(2, 3)) / whole.std(dim=(2, 3))
    moved = (varied - whole).mean(dim=(2, 3))
    for found, middle in ((ratio, 1.0), (moved, 0.0)):
        assert 0.19 < (found - middle).abs().max() <= 0.2001
        assert abs(found.mean() - middle) < 0.02
        assert abs(torch.corrcoef(found.T)[0, 1]) < 0.2
    holes = cutout(whole, 0.5, masks(500)) != whole
    # 3 x 3 pixels, or fewer at a border, in all channels at once.
    counts = holes.sum(dim=(1, 2, 3))
    assert counts.max() == 27
    assert counts.min() >= 3 * 4


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    augment = make_augment(Augment(noise=0.3), {"numeric": torch.zeros(1, 4)}, masks(5000))
    assert augment is not None
    noise = augment({"numeric": torch.zeros(5000, 4)})["numeric"]
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert abs(noise.mean().item()) < 0.01


def test_processes_and_micro_batches_draw_what_one_draws() -> None:
    whole = vary(11)
    for mine in (slice(0, 11, 2), slice(1, 11, 2), slice(3, 9)):
        part = vary(11, mine)
        for kind, values in part.items():
            torch.testing.assert_close(values, whole[kind][mine], rtol=1e-5, atol=1e-4)


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
    assert "no image to cut out of" in said
    assert "no numeric columns" in said
    said = refused(Augment(shift=5), {"image": images(1)})
    assert "5 x 6 pixels" in said
