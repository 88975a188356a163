"""Processes that do one piece of work together, as ``torchrun`` starts them."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tdsnn.errors import TdsnnError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "ALONE",
    "Team",
    "is_main",
    "launched",
    "launcher",
    "own_device",
    "present_team",
    "team",
    "usable_cores",
]

Item = TypeVar("Item")
Found = TypeVar("Found")
_PATIENCE = timedelta(days=7)
"""How long a process waits for what another one computes alone, e.g. a search for positions."""


def is_main() -> bool:
    """Whether this is the process that prints and writes. ``torchrun`` says so before torch is imported."""
    return os.environ.get("RANK", "0") == "0"


def launched() -> int:
    """How many processes the launcher started, which work together once they have found each other."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launcher() -> list[str]:
    """First words of a command that is to run as this one does, alone or in as many processes."""
    together, here = launched(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if together == 1:
        return ["tdsnn-zoo"]
    nodes = [f"--nnodes={together // here}"] if together > here else []
    return ["torchrun", *nodes, f"--nproc-per-node={here}", "-m", "tdsnn"]


def usable_cores() -> int:
    """CPU cores that this process may use."""
    # Not every system lets a process be tied to some of them.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_device(device: torch.device) -> torch.device:
    """Each process of a machine gets a GPU of its own, if it was to be any.

    Raises:
        UsageError: the machine has fewer GPUs than processes.
    """
    import torch

    place = os.environ.get("LOCAL_RANK")
    if place is None or str(device) != "cuda":
        return device
    if int(place) >= torch.cuda.device_count():
        raise UsageError(
            f"Process {place} of this machine has no GPU of its own: there are {torch.cuda.device_count()}.",
            hint="Start fewer, torchrun --nproc-per-node, or compute on --device cpu.",
        )
    return torch.device("cuda", int(place))


@dataclass(frozen=True)
class Team:
    """The processes of one run; all of them have to call the same methods in the same order."""

    rank: int = 0
    size: int = 1
    group: Any = None
    """Of ``torch.distributed``, for objects on CPU; None for a process alone. Tensors go through its default
    group, which knows their device."""

    def gathered(self, own: Tensor, dim: int) -> Tensor:
        """The tensors of all processes, equal in shape, one after the other along ``dim``.

        For a loss of the whole batch that every process computes alike. Its gradient at ``own`` comes times
        the number of processes, so that the mean over them, which is what
        :class:`~torch.nn.parallel.DistributedDataParallel` takes, is the gradient of that one loss.
        """
        if self.group is None:
            return own
        import torch
        import torch.distributed as dist

        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own.view_as(own)
        if own.requires_grad:
            parts[self.rank].register_hook(lambda gradient: gradient * self.size)  # type: ignore[no-untyped-call]
        return torch.cat(parts, dim)

    def mean(self, own: Tensor) -> Tensor:
        """The mean over the processes of tensors equal in shape, without gradient."""
        if self.group is None:
            return own
        import torch
        import torch.distributed as dist

        total = own.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / self.size

    def means(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The means over the processes of numbers that all have under the same names, in one order."""
        if self.group is None:
            return dict(numbers)
        import torch
        import torch.distributed as dist

        totals = torch.tensor(list(numbers.values()), dtype=torch.float64)
        dist.all_reduce(totals, group=self.group)
        return dict(zip(numbers, (totals / self.size).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it is so in one of the processes, or in more."""
        if self.group is None:
            return flag
        import torch
        import torch.distributed as dist

        found = torch.tensor(int(flag))
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return bool(found)

    def once(self, compute: Callable[[], Found]) -> Found:
        """What the first process computes, for all of them.

        Raises:
            TdsnnError, KeyboardInterrupt, RuntimeError: what was raised there.
        """
        if self.group is None:
            return compute()
        import torch.distributed as dist

        answers: list[Any] = [_outcome(compute) if self.rank == 0 else None]
        dist.broadcast_object_list(answers, src=0, group=self.group)
        return cast(Found, _result(answers[0]))

    def shared(self, items: Sequence[Item], compute: Callable[[Item], Found]) -> list[Found]:
        """What ``compute`` gives for each item, in their order; each is computed by one process.

        Raises:
            TdsnnError, KeyboardInterrupt, RuntimeError: the first one that was raised in any process.
        """
        if self.group is None:
            return [compute(item) for item in items]
        import torch.distributed as dist

        everyone: list[Any] = [None] * self.size
        own = _outcome(lambda: [compute(item) for item in items[self.rank :: self.size]])
        dist.all_gather_object(everyone, own, group=self.group)
        parts = [_result(answer) for answer in everyone]
        return [cast(Found, parts[place % self.size][place // self.size]) for place in range(len(items))]


_Raised = (TdsnnError, KeyboardInterrupt, RuntimeError)
"""What all processes raise where one does; a GPU without memory is a RuntimeError."""


def _outcome(compute: Callable[[], Found]) -> Any:
    """What a process gives or raises; the others wait for either."""
    try:
        return compute()
    except _Raised as error:
        return error


def _result(answer: Any) -> Any:
    if isinstance(answer, _Raised):
        raise answer
    return answer


ALONE = Team()
"""One process."""


def present_team() -> Team:
    """The processes of the group that ``torch.distributed`` has, or this one alone; all have to ask."""
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return ALONE
    atexit.register(_leave)
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return Team(rank=dist.get_rank(), size=dist.get_world_size(), group=group)


def _leave() -> None:
    """End the threads of gloo: now and then a process that ends before they do is aborted."""
    import torch.distributed as dist

    gc.collect()  # what still holds a group
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


@contextmanager
def team() -> Iterator[Team]:
    """The processes that ``torchrun`` started, or this one alone."""
    if launched() == 1:
        yield ALONE
        return
    import torch.distributed as dist

    begun = dist.is_initialized()
    if not begun:
        dist.init_process_group("gloo")
    try:
        yield present_team()
    finally:
        if not begun:
            dist.destroy_process_group()
