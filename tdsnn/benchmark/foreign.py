"""Networks that are no entry of the zoo: made by a function of the user's, or given as modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from tdsnn.benchmark.plan import ModelEntry
from tdsnn.errors import TdsnnError, UsageError
from tdsnn.models._adapted import Adapted, adapt
from tdsnn.models._base import Model

_HINT = (
    "Name a function without arguments that returns the network, tdsnn.adapt(...) or a torch.nn.Module: "
    "package.module:function, found from the working directory."
)


def made_by(name: str) -> ModelEntry:
    """The network that ``package.module:function`` returns.

    Raises:
        UsageError: no such module or function, one that fails, or one that returns something else.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        net = found() if callable(found) and not isinstance(found, nn.Module) else found
    except TdsnnError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise UsageError(f"{name} failed: {type(error).__name__}: {error}", hint=_HINT) from error
    return given(net, name=name)


def given(net: object, *, name: str | None = None) -> ModelEntry:
    """A module as an entry; one that is not adapted is taken to map (N, C, H, W) in [0, 1] to (N, K).

    Raises:
        UsageError: it is no module.
    """
    if not isinstance(net, nn.Module):
        raise UsageError(f"{name or 'The model'} is {type(net).__name__}, not a network.", hint=_HINT)
    if isinstance(net, Model):
        return ModelEntry(
            name=name or net.architecture,
            model=net,
            checkpoint_sha256=adapt(net).weights_sha256,
            source="memory",
            alone=_ALONE,
        )
    adapted = net if isinstance(net, Adapted) else adapt(net, name=name)
    return ModelEntry(
        name=name or adapted.name,
        model=adapted,
        checkpoint_sha256=adapted.weights_sha256,
        source="memory",
    )


_ALONE = "A network in memory: whether a spatial loss shaped it is not known, so it stands beside no twin."


def distinct(entries: Sequence[ModelEntry]) -> tuple[ModelEntry, ...]:
    """The entries, if each has another name.

    Raises:
        UsageError: two have the same.
    """
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"Two networks are called '{name}'.", hint="Give each a name: tdsnn.adapt(net, name=...)"
            )
    return tuple(entries)
