"""Attacks of the package torchattacks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tdsnn.attacks._ascent import Steps
from tdsnn.attacks._base import DEFAULT_STRENGTHS, Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import respond
from tdsnn.attacks._objective import through
from tdsnn.errors import MissingError, UsageError
from tdsnn.kernels.surrogates import Surrogate, read_surrogates
from tdsnn.registry import suggest
from tdsnn.tasks._base import Task

__all__ = ["TorchAttacks"]

_THEIR_NORMS = {"linf": "Linf", "l2": "L2"}
_SEEDS = 2**31


@dataclass(frozen=True, kw_only=True)
class TorchAttacks(Attack):
    """Any attack of torchattacks (Kim, 2020, arXiv:2010.01950) that takes a radius: ``torchattacks:PGD``.

    Its step size keeps the library's ratio to eps. The library draws for a batch from the global generator,
    so here each image is attacked alone with a seed of its own, which takes longer. What it returns is judged
    as it is: nothing is clipped, and any iterate on the way does not count.
    """

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = DEFAULT_STRENGTHS
    leading: ClassVar[str | None] = "attack"

    attack: str = "APGD"
    """Its class."""
    steps: Steps | None = None
    """By default its own number; 1 of an attack that takes none."""
    surrogate: str = "as-trained"
    """What gradients of spikes are taken through; only functions of the potential, such as ``atan-4``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self._parameters()
        if self.steps is None:
            object.__setattr__(self, "steps", known["steps"].default if "steps" in known else 1)
        elif self.steps > 1 and "steps" not in known:
            raise UsageError(f"{self.attack} of torchattacks takes no steps.", hint="Leave out steps.")
        self._surrogate()

    def choose_norm(self, norm: str | None) -> str | None:
        own = "l2" if self.attack.endswith("L2") else "linf"
        if "norm" not in self._parameters() and norm not in (None, own):
            raise UsageError(
                f"{self.attack} of torchattacks has no norm '{norm}'; allowed: {own}.",
                hint="APGD has both: --attack torchattacks:APGD,norm=l2",
            )
        return super().choose_norm(own if norm is None else norm)

    def objection(self, model: nn.Module, task: Task) -> str | None:
        if not task.chooses_class:
            return "The attacks of torchattacks need logits of classes, which this task does not have."
        return super().objection(model, task)

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        eps: float,
        norm: str | None,
        task: Task,
        generator: SampleDraws,
    ) -> Tensor:
        """One image after the other; see :meth:`Attack.run`."""
        assert norm is not None
        if eps == 0:
            return x
        target = through(model, self._surrogate())
        arguments = self._arguments(eps, norm, classes=respond(model, x[:1]).shape[1])
        seeds = ((generator.uniform(x[:, 0, 0, 0]) + 1) / 2 * _SEEDS).long().tolist()
        return torch.cat(
            [
                self._one(target, image[None], label[None], arguments, seed)
                for image, label, seed in zip(x, y, seeds, strict=True)
            ]
        )

    def _one(
        self, model: nn.Module, image: Tensor, label: Tensor, arguments: Mapping[str, Any], seed: int
    ) -> Tensor:
        if "seed" in self._parameters():
            arguments = {**arguments, "seed": seed}
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []), torch.enable_grad():
            torch.manual_seed(seed)
            found: Tensor = self._kind()(model, **arguments)(image, label)
        return found.detach()

    def _arguments(self, eps: float, norm: str, *, classes: int) -> dict[str, Any]:
        known = self._parameters()
        offered = {"eps": eps, "norm": _THEIR_NORMS[norm], "n_classes": classes, "steps": self.steps}
        if "alpha" in known:
            offered["alpha"] = eps * known["alpha"].default / known["eps"].default
        return {key: value for key, value in offered.items() if key in known}

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self._kind()).parameters

    def _kind(self) -> Any:
        library = _library()
        kind = getattr(library, self.attack, None)
        if not (isinstance(kind, type) and "eps" in inspect.signature(kind).parameters):
            unknown = suggest(self.attack, _names(library), kind="attack of torchattacks")
            raise UsageError(unknown.message, hint=f"Those that take eps: {', '.join(_names(library))}.")
        return kind

    def _surrogate(self) -> Surrogate | None:
        surrogate, *more = read_surrogates(self.surrogate)
        if more:
            raise UsageError(
                f"An attack of torchattacks takes one surrogate, not '{self.surrogate}'.",
                hint="Give --attack once for each.",
            )
        if surrogate is not None:
            _ = surrogate.derivative
        return surrogate


def _names(library: Any) -> Iterable[str]:
    kinds = {name: kind for name, kind in vars(library).items() if isinstance(kind, type)}
    return sorted(name for name, kind in kinds.items() if "eps" in inspect.signature(kind).parameters)


def _library() -> Any:
    try:
        import torchattacks
    except ModuleNotFoundError as error:
        raise MissingError(
            f"The attacks of torchattacks need the package '{error.name}', which is not installed.",
            hint="Install it: pip install --no-deps torchattacks==3.5.1",
        ) from error
    return torchattacks
