"""What an architecture takes, as the parameters of its constructor say, and what it was given."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tdsnn.errors import TdsnnError, UsageError
from tdsnn.models._registry import MODELS
from tdsnn.validation import check

if TYPE_CHECKING:
    from tdsnn.models._base import Model


def build(
    architecture: str,
    arguments: Mapping[str, Any],
    *,
    name: str,
    at: str = "arguments",
    error: type[TdsnnError] = UsageError,
    hint: str = "",
) -> Model:
    """A model from a document, in train mode; inside :func:`without_memory` it takes none.

    Args:
        architecture: registered name.
        name, at, error, hint: of the document and the place of the arguments in it, as of
            :func:`tdsnn.validation.check`.

    Raises:
        UsageError: no such architecture.
        error: an argument that it does not take, or of another type or out of range.
    """
    builder = MODELS.load(architecture)
    check(arguments, parameters(builder), name=name, at=at, error=error, hint=hint)
    with _refusals(architecture, name=name, error=error, hint=hint):
        return builder(**arguments)


def check_arguments(architecture: str, arguments: Mapping[str, Any], *, name: str, hint: str) -> int:
    """As :func:`build`, for a manifest and without memory; returns the model's number of time steps."""
    kind = parameters(MODELS.load(architecture))
    check(arguments, kind, name=name, at="model.arguments", hint=hint)
    with _refusals(architecture, name=name, error=UsageError, hint=hint):
        return _timesteps(architecture, json.dumps(arguments, sort_keys=True))


@cache
def _timesteps(architecture: str, arguments: str) -> int:
    # The runs of a sweep differ in other settings mostly, and building takes 60 ms.
    with without_memory():
        return MODELS.load(architecture)(**json.loads(arguments)).timesteps


@contextmanager
def without_memory() -> Iterator[None]:
    """Tensors made in the block have shapes and types, but no values."""
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Leaves out the draws of initial weights: without values they are nothing, and the first would import
    PyTorch's compiler, which takes longer than all else in loading a model."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return args[0] if func is Tensor.normal_ else func(*args, **(kwargs or {}))


@contextmanager
def _refusals(architecture: str, *, name: str, error: type[TdsnnError], hint: str) -> Iterator[None]:
    try:
        yield
    except (UsageError, ValueError, TypeError, RuntimeError, ArithmeticError, LookupError) as refused:
        reason = str(refused).splitlines()[0].rstrip(".")
        raise error(f"{name} does not fit {architecture}: {reason}.", hint=hint) from refused


def parameters(builder: Callable[..., Any]) -> type[msgspec.Struct]:
    """The keyword parameters of a function or class as a table that takes nothing else.

    A parameter ``Annotated`` with a dataclass is a table of that dataclass's fields.
    """
    described: Any = builder
    if isinstance(builder, type) and not is_dataclass(builder):
        described = builder.__init__  # type: ignore[misc]  # whichever class it is from
    hints = get_type_hints(described, include_extras=True)
    fields = [
        (parameter.name, _kind(hints.get(parameter.name, Any)), _default(parameter))
        for parameter in inspect.signature(builder).parameters.values()
    ]
    return msgspec.defstruct("Parameters", fields, frozen=True, kw_only=True, forbid_unknown_fields=True)


def _kind(hint: Any) -> Any:
    tables = [one for one in get_args(hint)[1:] if is_dataclass(one)] if get_origin(hint) is Annotated else []
    return parameters(tables[0]) | None if tables else hint  # type: ignore[arg-type]  # it is a class


def _default(parameter: inspect.Parameter) -> Any:
    return msgspec.NODEFAULT if parameter.default is parameter.empty else parameter.default
