"""Corruptions of CIFAR-10-C that can be computed exactly, one function each.

Constants are those of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv:1903.12261), made for images of 32x32;
those of ImageNet-C are far harder on such small ones. Every function takes images (N, C, H, W) in [0, 1], a
severity 1 to 5 and the draws of each image, and returns images in [0, 1], cut to 8 bits as in the released
arrays.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tdsnn.attacks._draws import SampleDraws

Corruption = Callable[[Tensor, int, SampleDraws], Tensor]


def gaussian_noise(x: Tensor, severity: int, draws: SampleDraws) -> Tensor:
    """Normal noise; standard deviation 0.04 to 0.1."""
    return x + (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1] * draws.normal(x)


def shot_noise(x: Tensor, severity: int, draws: SampleDraws) -> Tensor:
    """Poisson noise of 500 to 50 photons for white."""
    photons = (500.0, 250.0, 100.0, 75.0, 50.0)[severity - 1]
    return draws.poisson(x * photons) / photons


def impulse_noise(x: Tensor, severity: int, draws: SampleDraws) -> Tensor:
    """Salt and pepper on 1 to 7 % of the values."""
    return salt_and_pepper(x, (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1], draws)


def salt_and_pepper(x: Tensor, share: float, draws: SampleDraws) -> Tensor:
    """A share of the values becomes 0 or 1, half of them each."""
    u = draws.uniform(x)
    return torch.where(u < share - 1, torch.ones_like(x), torch.where(u >= 1 - share, torch.zeros_like(x), x))


def defocus_blur(x: Tensor, severity: int, draws: SampleDraws) -> Tensor:
    """A disk of radius 0.3 to 1.5, its edge softened by a Gaussian over 3x3."""
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity - 1]
    places = torch.arange(-8.0, 9.0)
    disk = (places[:, None].square() + places.square() <= radius**2).double()
    line = torch.exp(-torch.arange(-1.0, 2.0).double().square() / (2 * sigma**2))
    line = line / line.sum()
    soft = F.conv2d((disk / disk.sum())[None, None], (line[:, None] * line)[None, None], padding=1)
    # Nothing is further out than two pixels, and images may be smaller than the whole kernel.
    kernel = soft[:, :, 5:12, 5:12].to(x).expand(x.shape[1], 1, 7, 7)
    return F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), kernel, groups=x.shape[1])


def brightness(x: Tensor, severity: int, draws: SampleDraws) -> Tensor:
    """The value (of hue, saturation, value) rises by 0.05 to 0.3."""
    value = x.amax(1, keepdim=True)
    raised = (value + (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]).clamp(max=1)
    # Black has no hue and no saturation, so it becomes grey.
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-12)), raised)


def contrast(x: Tensor, severity: int, draws: SampleDraws) -> Tensor:
    """Distances from the mean of each channel shrink to 0.75 to 0.15 of themselves."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1] + mean


def pixelate(x: Tensor, severity: int, draws: SampleDraws) -> Tensor:
    """Reduced to 95 to 65 % of the side by box averages, and enlarged again."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]

    def one(picture: Image.Image) -> Image.Image:
        small = (int(picture.width * share), int(picture.height * share))
        return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BOX)

    return _pictures(x, one)


def jpeg_compression(x: Tensor, severity: int, draws: SampleDraws) -> Tensor:
    """Stored as JPEG of quality 80 to 40."""
    quality = (80, 65, 58, 50, 40)[severity - 1]

    def one(picture: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return _pictures(x, one)


def _pictures(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    pictures = (Image.fromarray(one.squeeze(2) if one.shape[2] == 1 else one) for one in pixels)
    changed = [np.asarray(change(picture)) for picture in pictures]
    stacked = torch.from_numpy(np.stack(changed)).to(x) / 255
    return stacked[:, None] if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2)


CORRUPTIONS: dict[str, Corruption] = {
    one.__name__: one
    for one in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        brightness,
        contrast,
        pixelate,
        jpeg_compression,
    )
}


def corrupted(x: Tensor, kind: str, severity: int, draws: SampleDraws) -> Tensor:
    """Images (N, C, H, W) in [0, 1] under one corruption, cut to 8 bits."""
    found = CORRUPTIONS[kind](x, severity, draws).clamp(0, 1)
    # The smallest share keeps what is exactly a grey level from falling to the one below.
    return torch.floor(found * 255 + 1e-4) / 255
