"""Another network that an attack takes its gradients of: a black-box attack by transfer.

Papernot et al. (2017, arXiv:1602.02697); what is found so on a network whose own gradients find nothing is a
sign that those are masked (Athalye et al. 2018, arXiv:1802.00420).
"""

from __future__ import annotations

from functools import cache

from torch import Tensor, nn

from tdsnn import naming, store
from tdsnn.errors import GateError
from tdsnn.models._base import Model

__all__ = ["ITSELF", "check_source", "source_digest", "source_network"]

ITSELF = "itself"
"""The attacked network is its own source."""


def check_source(name: str) -> None:
    """Refuse a name that means nothing, without loading anything.

    Raises:
        UsageError: no such entry.
    """
    if name != ITSELF:
        naming.parse(name)


def source_network(name: str, attacked: nn.Module, x: Tensor) -> nn.Module | None:
    """The network to take gradients of; None for the attacked one itself.

    Args:
        name: of a model, as for :func:`tdsnn.naming.parse`.
        attacked: the source runs through compiled operators if this does.
        x: images (N, C, H, W) that both have to take; the source is moved to their device.

    Raises:
        GateError: it does not take such images, or answers with other classes.
        TdsnnError: it cannot be had, as :meth:`tdsnn.models._base.Model.from_pretrained`.
    """
    if name == ITSELF:
        return None
    compiled = any(getattr(layer, "compiled", False) for layer in attacked.modules())
    source = _loaded(name, str(x.device), compiled)
    classes = getattr(attacked, "num_classes", source.num_classes)
    if (source.in_channels, source.num_classes) != (x.shape[1], classes):
        raise GateError(
            f"The source {name} is for {source.in_channels} channels and {source.num_classes} classes, not "
            f"for the {x.shape[1]} channels and {classes} classes of the attacked network."
        )
    return source


def source_digest(name: str) -> str | None:
    """sha256 of the source's weights; None for the attacked network itself."""
    return None if name == ITSELF else store.locate(name).weights.sha256


@cache
def _loaded(name: str, device: str, compiled: bool) -> Model:
    model = Model.from_pretrained(name, device=device)
    if compiled:
        model.compile_operators()
    return model.requires_grad_(False).eval()
