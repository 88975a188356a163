"""Packages that are functions as well: ``tdsnn.bench(...)`` and ``tdsnn.bench.runner``.

The import system binds a package to its parent over any function of that name. A module may have a class of
its own instead (Python's data model, "Customizing module attribute access"), and a class can be called.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["make_callable"]


def make_callable(package: str, home: str) -> None:
    """Let a call of ``package`` be one of the function of its own name in the module ``home``.

    ``home`` is imported when it is first called.
    """

    def function() -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(importlib.import_module(home), package.rpartition(".")[2])
        return found

    class CallablePackage(ModuleType):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return function()(*arguments, **options)

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(function())

    sys.modules[package].__class__ = CallablePackage
