"""Gratings show what their factors say."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.topography.gratings import gratings
from tdsnn.topography.responses import StimulusSet

_PADDED = 256


def stated(stimuli: StimulusSet, factor: str) -> Tensor:
    """(S,) the level of each image."""
    return torch.tensor(stimuli.levels[factor])[stimuli.factors[factor]]


def dominant(images_SHW: Tensor) -> tuple[Tensor, Tensor]:
    """Strongest frequency in cycles per H pixels, and orientation of the bars in degrees."""
    _, height, width = images_SHW.shape
    window = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    spectrum = torch.fft.rfft2((images_SHW - 0.5) * window, s=(_PADDED, _PADDED)).abs()
    peak = spectrum.flatten(1).argmax(1)
    down = torch.fft.fftfreq(_PADDED)[peak // spectrum.shape[2]]
    right = torch.fft.rfftfreq(_PADDED)[peak % spectrum.shape[2]]
    return torch.hypot(down, right) * height, torch.rad2deg(torch.atan2(right, down)) % 180


@pytest.mark.parametrize(("shape", "lowest"), [((1, 112, 112), 0.0), ((3, 32, 32), 2.0), ((1, 64, 48), 2.0)])
def test_the_spectrum_peaks_where_the_factors_say(shape: tuple[int, int, int], lowest: float) -> None:
    stimuli = gratings(shape)
    # Fewer cycles than two leave no peak apart from its mirror image.
    shown = stated(stimuli, "cycles_per_image") > lowest
    cycles, orientation = dominant(stimuli.images[shown, 0])
    expected = stated(stimuli, "cycles_per_image")[shown]
    torch.testing.assert_close(cycles, expected, rtol=0.0, atol=0.35)
    apart = (orientation - stated(stimuli, "orientation_deg")[shown] + 90) % 180 - 90
    # Half a cycle across the wave turns the slowest waves the most.
    assert (apart.abs() < torch.rad2deg(0.35 / expected)).all()


def test_every_combination_comes_once_and_stays_in_range() -> None:
    stimuli = gratings((3, 32, 32))
    assert stimuli.images.shape == (640, 3, 32, 32)
    assert stimuli.images.dtype == torch.float32
    assert stimuli.images.min() >= 0
    assert stimuli.images.max() <= 1
    assert stimuli.images.max() - stimuli.images.min() > 0.99
    combinations = list(zip(*(factor.tolist() for factor in stimuli.factors.values()), strict=True))
    sizes = [len(levels) for levels in stimuli.levels.values()]
    assert sizes == [8, 8, 5, 2]
    assert sorted(combinations) == list(itertools.product(*map(range, sizes)))
    assert len(gratings((1, 32, 32)).images) == 320


def test_the_published_frequencies_are_scaled_to_the_pixels() -> None:
    published = [0.79, 2.65, 4.52, 6.38, 8.25, 10.12, 11.98, 13.85]
    assert gratings((3, 32, 32)).levels["cycles_per_image"] == pytest.approx(published, abs=5e-3)
    original = gratings((1, 224, 224), orientations=1, phases=1).levels["cycles_per_image"]
    assert original == pytest.approx([5.5 + k * (96.94 - 5.5) / 7 for k in range(8)])


def test_the_phases_add_up_to_grey_at_each_pixel() -> None:
    stimuli = gratings((3, 16, 16))
    by_phase = stimuli.images.view(8, 8, 5, 2, 3, 16, 16)
    torch.testing.assert_close(by_phase.mean(2), torch.full((8, 8, 2, 3, 16, 16), 0.5))
    # The middle of the image lies between its pixels, at the stated phase.
    even = gratings((1, 15, 15)).images.view(8, 8, 5, 15, 15)[..., 7, 7]
    expected = 0.5 + 0.5 * torch.deg2rad(torch.arange(5) * 72.0).sin()
    torch.testing.assert_close(even, expected.expand(8, 8, 5))


def test_bars_turn_counter_clockwise_from_horizontal() -> None:
    stimuli = gratings((1, 24, 24), orientations=4, cycles_per_image=[5])
    flat, rising, upright, falling = stimuli.images.view(4, 5, 24, 24)
    torch.testing.assert_close(flat[..., 1:], flat[..., :-1])
    torch.testing.assert_close(upright[:, 1:], upright[:, :-1])
    torch.testing.assert_close(rising[:, :-1, 1:], rising[:, 1:, :-1])
    torch.testing.assert_close(falling[:, 1:, 1:], falling[:, :-1, :-1])


def test_colours() -> None:
    stimuli = gratings((3, 16, 16))
    black_white, red_cyan = (stimuli.images[stimuli.factors["colour"] == colour] for colour in (0, 1))
    assert stimuli.levels["colour"] == ("black/white", "red/cyan")
    assert torch.equal(black_white[:, 0], black_white[:, 1])
    assert torch.equal(black_white[:, 0], black_white[:, 2])
    torch.testing.assert_close(red_cyan[:, 0], 1 - red_cyan[:, 1])
    assert torch.equal(red_cyan[:, 1], red_cyan[:, 2])
    assert torch.equal(red_cyan[:, 0], black_white[:, 0])


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_channels_are_refused(channels: int) -> None:
    with pytest.raises(UsageError, match=f"not {channels}"):
        gratings((channels, 32, 32))


@pytest.mark.parametrize("cycles", [[4.0, 16.0], [20.0], [0.0], [-1.0], [float("nan")], []])
def test_frequencies_that_cannot_be_shown_are_refused(cycles: list[float]) -> None:
    with pytest.raises(UsageError, match="below 16 cycles"):
        gratings((1, 32, 32), cycles_per_image=cycles)


@pytest.mark.parametrize("empty", [{"orientations": 0}, {"phases": 0}])
def test_empty_sets_are_refused(empty: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least one"):
        gratings((1, 32, 32), **empty)
