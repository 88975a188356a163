"""Time metrics against closed forms, and on a network of two units by hand."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timed import LABELS, ROWS, TwoUnits, split, subject
from torch import nn

from tdsnn.attacks._base import configure
from tdsnn.errors import GateError, UsageError
from tdsnn.models._adapted import adapt
from tdsnn.temporal import TimeMetric, record_spikes, spiking_layers_of, time_metrics
from tdsnn.temporal import latency as latency_module
from tdsnn.temporal._spikes import logits_over_time
from tdsnn.temporal._words import bernoulli_entropy, rate_entropy, step_entropy, word_entropy
from tdsnn.temporal.latency import quantile

THIRD = float(bernoulli_entropy(np.array(1 / 3)))


def metric(text: str) -> TimeMetric:
    (found,) = time_metrics([text])
    return found


def trains(*patterns: str) -> np.ndarray:
    """(T, N, 1) spikes, one pattern of 0 and 1 for each image."""
    return np.array([[int(step) for step in one] for one in patterns], dtype=bool).T[:, :, None]


def test_bernoulli_entropy_in_closed_form() -> None:
    found = bernoulli_entropy(np.array([0.0, 0.25, 0.5, 1.0]))
    assert found == pytest.approx([0.0, 2 - 0.75 * math.log2(3), 1.0, 0.0])


def test_rate_entropy_of_trains_by_hand() -> None:
    found = rate_entropy(trains("0000", "1111", "0101", "0001"))
    assert found[:, 0] == pytest.approx(0.0), "silence is certain"
    assert found[:, 1] == pytest.approx(0.0), "and so is firing all the time"
    assert found[:, 2] == pytest.approx([0.0, 1.0, THIRD, 1.0])
    assert found[3, 3] == pytest.approx(2 - 0.75 * math.log2(3))


def test_rate_entropy_of_bernoulli_trains_is_low_by_the_known_bias() -> None:
    p, steps = 0.3, 200
    spikes = np.random.default_rng(0).random((steps, 20, 400)) < p
    expected = float(bernoulli_entropy(np.array(p))) - 1 / (2 * steps * math.log(2))
    assert rate_entropy(spikes)[-1].mean() / 400 == pytest.approx(expected, abs=5e-4)


def test_step_entropy_is_that_over_images() -> None:
    found = step_entropy(trains("10", "10", "00", "00"))
    assert found.mean(1) == pytest.approx([1.0, 0.0])
    odd = step_entropy(trains("1", "0", "0"))
    assert odd.mean(1) == pytest.approx([THIRD])
    assert odd[0] == pytest.approx([math.log2(3), math.log2(1.5), math.log2(1.5)])


def test_word_entropy_of_known_distributions() -> None:
    same = word_entropy(trains("0110", "0110", "0110"))
    assert same == pytest.approx(0.0)
    two = word_entropy(trains("01", "01", "10", "10"))
    assert two.mean() == pytest.approx(1 + 1 / (8 * math.log(2))), "two patterns, four images"
    # The order of spikes counts, not their number.
    assert two.mean() > word_entropy(trains("01", "01", "01", "01")).mean()


def test_the_correction_brings_word_entropy_nearer_to_the_truth() -> None:
    images, units, steps = 40, 300, 3
    spikes = np.random.default_rng(1).random((steps, images, units)) < 0.5
    corrected = word_entropy(spikes).mean() / units
    plain = corrected - 7 / (2 * images * math.log(2))
    assert abs(corrected - steps) < 0.02 < 0.1 < abs(plain - steps)


def test_units_add_up() -> None:
    spikes = np.random.default_rng(2).random((3, 7, 5)) < 0.4
    for entropy in (rate_entropy, step_entropy, word_entropy):
        parts = entropy(spikes[:, :, :2]) + entropy(spikes[:, :, 2:])
        assert entropy(spikes) == pytest.approx(parts)


def test_spikes_of_two_units_by_hand() -> None:
    found = subject()
    x, _ = next(found.batches())
    assert spiking_layers_of(found.model) == ("units",)
    spikes = record_spikes(found.model, x, ("units",), 6)["units"].int()
    assert spikes[:, 0].T.tolist() == [[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1]]
    assert spikes[:, 1].T.tolist() == [[0, 1, 0, 1, 0, 1], [0, 0, 1, 0, 0, 1]]


def test_entropy_of_two_units_by_hand() -> None:
    found = metric("entropy:steps=2+6,words=2").measure(subject())
    per_image = [1 / 2, (1 + THIRD) / 2, THIRD / 2, 0.0, (1 + THIRD) / 2]
    assert found.samples["entropy,T=6@units"] == pytest.approx(per_image)
    assert found.figures["entropy,T=6@units"].value == pytest.approx(sum(per_image) / 5)
    # After two steps only what fires every second step has fired once.
    assert found.samples["entropy,T=2@units"] == pytest.approx([0.5, 0.5, 0.0, 0.0, 0.5])
    # Words of the left unit: 11, 01, 00, 11, 00; of the right one: 01, 00, 00, 11, 01.
    plain = -(2 * 0.4 * math.log2(0.4) + 0.2 * math.log2(0.2))
    assert found.figures["word entropy,T=2@units"].value == pytest.approx(plain + 2 / (10 * math.log(2)))
    assert found.curves["entropy@units"].y[5] == pytest.approx(sum(per_image) / 5)
    assert len(found.curves["step entropy@units"].x) == 6


def test_entropy_does_not_depend_on_how_units_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    together = metric("entropy:steps=6").measure(subject())
    monkeypatch.setattr("tdsnn.temporal.entropy._CHUNK", 1)
    assert metric("entropy:steps=6").measure(subject()).figures == together.figures


def test_anytime_accuracy_of_two_units_by_hand() -> None:
    found = metric("anytime:steps=6").measure(subject())
    right = np.stack([found.samples[f"accuracy,T={t}"] for t in (1, 2, 3, 4, 5, 6)]) / 100
    # Equal counts are an answer for the left; the right unit of the last image leads at steps 2, 4, 5 and 6.
    assert right.T.tolist() == [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 1, 1],
    ]
    assert found.curves["accuracy"].y == pytest.approx([60, 80, 60, 80, 80, 80])
    figure = found.figures["accuracy,T=2"]
    assert (figure.value, figure.n, figure.unit) == (80, 5, "%")


def test_beyond_its_own_steps_anytime_states_every_fifth() -> None:
    found = metric("anytime:steps=12").measure(subject())
    listed = [key.removeprefix("accuracy,T=") for key in found.figures]
    assert listed == ["1", "2", "3", "4", "5", "10", "12"]
    assert len(found.curves["accuracy"].x) == 12


def test_adversarial_examples_are_those_of_the_attack() -> None:
    found = metric("anytime:attack=fgsm,eps=60").measure(subject())
    model, data = subject().model, split(ROWS, LABELS)
    x, y = data.take(slice(None))
    outcome = configure("fgsm").perturb(model, x, y, eps=60 / 255, indices=range(5), seed=0)
    assert 0 < outcome.robust.sum() < outcome.clean.sum()
    assert (found.samples["accuracy under fgsm,T=4"] > 50).tolist() == outcome.robust.tolist()
    assert found.conditions["eps_255"] == 60


def test_early_exit_of_two_units_by_hand() -> None:
    found = metric("early_exit:margins=0.3+0.4").measure(subject())
    # The left unit leads by 1 at once, by 1/2 after two steps, by 1/3 after three, and never.
    assert found.samples["steps at margin 0.3"].tolist() == [1, 2, 3, 4, 2]
    assert found.samples["steps at margin 0.4"].tolist() == [1, 2, 4, 4, 2]
    assert found.samples["accuracy at margin 0.4"].tolist() == [100, 100, 100, 0, 100]
    assert found.curves["accuracy"].x == pytest.approx((12 / 5, 13 / 5, 4))
    assert "held-out" in found.missing["at the chosen margin"]


def test_the_margin_is_chosen_on_held_out_images(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [(None, split(ROWS, LABELS)), (None, split([ROWS[4]] * 2, [0, 0]))]
    monkeypatch.setattr("tdsnn.temporal.early_exit.load_training", lambda name: parts.pop(0))
    toy = replace(subject(), dataset="toy")
    found = metric("early_exit:margins=0.3+0.4").measure(toy)
    assert found.conditions["chosen_margin"] == 0.3, "the fewest steps of those that lose nothing"
    assert found.figures["steps at the chosen margin"].value == 12 / 5
    # After three steps the units are even, which counts for the left; after two the right one leads.
    none = metric("early_exit:margins=0.4,steps=3").measure(toy)
    assert "loses more than 1 points" in none.missing["at the chosen margin"]
    assert "steps at the chosen margin" not in none.figures


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time passes only in LIF layers: 3 ms for each step of a batch of two, 1 ms for that of one."""
    now = SimpleNamespace(ns=0)
    forward = TwoUnits.step

    def step(model: TwoUnits, encoded: torch.Tensor, state: dict[str, torch.Tensor]) -> object:
        now.ns += 3_000_000 if len(encoded) > 1 else 1_000_000
        return forward(model, encoded, state)

    monkeypatch.setattr(TwoUnits, "step", step)
    fake = SimpleNamespace(perf_counter_ns=lambda: now.ns, perf_counter=time.perf_counter)
    monkeypatch.setattr(latency_module, "time", fake)
    return now


