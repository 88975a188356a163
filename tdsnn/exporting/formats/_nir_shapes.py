"""The part of an activation that belongs to one image, which is all that NIR speaks of, and refusals."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from tdsnn.errors import UsageError


def batch_axis(node: Node) -> int:
    """The axis of the images, whose number is open."""
    axes = [axis for axis, size in enumerate(_value(node).shape) if not isinstance(size, int)]
    if len(axes) != 1:
        raise unknown(node)
    return axes[0]


def sample_shape(node: Any) -> tuple[int, ...]:
    """Shape of one image's part of an activation, without the axes of time and images."""
    axis = batch_axis(node)
    shape = _value(node).shape
    if any(size != 1 for size in shape[:axis]):
        raise unknown(node)
    return tuple(shape[axis + 1 :])


def _value(node: Node) -> Tensor:
    value = node.meta["val"]
    found: Tensor = value[0] if isinstance(value, list | tuple) else value
    return found


def unknown(node: Any) -> UsageError:
    """For the operator of a node that NIR has no word for."""
    name = str(getattr(node, "target", node)).removesuffix(".default")
    return refusal(f"the operator '{name}'")


def refusal(what: str, why: str = "") -> UsageError:
    """For something that NIR has no word for, by its name in quotation marks."""
    return UsageError(
        f"NIR cannot express {what} of this network{f': {why}' if why else ''}.",
        hint="ONNX can: --format onnx",
    )
