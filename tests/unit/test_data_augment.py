"""Augmentation: what each kind may do to an image, and that draws come from the generator alone."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdsnn.data._augment import _AUGMENTATIONS, Part, augment, crop_padding, cutout_size
from tdsnn.data._torchvision import MIXTURES, mix
from tdsnn.errors import UsageError
from tdsnn.schema import Augmentation
from tdsnn.training.images import DECODED

ALL = get_args(Augmentation)
"""What a manifest may name."""

batches = st.builds(
    lambda count, channels, height, width, seed: torch.randint(
        1, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator(seed)
    ),
    st.integers(1, 9),
    st.sampled_from((1, 3)),
    st.integers(2, 40),
    st.integers(2, 40),
    st.integers(0, 2**31),
)


def test_manifests_may_name_all_that_there_are() -> None:
    assert set(ALL) == {*_AUGMENTATIONS, *MIXTURES, DECODED}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(
    images=batches,
    names=st.lists(st.sampled_from(tuple(_AUGMENTATIONS)), max_size=4),
    seed=st.integers(0, 2**31),
)
def test_form_is_kept_input_is_untouched_and_the_generator_decides(
    images: torch.Tensor, names: list[str], seed: int
) -> None:
    before = images.clone()
    result = augment(images, names, generator=generator(seed))
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(augment(images, names, generator=generator(seed)), result)


@settings(max_examples=30, deadline=None)
@given(images=batches, seed=st.integers(0, 2**31))
def test_crop_is_a_window_of_the_reflected_image(images: torch.Tensor, seed: int) -> None:
    result = augment(images, ["crop"], generator=generator(seed)).numpy()
    _, _, height, width = images.shape
    down, right = crop_padding(height), crop_padding(width)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (down, down), (right, right)), mode="reflect")
    for sample, source in zip(result, padded, strict=True):
        windows = (
            source[:, top : top + height, left : left + width]
            for top in range(2 * down + 1)
            for left in range(2 * right + 1)
        )
        assert any(np.array_equal(sample, window) for window in windows)


@settings(max_examples=30, deadline=None)
@given(images=batches, seed=st.integers(0, 2**31))
def test_cutout_clears_one_rectangle_and_nothing_else(images: torch.Tensor, seed: int) -> None:
    result = augment(images, ["cutout"], generator=generator(seed))
    for sample, source in zip(result, images, strict=True):
        cleared = sample[0] == 0
        rows, columns = cleared.any(1), cleared.any(0)
        assert 1 <= rows.sum() <= cutout_size(images.shape[2])
        assert 1 <= columns.sum() <= cutout_size(images.shape[3])
        assert torch.equal(cleared, rows[:, None] & columns[None, :])
        assert torch.equal(sample, source * ~cleared)


def test_every_shift_and_both_mirrorings_occur_about_equally_often() -> None:
    count, side = 20_000, 28
    ramp = torch.arange(side * side).view(1, 1, side, side) % 251
    images = ramp.to(torch.uint8).expand(count, 1, side, side)
    pad = crop_padding(side)
    centre = augment(images, ["crop"], generator=generator(1))[:, 0, side // 2, side // 2]
    expected = {
        int(images[0, 0, side // 2 + down, side // 2 + right])
        for down in range(-pad, pad + 1)
        for right in range(-pad, pad + 1)
    }
    values, counts = centre.unique(return_counts=True)
    assert set(values.tolist()) == expected
    assert counts.min() > 0.8 * count / len(expected)
    flipped = augment(images, ["flip"], generator=generator(2))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert 0.48 < mirrored.float().mean() < 0.52


def test_names_are_applied_in_order() -> None:
    images = torch.randint(1, 256, (64, 1, 28, 28), dtype=torch.uint8, generator=generator(3))
    stepwise = generator(4)
    expected = augment(augment(images, ["cutout"], generator=stepwise), ["crop"], generator=stepwise)
    assert torch.equal(augment(images, ["cutout", "crop"], generator=generator(4)), expected)
    assert not torch.equal(augment(images, ["crop", "cutout"], generator=generator(4)), expected)


def test_stated_sizes() -> None:
    assert [crop_padding(side) for side in (8, 28, 32, 64)] == [1, 2, 4, 8]
    assert [cutout_size(side) for side in (8, 28, 32)] == [2, 7, 8]


def test_unknown_name_is_refused_with_the_nearest_one() -> None:
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(UsageError, match="Did you mean flip") as caught:
        augment(images, ["crop", "flop"], generator=generator(0))
    assert "crop, cutout, flip" in caught.value.hint


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)])
def test_other_than_batches_of_bytes_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="uint8"):
        augment(images, ["flip"], generator=generator(0))


@pytest.mark.parametrize("size", [2, 3])
def test_a_part_of_a_batch_looks_as_in_the_whole(size: int) -> None:
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=generator(0))
    names = ["crop", "flip", "cutout"]
    whole = augment(images, names, generator=generator(5))
    for rank in range(size):
        own = augment(images[rank::size], names, generator=generator(5), part=Part(rank, size))
        assert torch.equal(own, whole[rank::size])


def test_randaugment_draws_for_each_image_and_alike_in_a_shared_batch() -> None:
    one = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=generator(0))
    whole = augment(one.expand(12, -1, -1, -1), ["randaugment"], generator=generator(1))
    assert len({image.numpy().tobytes() for image in whole}) > 6
    for rank in range(3):
        mine = augment(one.expand(4, -1, -1, -1), ["randaugment"], generator=generator(1), part=Part(rank, 3))
        assert torch.equal(mine, whole[rank::3])


def test_draws_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    images = torch.rand(4, 3, 8, 8, generator=generator(0))
    mix(images, torch.arange(4), MIXTURES, classes=5, seed=3)
    augment((255 * images).byte(), ["randaugment"], generator=generator(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_mixtures_are_of_two_neighbours_and_say_how_much_of_each() -> None:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
    seen = set()
    for seed in range(12):
        mixed, shares = mix(images, torch.arange(4), MIXTURES, classes=5, seed=seed)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))
        assert ((shares > 0).sum(1) <= 2).all()
        # Of images that are their class everywhere the mean pixel is the mean class.
        torch.testing.assert_close(mixed.mean((1, 2, 3)), shares @ torch.arange(5.0))
        seen.add("mixup" if len(mixed[1].unique()) == 1 else "cutmix")
        assert all(
            map(torch.equal, mix(images, torch.arange(4), MIXTURES, classes=5, seed=seed), (mixed, shares))
        )
    assert seen == {"mixup", "cutmix"}
