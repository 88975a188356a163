"""A second device for machines without a GPU: its tensors say ``cuda``, but are computed on the CPU.

Inside :func:`second_device` PyTorch believes in CUDA. A tensor there refuses to meet one of the CPU, and a
:class:`Ledger` counts by line of the project what a GPU would feel: kernels that are launched, and looks at
values for which the CPU waits until the device has finished. What only a real GPU shows, as speed, order of
execution, rounding and crashes of its kernels, is in ``tests/gpu``.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import tdsnn

_BEHIND = torch.device("meta")
"""What C++ code takes it for: a kind without a driver, whose backward passes run in the caller's thread."""
_PROJECT = str(Path(tdsnn.__file__).parent)
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)

_MOVES = {"aten::_to_copy", "aten::copy_"}
"""May have operands of both devices."""
_INDEXING = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}
"""Take indices of the CPU, which are copied; a mask is first turned into indices."""
_SCALARS = {"aten::_local_scalar_dense", "aten::equal"}
"""Give a number of Python."""
_WAITS = _SCALARS | {
    *("aten::nonzero", "aten::masked_select", "aten::bincount", "aten::repeat_interleave.Tensor"),
    *("aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive"),
}
"""The shape of the result, or a number for Python, depends on values."""
_NO_KERNEL = _SCALARS | {
    *("aten::empty", "aten::empty_strided", "aten::empty_like", "aten::new_empty", "aten::new_empty_strided"),
    *("aten::detach", "aten::lift_fresh", "aten::set_", "aten::resize_"),
}
_LOWERED = {torch.conv2d, torch.nn.functional.linear, torch.matmul, torch.mm, torch.bmm, torch.addmm}
"""What autocast computes in its lower type, as far as the project uses it."""


class Ledger:
    """What the second device was asked for, by line of the project (``FILE:LINE``)."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        """(why, line)."""

    def total(self) -> tuple[int, int]:
        """Launches and waits so far."""
        return self.launches.total(), self.waits.total()


class _State:
    """What the emulated driver remembers."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.current = 0
        """Index of the device that ``cuda`` alone means."""
        self.ledger = Ledger()
        self.pinned: dict[int, torch.UntypedStorage] = {}
        """By address; they are kept alive, so that none is given out again."""
        self.on_the_way: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Memory of the CPU, and what the device will have written there when somebody has waited."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.index)

    def own(self, wanted: torch.device | str) -> torch.device:
        """The name that C++ code knows, for ``cuda`` or ``cuda:INDEX``."""
        device = torch.device(wanted)
        if device.type != "cuda":
            return device
        index = self.current if device.index is None else device.index
        if index != self.index:
            raise RuntimeError(f"A tensor was to go to cuda:{index} while the work is on {self.device}.")
        return _BEHIND

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.pinned

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.is_pinned(tensor):
            return tensor
        copy = tensor.clone()
        self.pinned[copy.untyped_storage().data_ptr()] = copy.untyped_storage()
        return copy

    def fetch(self, values: torch.Tensor) -> torch.Tensor:
        """A copy that is worth nothing before a wait."""
        there = torch.full_like(values, torch.nan if values.is_floating_point() else 0)
        self.on_the_way.append((there, values))
        return there

    def wait(self, why: str) -> None:
        self.ledger.waits[why, _line()] += 1
        for there, values in self.on_the_way:
            there.copy_(values)
        self.on_the_way.clear()

    def exchange(self, index: int) -> int:
        """Another current device; the one before."""
        before = self.current
        self.current = index if index >= 0 else before
        return before


_state = _State(0)


class _Event:
    """Of ``torch.cuda``: the device reaches it as soon as somebody waits."""

    def record(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None:
        _state.wait("event")


class Remote(torch.Tensor):
    """A tensor of the second device; ``raw`` has its values."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> Remote:
        made: Remote = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=_BEHIND,
            _extra_dispatch_keys=_AUTOCAST,
        )
        made.raw = raw
        return made

    device = property(lambda self: _state.device)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self) -> Any:
        return self.to("cpu").tolist()

    def __reduce_ex__(self, protocol: int) -> Any:
        _state.wait("device to host")
        return self.raw.__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"Remote({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Kernels(TorchDispatchMode):
    """Sees tensors that are made on the device, of which none is there before."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Keeps ``cuda`` from C++ code, which would ask the driver, and does what autocast and pinning do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.is_pinned:
            return _state.is_pinned(args[0])
        if func is torch.Tensor.pin_memory:
            return _state.pin(args[0])
        if func is torch.Tensor.cuda:
            return args[0].to(_state.own("cuda" if len(args) < 2 else args[1]))
        if kwargs.get("device") is not None:
            kwargs["device"] = _state.own(kwargs["device"])
        if func is torch.Tensor.to:
            args = tuple(_state.own(a) if isinstance(a, (str, torch.device)) else a for a in args)
        if func in _LOWERED and torch.is_autocast_enabled("cuda"):
            lower = torch.get_autocast_dtype("cuda")
            single = [isinstance(a, Remote) and a.dtype == torch.float32 for a in args]
            args = tuple(a.to(lower) if s else a for a, s in zip(args, single, strict=True))
        pinned = kwargs.pop("pin_memory", False)
        out = func(*args, **kwargs)
        return _state.pin(out) if pinned else out


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    base, name = func._schema.name, func._schema.name
    if func._schema.overload_name:
        name = f"{base}.{func._schema.overload_name}"
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    remote = [tensor for tensor in tensors if isinstance(tensor, Remote)]
    target = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if not remote and target != _BEHIND.type:
        return func(*args, **kwargs)
    local = [tensor for tensor in tensors if not isinstance(tensor, Remote)]
    if remote and base not in _MOVES:
        _refuse_strangers(name, args, local)
    # Kernels of others run on the current device, which in a backward pass PyTorch sets itself.
    forward = torch._C._current_graph_task_id() == -1
    if forward and not base.startswith("aten::") and _state.current != _state.index:
        raise RuntimeError(
            f"{name} was launched while cuda:{_state.current} was current, not {_state.device}."
        )
    _note(func, name, args, kwargs, local)
    leaves = _leaves(kwargs)
    if target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    raw_args, raw_kwargs = tree_map(_raw, (args, kwargs))
    out = func(*raw_args, **raw_kwargs)
    if leaves and kwargs.get("non_blocking"):
        return _state.fetch(out)
    if base in _SCALARS or leaves:
        return out
    known = {id(tensor.raw): tensor for tensor in remote} | {id(tensor): tensor for tensor in local}
    return tree_map(lambda one: _wrapped(one, known), out)


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, Remote) else value