def test_latency_counts_from_the_call_to_each_answer(clock: SimpleNamespace) -> None:
    found = metric("latency:repeats=5,batch=2,steps=3").measure(subject())
    value = {key: figure.value for key, figure in found.figures.items()}
    assert [value[f"answer at batch 1,T={t}"] for t in (1, 2, 3)] == [1, 2, 3]
    assert [value[f"step at batch 2,T={t}"] for t in (1, 2, 3)] == [3, 3, 3]
    assert value["fused at batch 2,T=3"] == value["answer at batch 2,T=3"] == 9
    assert value["images per second fused,T=3"] == pytest.approx(2 / 0.009)
    assert found.curves["answer at batch 1"].y == (1, 2, 3)
    assert found.conditions["threads"] == torch.get_num_threads()
    assert found.conditions["path"] == "eager"
    # Warm-up runs and counted ones, of both modes and batches, each three steps.
    assert clock.ns == 2 * (3 + 5) * 3 * (1 + 3) * 1_000_000


@pytest.mark.gpu
def test_latency_on_a_gpu_waits_for_the_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    there = replace(subject(TwoUnits().to(device)), device=device)
    found = metric("latency:repeats=5,batch=2").measure(there)
    ends = [found.figures[f"answer at batch 2,T={t}"].value for t in (1, 2, 3, 4)]
    assert 0 < ends[0] < ends[1] < ends[2] < ends[3]
    assert found.conditions["device"] == torch.cuda.get_device_name(device)


