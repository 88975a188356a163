"""Time metrics in a benchmark: records, resume, shifts to the twin, tables, figures, suites."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from PIL import Image
from safetensors.numpy import load_file
from timed import LABELS, ROWS, TwoUnits, split
from toys import Linear
from toys import split as toy_split

from tdsnn.benchmark.api import prepare
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.benchmark.suites import read_suite
from tdsnn.benchmark.time_figures import draw
from tdsnn.errors import GateError, IntegrityError, TdsnnError, UsageError
from tdsnn.result_folder import ResultFolder
from tdsnn.result_tables import tables
from tdsnn.results import Key, Result
from tdsnn.stats import paired_bootstrap
from tdsnn.temporal import Measurement, time_metrics
from tdsnn.temporal.entropy import Entropy

TOPO, TWIN = "topo.toy", "twin.toy"
N = len(ROWS)


def entries() -> list[ModelEntry]:
    """The twin's currents are 0.7 of the model's: its units fire less often, some never."""
    topo, twin = (TwoUnits(drive=drive).eval() for drive in (1.0, 0.7))
    return [
        ModelEntry(name=TOPO, model=topo, checkpoint_sha256="a" * 64, source="path", twin=TWIN),
        ModelEntry(name=TWIN, model=twin, checkpoint_sha256="b" * 64, source="path"),
    ]


def plan(*metrics: str) -> Plan:
    return Plan(
        dataset="toy",
        split=split(ROWS, LABELS),
        n=N,
        attacks=(),
        batch_size=3,
        metrics=time_metrics(metrics),
    )


@pytest.fixture(autouse=True)
def no_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """What gates do is tested elsewhere."""
    monkeypatch.setattr("tdsnn.benchmark.measure.check_model", lambda *_, **__: [])


def run(folder: Path, *metrics: str, fresh: bool = False) -> Result:
    return run_bench(plan(*metrics), entries(), ResultFolder(folder), fresh=fresh)


def test_a_record_for_each_model_and_metric(tmp_path: Path) -> None:
    result = run(tmp_path, "entropy:steps=6", "anytime")
    assert [(one["model"], one["metric"]) for one in result.measurements] == [
        (TOPO, "entropy"),
        (TWIN, "entropy"),
        (TOPO, "anytime"),
        (TWIN, "anytime"),
    ]
    first = result.measurements[0]
    assert (first["variant"], first["settings"]["words"], first["error"]) == ("steps=6", 4, None)
    assert first["figures"]["entropy,T=6@units"]["unit"] == "bits"
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["measurements"] == json.loads(json.dumps(result.measurements))
    assert [one["metric"] for one in document["settings"]["metrics"]] == ["entropy", "anytime"]
    stored = load_file(tmp_path / "samples.safetensors")
    values = stored[f"{TOPO}/entropy:steps=6/entropy,T=6@units"]
    assert values.shape == (N,)
    assert values.mean() == pytest.approx(first["figures"]["entropy,T=6@units"]["value"])


def test_shifts_are_paired_over_the_images(tmp_path: Path) -> None:
    result = run(tmp_path, "entropy:steps=6")
    stored = load_file(tmp_path / "samples.safetensors")
    by_key = {shift.key: shift for shift in result.shifts}
    assert by_key.keys() == result.measurements[0]["figures"].keys()
    shift = by_key["entropy,T=6@units"]
    ours, theirs = (stored[f"{name}/entropy:steps=6/{shift.key}"] for name in (TOPO, TWIN))
    assert shift.difference.value == pytest.approx((ours - theirs).mean())
    assert shift.difference.value != 0
    assert shift.difference.low <= shift.difference.value <= shift.difference.high
    assert (shift.model, shift.twin, shift.difference.unit, shift.difference.n) == (TOPO, TWIN, "bits", N)
    assert shift.p <= shift.p_holm <= 1


def test_the_bootstrap_draws_images() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, (400, 2))
    one, other = paired_bootstrap(values, seed=3)
    reach = 1.96 * values[:, 0].std() / 20
    assert one.high - one.low == pytest.approx(2 * reach, rel=0.1)
    assert one != other
    assert paired_bootstrap(values, seed=3) == (one, other)
    assert paired_bootstrap(values, seed=4) != (one, other)
    (constant,) = paired_bootstrap(np.full((5, 1), 0.25), seed=0)
    assert (constant.low, constant.high) == pytest.approx((0.25, 0.25))
    with pytest.raises(UsageError, match="finite"):
        paired_bootstrap(np.array([[np.nan]]), seed=0)


def test_what_is_stored_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path, "entropy")
    measured: list[str] = []
    compute = Entropy.compute

    def counted(metric: Entropy, subject: object) -> Measurement:
        measured.append(metric.name)
        return compute(metric, subject)

    monkeypatch.setattr(Entropy, "compute", counted)
    again = run(tmp_path, "entropy")
    assert measured == []
    assert {one["key"] for one in again.measurements} <= set(again.provenance["reused_cells"])
    assert again.measurements == first.measurements
    assert again.shifts == first.shifts
    assert run(tmp_path, "entropy", fresh=True).measurements == first.measurements
    assert measured == ["entropy"] * 2
    run(tmp_path, "entropy:steps=3")
    assert len(measured) == 4, "other settings are another record"


def test_a_damaged_record_is_said(tmp_path: Path) -> None:
    key = run(tmp_path, "entropy").measurements[0]["key"]
    path = tmp_path / "cells" / f"{key}.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match="cannot be read"):
        run(tmp_path, "entropy")


def test_what_a_clock_measured_is_outside_of_what_is_repeatable(tmp_path: Path) -> None:
    result = run(tmp_path, "latency:repeats=5,batch=2", "entropy")
    assert [one["metric"] for one in result.measurements] == ["entropy"] * 2
    assert [one["metric"] for one in result.provenance["timings"]] == ["latency"] * 2
    assert {shift.metric for shift in result.shifts} == {"entropy"}
    again = run(tmp_path, "latency:repeats=5,batch=2", "entropy", fresh=True).document()
    first = result.document()
    assert first["provenance"]["timings"] != again["provenance"]["timings"]
    first.pop("provenance"), again.pop("provenance")
    assert again == first


def test_without_metrics_nothing_is_different(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert "metrics" not in result.settings
    assert "timings" not in result.provenance
    assert (result.measurements, result.shifts) == ((), ())
    assert len(tables(result)) == 1


@pytest.mark.parametrize("kind", [GateError, UsageError])
def test_a_metric_that_fails_is_an_error_and_no_number(
    kind: type[TdsnnError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(metric: Entropy, subject: object) -> Measurement:
        raise kind("Nothing fires.")

    monkeypatch.setattr(Entropy, "compute", refuse)
    result = run(tmp_path, "entropy", "anytime")
    failed = [one for one in result.measurements if one["error"]]
    assert [one["error"] for one in failed] == ["Nothing fires."] * 2
    assert all(not one["figures"] for one in failed)
    assert {shift.metric for shift in result.shifts} == {"anytime"}
    text = str(result)
    assert "REFUSED: topo: Nothing fires." in text
    monkeypatch.undo()
    monkeypatch.setattr("tdsnn.benchmark.measure.check_model", lambda *_, **__: [])
    assert not any(one["error"] for one in run(tmp_path, "entropy").measurements), "an error is not stored"


def test_a_refused_model_has_no_time_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise GateError("It remembers.")

    monkeypatch.setattr("tdsnn.benchmark.measure.check_model", refuse)
    result = run(tmp_path, "entropy")
    assert [one["error"] for one in result.measurements] == ["It remembers."] * 2


def test_a_network_without_spikes_says_so_and_has_no_zeros(tmp_path: Path) -> None:
    linear = Linear().eval()
    entry = ModelEntry(name="linear", model=linear, checkpoint_sha256="c" * 64, source="path")
    asked = replace(plan("entropy"), split=toy_split(linear, 9))
    result = run_bench(asked, [entry], ResultFolder(tmp_path))
    (record,) = result.measurements
    assert record["figures"] == {}
    assert record["error"] is None
    assert "no layer that is known to spike" in record["missing"]["entropy"]
    assert "no layer that is known to spike" in str(result)
    assert draw(result, tmp_path) == ()


def test_tables_show_both_models_and_their_difference(tmp_path: Path) -> None:
    result = run(tmp_path, "entropy:steps=6", "latency:repeats=5,batch=2")
    _, entropy, latency = tables(result)
    assert entropy.title == "entropy:steps=6"
    assert entropy.columns == ["figure", "unit", "topo", "twin", "difference", "p"]
    assert [row[0] for row in entropy.rows] == list(result.measurements[0]["figures"])
    assert latency.columns == ["figure", "unit", "topo", "twin"]
    assert "threads" in latency.caption


def test_figures_are_drawn_and_not_empty(tmp_path: Path) -> None:
    result = run(tmp_path, "entropy:steps=2+6", "latency:repeats=5,batch=2")
    files = draw(result, tmp_path)
    stems = [f"entropy-steps=2+6-{kind}" for kind in ("curves", "layers", "shift")]
    stems.append("latency-batch=2-repeats=5-curves")
    assert {file.name for file in files} == {f"topo-{one}.{kind}" for one in stems for kind in ("png", "svg")}
    for file in files:
        if file.suffix == ".png":
            pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
            assert len(np.unique(pixels, axis=0)) > 20, file.name


def test_a_shift_that_is_of_no_step_needs_no_legend(tmp_path: Path) -> None:
    result = run(tmp_path, "entropy")
    shifts = tuple(
        structs.replace(one, key=f"rate@{place}") for one, place in zip(result.shifts, "ab", strict=True)
    )
    files = draw(structs.replace(result, shifts=shifts), tmp_path)
    assert tmp_path / "topo-entropy-shift.png" in files


def test_keys_are_texts_and_back() -> None:
    for key in (Key("a"), Key("word entropy", 5), Key("b", None, "layer1.0"), Key("c", 30, "a - b")):
        assert Key.parse(str(key)) == key


def test_a_suite_of_metrics(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('summary = "Time."\nn = 5\n[[metrics]]\nmetric = "entropy:steps=own+6"\n')
    assert read_suite(path).suite.metrics[0].metric == "entropy:steps=own+6"
    model = TwoUnits().eval()
    pixels, labels = split(ROWS, LABELS).images, split(ROWS, LABELS).labels
    found = prepare(model, data=(pixels, labels), suite=path, out=tmp_path / "out")
    assert (found.plan.attacks, [one.variant for one in found.plan.metrics]) == ((), ["steps=own+6"])
    found.run()
    assert {"result.json", "two_units-entropy-steps=own+6-curves.png"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
    with pytest.raises(UsageError, match="says itself"):
        prepare(model, data=(pixels, labels), suite=path, metrics=["entropy"])
    path.write_text('summary = "Nothing."\n')
    with pytest.raises(UsageError, match="at least 1 attack or metric"):
        read_suite(path)


def test_what_does_not_fit_a_model_is_refused_before_anything_runs() -> None:
    data = split(ROWS, LABELS)
    with pytest.raises(UsageError, match="no layer called 'layer9'"):
        prepare(TwoUnits().eval(), data=(data.images, data.labels), n=5, metrics="entropy:layers=layer9")
    with pytest.raises(UsageError, match="those of attacks"):
        prepare(TwoUnits().eval(), data=(data.images, data.labels), metrics="entropy", eps=8)


def test_every_metric_of_the_official_suite_is_one() -> None:
    suite = read_suite("time-v1").suite
    names = [one.name for one in time_metrics([one.metric for one in suite.metrics])]
    assert {"anytime", "early_exit", "latency", "entropy"} <= set(names)
