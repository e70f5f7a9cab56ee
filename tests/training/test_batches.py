"""Learning rate, batch order and augmentation are functions of plain values."""

from itertools import pairwise

import pytest
import torch

from robustloss.data.images import center
from robustloss.seeding import new_generator
from robustloss.spec.training import TrainSpec
from robustloss.training.augment import augment
from robustloss.training.batches import balanced_batches, shuffled_batches
from robustloss.training.optimizer import rate_factor


def spec(**keys):
    return TrainSpec.model_validate(keys)


def test_constant_is_one_everywhere():
    assert [rate_factor(spec(schedule="constant"), step, 10) for step in range(10)] == [1.0] * 10


def test_step_multiplies_at_every_drop():
    stepped = spec(schedule="step", step_every=3, step_factor=0.7)
    expected = [0.7**0] * 3 + [0.7**1] * 3 + [0.7**2] * 3
    assert [rate_factor(stepped, step, 9) for step in range(9)] == pytest.approx(expected)


def test_step_drops_where_a_list_says_so():
    stepped = spec(schedule="step", step_every=[4, 6, 7], step_factor=0.5)
    expected = [1.0] * 4 + [0.5] * 2 + [0.25] + [0.125] * 2
    assert [rate_factor(stepped, step, 9) for step in range(9)] == expected
    regular = spec(schedule="step", step_every=[3, 6], step_factor=0.7)
    every = spec(schedule="step", step_every=3, step_factor=0.7)
    for step in range(9):
        assert rate_factor(regular, step, 9) == rate_factor(every, step, 9)


def test_cosine_falls_from_one_to_zero_and_is_half_way_at_half_time():
    cosine = spec(schedule="cosine")
    assert rate_factor(cosine, 0, 100) == 1.0
    assert rate_factor(cosine, 50, 100) == pytest.approx(0.5)
    assert rate_factor(cosine, 99, 100) < 0.001


def test_one_cycle_rises_to_its_peak_then_falls():
    factors = [rate_factor(spec(schedule="one_cycle", warmup=0.2), s, 100) for s in range(100)]
    assert factors.index(max(factors)) == 20
    assert max(factors) == 1.0
    assert factors[:21] == sorted(factors[:21])
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert 1 / 25 < factors[0] < 0.1


def test_warmup_rises_linearly():
    factors = [rate_factor(spec(schedule="constant", warmup=0.5), s, 20) for s in range(20)]
    steps = [b - a for a, b in pairwise(factors[:11])]
    assert steps == pytest.approx([1 / 11] * 10)
    assert factors[10:] == [1.0] * 10


