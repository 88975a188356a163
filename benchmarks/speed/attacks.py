"""PGD and Auto-PGD beside those of torchattacks, on the same compiled model and the same images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed._measure import Row, Settings, Target, interleave, speedup_row
from tdsnn import manifest, zoo
from tdsnn.attacks._base import Attack, configure
from tdsnn.attacks._gradient import respond
from tdsnn.data._base import load_split
from tdsnn.errors import MissingError

_MODEL = "sresnet18"
_AUTO_STEPS = 20
_BATCH = 100
_SHARES = 5
"""Rounds of one run: the images are divided among them, so that all are attacked once by each side."""
_TARGETS = {(10, 8): 4.0, (10, 1): 2.0, (100, 8): 3.0}
"""By steps and radius times 255. Of a long search at 8/255 most images leave early."""
_Batches = list[tuple[range, Tensor, Tensor]]


def run(settings: Settings) -> list[Row]:
    """Images attacked and judged per second, and how many verdicts differ.

    The rounds go through different images, because a round over all of them takes minutes.
    """
    _torchattacks()
    model = zoo.load(_MODEL)
    model.compile_operators()
    split = load_split(manifest.resolve(_MODEL).dataset, "test")
    batches = []
    for start in range(0, 100 if settings.quick else 1000, _BATCH):
        indices = range(start, start + _BATCH)
        images = torch.from_numpy(np.array(split.images[indices])).float() / 255
        batches.append((indices, images, torch.from_numpy(np.array(split.labels[indices]))))
    shares = [batches[start::_SHARES] for start in range(min(_SHARES, len(batches)))]
    rows = [_row(model, shares, eps_255, steps=steps) for steps, eps_255 in _TARGETS]
    return rows + [_auto_pgd_row(model, shares, eps_255) for eps_255 in (8, 1)]


def _row(model: nn.Module, shares: list[_Batches], eps_255: int, *, steps: int) -> Row:
    images, eps = sum(len(indices) for indices, _, _ in shares[0]), eps_255 / 255
    stock = Theirs(model, shares, eps, steps=steps)
    ours = Ours(model, shares, eps, attack=configure("pgd", steps=steps))
    respond(model, shares[0][0][1])
    timings = interleave({"torchattacks": stock, "ours": ours}, rounds=len(shares), warmup=0)
    return speedup_row(
        f"PGD-{steps}, eps {eps_255}/255, {len(ours.robust)} images, against torchattacks",
        timings,
        stock="torchattacks",
        ours="ours",
        images=images,
        target=Target(bound="at least", value=_TARGETS[steps, eps_255]),
        details={
            "images": len(ours.robust),
            "robust_ours": int(ours.robust.sum()),
            "robust_torchattacks": int(stock.robust.sum()),
            "robust_torchattacks_any_iterate": int(stock.robust_any.sum()),
            "verdicts_differing": int((ours.robust != stock.robust).sum()),
            "verdicts_differing_any_iterate": int((ours.robust != stock.robust_any).sum()),
        },
    )


def _auto_pgd_row(model: nn.Module, shares: list[_Batches], eps_255: int) -> Row:
    images, eps = sum(len(indices) for indices, _, _ in shares[0]), eps_255 / 255
    stock = TheirAutoPGD(model, shares, eps)
    ours = Ours(model, shares, eps, attack=configure("apgd", steps=_AUTO_STEPS))
    timings = interleave({"torchattacks": stock, "ours": ours}, rounds=len(shares), warmup=0)
    return speedup_row(
        f"APGD-{_AUTO_STEPS}, eps {eps_255}/255, {len(ours.robust)} images, against torchattacks",
        timings,
        stock="torchattacks",
        ours="ours",
        images=images,
        target=Target(bound="at least", value=1.0),
        details={
            "images": len(ours.robust),
            "robust_ours": int(ours.robust.sum()),
            "robust_torchattacks": int(stock.robust.sum()),
        },
    )


class Ours:
    """This project's PGD or another attack; a call attacks a share, ``robust`` (images,) has all verdicts."""

    def __init__(self, model: nn.Module, shares: Iterable[_Batches], eps: float, *, attack: Attack) -> None:
        self.model, self.shares, self.eps, self.attack = model, iter(shares), eps, attack
        self.robust = torch.zeros(0, dtype=torch.bool)

    def __call__(self) -> None:
        for indices, x, y in next(self.shares):
            outcome = self.attack.perturb(self.model, x, y, eps=self.eps, indices=indices)
            self.robust = torch.cat([self.robust, outcome.robust])


class Theirs:
    """torchattacks' PGD with the same budget, steps and step size, and the clean verdict that ours has too.

    ``robust`` judges its last iterate, as the library does. ``robust_any`` lets any misclassified iterate
    count, as ours does; the batch's own forward passes tell it, at no cost.
    """

    def __init__(self, model: nn.Module, shares: Iterable[_Batches], eps: float, *, steps: int) -> None:
        self.watched = _Watched(model).eval()
        self.shares = iter(shares)
        self.attack = _torchattacks().PGD(self.watched, eps=eps, alpha=eps / 4, steps=steps)
        self.robust = self.robust_any = torch.zeros(0, dtype=torch.bool)

    def __call__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for _, x, y in next(self.shares):
                clean = respond(self.watched, x).argmax(1) == y
                self.watched.seen = []
                x_adv = self.attack(x, y)
                last = clean & (respond(self.watched, x_adv).argmax(1) == y)
                any_iterate = clean & (torch.stack(self.watched.seen) == y).all(0)
                self.robust = torch.cat([self.robust, last])
                self.robust_any = torch.cat([self.robust_any, any_iterate])


class TheirAutoPGD:
    """torchattacks' Auto-PGD with the same steps; any misclassified iterate counts, as with ours."""

    def __init__(self, model: nn.Module, shares: Iterable[_Batches], eps: float) -> None:
        self.model, self.shares = model.eval(), iter(shares)
        self.attack = _torchattacks().APGD(model, eps=eps, steps=_AUTO_STEPS)
        self.robust = torch.zeros(0, dtype=torch.bool)

    def __call__(self) -> None:
        # The library seeds the global generator.
        with torch.random.fork_rng(devices=[]):
            for _, x, y in next(self.shares):
                clean = respond(self.model, x).argmax(1) == y
                found = clean & (respond(self.model, self.attack(x, y)).argmax(1) == y)
                self.robust = torch.cat([self.robust, found])


class _Watched(nn.Module):
    """Remembers the predicted classes of every forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.seen.append(logits.detach().argmax(1))
        return logits


def _torchattacks() -> Any:
    try:
        import torchattacks
    except ModuleNotFoundError as error:
        raise MissingError(
            f"The comparison of attacks needs the package '{error.name}', which is not installed.",
            hint="Install it: pip install --no-deps torchattacks==3.5.1",
        ) from error
    return torchattacks
