"""What a saved state depends on: kept in it, so that no run of another kind takes it up as its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tdsnn.errors import UsageError

Origin = Mapping[str, Any]
"""What it is called in a sentence, e.g. ``seed``, to its value or the digest of its content; JSON values."""
_SHOWN = 12
"""Digits of a digest that tell two apart."""


def require_same(stored: Origin, now: Origin, *, what: str, hint: str) -> None:
    """Hold the origin that a state states of itself against the present one.

    Args:
        stored: one of an earlier version may lack parts; these are taken on trust.
        what: subject of the sentence.

    Raises:
        UsageError: a part differs.
    """
    for part, value in now.items():
        if part in stored and stored[part] != value:
            before, here = (_shown(one) for one in (stored[part], value))
            raise UsageError(
                f"{what} was made with another {part} ({before}) than it has here ({here}).", hint=hint
            )


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values, in the order of the names, 64 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_shown(one) for one in value.values())
    return value[:_SHOWN] if isinstance(value, str) and len(value) == 64 else str(value)
