"""What names mean, which seeds are paired, and the numbers of a comparison beside scipy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel
from seed_zoo import ALIGNMENT, DIGEST, TOPO, TWIN, WRONG, N, build, judged, release, right, write_manifest
from toys import Linear, split

from tdsnn.benchmark.clean import clean_verdicts
from tdsnn.benchmark.pairing import pair_seeds
from tdsnn.benchmark.plan import ModelEntry
from tdsnn.benchmark.seeds import SeedComparison, compare_seeds, stored_verdicts
from tdsnn.errors import IntegrityError, MissingError, TdsnnError, UsageError
from tdsnn.manifest import release_path, seeded
from tdsnn.results import accuracy_figure, difference_figure
from tdsnn.stats import holm, paired_difference


@pytest.fixture
def toys(project: Path, cache: Path) -> Path:
    return build(project)


def names(a: str, b: str | None = None) -> list[tuple[str, str]]:
    return [(one.name, other.name) for one, other in pair_seeds(a, b).pairs.values()]


def compared(a: str, b: str | None = None) -> SeedComparison:
    pairing = pair_seeds(a, b)
    known, lacking = stored_verdicts(pairing.releases)
    assert not lacking
    return compare_seeds(pairing, known)


EVERY = [(TOPO, TWIN), (f"{TOPO}-s1", f"{TWIN}-s1"), (f"{TOPO}-s2", f"{TWIN}-s2")]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("topo", None, EVERY),
        ("topo", "plain", EVERY),
        ("topo.toys*", "plain.toys*", EVERY),
        ("topo.toys-s*", "plain", EVERY),
        ("topo.toys-s1-s*", "plain", EVERY),
        ("topo.toys", "plain", EVERY[:1]),
        ("topo.toys", None, EVERY[:1]),
        ("topo.toys-s2", None, EVERY[2:]),
        ("topo*-s[12]", "plain*", EVERY[1:]),
        ("plain.toys-s1", None, [(f"{TWIN}-s1", f"{TOPO}-s1")]),
    ],
)
def test_what_names_mean(toys: Path, a: str, b: str | None, expected: list[tuple[str, str]]) -> None:
    assert names(a, b) == expected


def test_seeds_of_one_side_only_are_named(toys: Path) -> None:
    release_path(f"{TWIN}-s1").unlink()
    release(seeded(TWIN, 7))
    for b in (None, "plain"):
        pairing = pair_seeds("topo", b)
        assert list(pairing.pairs) == [0, 2]
        assert pairing.left_out == (f"{TOPO}-s1", *([f"{TWIN}-s7"] if b else []))


def test_another_variant_is_not_a_seed(toys: Path) -> None:
    write_manifest(toys, f"{TOPO}-small", twin=TWIN)
    assert names("topo.toys*", "plain") == EVERY, "nothing of it was released"
    release(f"{TOPO}-small")
    assert names("topo.toys-s*", "plain") == EVERY
    assert names("topo", "plain") == EVERY
    with pytest.raises(UsageError, match=rf"several entries: {TOPO}, {TOPO}-small\.") as caught:
        pair_seeds("topo.toys*")
    assert f"'{TOPO}-s*'" in caught.value.hint


@pytest.mark.parametrize(
    ("a", "b", "kind", "message"),
    [
        ("tapo", None, UsageError, "no model called 'tapo'"),
        ("topo", "plain.toy", UsageError, "no model called 'plain.toy'"),
        ("nothing*", None, UsageError, r"matches 'nothing\*'"),
        ("*", None, UsageError, f"several entries: .*{TWIN}, {TOPO}"),
        ("topo", "topo.toys-s1", UsageError, "compared with itself"),
        ("topo", "other.digits", UsageError, r"for toys and 'other\.digits' for digits"),
        ("topo.toys-s1", "plain.toys-s2", UsageError, r"'topo.toys' \(1\) is also one of 'plain.toys' \(2\)"),
        ("topo.toys-s9", None, MissingError, r"Nothing of 'topo\.toys-s9'"),
        ("lone.toys", None, MissingError, r"twin of 'lone\.toys'"),
        ("hf:owner/name", None, UsageError, "no model called"),
    ],
)
def test_what_cannot_be_compared(
    toys: Path, a: str, b: str | None, kind: type[TdsnnError], message: str
) -> None:
    write_manifest(toys, "other.digits", twin="other.digits", dataset="digits")
    release("other.digits")
    write_manifest(toys, "lone.toys", twin="lone.toys-plain", alpha=0.1)
    write_manifest(toys, "lone.toys-plain", twin="lone.toys")
    release("lone.toys")
    with pytest.raises(kind, match=message) as caught:
        pair_seeds(a, b)
    assert type(caught.value) is kind
    assert "tdsnn-zoo" in caught.value.hint


def test_each_seed_is_a_paired_comparison(toys: Path) -> None:
    found = compared("topo")
    assert (found.n, found.dataset, found.data_digest) == (N, "toys", DIGEST)
    p_values = []
    for seed, row in enumerate(found.seeds):
        a, b = (right(WRONG[entry][seed], seed=10 * seed + len(entry)) for entry in (TOPO, TWIN))
        assert row.seed == seed
        assert row.a.accuracy == accuracy_figure(N - WRONG[TOPO][seed], N)
        assert row.b.accuracy == accuracy_figure(N - WRONG[TWIN][seed], N)
        assert row.difference == difference_figure(paired_difference(a, b))
        assert (row.only_a, row.only_b) == ((a & ~b).sum(), (b & ~a).sum())
        p_values.append(binomtest(row.only_a, row.only_a + row.only_b).pvalue)
        assert row.p_mcnemar == pytest.approx(p_values[-1])
        assert row.a.weights_sha256 != row.b.weights_sha256
    assert [row.p_holm for row in found.seeds] == pytest.approx(holm(p_values))


def test_over_seeds_as_scipy_has_it(toys: Path) -> None:
    found = compared("topo")
    accuracies = [[100 * (N - wrong) / N for wrong in WRONG[entry]] for entry in (TOPO, TWIN)]
    for means, values in (
        (found.accuracy, accuracies),
        (found.alignment, [ALIGNMENT[TOPO], ALIGNMENT[TWIN]]),
    ):
        assert means is not None
        reference = ttest_rel(*values)
        assert means.p_value == pytest.approx(reference.pvalue)
        assert (means.difference.low, means.difference.high) == pytest.approx(
            tuple(reference.confidence_interval())
        )
        assert [means.a.value, means.b.value] == pytest.approx(np.mean(values, axis=1))
        assert means.difference.value == pytest.approx(means.a.value - means.b.value)
        assert means.difference.n == 3


def test_alignment_is_shown_of_twins_only(toys: Path) -> None:
    found = compared("topo")
    assert found.seeds[0].alignment_difference == pytest.approx(0.2)
    swapped = compared("plain")
    assert [row.a.alignment for row in swapped.seeds] == [None] * 3
    assert (swapped.alignment, swapped.seeds[0].alignment_difference) == (None, None)
    release(TOPO)
    assert compared("topo").alignment is None, "one seed lacks it"


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "text"),
    [
        ((60, 62, 61), (60, 61, 62), "equivalent", "within 1 point over 3 seeds"),
        ((62, 63, 62), (57, 57, 57), "equivalent", "and excludes 0"),
        (
            (90, 92, 91),
            (60, 61, 62),
            "worse",
            "topo.toys is worse than plain.toys by 2.99 points over 3 seeds",
        ),
        ((30, 32, 31), (60, 61, 62), "better", "topo.toys is better than plain.toys by 2.99 points"),
        ((30, 90, 60), (60, 60, 66), "undecided", "reaches from"),
        ((60,), (66,), "one seed", "One seed says nothing about other trainings"),
    ],
)
def test_the_conclusion(
    project: Path, ours: tuple[int, ...], theirs: tuple[int, ...], verdict: str, text: str
) -> None:
    build(project, seeds=())
    for entry, wrong in ((TOPO, ours), (TWIN, theirs)):
        for seed, count in enumerate(wrong):
            judged(release(seeded(entry, seed)), right(count, seed=seed))
    found = compared("topo")
    assert found.conclusion.verdict == verdict
    assert text in found.conclusion.text
    assert found.conclusion.text.count(". ") == 0
    assert (found.accuracy is None) == (verdict == "one seed")


def test_verdicts_on_other_images_are_not_paired(toys: Path) -> None:
    judged(release(f"{TWIN}-s1"), right(5), digest="e" * 64)
    with pytest.raises(IntegrityError, match=rf"'{TWIN}-s1' are about other images"):
        compared("topo")


def test_without_verdicts_and_weights(toys: Path) -> None:
    release(f"{TWIN}-s1", sha256="e" * 64)
    with pytest.raises(MissingError, match=f"verdicts of '{TWIN}-s1'") as caught:
        compared("topo")
    assert f"tdsnn-zoo train {TWIN}-s1" in caught.value.hint


def test_verdicts_are_those_of_the_model_and_are_kept(cache: Path) -> None:
    model = Linear()
    images = split(model, 30)
    entry = ModelEntry(name="toy", model=model, checkpoint_sha256="c" * 64, source="path")
    found = clean_verdicts([entry], dataset="toys", test=images)["toy"]
    x, y = images.take(slice(None))
    np.testing.assert_array_equal(found.scores, (model.eval()(x).argmax(1) == y).numpy())
    assert (found.weights_sha256, found.data_digest) == ("c" * 64, images.digest)
    judged_before = model.images_seen
    clean_verdicts([entry], dataset="toys", test=images)
    assert model.images_seen == judged_before, "what is stored is neither judged nor checked again"
