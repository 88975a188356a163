"""Whether an exported file answers as its model does: logits, classes, and every spike of every layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tdsnn.certificates import LOGITS_BAR, LayerFlips, OtherClass, OwnPaths
from tdsnn.errors import IntegrityError
from tdsnn.exporting.formats._base import Exported
from tdsnn.exporting.program import spiking_layers
from tdsnn.models._base import Model

BATCH = 50
"""Images at a time: the spikes of all layers are in memory twice."""


@dataclass
class Agreement:
    """What was found so far about a file and its model on the same images."""

    images: int = 0
    flipped_images: int = 0
    other_classes: list[OtherClass] = field(default_factory=list)
    largest_logit: float = 0.0
    worst_difference: float = 0.0
    worst_without_flips: float = 0.0
    flips: dict[str, int] = field(default_factory=dict)
    """Layer to the number of its spikes that are in only one of the two."""
    compared: dict[str, int] = field(default_factory=dict)
    """Layer to units times steps times images."""
    answers: list[Tensor] = field(default_factory=list)
    """The model's logits, batch by batch."""

    @property
    def layers(self) -> tuple[LayerFlips, ...]:
        """Flips of each spiking layer, as a certificate has them."""
        return tuple(
            LayerFlips(layer=layer, flips=self.flips[layer], compared=compared)
            for layer, compared in self.compared.items()
        )

    def add(self, model: Model, exported: Exported, images: Tensor, *, timesteps: int) -> None:
        """Compare the answers to a batch (N, C, H, W), float in [0, 1].

        Raises:
            IntegrityError: the file gives logits or spikes of other shapes, or other layers.
        """
        with torch.no_grad(), _recorded(model) as ours:
            expected = model(images, timesteps)
        found, theirs = exported.logits(images), exported.spikes(images)
        _require_same_form(
            expected, found, {layer: torch.cat(calls) for layer, calls in ours.items()}, theirs
        )
        flips = torch.zeros(len(images), dtype=torch.int64)
        for layer, calls in ours.items():
            differs = (torch.cat(calls) > 0) != theirs[layer]
            self.flips[layer] = self.flips.get(layer, 0) + int(differs.sum())
            self.compared[layer] = self.compared.get(layer, 0) + differs.numel()
            flips += differs.transpose(0, 1).flatten(1).sum(1)
        self._note(expected, found, flips)

    def _note(self, expected: Tensor, found: Tensor, flips: Tensor) -> None:
        worst = difference(expected, found)
        for place in (expected.argmax(1) != found.argmax(1)).nonzero().flatten().tolist():
            first, second = expected[place].topk(2).values.tolist()
            self.other_classes.append(
                OtherClass(image=self.images + place, lead=first - second, flips=int(flips[place]))
            )
        still = flips == 0
        self.images += len(expected)
        self.flipped_images += int((~still).sum())
        self.largest_logit = max(self.largest_logit, float(expected.abs().max()))
        self.worst_difference = max(self.worst_difference, float(worst.max()))
        self.worst_without_flips = max(
            self.worst_without_flips, float(worst[still].max()) if still.any() else 0.0
        )
        self.answers.append(expected)


def difference(expected: Tensor, found: Tensor) -> Tensor:
    """Largest difference (N,) of the logits (N, K) of each image; of no number the largest there is."""
    # NaN would vanish in a maximum, and JSON has no infinity.
    largest = torch.finfo(torch.float32).max
    return (expected - found).abs().nan_to_num(largest, largest).amax(1)


def own_paths(model: Model, answers: Tensor, images: Iterable[Tensor], *, timesteps: int) -> OwnPaths:
    """A model through its compiled operators against its ``answers`` (N, K) through PyTorch's.

    Args:
        images: the same ones, in batches (n, C, H, W).
    """
    with torch.no_grad():
        again = torch.cat([model(batch, timesteps) for batch in images])
    return OwnPaths(
        argmax_differences=int((again.argmax(1) != answers.argmax(1)).sum()),
        moved_images=int((difference(answers, again) > LOGITS_BAR).sum()),
    )


@contextmanager
def _recorded(model: Model) -> Iterator[dict[str, list[Tensor]]]:
    """Spiking layer to the spikes (T, N, ...) of each of its calls inside the block, bool."""
    found: dict[str, list[Tensor]] = {}
    with ExitStack() as hooks:
        for name, layer in spiking_layers(model).items():

            def note(_module: nn.Module, _inputs: object, spikes: Tensor, name: str = name) -> None:
                found.setdefault(name, []).append(spikes > 0)

            hooks.callback(layer.register_forward_hook(note).remove)
        yield found


def _require_same_form(
    expected: Tensor, found: Tensor, ours: dict[str, Tensor], theirs: dict[str, Tensor]
) -> None:
    if found.shape != expected.shape:
        raise IntegrityError(
            f"The exported file gives logits {tuple(found.shape)}, the model {tuple(expected.shape)}.",
            hint="Export the model again.",
        )
    shapes = [{layer: tuple(one.shape) for layer, one in spikes.items()} for spikes in (ours, theirs)]
    if shapes[0] != shapes[1]:
        odd = next(layer for layer in {**ours, **theirs} if shapes[0].get(layer) != shapes[1].get(layer))
        raise IntegrityError(
            f"The exported file has spikes {shapes[1].get(odd, 'nowhere')} of layer '{odd}', "
            f"the model {shapes[0].get(odd, 'nowhere')}.",
            hint="Export the model again.",
        )