def test_order_statistics_hold_the_median() -> None:
    draws = np.random.default_rng(0).random((400, 21))
    figures = [quantile(row, 0.5) for row in draws]
    held = np.mean([one.low <= 0.5 <= one.high for one in figures])
    assert 0.95 <= held < 0.995
    assert quantile(np.arange(5.0), 0.95).high == 4


def test_a_network_of_another_library_is_measured_as_far_as_it_can_be() -> None:
    adapted = adapt(TwoUnits().eval(), time="inside", name="foreign")
    found = metric("latency:repeats=5,batch=2").measure(subject(adapted))
    assert "fused at batch 1,T=1" in found.figures
    assert found.missing["streaming"].startswith("foreign is run as a whole: it has no steps")
    assert not any(key.startswith("answer") for key in found.figures)
    with pytest.raises(GateError, match="time axis inside"):
        metric("anytime").measure(subject(adapted))
    with pytest.raises(GateError, match="no model of this zoo"):
        metric("early_exit").measure(subject(adapted))
    with pytest.raises(UsageError, match="cannot run 7 steps"):
        metric("latency:steps=7").measure(subject(adapted))


@pytest.mark.parametrize("potentials_too", [False, True])
def test_spikes_of_a_looped_network_of_another_library(potentials_too: bool) -> None:
    snntorch = pytest.importorskip("snntorch")
    neurons = snntorch.Leaky(beta=0.5, init_hidden=True, output=potentials_too)
    net = nn.Sequential(nn.Flatten(), nn.Identity(), neurons)
    adapted = adapt(net, time="loop", timesteps=4, name="looped", output=0 if potentials_too else None)
    (layer,) = spiking_layers_of(adapted)
    x = torch.full((3, 1, 1, 2), 0.9)
    spikes = record_spikes(adapted, x, (layer,), 5)[layer]
    assert spikes.shape == (5, 3, 2)
    assert torch.equal(spikes.float().mean(0), logits_over_time(adapted, x, 5).mean(0))
    assert metric("entropy:steps=own+5").measure(subject(adapted)).figures


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropi", "no time metric called 'entropi'. Did you mean entropy"),
        ("entropy:steps=0", "numbers of time steps from 1 to 999"),
        ("entropy:steps=4+1000", "numbers of time steps from 1 to 999"),
        ("entropy:words=13", "from 1 to 12"),
        ("entropy:step=4", "unknown key 'step'; did you mean 'steps'"),
        ("entropy:steps", "not of the form key=value"),
        ("entropy:words=2,words=3", "states words twice"),
        ("anytime:steps=0", "whole number from 1 to 999"),
        ("anytime:attack=pdg", "no attack called 'pdg'. Did you mean pgd"),
        ("anytime:attack=pgd,eps=0.03", "may mean"),
        ("anytime:eps=2/255", "is that of an attack, and anytime has none"),
        ("early_exit:margins=0", "above 0"),
        ("early_exit:margins=-1", "margins above 0"),
        ("latency:repeats=1", "from 5 to"),
        ("latency:steps=100000", "whole number from 1 to 999"),
    ],
)
def test_bad_settings_get_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")) as refused:
        metric(text)
    assert refused.value.exit_code == 2
    assert "\n" not in refused.value.message


def test_a_layer_that_the_network_lacks_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="no layer called 'unit'"):
        metric("entropy:layers=unit").measure(subject())


def test_a_layer_that_does_not_spike_is_refused() -> None:
    class Currents(TwoUnits):
        def __init__(self) -> None:
            super().__init__()
            self.current = nn.Identity()

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return super().encode(x)

        def step(self, encoded, state):
            return super().step(self.current(encoded), state)

    with pytest.raises(GateError, match="no spikes"):
        metric("entropy:layers=current").measure(subject(Currents()))
