"""Other people's networks: wrapped, refused, attacked, from Python and from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import run
from PIL import Image
from torch import Tensor, nn

import tdsnn
from tdsnn.data._own import open_test_split
from tdsnn.errors import GateError, IntegrityError, UsageError
from tdsnn.kernels.surrogates import read_surrogate

N, CLASSES = 12, 3


class Plain(nn.Module):
    """(N, 1, 4, 4) to (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


class Remembering(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.before = torch.zeros(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x) + self.before
        self.before = found.mean(0).detach()
        return found


class Noisy(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class Several(Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        found = super().forward(x)
        return found, found.exp()


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (N, 1, 4, 4), dtype=np.uint8)
    with torch.no_grad():
        labels = Plain()(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    labels[0] = (labels[0] + 1) % CLASSES
    return images, labels


def test_a_module_is_benched_as_it_is(arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    result = tdsnn.bench(Plain(), data=arrays, attacks=["pgd:steps=3"], eps=[2, 60], n=N, out=tmp_path)
    clean, weak, strong = result.cells
    assert clean.accuracy is not None
    assert clean.accuracy.value == pytest.approx(100 * (N - 1) / N)
    assert clean.model == "Plain"
    assert weak.survivors is not None
    assert strong.survivors is not None
    assert strong.survivors < weak.survivors
    assert result.models[0]["attack_surrogate"] is None or "not known" in result.models[0]["attack_surrogate"]
    # The same weights again are the same cells.
    again = tdsnn.bench(Plain(), data=arrays, attacks=["pgd:steps=3"], eps=[2, 60], n=N, out=tmp_path)
    assert len(again.provenance["reused_cells"]) == 3


@pytest.mark.parametrize("net", [Remembering(), Noisy()], ids=["state", "draws"])
def test_what_answers_differently_is_refused(
    net: nn.Module, arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    result = tdsnn.bench(net, data=arrays, n=N, out=tmp_path)
    assert {cell.accuracy for cell in result.cells} == {None}
    assert "same batch twice" in str(result.models[0]["refused"])
    reset = tdsnn.adapt(Remembering(), reset=lambda net: setattr(net, "before", torch.zeros(CLASSES)))
    healthy = tdsnn.bench(reset, data=arrays, eps=[2], n=N, out=tmp_path / "reset")
    assert healthy.cells[0].accuracy is not None


def test_several_answers_need_a_choice(arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="returns 2 things, not a tensor") as refused:
        tdsnn.bench(Several(), data=arrays, n=N, out=tmp_path)
    assert "output=0" in refused.value.hint
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(tdsnn.adapt(Several(), output=0)(x), Plain()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "outside"}, "'inside', 'loop', 'sequence'"),
        ({"timesteps": 0}, "at least 1"),
        ({"timesteps": 1.5}, "at least 1"),
        ({"mean": (0.5,)}, "come together"),
        ({"mean": (0.5,), "std": (0.0,)}, "std above 0"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tdsnn.adapt(Plain(), **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"torch\.nn\.Module, not int"):
        tdsnn.adapt(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("time", "message"), [("sequence", r"\(T, 2, K\), time first"), ("inside", r"expected is \(2, K\)")]
)
def test_a_wrong_shape_says_what_was_expected(time: str, message: str) -> None:
    net = nn.Flatten(0) if time == "inside" else nn.Flatten(1, 4)
    with pytest.raises(UsageError, match=message):
        tdsnn.adapt(net, time=time, timesteps=2)(torch.rand(2, 1, 4, 4))  # type: ignore[arg-type]


def test_normalisation_and_encoding_are_inside() -> None:
    x, net = torch.rand(2, 1, 4, 4), Plain()
    wrapped = tdsnn.adapt(
        net, time="loop", timesteps=2, mean=(0.5,), std=(0.25,), encode=lambda image, step: image * step
    )
    expected = (net(0 * x) + net((x - 0.5) / 0.25)) / 2
    torch.testing.assert_close(wrapped(x), expected)


class TestSpikingJelly:
    @pytest.fixture
    def net(self) -> nn.Module:
        jelly = pytest.importorskip("spikingjelly.activation_based")
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        del jelly
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = nn.Sequential(
                layer.Flatten(),
                layer.Linear(16, 32),
                neuron.LIFNode(surrogate_function=surrogate.ATan(), decay_input=False),
                layer.Linear(32, CLASSES),
            )
        functional.set_step_mode(net, "m")
        return net

    def test_nothing_is_remembered_and_both_ways_to_step_agree(self, net: nn.Module) -> None:
        from spikingjelly.activation_based import functional

        x = torch.rand(4, 1, 4, 4)
        together = tdsnn.adapt(net, time="sequence", timesteps=3)
        first = together(x)
        assert torch.equal(first, together(x))
        assert together(x[:2]).shape == (2, CLASSES)
        functional.reset_net(net)
        functional.set_step_mode(net, "s")
        torch.testing.assert_close(tdsnn.adapt(net, time="loop", timesteps=3)(x), first)

    def test_another_derivative_leaves_the_spikes_and_the_network_alone(self, net: nn.Module) -> None:
        wrapped = tdsnn.adapt(net, time="sequence", timesteps=3)
        assert "ATan" in wrapped.surrogates[0]
        x = torch.rand(4, 1, 4, 4)
        expected, before = wrapped(x), gradient(wrapped, x)
        other = wrapped.with_surrogate(read_surrogate("triangle-1"))
        assert torch.equal(other(x), expected)
        assert not torch.allclose(gradient(other, x), before)
        same = wrapped.with_surrogate(read_surrogate("atan-2"))
        torch.testing.assert_close(gradient(same, x), before)
        assert torch.equal(gradient(wrapped, x), before)
        assert next(other.parameters()) is next(wrapped.parameters())

    def test_adaptive_surrogates_follow_the_samples_that_are_left(self, net: nn.Module) -> None:
        """Of this project's own layer and of the wrapped one, with equal weights: the same gradients."""
        wrapped = tdsnn.adapt(net, time="sequence", timesteps=3).with_surrogate(read_surrogate("assg-0.4"))
        x = torch.rand(4, 1, 4, 4)
        for _ in range(3):
            all_of_them = gradient(wrapped, x)
        wrapped.keep_samples(torch.tensor([True, False, True, False]))
        again = tdsnn.adapt(net, time="sequence", timesteps=3).with_surrogate(read_surrogate("assg-0.4"))
        for _ in range(3):
            few = gradient(again, x[::2])
        torch.testing.assert_close(few, all_of_them[::2])
        torch.testing.assert_close(gradient(again, x[::2]), gradient(wrapped, x[::2]))

    @pytest.mark.parametrize("surrogate", ["assg-0.425", "pdsg", "hart-0.5"])
    def test_a_suite_attacks_through_it(
        self, net: nn.Module, surrogate: str, arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path
    ) -> None:
        wrapped = tdsnn.adapt(net, time="sequence", timesteps=3, name="jelly")
        attack = f"sapgd:steps=4,surrogate={surrogate}"
        result = tdsnn.bench(wrapped, data=arrays, attacks=attack, eps=20, n=N, out=tmp_path)
        # What needs all steps at once is refused, and says so.
        assert (result.cells[1].error is None) == (surrogate != "hart-0.5")


def test_a_network_of_snntorch_with_another_derivative() -> None:
    snntorch = pytest.importorskip("snntorch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16, 32),
            snntorch.Leaky(beta=0.9, init_hidden=True),
            nn.Linear(32, CLASSES),
            snntorch.Leaky(beta=0.9, init_hidden=True, output=True),
        )
    wrapped = tdsnn.adapt(net, time="loop", timesteps=5, output=1)
    x = 3 * torch.rand(4, 1, 4, 4)
    first = wrapped(x)
    assert torch.equal(first, wrapped(x))
    assert wrapped.weights_sha256 == tdsnn.adapt(net, time="loop", timesteps=5, output=1).weights_sha256
    other = wrapped.with_surrogate(read_surrogate("triangle-1"))
    assert torch.equal(other(x), first)
    assert not torch.allclose(gradient(other, x), gradient(wrapped, x))


def test_no_spiking_layer_no_other_derivative() -> None:
    without = tdsnn.adapt(Plain())
    assert without.with_surrogate(read_surrogate("triangle-1")) is without
    with pytest.raises(GateError, match="No spiking layers"):
        tdsnn.adapt(Plain(), time="loop").with_surrogate(read_surrogate("triangle-1"))


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    return found


def test_from_the_command_line(
    arrays: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def small(): return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))\n"
        "def broken(): raise KeyError('weights')\n"
        "number = 3\n"
    )
    np.save("images.npy", arrays[0])
    np.save("labels.npy", arrays[1])
    command = ("bench", "my_nets:small", "--data", "images.npy,labels.npy", "--n", "12", "--eps", "8")
    assert run(*command) == 0
    assert "my_nets:small on images.npy,labels.npy, n = 12" in " ".join(capsys.readouterr().out.split())
    assert run("bench", "my_nets:small") == 2
    assert "needs to be told its test images" in capsys.readouterr().err
    for name, message in (
        ("my_nets:broken", "KeyError"),
        ("my_nets:none", "no attribute 'none'"),
        ("no_nets:small", "No module named 'no_nets'"),
        ("my_nets:number", "is int, not a network"),
    ):
        assert run("bench", name, "--data", "digits") == 2
        assert message in capsys.readouterr().err


def test_a_folder_of_images_for_each_class(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(3):
            pixels = draws.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    name, split = open_test_split(tmp_path)
    assert (name, split.classes, split.images.shape) == (tmp_path.name, ("cat", "dog"), (6, 1, 4, 4))
    assert sorted(split.labels) == [0, 0, 0, 1, 1, 1]
    number = int(np.flatnonzero(split.labels == 1)[0])
    stored = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "dog").iterdir())]
    assert any(np.array_equal(split.images[number, 0], one) for one in stored)
    Image.new("RGB", (5, 4)).save(tmp_path / "dog" / "large.png")
    with pytest.raises(UsageError, match="several shapes"):
        open_test_split(tmp_path)
    (tmp_path / "dog" / "large.png").write_bytes(b"no image")
    with pytest.raises(IntegrityError, match="cannot be decoded"):
        open_test_split(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4)), np.zeros(2, int), "float64"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(3, int), r"shape \(3,\) for 2 images"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2), "labels are float64"),
        (np.zeros((2, 4, 4), np.uint8), np.array([0, -1]), "label is -1"),
        (np.zeros((0, 4, 4), np.uint8), np.zeros(0, int), "uint8 of shape"),
    ],
)
def test_arrays_of_another_form(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_test_split((images, labels))


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.npy", tmp_path / "bad.npy"
    np.save(good, np.zeros(2, int))
    bad.write_bytes(b"no array")
    with pytest.raises(IntegrityError, match="no array of NumPy"):
        open_test_split(f"{bad},{good}")
    with pytest.raises(UsageError, match="no file"):
        open_test_split(f"{tmp_path / 'none.npy'},{good}")
    with pytest.raises(UsageError, match="Did you mean cifar10") as unknown:
        open_test_split("cifar11")
    assert "one folder of images for each class" in unknown.value.hint
