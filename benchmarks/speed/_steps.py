"""Both sides with equal weights, and the whole optimisation step that is timed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed._stock import Stock
from tdsnn.errors import UsageError
from tdsnn.kernels.memory import keep_freed_memory
from tdsnn.models._base import Model
from tdsnn.models._residual import ResNet18
from tdsnn.models.sresnet18 import sresnet18
from tdsnn.topography.losses._base import SpatialLoss
from tdsnn.topography.outputs import capture_outputs

BATCH, TIMESTEPS, SIZE, CLASSES = 64, 4, 32, 10
STOCK_FP32, STOCK_BF16, OURS = "stock fp32", "stock bf16", "ours"


class Batch(NamedTuple):
    """Images (N, 3, 32, 32) in [0, 1], channels last, and classes (N,)."""

    images: Tensor
    labels: Tensor


def make_batch(size: int = BATCH, *, seed: int = 0) -> Batch:
    """Uniform noise; the time of a step does not depend on the pixels."""
    draws = torch.Generator().manual_seed(seed)
    images = torch.rand(size, 3, SIZE, SIZE, generator=draws).contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.randint(CLASSES, (size,), generator=draws))


def make_ours(*, width: int, timesteps: int = TIMESTEPS, seed: int = 0) -> ResNet18:
    """Our model with weights drawn from a seed, channels last, on its fastest path."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = sresnet18(width=width, timesteps=timesteps, num_classes=CLASSES)
    model.to(memory_format=torch.channels_last)
    if model.compile_operators():
        keep_freed_memory()
    return model


def make_stock(*, width: int, channels_last: bool, seed: int = 0) -> Stock:
    """The stock model with the weights of :func:`make_ours`."""
    stock = Stock(width=width, timesteps=TIMESTEPS, num_classes=CLASSES)
    stock.net.load_state_dict(make_ours(width=width, seed=seed).state_dict())
    return stock.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class TrainingStep:
    """zero_grad, forward, cross-entropy, backward and AdamW.

    Args:
        spatial: a spatial loss on the model's sheet layers, added with weight 1.
    """

    def __init__(self, model: nn.Module, *, bf16: bool, spatial: SpatialLoss | None = None) -> None:
        self.model = model.train()
        self.bf16 = bf16
        self.spatial = spatial
        self.layers = model.sheet_layers if spatial is not None and isinstance(model, Model) else ()
        self.draws = torch.Generator().manual_seed(0)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def __call__(self, batch: Batch) -> float:
        """One step; returns the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        with capture_outputs(self.model, self.layers) as outputs:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                logits = self.model(batch.images)
            loss = F.cross_entropy(logits.float(), batch.labels)
            if self.spatial is not None:
                loss = loss + self.spatial(outputs, generator=self.draws)[0]
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
        self.optimizer.step()
        return float(loss.detach())


def make_step(side: str, *, width: int, seed: int = 0) -> TrainingStep:
    """The training step of one side: stock in fp32, stock at its best setting, or ours.

    Raises:
        UsageError: an unknown side.
    """
    if side == OURS:
        return TrainingStep(make_ours(width=width, seed=seed), bf16=True)
    if side not in (STOCK_FP32, STOCK_BF16):
        raise UsageError(f"There is no side '{side}'; known: {STOCK_FP32}, {STOCK_BF16}, {OURS}.")
    best = side == STOCK_BF16
    return TrainingStep(make_stock(width=width, channels_last=best, seed=seed), bf16=best)
