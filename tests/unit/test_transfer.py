"""Gradients of another network: black-box attacks by transfer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import network, pictures
from torch import Tensor, nn

from tdsnn.attacks._base import configure
from tdsnn.attacks._spec import attack_specs
from tdsnn.errors import GateError, UsageError
from tdsnn.files import sha256_of
from tdsnn.models._base import Model

N, EPS = 12, 16 / 255


class Masked(nn.Module):
    """A network's answers without its gradient."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.num_classes = model, model.num_classes

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits.detach() + 0 * x.flatten(1).sum(1, keepdim=True)


@pytest.fixture
def model() -> Model:
    return network("sresnet18", width=4, timesteps=2)


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> str:
    model.save_pretrained(tmp_path / "source", dataset="cifar10")
    return str(tmp_path / "source")


@pytest.fixture
def batch(model: Model) -> tuple[Tensor, Tensor]:
    x = pictures(N)
    with torch.no_grad():
        return x, model(x).argmax(1)


@pytest.mark.parametrize(
    "attack", ["fgsm", "pgd:steps=3", "apgd:steps=4", "sapgd:steps=3", "apgdt:steps=2,targets=2"]
)
def test_the_network_as_its_own_source_is_attacked_as_without(
    model: Model, folder: str, batch: tuple[Tensor, Tensor], attack: str
) -> None:
    x, y = batch
    (plain,) = attack_specs([attack])
    (transferred,) = attack_specs(
        [f"{attack},source={folder}" if ":" in attack else f"{attack}:source={folder}"]
    )
    ours, theirs = (
        spec.attack.perturb(model, x, y, eps=EPS, indices=range(N)) for spec in (plain, transferred)
    )
    assert torch.equal(ours.x_adv, theirs.x_adv)
    assert ours.robust.tolist() == theirs.robust.tolist()


@pytest.mark.parametrize("surrogate", ["as-trained", "atan-1"])
def test_a_masked_network_falls_to_another_ones_gradients(
    model: Model, folder: str, batch: tuple[Tensor, Tensor], surrogate: str
) -> None:
    x, y = batch
    own, transferred = (
        configure("pgd", steps=10, random_start=False, **settings).perturb(
            Masked(model), x, y, eps=EPS, indices=range(N)
        )
        for settings in ({}, {"source": folder, "surrogate": surrogate})
    )
    assert own.robust.all(), "there is no gradient to follow"
    assert not transferred.robust.all()


def test_its_weights_are_part_of_what_a_number_depends_on(folder: str) -> None:
    assert configure("pgd", source=folder).inputs == {folder: sha256_of(Path(folder, "model.safetensors"))}
    assert configure("pgd").inputs == {}


def test_a_source_that_cannot_be_used_is_refused(folder: str, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UsageError, match="sresnet18"):
        configure("pgd", source="sresnet81")
    x, _ = batch
    for other in ({"num_classes": 3}, {"in_channels": 1, "mean": (0.5,), "std": (0.5,)}):
        attacked = network("sresnet18", width=4, timesteps=1, **other)
        images = x[:, : attacked.in_channels]
        with torch.no_grad():
            y = attacked(images).argmax(1)
        with pytest.raises(GateError, match="channels and"):
            configure("pgd", source=folder).perturb(attacked, images, y, eps=EPS, indices=range(N))
