"""Kernels of ``bn_add_lif``: normalisation, shortcut and LIF neurons, forward and backward.

Tensors are (T, M, C) with channels last. A program holds ROWS x CHANNELS neurons in its registers over all
STEPS; what belongs to a channel is (1, CHANNELS). Storage is fp32 or bf16, arithmetic is fp32 in the order of
:func:`tdsnn.kernels.lif.charge`. Potentials are computed anew for the backward pass, never stored. What is
None is left out when a kernel is compiled.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

_HALF_PI = tl.constexpr(math.pi / 2)
# As in `tdsnn.kernels.surrogates._statistics`, which a kernel cannot import.
_MEAN_SHARE = tl.constexpr(0.1)
_SPREAD_WEIGHT = tl.constexpr(1.5)
_SMALLEST = tl.constexpr(1e-4)


@triton.jit
def tile_of(tile, rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Offsets of a tile's neurons within a step, their channels, and which of them are there."""
    # 64 bits from the start, because M and T * M * C may be above 2 ** 31.
    row = (tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    return row * channels + channel, channel, (row < rows) & (channel < channels)


@triton.jit
def _affine(mean, variance, weight, bias, epsilon, channel, channels):
    """Of a normalisation: centre, 1 / deviation, and what x is multiplied with and what is added."""
    if mean is None:
        return 0.0, 1.0, 1.0, 0.0
    else:  # noqa: RET505  Triton compiles what follows a return, unless it is the other branch
        there = channel < channels
        centre = tl.load(mean + channel, mask=there, other=0.0)
        deviation = tl.sqrt_rn(tl.load(variance + channel, mask=there, other=1.0) + epsilon)
        inverse = tl.div_rn(tl.full(deviation.shape, 1.0, tl.float32), deviation)
        scale = tl.load(weight + channel, mask=there, other=0.0) * inverse
        return centre, inverse, scale, tl.load(bias + channel, mask=there, other=0.0) - centre * scale


@triton.jit
def _stored(tensor, at, there):
    return tl.load(tensor + at, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _replay(
    current, scale, offset, shortcut, shortcut_scale, shortcut_offset, initial, at, there, stride,
    tau, threshold, rest,
    STEPS: tl.constexpr, CONSTANT: tl.constexpr, DECAY_INPUT: tl.constexpr, SOFT_RESET: tl.constexpr,
):  # fmt: skip
    """Potentials before firing, a tuple over the steps, and the one after the last step."""
    v = tl.zeros(at.shape, tl.float32) + rest
    if initial is not None:
        v = _stored(initial, at, there)
    current_at = at
    potentials = ()
    for _ in tl.static_range(STEPS):
        x = _stored(current, current_at, there) * scale + offset
        if shortcut is not None:
            x += _stored(shortcut, at, there) * shortcut_scale + shortcut_offset
        drift = v - rest
        h = v + tl.div_rn(x - drift, tau) if DECAY_INPUT else v - tl.div_rn(drift, tau) + x
        v = tl.where(h >= threshold, h - threshold if SOFT_RESET else rest, h)
        potentials = potentials + (h,)  # noqa: RUF005  Triton knows no unpacking
        at += stride
        if not CONSTANT:
            current_at += stride
    return potentials, v


@triton.jit
def _through_spike(
    h, grad_spike, grad_v, sharpness, threshold, rest, SOFT_RESET: tl.constexpr, DETACH_RESET: tl.constexpr
):
    """Gradient at a potential before firing, from those at the spike and at the potential after it."""
    above = h - threshold
    x = _HALF_PI * sharpness * above
    if not DETACH_RESET:
        grad_spike += grad_v * (-threshold if SOFT_RESET else rest - h)
    if not SOFT_RESET:
        grad_v = tl.where(above >= 0, 0.0, grad_v)
    return grad_spike * (0.5 * sharpness / (1.0 + x * x)) + grad_v


@triton.jit
def _adapted(above, distance, spread, at, there, numerator):
    """Sharpness after the moving means at these places were brought up to date."""
    apart = tl.abs(above)
    mean, deviation = _stored(distance, at, there), _stored(spread, at, there)
    mean += _MEAN_SHARE * (apart - mean)
    deviation += _MEAN_SHARE * (tl.abs(apart - mean) - deviation)
    tl.store(distance + at, mean, mask=there)
    tl.store(spread + at, deviation, mask=there)
    return numerator / (mean + _SPREAD_WEIGHT * deviation + _SMALLEST)


@triton.jit
def _through_normalisation(grad, x, centre, inverse, scale, means, OF_BATCH: tl.constexpr):
    """Gradient at a normalised operand; ``means`` of the gradient and of its product with normalised x."""
    if OF_BATCH:
        grad -= means[0] + (x - centre) * inverse * means[1]
    return grad * scale


@triton.jit
def _means(sum_grad, sum_product, channel, channels, share, OF_BATCH: tl.constexpr):
    if OF_BATCH:
        there = channel < channels
        return (
            tl.load(sum_grad + channel, mask=there, other=0.0) * share,
            tl.load(sum_product + channel, mask=there, other=0.0) * share,
        )
    else:  # noqa: RET505
        return 0.0, 0.0


@triton.jit
def fire(
    current, mean, variance, weight, bias, epsilon,
    shortcut, shortcut_mean, shortcut_variance, shortcut_weight, shortcut_bias, shortcut_epsilon,
    initial, spikes, last, rows, channels, tau, threshold, rest,
    STEPS: tl.constexpr, CONSTANT: tl.constexpr, DECAY_INPUT: tl.constexpr, SOFT_RESET: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Spikes (T, M, C), and the potential (M, C) after the last step unless ``last`` is None."""
    at, channel, there = tile_of(tl.program_id(0), rows, channels, ROWS, CHANNELS)
    _, _, scale, offset = _affine(mean, variance, weight, bias, epsilon, channel, channels)
    _, _, shortcut_scale, shortcut_offset = _affine(
        shortcut_mean, shortcut_variance, shortcut_weight, shortcut_bias, shortcut_epsilon, channel, channels
    )
    stride = tl.cast(rows, tl.int64) * channels
    potentials, v = _replay(
        current, scale, offset, shortcut, shortcut_scale, shortcut_offset, initial, at, there, stride,
        tau, threshold, rest, STEPS, CONSTANT, DECAY_INPUT, SOFT_RESET,
    )  # fmt: skip
    if last is not None:
        tl.store(last + at, v, mask=there)
    for step in tl.static_range(STEPS):
        # Through fp32: Triton's interpreter cannot make bf16 of a truth value.
        fired = (potentials[step] >= threshold).to(tl.float32)
        tl.store(spikes + at, fired.to(spikes.dtype.element_ty), mask=there)
        at += stride


@triton.jit
def sum_gradients(
    current, mean, variance, weight, bias, epsilon,
    shortcut, shortcut_mean, shortcut_variance, shortcut_weight, shortcut_bias, shortcut_epsilon,
    initial, grad_spikes, grad_last, partials, rows, channels, tau, threshold, rest, alpha, gain, leak,
    STEPS: tl.constexpr, CONSTANT: tl.constexpr, DECAY_INPUT: tl.constexpr, SOFT_RESET: tl.constexpr,
    DETACH_RESET: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Per channel: sums of the gradient at what the neurons receive, and of it times each normalised operand.

    A program walks through every tile whose number is its own modulo the number of programs, and leaves its
    share in ``partials`` (programs, 3, C), so that sums have one order and no atomics.
    """
    first, channel, there = tile_of(0, rows, channels, ROWS, CHANNELS)
    centre, inverse, scale, offset = _affine(mean, variance, weight, bias, epsilon, channel, channels)
    shortcut_centre, shortcut_inverse, shortcut_scale, shortcut_offset = _affine(
        shortcut_mean, shortcut_variance, shortcut_weight, shortcut_bias, shortcut_epsilon, channel, channels
    )
    stride = tl.cast(rows, tl.int64) * channels
    alone = tl.zeros((ROWS, CHANNELS), tl.float32)
    with_current = tl.zeros((ROWS, CHANNELS), tl.float32)
    with_shortcut = tl.zeros((ROWS, CHANNELS), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        first, channel, there = tile_of(tile, rows, channels, ROWS, CHANNELS)
        potentials, _ = _replay(
            current, scale, offset, shortcut, shortcut_scale, shortcut_offset, initial, first, there, stride,
            tau, threshold, rest, STEPS, CONSTANT, DECAY_INPUT, SOFT_RESET,
        )  # fmt: skip
        grad_v = tl.zeros((ROWS, CHANNELS), tl.float32)
        if grad_last is not None:
            grad_v = _stored(grad_last, first, there)
        at = first + (STEPS - 1) * stride
        for back in tl.static_range(STEPS):
            grad_h = _through_spike(
                potentials[STEPS - 1 - back], _stored(grad_spikes, at, there), grad_v, alpha, threshold, rest,
                SOFT_RESET, DETACH_RESET,
            )  # fmt: skip
            grad_v = grad_h * leak
            grad = grad_h * gain
            alone += grad
            x = _stored(current, first if CONSTANT else at, there)
            with_current += grad * ((x - centre) * inverse)
            if shortcut_mean is not None:
                x = _stored(shortcut, at, there)
                with_shortcut += grad * ((x - shortcut_centre) * shortcut_inverse)
            at -= stride
    out = partials + tl.program_id(0) * 3 * channels + channel
    there = channel < channels
    tl.store(out, tl.sum(alone, 0, keep_dims=True), mask=there)
    tl.store(out + channels, tl.sum(with_current, 0, keep_dims=True), mask=there)
    tl.store(out + 2 * channels, tl.sum(with_shortcut, 0, keep_dims=True), mask=there)


@triton.jit
def merge_sums(
    partials, to_bias, to_weight, to_shortcut_bias, to_shortcut_weight, programs, channels,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients (C) at weights and biases, from what :func:`sum_gradients` left."""
    channel = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    there = channel < channels
    alone = tl.zeros((ROWS, CHANNELS), tl.float32)
    with_current = tl.zeros((ROWS, CHANNELS), tl.float32)
    with_shortcut = tl.zeros((ROWS, CHANNELS), tl.float32)
    for first in range(0, programs, ROWS):
        program = first + tl.arange(0, ROWS)[:, None]
        at, inside = program * 3 * channels + channel, (program < programs) & there
        alone += _stored(partials, at, inside)
        with_current += _stored(partials, at + channels, inside)
        with_shortcut += _stored(partials, at + 2 * channels, inside)
    total = tl.sum(alone, 0, keep_dims=True)
    tl.store(to_bias + channel, total, mask=there)
    tl.store(to_weight + channel, tl.sum(with_current, 0, keep_dims=True), mask=there)
    if to_shortcut_bias is not None:
        tl.store(to_shortcut_bias + channel, total, mask=there)
        tl.store(to_shortcut_weight + channel, tl.sum(with_shortcut, 0, keep_dims=True), mask=there)


@triton.jit
def gradients(
    current, mean, variance, weight, bias, epsilon,
    shortcut, shortcut_mean, shortcut_variance, shortcut_weight, shortcut_bias, shortcut_epsilon,
    initial, grad_spikes, grad_last, to_current, to_shortcut, to_initial,
    sum_grad, sum_current, sum_shortcut, distance, spread,
    rows, channels, tau, threshold, rest, alpha, gain, leak, share, shortcut_share,
    OF_BATCH: tl.constexpr, SHORTCUT_OF_BATCH: tl.constexpr,
    STEPS: tl.constexpr, CONSTANT: tl.constexpr, DECAY_INPUT: tl.constexpr, SOFT_RESET: tl.constexpr,
    DETACH_RESET: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients at current, shortcut and initial potential, each unless it is None.

    ``sum_grad``, ``sum_current`` and ``sum_shortcut`` (C) are of :func:`merge_sums`, for statistics of the
    batch; ``share`` and ``shortcut_share`` are 1 / values per channel. ``distance`` and ``spread`` (T, M, C)
    are of the adaptive surrogate, whose numerator ``alpha`` then is.
    """
    first, channel, there = tile_of(tl.program_id(0), rows, channels, ROWS, CHANNELS)
    centre, inverse, scale, offset = _affine(mean, variance, weight, bias, epsilon, channel, channels)
    shortcut_centre, shortcut_inverse, shortcut_scale, shortcut_offset = _affine(
        shortcut_mean, shortcut_variance, shortcut_weight, shortcut_bias, shortcut_epsilon, channel, channels
    )
    means = _means(sum_grad, sum_current, channel, channels, share, OF_BATCH)
    shortcut_means = _means(sum_grad, sum_shortcut, channel, channels, shortcut_share, SHORTCUT_OF_BATCH)
    stride = tl.cast(rows, tl.int64) * channels
    potentials, _ = _replay(
        current, scale, offset, shortcut, shortcut_scale, shortcut_offset, initial, first, there, stride,
        tau, threshold, rest, STEPS, CONSTANT, DECAY_INPUT, SOFT_RESET,
    )  # fmt: skip
    grad_v = tl.zeros((ROWS, CHANNELS), tl.float32)
    if grad_last is not None:
        grad_v = _stored(grad_last, first, there)
    over_time = tl.zeros((ROWS, CHANNELS), tl.float32)
    at = first + (STEPS - 1) * stride
    for back in tl.static_range(STEPS):
        h = potentials[STEPS - 1 - back]
        sharpness = alpha
        if distance is not None:
            sharpness = _adapted(h - threshold, distance, spread, at, there, alpha)
        grad_h = _through_spike(
            h, _stored(grad_spikes, at, there), grad_v, sharpness, threshold, rest, SOFT_RESET, DETACH_RESET
        )
        grad_v = grad_h * leak
        grad = grad_h * gain
        over_time += grad
        if to_current is not None and not CONSTANT:
            x = _stored(current, at, there)
            x = _through_normalisation(grad, x, centre, inverse, scale, means, OF_BATCH)
            tl.store(to_current + at, x.to(to_current.dtype.element_ty), mask=there)
        if to_shortcut is not None:
            x = _stored(shortcut, at, there)
            x = _through_normalisation(
                grad, x, shortcut_centre, shortcut_inverse, shortcut_scale, shortcut_means, SHORTCUT_OF_BATCH
            )
            tl.store(to_shortcut + at, x.to(to_shortcut.dtype.element_ty), mask=there)
        at -= stride
    if to_initial is not None:
        tl.store(to_initial + first, grad_v, mask=there)
    if to_current is not None and CONSTANT:
        x = _stored(current, first, there)
        x = _through_normalisation(over_time, x, centre, inverse, scale, means, OF_BATCH)
        tl.store(to_current + first, x.to(to_current.dtype.element_ty), mask=there)