def test_an_epoch_shows_every_image_at_most_once_and_is_named_by_seed_and_epoch():
    first = torch.cat(list(shuffled_batches(103, 10, seed=0, epoch=0)))
    assert len(first) == 100  # the incomplete batch is left out
    assert len(first.unique()) == 100
    again = torch.cat(list(shuffled_batches(103, 10, seed=0, epoch=0)))
    assert torch.equal(first, again)
    for other in ({"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}):
        assert not torch.equal(first, torch.cat(list(shuffled_batches(103, 10, **other))))


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [len(b) for b in shuffled_batches(7, 10, seed=0, epoch=0)] == [7]


def test_balanced_batches_hold_every_class_equally_often():
    labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 45)
    batches = list(balanced_batches(labels, 3, 12, seed=0, epoch=0))
    assert len(batches) == 100 // 12
    for batch in batches:
        assert torch.bincount(labels[batch], minlength=3).tolist() == [4, 4, 4]


def test_balanced_batches_refuse_an_empty_class():
    with pytest.raises(ValueError, match="class 1 has no training images"):
        list(balanced_batches(torch.tensor([0, 0, 2, 2]), 3, 6, seed=0, epoch=0))


def test_batches_too_small_for_all_classes_take_them_in_turn():
    labels = torch.arange(100).repeat_interleave(9)
    batches = list(balanced_batches(labels, 100, 40, seed=0, epoch=0))
    assert len(batches) == 900 // 40
    for batch in batches:
        counts = torch.bincount(labels[batch], minlength=100)
        assert sorted(counts.unique().tolist()) == [0, 4]
        assert (counts == 4).sum() == 10
    first_round = torch.cat(batches[:10])
    assert torch.bincount(labels[first_round]).tolist() == [4] * 100
    assert len(first_round.unique()) == 400  # no image twice before its class runs out
    again = list(balanced_batches(labels, 100, 40, seed=0, epoch=0))
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


def test_classes_in_turn_refuse_an_empty_class():
    with pytest.raises(ValueError, match="class 1 has no training images"):
        list(balanced_batches(torch.tensor([0, 0, 2, 2]), 3, 4, seed=0, epoch=0))


@pytest.mark.parametrize(("kind", "reach"), [("shift", 2), ("crop", 4), ("crop_flip", 4)])
def test_augmented_images_are_windows_of_the_padded_image(kind, reach):
    images = torch.randint(1, 255, (20, 2, 9, 7), dtype=torch.uint8)
    moved = augment(images, kind, 5, 6)
    padded = torch.nn.functional.pad(images, (reach,) * 4)
    flipped = 0
    for before, after in zip(padded, moved, strict=True):
        windows = [
            (before[:, y : y + 9, x : x + 7], f)
            for y in range(2 * reach + 1)
            for x in range(2 * reach + 1)
            for f in (False, True)
        ]
        hits = [f for window, f in windows if torch.equal(window.flip(2) if f else window, after)]
        assert hits
        flipped += hits == [True]
    assert (flipped > 0) == (kind == "crop_flip")


def test_augmentation_is_named_by_its_stream():
    images = torch.randint(0, 255, (50, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(augment(images, "crop", 1, 2), augment(images, "crop", 1, 2))
    assert not torch.equal(augment(images, "crop", 1, 2), augment(images, "crop", 1, 3))
    assert augment(images, "none", 1) is images


def moved_one_by_one(image, kind, names, number, count, size):
    """The slow way: one image, its own draws, loops over pixels."""
    rng = new_generator("augment", *names)
    channels, height, width = image.shape
    larger = size != (height, width)
    reach = 0 if larger else 2 if kind == "shift" else 4
    if larger:
        share = torch.rand(count, 2, generator=rng, dtype=torch.float64)[number].tolist()
        top = int(share[0] * (height - size[0] + 1))
        left = int(share[1] * (width - size[1] + 1))
    else:
        drawn = torch.randint(0, 2 * reach + 1, (count, 2), generator=rng)[number].tolist()
        top, left = drawn[0] - reach, drawn[1] - reach
    flips = kind in ("crop_flip", "crop_flip_cutout")
    mirrored = flips and bool(torch.rand(count, generator=rng)[number] < 0.5)
    result = torch.zeros(channels, *size, dtype=image.dtype)
    for row in range(size[0]):
        for column in range(size[1]):
            y = top + row
            x = left + (size[1] - 1 - column if mirrored else column)
            if 0 <= y < height and 0 <= x < width:
                result[:, row, column] = image[:, y, x]
    if kind == "crop_flip_cutout":
        side = min(size) // 2
        shares = torch.rand(count, 2, generator=rng)[number]
        top, left = (
            int(share * length) - side // 2 for share, length in zip(shares, size, strict=True)
        )
        for row in range(top, top + side):
            for column in range(left, left + side):
                if 0 <= row < size[0] and 0 <= column < size[1]:
                    result[:, row, column] = 0
    return result


@pytest.mark.parametrize("kind", ["shift", "crop", "crop_flip", "crop_flip_cutout"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("shape", "size"), [((9, 7), (9, 7)), ((9, 12), (6, 7)), ((8, 8), (8, 5))])
def test_augmentation_is_that_of_one_image_at_a_time(kind, channels, shape, size):
    images = torch.randint(1, 256, (17, channels, *shape), dtype=torch.uint8)
    if kind == "shift" and size != shape:  # no crop: the center, then as ever
        expected = augment(center(images, size), kind, 3, 4)
    else:
        each = [moved_one_by_one(i, kind, (3, 4), n, 17, size) for n, i in enumerate(images)]
        expected = torch.stack(each)
    assert torch.equal(augment(images, kind, 3, 4, size=size), expected)


@pytest.mark.parametrize("kind", ["none", "shift", "crop", "crop_flip"])
def test_naming_the_size_that_images_have_changes_nothing(kind):
    images = torch.randint(0, 256, (20, 3, 9, 7), dtype=torch.uint8)
    assert torch.equal(augment(images, kind, 1, size=(9, 7)), augment(images, kind, 1))


def test_the_square_lies_anywhere_and_covers_up_to_a_quarter():
    white = torch.full((4000, 1, 40, 40), 255, dtype=torch.uint8)  # inside its border of 4 pixels
    black = (augment(white, "crop_flip_cutout", 0) == 0)[:, 0, 4:-4, 4:-4]
    crop = (augment(white, "crop_flip", 0) == 0)[:, 0, 4:-4, 4:-4]
    assert not crop.any()
    assert int(black.sum((1, 2)).max()) == 400
    # a square of 20 covers the pixel in the middle if its center is one of 400 of 1,600
    assert abs(float(black[:, 16, 16].double().mean()) - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5
    covered = black.double().mean(0)
    assert torch.allclose(covered, covered.T, atol=0.05)
    assert covered[0, 0] < covered[16, 16]


def test_random_crops_reach_every_place_equally_often():
    images = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3).expand(9000, 1, 3, 3)
    corner = augment(images, "crop", 0, size=(2, 2))[:, 0, 0, 0]
    counts = torch.bincount(corner.long(), minlength=9)
    assert torch.nonzero(counts).flatten().tolist() == [0, 1, 3, 4]
    assert (counts[[0, 1, 3, 4]] - 2250).abs().max() < 5 * (9000 * 0.25 * 0.75) ** 0.5


def test_larger_images_without_crops_give_their_center():
    images = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8)
    assert torch.equal(augment(images, "none", 1, size=(6, 6)), center(images, (6, 6)))
