"""Whether a model is what its architecture and arguments make: only such a model can be saved."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from tdsnn.errors import UsageError
from tdsnn.weights import state_difference

if TYPE_CHECKING:
    from tdsnn.models._base import Model

_NEUTRAL = ("arguments", "compiled", "dataset", "momentum", "sheets")
"""Attributes that do not decide what a model in eval mode answers to images."""
_PYTORCHS = frozenset({"training", *(name for name in dir(nn.Module()) if name.startswith("_"))})


def require_rebuilt(model: Model, rebuilt: Model) -> None:
    """Refuse a model that differs from the one made of its architecture and arguments in more than weights.

    Compared are the modules and their types, every tensor's name, shape and type, the values of buffers that
    are not saved, and attributes: those that the rebuilt modules have, and those of the model's that override
    something of their class. Hooks are not looked at: they belong to whoever listens.

    Raises:
        UsageError: names the first difference.
    """
    found = (
        _modules(model, rebuilt)
        or state_difference(model.state_dict(), rebuilt.state_dict())
        or _constants(model, rebuilt)
        or _attributes(model, rebuilt)
    )
    if found:
        raise UsageError(
            f"This {model.architecture} cannot be saved, since loading would give another model: {found}.",
            hint=_advice(model, rebuilt),
        )


def _modules(model: Model, rebuilt: Model) -> str | None:
    ours, theirs = dict(model.named_modules()), dict(rebuilt.named_modules())
    for name, module in ours.items():
        if is_parametrized(module):
            return f"'{name}' is parametrised"
        if name not in theirs:
            # Parts of a module that is another one altogether: that is the better thing to say.
            continue
        if type(module) is not type(theirs[name]):
            return f"'{name}' is {_kind(module)} here, but {_kind(theirs[name])} by its arguments"
    odd = next((name for name in (*ours, *theirs) if (name in ours) != (name in theirs)), None)
    return odd and f"the module '{odd}' is {'not there by its arguments' if odd in ours else 'missing'}"


def _constants(model: Model, rebuilt: Model) -> str | None:
    """The first buffer outside the checkpoint that differs."""
    ours, theirs = dict(model.named_buffers()), dict(rebuilt.named_buffers())
    saved = model.state_dict().keys()
    constants = (key for key in {**ours, **theirs} if key not in saved)
    odd = (key for key in constants if not _equal(ours.get(key), theirs.get(key)))
    return next((f"the buffer '{key}' is not what its arguments say" for key in odd), None)


def _attributes(model: Model, rebuilt: Model) -> str | None:
    theirs = dict(rebuilt.named_modules())
    for name, module in model.named_modules():
        here, there = vars(module), vars(theirs[name])
        for key in _deciding(module, there):
            if not _equal(here.get(key), there.get(key)):
                place = f"{name}.{key}".lstrip(".")
                return f"'{place}' is {_shown(here, key)} here, but {_shown(there, key)} by its arguments"
    return None


def _deciding(module: nn.Module, rebuilt: Mapping[str, Any]) -> Iterable[str]:
    """Names of attributes that the code of a module's class reads."""
    kind = type(module)
    overriding = (
        key
        for key in vars(module)
        if key not in rebuilt
        and hasattr(kind, key)
        and not isinstance(inspect.getattr_static(kind, key), cached_property)
    )
    return (key for key in (*rebuilt, *overriding) if key not in _PYTORCHS and key not in _NEUTRAL)


def _equal(one: Any, other: Any) -> bool:
    """Whether two attributes have the same value, as far as values can tell."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if type(one) is not type(other):
        return isinstance(one, int | float) and isinstance(other, int | float) and one == other
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, FunctionType | BuiltinFunctionType):
        # Made anew by each construction, a function of the same place is the same function.
        return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
    if isinstance(one, partial):
        return _equal((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    # What has no equality of its own is told by its type alone.
    return one.__eq__(other) is NotImplemented or bool(one == other)


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key])[:80] if key in values else "as in its class"


def _advice(model: Model, rebuilt: Model) -> str:
    names = list(model.state_dict())
    if any(".parametrizations." in f".{name}" for name in names):
        return "Make it plain weights: torch.nn.utils.parametrize.remove_parametrizations(module, name)"
    if any(name.endswith("_mask") for name in names):
        return "Make the pruning part of the weights: torch.nn.utils.prune.remove(module, name)"
    if {value.dtype for value in model.state_dict().values()} - {
        value.dtype for value in rebuilt.state_dict().values()
    }:
        return "Weights are kept as float32: model.float()"
    return f"Build a {model.architecture} with arguments that say so and load_state_dict into it."
