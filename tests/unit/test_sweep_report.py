"""Groups of a sweep's document: means, intervals and tests against scipy, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from scipy import stats as scipy_stats
from sweep_documents import LAYERS, TOPO, TWIN, N, group, record, write

from tdsnn.errors import UsageError
from tdsnn.report._sweep_documents import find_sweep
from tdsnn.report._sweep_groups import Difference, Group
from tdsnn.report.sweep import SweepReport, summarise

PLAIN = {0: 9160, 1: 9175, 2: 9150}
WEAK = {0: 9170, 1: 9172, 2: 9161}
STRONG = {0: 8870, 1: 8900, 2: 8885}


def report(path: Path, *groups: Sequence[Mapping[str, Any]], baseline: str | None = None) -> SweepReport:
    return summarise(find_sweep(str(write(path / "results.json", *groups))), baseline=baseline)


def named(found: SweepReport, name: str) -> Group:
    return next(one for one in found.groups if one.name == name)


def difference(found: SweepReport, name: str) -> Difference:
    one = named(found, name).difference
    assert one is not None
    return one


def percent(rights: Mapping[int, int]) -> list[float]:
    return [100 * right / N for right in rights.values()]


def t_interval(values: Sequence[float]) -> Any:
    found = scipy_stats.t.interval(0.95, len(values) - 1, fmean(values), scipy_stats.sem(values))
    return pytest.approx(tuple(map(float, found)))


def test_means_and_tests_are_those_of_scipy(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        group("plain", PLAIN, entry=TWIN),
        group("weak", WEAK),
        group("strong", STRONG),
    )
    assert [one.name for one in found.groups] == ["plain", "strong", "weak"]
    weak, strong = percent(WEAK), percent(STRONG)
    assert named(found, "weak").accuracy.value == pytest.approx(fmean(weak))
    assert named(found, "weak").accuracy.interval == t_interval(weak)
    p_values = []
    for name, values in (("weak", weak), ("strong", strong)):
        tested = scipy_stats.ttest_rel(values, percent(PLAIN))
        one = difference(found, name)
        assert one.mean.value == pytest.approx(fmean(values) - fmean(percent(PLAIN)))
        assert one.mean.interval == pytest.approx(tuple(map(float, tested.confidence_interval())))
        assert one.p_value == pytest.approx(float(tested.pvalue))
        p_values.append(float(tested.pvalue))
    # Holm by hand: the smaller one of two counts twice, the larger one is at least that.
    smaller = 2 * min(p_values)
    assert difference(found, "strong").p_holm == pytest.approx(smaller)
    assert difference(found, "weak").p_holm == pytest.approx(max(smaller, max(p_values)))


def test_topography_is_the_mean_over_layers_first_and_then_over_seeds(tmp_path: Path) -> None:
    runs = [
        record("a", 9000, seed=seed, rates=rates, smooth=(0.2, 0.4), minutes=10 * (seed + 1))
        for seed, rates in enumerate([(0.1, 0.3), (0.2, 0.5), (0.1, 0.4)])
    ]
    (one,) = report(tmp_path, runs).groups
    assert one.alignment is not None
    assert one.alignment.value == pytest.approx(fmean([0.2, 0.35, 0.25]))
    assert one.alignment.interval == t_interval([0.2, 0.35, 0.25])
    assert one.smoothness is not None
    assert one.smoothness.value == pytest.approx(0.3)
    assert one.cpu_minutes.value == pytest.approx(20)
    assert one.cpu_minutes.interval == t_interval([10, 20, 30])


def test_one_seed_has_the_interval_over_images_and_no_test(tmp_path: Path) -> None:
    found = report(tmp_path, [record("plain", 9160, entry=TWIN)], [record("weak", 9170)])
    one = named(found, "weak")
    wilson = scipy_stats.binomtest(9170, N).proportion_ci(method="wilson")
    assert one.accuracy.interval == pytest.approx((100 * wilson.low, 100 * wilson.high))
    assert one.accuracy.method == "Wilson score, 95 %"
    assert one.alignment is not None
    assert one.alignment.interval is None
    assert difference(found, "weak").mean.value == pytest.approx(0.1)
    assert difference(found, "weak").mean.interval is None
    assert difference(found, "weak").p_holm is None


def test_seeds_that_one_group_lacks_are_left_out_of_the_pairs_and_named(tmp_path: Path) -> None:
    weak = {0: 9170, 2: 9161, 3: 9000}
    found = report(tmp_path, group("plain", PLAIN, entry=TWIN), group("weak", weak), group("strong", {7: 1}))
    one = difference(found, "weak")
    assert one.seeds == (0, 2)
    tested = scipy_stats.ttest_rel([91.70, 91.61], [91.60, 91.50])
    assert one.mean.value == pytest.approx(0.105)
    assert one.p_value == pytest.approx(float(tested.pvalue))
    # The mean of the group itself is over all of its seeds.
    assert named(found, "weak").accuracy.value == pytest.approx(fmean(percent(weak)))
    assert "weak and plain are compared on the seeds that both have (0, 2); left out: 1, 3." in found.notes
    assert named(found, "strong").difference is None
    assert any(note.startswith("strong and plain") and "(none)" in note for note in found.notes)


def test_the_order_of_the_runs_changes_no_number(tmp_path: Path) -> None:
    plain, weak = group("plain", PLAIN, entry=TWIN), group("weak", WEAK)
    straight, mixed = report(tmp_path, plain, weak), report(tmp_path, plain[::-1], weak[1:], weak[:1])
    assert straight == mixed


def test_a_silent_layer_is_left_out_of_every_group_and_named(tmp_path: Path) -> None:
    silent = record("plain", 9160, entry=TWIN, rates=(0.05, None), smooth=(0.2, 0.4))
    found = report(tmp_path, [silent], [record("weak", 9170, rates=(0.1, 0.3), smooth=(0.3, 0.5))])
    assert found.alignment_layers == LAYERS[:1]
    assert [one.alignment and one.alignment.value for one in found.groups] == [0.05, 0.1]
    assert [note for note in found.notes if "P(r, d)" in note and LAYERS[1] in note]
    # What is silent in one metric may be measured by the other.
    assert found.smoothness_layers == LAYERS


def test_no_layer_left_means_no_topography(tmp_path: Path) -> None:
    found = report(tmp_path, [record("a", 9160, rates=(0.1, None))], [record("b", 9170, rates=(None, 0.2))])
    assert found.alignment_layers == ()
    assert [one.alignment for one in found.groups] == [None, None]
    assert not found.shows_topography


def test_smoothness_is_shown_where_all_seeds_of_the_group_have_it(tmp_path: Path) -> None:
    partly = [record("b", 9170, smooth=(0.1, 0.2)), record("b", 9170, seed=1)]
    found = report(tmp_path, group("a", PLAIN, smooth=(0.2, 0.4)), partly, group("c", PLAIN))
    assert [one.smoothness is None for one in found.groups] == [False, True, True]
    assert found.notes[-1] == "Category smoothness of b was not measured on all of its seeds."


def test_the_baseline_is_the_twin_wherever_it_stands(tmp_path: Path) -> None:
    weak, plain = group("weak", WEAK), group("plain", PLAIN, entry=TWIN)
    assert report(tmp_path, weak, plain).baseline == "plain"
    # Settings count: the entry itself without its loss, and its twin with one.
    off = ["topography.alpha=0", "topography.beta=0.0"]
    assert report(tmp_path, weak, group("off", PLAIN, settings=off)).baseline == "off"
    on = group("on", PLAIN, entry=TWIN, settings=["lr=1e-3", "topography.beta=0.1"])
    assert report(tmp_path, weak, on).baseline == "weak"


def test_without_exactly_one_twin_the_baseline_is_the_first_group(tmp_path: Path) -> None:
    plain, other = group("plain", PLAIN, entry=TWIN), group("long", WEAK, entry=TWIN)
    assert report(tmp_path, group("weak", WEAK), plain, other).baseline == "weak"
    assert report(tmp_path, plain, other).baseline == "long"
    assert report(tmp_path, group("a", WEAK, entry="theirs.letters"), plain).baseline == "a"


def test_a_baseline_can_be_named(tmp_path: Path) -> None:
    groups = (group("plain", PLAIN, entry=TWIN), group("weak", WEAK))
    found = report(tmp_path, *groups, baseline="weak")
    assert found.baseline == "weak"
    assert difference(found, "plain").mean.value == pytest.approx(
        fmean(percent(PLAIN)) - fmean(percent(WEAK))
    )
    with pytest.raises(UsageError, match=r"called 'weka'\. Did you mean weak\?") as caught:
        report(tmp_path, *groups, baseline="weka")
    assert caught.value.hint == "Known: plain, weak"


def test_groups_are_called_by_label_entry_or_both(tmp_path: Path) -> None:
    found = report(tmp_path, group("", PLAIN), group("long", WEAK), group("long", PLAIN, entry=TWIN))
    assert [one.name for one in found.groups] == [TOPO, f"{TOPO}+long", f"{TWIN}+long"]


def test_groups_on_other_images_are_not_compared(tmp_path: Path) -> None:
    found = report(tmp_path, group("a", PLAIN), group("b", WEAK, entry="other.cifar10"))
    assert named(found, "b").difference is None
    assert found.notes == ("b is not compared: its held-out images are others.",)


@pytest.mark.parametrize("change", [{"settings": ["lr=0.1"]}, {"n": 20_000}])
def test_a_group_does_not_mix_settings_or_images(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="The runs of 'a' have different"):
        report(tmp_path, [record("a", 9000), record("a", 9000, seed=1, **change)])


def test_without_a_spatial_loss_topography_tells_nothing(tmp_path: Path) -> None:
    plain = (group("plain", PLAIN, entry=TWIN), group("long", WEAK, entry=TWIN))
    assert not report(tmp_path, *plain).shows_topography
    assert report(tmp_path, *plain, group("weak", WEAK)).shows_topography


def test_the_document_holds_finite_numbers_only(tmp_path: Path) -> None:
    document = report(tmp_path, group("plain", PLAIN, entry=TWIN), [record("weak", 9170)]).document()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for one in value:
                walk(one)
        else:
            assert not isinstance(value, float) or math.isfinite(value)

    walk(document)
    assert document["schema"] == 1
    assert document["groups"][1]["difference"]["seeds"] == (0,)


def test_groups_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    labels = ("10", "3", "0.3", "1e-2", "30", "b2", "b10", "0.25")
    found = report(tmp_path, [record("0", 9000, entry=TWIN)], *([record(label, 9000)] for label in labels))
    assert [one.name for one in found.groups] == ["0", "1e-2", "0.25", "0.3", "3", "10", "30", "b2", "b10"]
