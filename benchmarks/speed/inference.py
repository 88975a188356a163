"""Inference at width 32: throughput of a batch and latency of one image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed._measure import Row, Settings, Target, Timings, interleave, speedup_row
from benchmarks.speed._steps import BATCH, STOCK_FP32, TIMESTEPS, make_batch, make_ours, make_stock
from benchmarks.speed.roofline import conv_flops, peaks

_WIDTH = 32
_OURS = ("ours fp32", "ours bf16")
_LATENCIES = {"median": 0.5, "p95": 0.95}


def run(settings: Settings) -> list[Row]:
    """Images per second at batch 64 and milliseconds at batch 1."""
    images = make_batch().images
    sides = _sides(images)
    throughput = interleave(
        {side: partial(call, images) for side, call in sides.items()}, rounds=settings.rounds
    )
    one = images[:1].contiguous()
    latency = interleave(
        {side: partial(call, one) for side, call in sides.items()},
        rounds=settings.rounds,
        calls=20 if settings.quick else 50,
        warmup=5,
    )
    verdicts = {side: call(images).argmax(1) for side, call in sides.items()}
    agreeing = {ours: int((verdicts[ours] == verdicts[STOCK_FP32]).sum()) for ours in _OURS}
    return [
        *(_throughput(ours, throughput, agreeing=agreeing[ours]) for ours in _OURS),
        *(_latency(ours, label, latency) for ours in _OURS for label in _LATENCIES),
    ]


def _sides(images: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Eval mode, with equal weights and with running statistics of real activity."""
    ours = make_ours(width=_WIDTH)
    with torch.no_grad():
        for _ in range(3):
            ours(images)
    stock = make_stock(width=_WIDTH, channels_last=False)
    stock.net.load_state_dict(ours.state_dict())
    return {
        STOCK_FP32: partial(_predict, stock.eval(), bf16=False),
        _OURS[0]: partial(_predict, ours.eval(), bf16=False),
        _OURS[1]: partial(_predict, ours, bf16=True),
    }


@torch.no_grad()
def _predict(model: nn.Module, images: Tensor, *, bf16: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits: Tensor = model(images)
    return logits


def _throughput(ours: str, timings: Timings, *, agreeing: int) -> Row:
    flops = BATCH * conv_flops(width=_WIDTH, timesteps=TIMESTEPS, training=False)
    return speedup_row(
        f"inference, width {_WIDTH}, batch {BATCH}, {ours} against {STOCK_FP32}",
        timings,
        stock=STOCK_FP32,
        ours=ours,
        images=BATCH,
        target=Target(bound="at least", value=6.0),
        peak_share={
            "stock": peaks().share(flops, seconds=timings.median(STOCK_FP32), bf16=False),
            "ours": peaks().share(flops, seconds=timings.median(ours), bf16=ours == _OURS[1]),
        },
        details={"equal_predictions": agreeing, "images": BATCH},
    )


def _latency(ours: str, label: str, timings: Timings) -> Row:
    quantile = _LATENCIES[label]
    return Row(
        name=f"inference, width {_WIDTH}, batch 1, {label}, {ours} against {STOCK_FP32}",
        unit="ms",
        stock=1e3 * timings.median(STOCK_FP32, quantile=quantile),
        ours=1e3 * timings.median(ours, quantile=quantile),
        ratio=timings.ratio(STOCK_FP32, ours, quantile=quantile),
        meaning="stock / ours in ms",
        target=Target(bound="at least", value=3.0),
    )
