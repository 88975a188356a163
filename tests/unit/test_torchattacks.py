"""Attacks of torchattacks behind this project's rules."""

from __future__ import annotations

import sys

import pytest
import torch
from networks import network, pictures
from toys import Linear, batch

from tdsnn.attacks._base import configure
from tdsnn.attacks._spec import attack_specs
from tdsnn.errors import GateError, MissingError, UsageError

torchattacks = pytest.importorskip("torchattacks")


def test_an_attack_is_named_after_the_package() -> None:
    (spec,) = attack_specs(["torchattacks:PGD,steps=3,eps=2"])
    assert spec.settings == {"attack": "PGD", "steps": 3, "surrogate": "as-trained"}
    assert (spec.variant, spec.norm, spec.strengths) == ("attack=PGD,steps=3", "linf", (2,))
    assert attack_specs(["torchattacks:attack=PGD,steps=3,eps=2"]) == (spec,)
    (second,) = attack_specs(["torchattacks:PGDL2"])
    assert second.norm == "l2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("torchattacks:PDG", "no attack of torchattacks called 'PDG'. Did you mean PGD"),
        ("torchattacks:CW", "no attack of torchattacks called 'CW'"),
        ("torchattacks:FGSM,steps=3", "FGSM of torchattacks takes no steps"),
        ("torchattacks:PGD,norm=l2", "PGD of torchattacks has no norm 'l2'; allowed: linf"),
        ("torchattacks:PGD,surrogate=sweep", "takes one surrogate, not 'sweep'"),
        ("pgd:fast", "'fast' in 'pgd:fast' is not of the form key=value"),
    ],
)
def test_what_it_cannot_do_is_refused(text: str, message: str) -> None:
    with pytest.raises((UsageError, GateError)) as caught:
        attack_specs([text])
    assert message in caught.value.message
    assert caught.value.hint


def test_one_image_has_what_the_library_gives_with_its_seed() -> None:
    model = Linear()
    x, y = batch(model, 12)
    outcome = configure("torchattacks", attack="FGSM").perturb(model, x, y, eps=0.02, indices=range(12))
    theirs = torchattacks.FGSM(model.eval(), eps=0.02)(x[1:2], y[1:2])
    assert torch.equal(outcome.x_adv[1:2], theirs)
    steps = [
        configure("torchattacks", attack="BIM", steps=steps)
        .perturb(model, x, y, eps=0.01, indices=range(12))
        .x_adv
        for steps in (1, 4)
    ]
    # The library's step is a quarter of its eps.
    assert (steps[0] - x).abs().max() == pytest.approx(0.0025, rel=1e-3)
    assert (steps[1] - x).abs().max() == pytest.approx(0.01, rel=1e-3)


def test_what_leaves_the_ball_gets_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Linear()
    x, y = batch(model, 4)
    attack = configure("torchattacks", attack="FGSM")
    assert attack.perturb(model, x, y, eps=0.1, indices=range(4)).x_adv.shape == x.shape
    monkeypatch.setattr(torchattacks.FGSM, "forward", lambda self, images, labels: images + 2 * self.eps)
    with pytest.raises(GateError, match="left its linf ball"):
        attack.perturb(model, x, y, eps=0.1, indices=range(4))


def test_spikes_have_the_surrogate_that_was_asked_for() -> None:
    model, x = network("sresnet18", width=4), pictures(4)
    y = model(x).argmax(1)
    trained, same, other = (
        configure("torchattacks", attack="FGSM", surrogate=text)
        .perturb(model, x, y, eps=0.02, indices=range(4))
        .x_adv
        for text in ("as-trained", "atan-2", "triangle-0.5")
    )
    assert torch.equal(trained, same)
    assert not torch.equal(trained, other)
    with pytest.raises(GateError, match="no function of the potential alone"):
        configure("torchattacks", surrogate="assg")


def test_without_the_package_one_learns_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(MissingError, match="'torchattacks', which is not installed") as caught:
        attack_specs(["torchattacks:PGD"])
    assert "pip install --no-deps torchattacks==3.5.1" in caught.value.hint
