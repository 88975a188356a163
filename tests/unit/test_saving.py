"""Saving and loading agree or refuse, and neither leaves traces in the process."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from networks import network
from tiny import Tiny, install, tiny
from torch import nn
from torch.nn.utils import parametrizations, prune

from tdsnn import zoo
from tdsnn.errors import UsageError
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF
from tdsnn.registry import Registry

Change = Callable[[Model], object]


def assign(path: str, value: object) -> Change:
    """Sets an attribute by its dotted path."""
    owner, _, name = path.rpartition(".")
    return lambda model: setattr(model.get_submodule(owner), name, value)


def shifted_mean(model: Model) -> None:
    model.mean += 0.25


CHANGES: dict[str, tuple[Change, str]] = {
    "head": (assign("fc", nn.Linear(64, 5)), r"the tensor 'fc\.weight' is torch\.float32 \(5, 64\)"),
    "first convolution": (assign("conv1.stride", (2, 2)), r"'conv1\.stride' is \(2, 2\) here, but \(1, 1\)"),
    "convolution of another class": (assign("conv1", nn.Conv2d(2, 8, 3, 1, 1)), "'conv1' is Conv2d here"),
    "half": (lambda model: model.half(), r"is torch\.float16"),
    "double": (lambda model: model.double(), r"is torch\.float64"),
    "pruned": (lambda model: prune.l1_unstructured(model.fc, "weight", 0.5), r"tensor 'fc\.weight'"),
    "parametrised": (lambda model: parametrizations.weight_norm(model.fc), "'fc' is parametrised"),
    "time steps": (assign("timesteps", 8), "'timesteps' is 8 here, but 4 by its arguments"),
    "mean": (shifted_mean, "the buffer 'mean' is not what its arguments say"),
    "threshold": (
        assign("layer1.0.act1.config", LIFConfig(v_threshold=0.5)),
        r"'layer1\.0\.act1\.config' is",
    ),
    "activation": (assign("act1", nn.ReLU()), "'act1' is ReLU here, but LIF"),
    "normalisation": (assign("bn1.eps", 1e-3), r"'bn1\.eps' is 0\.001 here"),
    "another module": (lambda model: model.add_module("extra", nn.ReLU()), "the module 'extra' is not there"),
    "method": (assign("encode", lambda x: x), "'encode' is <function"),
    "sheet": (lambda model: model.sheets.update(fc=tiny().sheets["conv"]), "'fc', which has a sheet"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_what_a_configuration_cannot_say_is_refused(tmp_path: Path, change: Change, reason: str) -> None:
    model = network("sresnet18")
    model.save_pretrained(tmp_path / "mine", dataset="digits")
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    change(model)
    for folder in (tmp_path / "mine", tmp_path / "new"):
        with pytest.raises(UsageError, match=reason) as caught:
            model.save_pretrained(folder, dataset="digits")
        assert caught.value.hint
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_a_refused_model_is_not_pushed(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_write_secret")
    model = network("sresnet18")
    model.timesteps = 8
    with pytest.raises(UsageError, match="'timesteps' is 8"):
        model.push_to_hub("alice/net", dataset="digits")
    assert not hub_server.requests


NEUTRAL: dict[str, Change] = {
    "compiled": lambda model: model.compile_operators(),
    "channels last": lambda model: model.to(memory_format=torch.channels_last),
    "in training": lambda model: model.train(),
    "frozen": lambda model: model.requires_grad_(False),
    "listened to": lambda model: model.fc.register_forward_hook(lambda *_: None),
    "labelled": assign("note", "of Monday"),
    "other weights": lambda model: model.fc.weight.data.zero_(),
    "time steps of its arguments": lambda model: (
        model.arguments.update(timesteps=2),
        setattr(model, "timesteps", 2),
    ),
}


@pytest.mark.parametrize("change", NEUTRAL.values(), ids=NEUTRAL.keys())
def test_what_a_configuration_can_say_comes_back(tmp_path: Path, change: Change) -> None:
    model = network("sresnet18", neuron={"v_threshold": 0.75})
    change(model)
    model.save_pretrained(tmp_path, dataset="digits")
    loaded, x = zoo.load(tmp_path), torch.rand(3, 2, 16, 16)
    assert loaded.timesteps == model.timesteps
    torch.testing.assert_close(loaded(x), model.eval()(x), rtol=1e-5, atol=1e-5)


def test_arguments_that_do_not_rebuild_the_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registry, "load", lambda registry, name: Secretive)
    Secretive(hidden=3).save_pretrained(tmp_path / "fits", dataset="digits")
    with pytest.raises(UsageError, match=r"'norm\.weight' is .* \(4,\)"):
        Secretive(hidden=3, channels=4).save_pretrained(tmp_path / "new", dataset="digits")


class Secretive(Tiny):
    """An architecture that keeps to itself what it was given."""

    def __init__(self, *, hidden: int, channels: int | None = None) -> None:
        super().__init__(hidden=hidden)
        self.norm = nn.BatchNorm2d(channels or hidden)


class Drawing(Tiny):
    """An architecture that draws from every generator while it is made."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__(hidden=hidden)
        self.register_buffer("offset", torch.tensor(0.1), persistent=False)
        random.random()
        np.random.rand()
        torch.rand(1)


def test_loading_and_saving_leave_no_traces(
    project: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(project, monkeypatch)
    monkeypatch.setattr(Registry, "load", lambda registry, name: Drawing)

    def state() -> tuple[object, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    torch.set_default_dtype(torch.float64)
    try:
        before = state()
        with torch.device("meta"):
            model = zoo.load("tiny")
            model.save_pretrained(tmp_path)
            assert torch.get_default_device().type == "meta"
        assert torch.get_default_dtype() == torch.float64
        assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)
    assert (model.offset.dtype, model.offset.device.type) == (torch.float32, "cpu")


def test_loading_leaves_the_allocator_alone(tmp_path: Path) -> None:
    """Only commands let their process keep what it frees."""
    network("sresnet18").save_pretrained(tmp_path / "net", dataset="digits")
    code = (
        "import sys, tdsnn; from tdsnn.kernels.memory import keep_freed_memory as keep;"
        "tdsnn.load(sys.argv[1], compile=True); print(keep.cache_info().currsize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "net")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_devices_of_pytorch(
    project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, device: str | torch.device
) -> None:
    install(project, monkeypatch)
    for load in (zoo.load, partial(Tiny.from_pretrained, "tiny")):
        model = load("tiny", device=device) if load is zoo.load else load(device=device)
        assert model.mean.device.type == "cpu"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_pixels_that_are_not_finite_are_refused(bad: float) -> None:
    """LIF neurons would swallow them: what is no number reaches no threshold."""
    model, x = network("sresnet18"), torch.rand(2, 2, 16, 16)
    assert isinstance(model.act1, LIF)
    x[1, 0, 3, 3] = bad
    with pytest.raises(UsageError, match="1 pixels of the images are not finite") as caught:
        model(x)
    assert caught.value.hint


def test_pixels_from_0_to_255_are_refused() -> None:
    model, x = network("sresnet18"), torch.rand(2, 2, 16, 16)
    model(3 * x - 1)
    with pytest.raises(UsageError, match=r"pixels up to 25\d\.?\d*, and should be in \[0, 1\]") as caught:
        model(x.clamp(0.99) * 255)
    assert "/ 255" in caught.value.hint
    assert model(x[:0]).shape == (0, 10)


def test_loading_a_model_imports_no_compiler() -> None:
    """PyTorch's takes longer to import than all else takes."""
    code = "import sys, tdsnn; tdsnn.load('tsresnet18'); print('torch._dynamo' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
