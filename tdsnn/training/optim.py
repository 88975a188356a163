"""Optimisers, learning-rate schedule and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from tdsnn.schema import Recipe

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (github.com/KellerJordan/Muon)."""
_ITERATIONS = 5
_MOMENTUM = 0.9
_BETAS = (0.9, 0.999)
_EPS = 1e-8


class Muon(torch.optim.Optimizer):
    """Orthogonalised steps for convolutions, AdamW for all other parameters.

    Each convolution weight is a matrix (C_out, H W C_in). Its step is Nesterov momentum, made nearly
    orthogonal by five Newton-Schulz iterations (Jordan et al. 2024, github.com/KellerJordan/Muon) and scaled
    to a fraction ``lr`` of the weight's norm, which is kept at sqrt(C_out): batch normalisation takes the
    scale out again, so only directions are learned and no decay is needed. ``torch.optim.Muon`` takes nothing
    but matrices, and neither keeps norms nor steers the other parameters.

    Args:
        convolutions: weights (C_out, C_in, H, W), each before a normalisation; their norm is set at once.
        decayed, plain: other parameters with and without decoupled weight decay.
        matrix_lr: step of the convolutions as a fraction of the weight's norm.
        lr, weight_decay: of AdamW.
    """

    def __init__(
        self,
        convolutions: Iterable[Tensor],
        decayed: Iterable[Tensor],
        plain: Iterable[Tensor],
        *,
        matrix_lr: float,
        lr: float,
        weight_decay: float,
    ) -> None:
        groups = [
            {"params": list(convolutions), "lr": matrix_lr, "matrices": True, "weight_decay": 0.0},
            {"params": list(decayed), "lr": lr, "matrices": False, "weight_decay": weight_decay},
            {"params": list(plain), "lr": lr, "matrices": False, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], {})
        for group in self.param_groups:
            if group["matrices"]:
                for weight in group["params"]:
                    _keep_norm(weight)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; parameters without gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [weight for weight in group["params"] if weight.grad is not None]
            if group["matrices"]:
                for weight in moved:
                    self._turn(weight, group["lr"])
            elif moved:
                self._adamw(moved, group)
        return loss

    def _turn(self, weight: Tensor, lr: float) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(weight.grad, 1 - _MOMENTUM)
        ahead = weight.grad.lerp(momentum, _MOMENTUM)
        direction = orthogonalise(_matrix(ahead)).to(weight.dtype)
        length = direction.norm()
        size = lr * math.sqrt(len(weight)) / length.clamp(min=1e-12)
        out, channels, *kernel = weight.shape
        weight.sub_((direction * size).view(out, *kernel, channels).permute(0, 3, 1, 2))
        _keep_norm(weight, where=length > 0)

    def _adamw(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros((), device=weight.device),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            # PyTorch leaves counters where a saved state was loaded; the fused kernel wants them here.
            state["step"] = state["step"].to(weight.device)
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=_EPS,
            maximize=False,
        )


def orthogonalise(matrix: Tensor) -> Tensor:
    """A matrix (M, N) with the same singular vectors and all singular values near 1 (0.7 to 1.2), in fp32."""
    a, b, c = _NEWTON_SCHULZ
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-12)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    result: Tensor = x.T if tall else x
    return result


def _matrix(weight: Tensor) -> Tensor:
    """(C_out, H W C_in) of a convolution weight (C_out, C_in, H, W); a view where that is how it lies."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


@torch.no_grad()
def _keep_norm(weight: Tensor, *, where: Tensor | None = None) -> None:
    scale = math.sqrt(len(weight)) / weight.norm().clamp(min=1e-12)
    weight.mul_(scale if where is None else torch.where(where, scale, 1.0))


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, Nesterov SGD or Muon; biases and normalisation weights are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    if recipe.optimizer == "muon":
        return Muon(
            [p for p in decayed if p.ndim == 4],
            [p for p in decayed if p.ndim != 4],
            plain,
            matrix_lr=recipe.matrix_lr,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
        )
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, recipe: Recipe, epochs_done: float) -> None:
    """Set every group's rate: its peak times the :func:`schedule`."""
    share = schedule(recipe, epochs_done)
    for group in optimizer.param_groups:
        group["lr"] = share * (recipe.matrix_lr if group.get("matrices") else recipe.lr)


def schedule(recipe: Recipe, epochs_done: float) -> float:
    """Share of the peak rate: linear warm-up, then a cosine to zero (arXiv:1608.03983, without restarts)."""
    if epochs_done < recipe.warmup_epochs:
        return epochs_done / recipe.warmup_epochs
    span = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return (1 + math.cos(math.pi * min((epochs_done - recipe.warmup_epochs) / span, 1.0))) / 2


class Average:
    """Exponential moving average of parameters and buffers, with the usual start-up correction.

    Early on the decay is (1 + n) / (10 + n), so that the first steps are forgotten quickly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values: dict[str, Tensor] = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's current values."""
        self.steps += 1
        weight = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = model.state_dict()
        moving = [key for key, value in state.items() if value.is_floating_point()]
        counted = [key for key in state if key not in set(moving)]
        torch._foreach_lerp_([self.values[key] for key in moving], [state[key] for key in moving], weight)
        if counted:
            torch._foreach_copy_([self.values[key] for key in counted], [state[key] for key in counted])