def _wrapped(value: Any, known: dict[int, torch.Tensor]) -> Any:
    """A result as a tensor of the device; in-place results are the tensors that were given."""
    if not isinstance(value, torch.Tensor):
        return value
    return known.get(id(value)) if id(value) in known else Remote(value)


def _refuse_strangers(name: str, args: Any, local: list[torch.Tensor]) -> None:
    # As on CUDA a single number of the CPU is taken along, and so are indices.
    if name in _INDEXING and isinstance(args[0], Remote):
        return
    strangers = [tuple(tensor.shape) for tensor in local if tensor.ndim]
    if strangers:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} got {_state.device} and cpu "
            f"{strangers} at {_line()}."
        )


def _note(func: Any, name: str, args: Any, kwargs: dict[str, Any], local: list[torch.Tensor]) -> None:
    base = func._schema.name
    if base in _MOVES:
        _note_move(base, args, kwargs, local)
    elif name in _WAITS or base in _WAITS:
        _state.wait(name)
    elif name in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            _state.wait(f"{name} with a mask")
        elif local:
            _state.wait(f"{name} with indices of the CPU")
    views = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
    if not views and base not in _NO_KERNEL:
        _state.ledger.launches[_line()] += 1


def _note_move(base: str, args: Any, kwargs: dict[str, Any], local: list[torch.Tensor]) -> None:
    copy = base == "aten::copy_"
    asynchronous = kwargs.get("non_blocking") or (copy and len(args) > 2 and args[2])
    if copy and not isinstance(args[0], Remote):
        _state.wait("device to host")
    elif _leaves(kwargs):
        if not asynchronous:
            _state.wait("device to host")
    # Without pinned memory the driver first copies to its own, and waits for that.
    elif not (asynchronous and all(map(_state.is_pinned, local))) and any(
        tensor.ndim or not copy for tensor in local
    ):
        _state.wait("host to device")


def _leaves(kwargs: dict[str, Any]) -> bool:
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"


def _line() -> str:
    """The innermost line of the project that is being executed."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PROJECT):
            return f"{Path(file).relative_to(_PROJECT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside the project"


def _driver(state: _State) -> dict[str, Callable[..., Any]]:
    """Functions of ``torch.cuda`` that stand for the driver's."""
    return {
        "is_available": lambda: True,
        "device_count": lambda: state.index + 1,
        "current_device": lambda: state.current,
        "set_device": lambda device: state.exchange(torch.device(device).index or 0),
        "_exchange_device": state.exchange,
        "_maybe_exchange_device": state.exchange,
        "_lazy_init": lambda: None,
        "get_device_name": lambda device=None: "second device",
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda *_: True,
        "is_current_stream_capturing": lambda: False,
        "empty_cache": lambda: None,
        "get_rng_state": lambda device: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda new_state, device: None,
        "synchronize": lambda device=None: state.wait("synchronize"),
        "Event": lambda **_: _Event(),
    }


@contextlib.contextmanager
def second_device(index: int = 0) -> Iterator[Ledger]:
    """Inside the block the machine has ``cuda:0`` to ``cuda:INDEX``, and work may be on the last one alone.

    The block's modes are of its thread only: other threads see the machine as it is.
    """
    global _state
    before, _state = _state, _State(index)
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        torch.__future__.set_swap_module_params_on_conversion(True)
        for name, function in _driver(_state).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        stream = mock.patch.object(torch.accelerator, "current_stream")
        stack.enter_context(stream).return_value.is_capturing.return_value = False
        stack.enter_context(_Kernels())
        stack.enter_context(_Calls())
        try:
            yield _state.ledger
        finally:
            _state = before
