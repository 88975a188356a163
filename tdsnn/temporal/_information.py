"""Fisher information of what a network has computed up to a step, about each group of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdsnn.errors import GateError

STEM, READ_OUT = "stem", "read-out"


def connections(parameters: Sequence[str], areas: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Names of parameters by the connection that they belong to, in the order of the network.

    What is inside an area's module is the connection into that area. Of the rest, in the order of
    registration, what comes before the first area is the stem, after the last the read-out, and in between
    part of the connection into the next area. Without areas each part of the network at the top is a group.

    Args:
        parameters: dotted names, as ``named_parameters`` gives them.
        areas: names of modules, as ``sheet_layers``.
    """
    if not areas:
        return _collected((name.split(".")[0], name) for name in parameters)
    inside = {
        name: next((area for area in areas if name.startswith(f"{area}.")), None) for name in parameters
    }
    groups, reached = [], 0
    for name in parameters:
        area = inside[name]
        if area is not None:
            reached = max(reached, areas.index(area) + 1)
            groups.append((area, name))
        elif reached == 0:
            groups.append((STEM, name))
        else:
            groups.append((READ_OUT if reached == len(areas) else areas[reached], name))
    return _collected(groups)


def _collected(pairs: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for group, name in pairs:
        found[group] = (*found.get(group, ()), name)
    return found


def information(
    steps: Callable[[Tensor], Tensor],
    parameters: Sequence[Sequence[Tensor]],
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """Squared gradients of the log-likelihood of each image after the first t steps, (N, G, T) float64.

    The output after t steps is the mean of the first t logits, the likelihood its softmax at the true label.
    One image at a time, one forward pass and T backward passes each: the square of a batch's mean gradient
    would be another, smaller number. ``torch.func.vmap`` over images is no faster on a CPU (0.09 s an image
    of the embedded pair against 0.06 s through the compiled operators, which it cannot use).

    Args:
        steps: images (1, C, H, W) to logits (T, 1, K), differentiable in the parameters.
        parameters: of each of the G groups; all require gradients.
        images: (N, C, H, W).
        labels: (N,) int64.

    Raises:
        GateError: the answers do not depend on the parameters in a way that has a derivative.
    """
    everything = [tensor for group in parameters for tensor in group]
    sizes = [len(group) for group in parameters]
    return torch.stack(
        [_of_one_image(steps(x[None]), y, everything, sizes) for x, y in zip(images, labels, strict=True)]
    )


def _of_one_image(logits_T1K: Tensor, label: Tensor, parameters: list[Tensor], sizes: list[int]) -> Tensor:
    if not logits_T1K.requires_grad:
        raise GateError(
            "The answers have no derivative by the weights, so there is no information about any."
        )
    logits = logits_T1K[:, 0].double()
    count = torch.arange(1, len(logits) + 1, device=logits.device)[:, None]
    likelihoods = (logits.cumsum(0) / count).log_softmax(1)[:, label]
    columns = []
    for step, likelihood in enumerate(likelihoods, start=1):
        gradients = torch.autograd.grad(
            likelihood, parameters, retain_graph=step < len(likelihoods), allow_unused=True
        )
        squares = torch.stack([_squared(gradient, logits) for gradient in gradients])
        columns.append(torch.stack([part.sum() for part in torch.split(squares, sizes)]))
    return torch.stack(columns, 1)


def _squared(gradient: Tensor | None, like: Tensor) -> Tensor:
    """Sum of squares, float64; 0 of a weight that takes no part."""
    if gradient is None:
        return like.new_zeros(())
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float64)
    return norm.square()


@contextmanager
def trainable(net: nn.Module) -> Iterator[Mapping[str, nn.Parameter]]:
    """Inside the block all parameters require gradients; afterwards each is as it was found."""
    parameters = dict(net.named_parameters())
    found = {name: one.requires_grad for name, one in parameters.items()}
    try:
        with torch.enable_grad():
            for one in parameters.values():
                one.requires_grad_(True)
            yield parameters
    finally:
        for name, one in parameters.items():
            one.requires_grad_(found[name])


def centroid(information_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Information centroid sum t I_t / sum I_t of (..., T), in steps from 1 to T.

    Kim et al., "Exploring Temporal Information Dynamics in Spiking Neural Networks" (arXiv 2211.14406).
    """
    steps = np.arange(1, information_T.shape[-1] + 1)
    return np.asarray(information_T @ steps / information_T.sum(-1))
