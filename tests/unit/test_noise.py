"""Noise and corruptions: against independent formulas, and drawn anew at every time step."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from networks import network, pictures
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

import tdsnn
from tdsnn.attacks._base import configure
from tdsnn.attacks._corruptions import CORRUPTIONS, corrupted
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._spec import attack_specs
from tdsnn.errors import GateError, UsageError


def images(n: int = 3, *, channels: int = 3, size: int = 32) -> Tensor:
    """Whole grey levels, so that nothing depends on how they are rounded."""
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), generator=draws).float() / 255


def draws(n: int = 3) -> SampleDraws:
    return SampleDraws(seed=0, stream="test", indices=range(n))


def after(kind: str, severity: int, x: Tensor) -> Tensor:
    return CORRUPTIONS[kind](x, severity, draws(len(x)))


def test_brightness_raises_the_value_and_keeps_hue_and_saturation() -> None:
    x = images()
    hsv = rgb_to_hsv(x.permute(0, 2, 3, 1).double().numpy())
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.2, 0, 1)
    expected = torch.from_numpy(hsv_to_rgb(hsv)).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(after("brightness", 4, x), expected, atol=1e-6, rtol=0)
    grey = images(channels=1)
    torch.testing.assert_close(after("brightness", 4, grey), (grey + 0.2).clamp(max=1))
    assert torch.equal(after("brightness", 4, torch.zeros(1, 3, 8, 8)), torch.full((1, 3, 8, 8), 0.2))


def test_contrast_shrinks_towards_the_mean_of_each_channel() -> None:
    x = images()
    expected = torch.stack([(one - one.mean()) * 0.15 + one.mean() for one in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(after("contrast", 5, x), expected)


@pytest.mark.parametrize(("severity", "radius", "sigma"), [(1, 0.3, 0.4), (4, 1.0, 0.2), (5, 1.5, 0.1)])
def test_defocus_is_a_soft_disk(severity: int, radius: float, sigma: float) -> None:
    x = images(1)
    y, z = np.mgrid[-8:9, -8:9]
    disk = (y**2 + z**2 <= radius**2).astype(float)
    line = np.exp(-(np.array([-1.0, 0.0, 1.0]) ** 2) / (2 * sigma**2))
    soft = ndimage.convolve(disk / disk.sum(), np.outer(line, line) / line.sum() ** 2, mode="constant")
    expected = np.stack([ndimage.convolve(one.astype(float), soft, mode="mirror") for one in x[0].numpy()])
    np.testing.assert_allclose(after("defocus_blur", severity, x)[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_and_pixels_are_pillows(channels: int) -> None:
    x = images(1, channels=channels)
    pixels = (x[0] * 255).byte().permute(1, 2, 0).squeeze().numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=40)
    stored = torch.from_numpy(np.asarray(Image.open(stream)).copy()).float() / 255
    assert torch.equal(after("jpeg_compression", 5, x)[0].permute(1, 2, 0).squeeze(), stored)
    small = Image.fromarray(pixels).resize((20, 20), Image.Resampling.BOX)
    blocks = torch.from_numpy(np.asarray(small.resize((32, 32), Image.Resampling.BOX)).copy()).float() / 255
    assert torch.equal(after("pixelate", 5, x)[0].permute(1, 2, 0).squeeze(), blocks)


def test_draws_have_the_distribution_that_they_say() -> None:
    grey = torch.full((3, 1, 100, 100), 0.5)
    shot = after("shot_noise", 5, grey)
    assert shot.mean().item() == pytest.approx(0.5, abs=0.003)
    assert shot.var().item() == pytest.approx(0.5 / 50, rel=0.05)
    impulse = after("impulse_noise", 5, grey)
    assert (impulse == 1).float().mean().item() == pytest.approx(0.035, abs=0.004)
    assert (impulse == 0).float().mean().item() == pytest.approx(0.035, abs=0.004)
    assert after("gaussian_noise", 1, grey).std().item() == pytest.approx(0.04, rel=0.03)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("severity", range(1, 6))
def test_every_corruption_gives_whole_grey_levels(kind: str, severity: int) -> None:
    found = corrupted(images(2, size=16), kind, severity, draws(2))
    assert found.shape == (2, 3, 16, 16)
    assert found.min() >= 0
    assert found.max() <= 1
    torch.testing.assert_close(found * 255, (found * 255).round(), atol=1e-3, rtol=0)


def test_a_covered_pixel_is_covered_in_all_channels() -> None:
    x = torch.full((2, 3, 60, 60), 0.7)
    masked = configure("pixel_masking", fill=0.2).disturb(x, 0.3, draws(2))  # type: ignore[attr-defined]
    covered = masked == 0.2
    assert torch.equal(covered.all(1), covered.any(1))
    assert covered.float().mean().item() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("text", "eps"),
    [("pixel_masking:eps=40", 0.4), ("corruption:contrast,eps=3", 0.6), ("gaussian:eps=8/255", 8 / 255)],
)
def test_strengths_are_typed_in_units_of_their_own(text: str, eps: float) -> None:
    (spec,) = attack_specs([text])
    assert spec.eps(*spec.strengths) == pytest.approx(eps)
    with pytest.raises(UsageError, match="must lie in"):
        attack_specs([text.partition("eps=")[0] + "eps=300"])


def test_noise_of_every_step_is_what_the_network_sees_at_that_step() -> None:
    model = network("sresnet18", timesteps=3)
    x = pictures(4)
    y = model(x).argmax(1)
    static, anew = (configure("gaussian", draw=draw) for draw in ("static", "per-step"))
    frames = anew.run(model, x, y, eps=0.3, norm=None, task=None, generator=draws(4))  # type: ignore[arg-type]
    assert frames.shape == (3, *x.shape)
    assert not torch.equal(frames[0], frames[1])
    # The same frame at every step is what the network sees anyway.
    torch.testing.assert_close(
        model.outputs_of_frames(x.expand(3, *x.shape)), model.logits_over_time(x), atol=1e-4, rtol=1e-4
    )
    found = anew.perturb(model, x, y, eps=0.3, indices=range(4))
    once = static.perturb(model, x, y, eps=0.3, indices=range(4))
    assert found.x_adv.shape == once.x_adv.shape == x.shape
    expected = model.outputs_of_frames(
        anew.run(
            model,
            x,
            y,
            eps=0.3,
            norm=None,
            task=None,  # type: ignore[arg-type]
            generator=SampleDraws(seed=0, stream="gaussian", indices=range(4)),
        )
    ).mean(0)
    assert torch.equal(found.robust, expected.argmax(1) == y)


def test_who_unrolls_time_inside_cannot_be_shown_other_images() -> None:
    inside = tdsnn.adapt(nn.Flatten(), time="inside", timesteps=2)
    with pytest.raises(GateError, match="time axis inside"):
        configure("gaussian", draw="per-step").perturb(
            inside,
            torch.rand(2, 1, 1, 3),
            torch.tensor([0, 1]),
            eps=0.5,
            indices=range(2),
            clean=torch.ones(2),
        )
    loop = tdsnn.adapt(nn.Flatten(), time="loop", timesteps=2)
    frames = torch.rand(2, 4, 1, 1, 3)
    assert torch.equal(loop.outputs_of_frames(frames), frames.flatten(2))
