"""Two entries of the zoo over their seeds, in one call. Names are checked before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from tdsnn.benchmark.api import Name, prepare
from tdsnn.errors import UsageError
from tdsnn.progress import Note, Progress, counted, silent, unheard

if TYPE_CHECKING:
    from tdsnn.benchmark.pairing import Pairing
    from tdsnn.benchmark.seeds import SeedComparison
    from tdsnn.benchmark.suite_comparison import SuiteComparison
    from tdsnn.benchmark.suites import NamedSuite
    from tdsnn.results import Result
    from tdsnn.verdicts import CleanVerdicts

__all__ = ["compare"]


def compare(
    a: str,
    b: str | None = None,
    *,
    suite: Name | None = None,
    n: int | None = None,
    device: str = "auto",
    fresh: bool = False,
    progress: Progress = silent,
    note: Note = unheard,
) -> SeedComparison | SuiteComparison:
    """Two entries of the zoo over their seeds: on all test images without attack, or under a suite.

    Without a suite stored verdicts are compared, so weights are needed only of a release that has none. Under
    a suite seeds are measured of which no official result is about these weights and as many images.

    Args:
        a: a full name, exactly that one; a bare name, the default variant and all its seeds; ``NAME-s*``, all
            seeds of that entry; or any other pattern of one entry's seeds.
        b: what it is compared with, named in the same way; by default the twins of ``a``.
        suite: as of :func:`bench`.
        n: number of test images; by default the suite's.
        device: for the suite, as of :func:`bench`.
        fresh: measure under the suite also what official results say.
        progress: told how many images are done, of networks that have to be measured.
        note: told what is left out, and what takes long.

    Returns:
        The comparison; its text is its tables, ``document()`` its plain values.

    Raises:
        UsageError: an unknown name, a pattern of several entries, other datasets, or no common seed.
        MissingError: nothing of it was released, or neither verdicts nor weights can be had.
        IntegrityError: a damaged release or verdicts, or verdicts on other images.
    """
    # Before anything that imports numpy: a mistyped name is answered at once.
    from tdsnn.benchmark.pairing import pair_seeds

    pairing = pair_seeds(a, b)
    if pairing.left_out:
        note(f"Left out, since the other model lacks that seed: {', '.join(pairing.left_out)}")

    if suite is not None:
        return _under_suite(pairing, suite, n=n, device=device, fresh=fresh, progress=progress, note=note)
    if n is not None:
        raise UsageError("The number of images is for a suite: without one all test images are compared.")
    if fresh:
        raise UsageError("Measuring anew is for a suite: without one stored verdicts are compared.")

    from tdsnn.benchmark.seeds import compare_seeds, stored_verdicts

    known, lacking = stored_verdicts(pairing.releases)
    if lacking:
        known |= _measure(lacking, pairing.dataset, progress=progress, note=note)
    return compare_seeds(pairing, known)


def _under_suite(
    pairing: Pairing,
    suite: Name,
    *,
    n: int | None,
    device: str,
    fresh: bool,
    progress: Progress,
    note: Note,
) -> SuiteComparison:
    from tdsnn.benchmark.suite_comparison import compare_suite
    from tdsnn.benchmark.suites import read_suite

    named = read_suite(suite)
    if not named.suite.attacks:
        raise UsageError(
            f"The suite '{os.fspath(suite)}' makes no attack under which models could be compared.",
            hint=f"See both over time: tdsnn-zoo bench {quote(pairing.a)} --suite {quote(os.fspath(suite))}",
        )

    known = {} if fresh else _official(pairing, named, named.suite.n if n is None else n)
    results = {}
    for seed in pairing.pairs:
        if seed in known:
            results[seed] = known[seed]
            continue
        names = pairing.names(seed)
        note(f"Seed {seed}: {' and '.join(names)}")
        results[seed] = prepare(names, suite=suite, n=n, device=device, beside_twins=False, note=note).run(
            progress=progress
        )
    return compare_suite(pairing, results, official=tuple(known))


def _official(pairing: Pairing, suite: NamedSuite, n: int) -> dict[int, Result]:
    """Seed to an official result about both its networks under a suite, on the first n test images."""
    from tdsnn.report.documents import benches
    from tdsnn.table import FIRST_IMAGES

    found = {}
    for seed, releases in pairing.pairs.items():
        weights = {one.name: one.weights_sha256 for one in releases if one.weights_sha256 is not None}
        for result in benches(weights, dataset=pairing.dataset) if len(weights) == len(releases) else ():
            asked = result.settings
            if (
                asked.get("suite", {}).get("sha256") == suite.sha256
                and (asked["n"], asked["selection"], asked["seed"]) == (n, FIRST_IMAGES, suite.suite.seed)
                and any({one.model, one.twin} == set(weights) for one in result.comparisons)
            ):
                found[seed] = result
    return found


def _measure(
    names: Sequence[str], dataset: str, *, progress: Progress, note: Note
) -> Mapping[str, CleanVerdicts]:
    import torch

    from tdsnn.benchmark.clean import clean_verdicts
    from tdsnn.benchmark.entries import load_entries
    from tdsnn.data._base import load_split
    from tdsnn.kernels._library import NOTICE

    note(f"No stored verdicts of {', '.join(names)}: measured now, and kept in the cache.")
    test = load_split(dataset, "test")
    note(NOTICE)
    entries = load_entries(names, device=torch.device("cpu"), compiled=True).entries
    told = counted(progress, len(entries) * len(test.labels))
    return clean_verdicts(entries, dataset=dataset, test=test, progress=told)
