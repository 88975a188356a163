"""Full-field sine gratings for any input size.

The design of TDANN (Margalit et al. 2024): 8 orientations, 8 spatial frequencies, 5 phases and 2 colours. Its
frequencies are kept in cycles per pixel: in cycles per image all but one would alias at 32 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.topography.responses import StimulusSet

_PUBLISHED_SIZE = 224
_PUBLISHED_CYCLES = (5.5, 96.94)
"""Lowest and highest frequency in cycles per image of 224 pixels; the others lie evenly between."""
_FREQUENCIES = 8
_COLOURS = ("black/white", "red/cyan")
_SIGNS = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0))
"""By colour: whether a channel follows the wave or its opposite."""


def gratings(
    shape: tuple[int, int, int],
    *,
    orientations: int = 8,
    cycles_per_image: Sequence[float] | None = None,
    phases: int = 5,
) -> StimulusSet:
    """Every combination of orientation, spatial frequency, phase and colour once.

    An image is 0.5 + 0.5 sin, sampled at the pixels' centres from the middle of the image; its mean over
    the phases (two or more) is 0.5 at each pixel.

    Args:
        shape: (C, H, W) of an image; C = 1 has black/white only, C = 3 red/cyan too.
        orientations: how many, evenly over 180 degrees. The angle is that of the bars, counter-clockwise,
            0 for horizontal ones.
        cycles_per_image: spatial frequencies, per H pixels in whatever direction; by default 8 of them,
            0.0246 H to 0.433 H.
        phases: how many, evenly over 360 degrees.

    Raises:
        UsageError: channels other than 1 or 3, or a frequency that H pixels cannot show.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise UsageError(
            f"Gratings have 1 channel (black/white) or 3 (black/white and red/cyan), not {channels}.",
            hint="For other inputs make a StimulusSet of your own.",
        )
    if min(height, width, orientations, phases) < 1:
        raise UsageError(
            f"Gratings need at least one pixel, orientation and phase, not {shape}, {orientations}, {phases}."
        )
    cycles = _published_cycles(height) if cycles_per_image is None else tuple(map(float, cycles_per_image))
    _check_cycles(cycles, height)
    levels: dict[str, tuple[str | float, ...]] = {
        "orientation_deg": tuple(180.0 * k / orientations for k in range(orientations)),
        "cycles_per_image": cycles,
        "phase_deg": tuple(360.0 * k / phases for k in range(phases)),
        "colour": _COLOURS if channels == 3 else _COLOURS[:1],
    }
    indices = torch.cartesian_prod(*(torch.arange(len(values)) for values in levels.values()))
    waves_OFPHW = _waves(orientations, cycles, phases, height=height, width=width)
    signs = torch.tensor(_SIGNS[: len(levels["colour"])])[:, :channels]
    images = 0.5 + 0.5 * torch.einsum("ofphw,kc->ofpkchw", waves_OFPHW, signs)
    return StimulusSet(
        name="gratings",
        images=images.reshape(-1, channels, height, width),
        factors=dict(zip(levels, indices.unbind(1), strict=True)),
        levels=levels,
    )


def _published_cycles(height: int) -> tuple[float, ...]:
    """TDANN's frequencies, in cycles per ``height`` pixels."""
    low, high = (cycles * height / _PUBLISHED_SIZE for cycles in _PUBLISHED_CYCLES)
    return tuple(low + (high - low) * k / (_FREQUENCIES - 1) for k in range(_FREQUENCIES))


def _check_cycles(cycles: tuple[float, ...], height: int) -> None:
    # A wave below Nyquist is so along both axes too, whatever its direction, so it cannot alias.
    wrong = [one for one in cycles if not 0 < one < height / 2]
    if wrong or not cycles:
        listed = ", ".join(f"{one:g}" for one in wrong) or "none"
        raise UsageError(
            f"Spatial frequencies must lie above 0 and below {height / 2:g} cycles per image, half of its "
            f"{height} pixels; given: {listed}."
        )


def _waves(orientations: int, cycles: tuple[float, ...], phases: int, *, height: int, width: int) -> Tensor:
    """Sines (O, F, P, H, W), float32, computed in float64."""
    angle = torch.arange(orientations, dtype=torch.float64) * math.pi / orientations
    down = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    right = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    across_OHW = (
        angle.sin()[:, None, None] * right[None, None, :] + angle.cos()[:, None, None] * down[None, :, None]
    )
    per_pixel_F = torch.tensor(cycles, dtype=torch.float64) / height
    turns_P = torch.arange(phases, dtype=torch.float64) / phases
    turns = across_OHW[:, None, None] * per_pixel_F[:, None, None, None] + turns_P[:, None, None]
    return turns.mul_(2 * math.pi).sin_().float()
