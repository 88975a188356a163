"""Hooks of every kind run on modules that the compiled operators would replace, and change no result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import CLOSE, needs_compiler, network, pictures
from torch import nn
from torch.nn.modules import module as global_hooks

from tdsnn.models._base import Model

pytestmark = needs_compiler

Register = Callable[[nn.Module, Callable[..., None]], Any]
KINDS: dict[str, Register] = {
    "forward": lambda module, hook: module.register_forward_hook(hook),
    "forward, always called": lambda module, hook: module.register_forward_hook(hook, always_call=True),
    "forward, with keywords": lambda module, hook: module.register_forward_hook(hook, with_kwargs=True),
    "before forward": lambda module, hook: module.register_forward_pre_hook(hook),
    "backward": lambda module, hook: module.register_full_backward_hook(hook),
    "before backward": lambda module, hook: module.register_full_backward_pre_hook(hook),
}
GLOBAL_KINDS: dict[str, Callable[[Callable[..., None]], Any]] = {
    "forward": global_hooks.register_module_forward_hook,
    "before forward": global_hooks.register_module_forward_pre_hook,
    "backward": global_hooks.register_module_full_backward_hook,
    "before backward": global_hooks.register_module_full_backward_pre_hook,
}


@pytest.fixture(scope="module")
def model() -> Model:
    return network("sresnet18", compiled=True, width=4, timesteps=2)


@pytest.mark.parametrize(
    "layer",
    [
        "bn1",
        "act1",
        "layer2.0.downsample",
        "layer2.0.downsample.1",
        "layer3.1",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_is_called(model: Model, kind: str, layer: str) -> None:
    x, calls = pictures(2).requires_grad_(), []
    expected = model(x)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), x)
    handle = KINDS[kind](model.get_submodule(layer), lambda *_: calls.append(None))
    try:
        logits = model(x)
        (gradient,) = torch.autograd.grad(logits.sum(), x)
    finally:
        handle.remove()
    assert len(calls) == 1
    torch.testing.assert_close(logits, expected, **CLOSE)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", GLOBAL_KINDS)
def test_a_global_hook_is_called_for_every_module(model: Model, kind: str) -> None:
    called: list[nn.Module] = []
    x = pictures(2).requires_grad_()
    handle = GLOBAL_KINDS[kind](lambda module, *_: called.append(module))
    try:
        model(x).sum().backward()
    finally:
        handle.remove()
    assert set(called) == set(model.modules())
