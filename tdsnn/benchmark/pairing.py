"""Which released seeds of one entry are compared with which of another; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import filter as matching
from shlex import quote

from tdsnn.errors import MissingError, UsageError
from tdsnn.manifest import entry_and_seed, list_models, load_release, resolve
from tdsnn.schema import Release

_WILDCARDS = frozenset("*?[")
_ALL_SEEDS = "-s*"
"""After an entry's name: all its seeds, also the one that the name alone means, and no other variant."""
_LIST = "See what there is: tdsnn-zoo list --seeds"


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Released seeds of two entries, paired by number."""

    a: str
    """Entry, the full name of its seed 0."""
    b: str
    dataset: str
    pairs: Mapping[int, tuple[Release, Release]]
    """Seed to the releases of A and B, ascending; at least one."""
    left_out: tuple[str, ...]
    """Full names whose seed the other entry lacks."""
    twins: bool
    """Whether A has a spatial loss and B is the same without."""

    def names(self, seed: int) -> tuple[str, str]:
        """Full names of A and B of a seed."""
        a, b = self.pairs[seed]
        return a.name, b.name

    @property
    def releases(self) -> tuple[Release, ...]:
        """Of all seeds, A before B."""
        return tuple(release for pair in self.pairs.values() for release in pair)


def pair_seeds(a: str, b: str | None = None) -> Pairing:
    """Pair what two names mean.

    Args:
        a, b: a full name, which means exactly that one; a bare name, which means the default variant and all
            its released seeds; a full name and ``-s*``, that entry and all its released seeds; or any other
            pattern of :mod:`fnmatch`. Without ``b``, the twins of ``a``.

    Raises:
        UsageError: an unknown name, a pattern of several entries, other datasets, or no common seed.
        MissingError: nothing of it was released.
        IntegrityError: a damaged release.
    """
    ours = _seeds_of(a)
    theirs = _twins(ours) if b is None else _seeds_of(b)
    one, other = _entry(ours), _entry(theirs)
    if one == other:
        raise UsageError(f"'{one}' would be compared with itself.", hint=f"Name another model. {_LIST}")
    first, second = resolve(one), resolve(other)
    if first.dataset != second.dataset:
        raise UsageError(
            f"'{one}' is for {first.dataset} and '{other}' for {second.dataset}: they share no image.",
            hint=_LIST,
        )
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        numbers = [", ".join(map(str, sorted(side))) for side in (ours, theirs)]
        raise UsageError(
            f"No seed of '{one}' ({numbers[0]}) is also one of '{other}' ({numbers[1]}).", hint=_LIST
        )
    return Pairing(
        a=one,
        b=other,
        dataset=first.dataset,
        pairs={seed: (ours[seed], theirs[seed]) for seed in common},
        left_out=tuple(
            side[seed].name for side in (ours, theirs) for seed in sorted(side) if seed not in common
        ),
        twins=first.topographic and first.twin == other,
    )


def _seeds_of(name: str) -> dict[int, Release]:
    """Seed to release, all of one entry."""
    stem = name.removesuffix(_ALL_SEEDS)
    if _WILDCARDS.isdisjoint(stem):
        full = resolve(stem).name
        entry, _ = entry_and_seed(full)
        every = [one for one in list_models() if entry_and_seed(one)[0] == entry]
        names = [full] if full == name else every
    else:
        names = matching(list_models(), name)
        if not names:
            raise UsageError(f"No model of the zoo matches '{name}'.", hint=_LIST)
    released = _released(names)
    if not released:
        raise MissingError(
            f"Nothing of '{name}' was released.", hint=f"Train it: tdsnn-zoo train {quote(names[0])}"
        )
    entries = sorted({entry_and_seed(release.name)[0] for release in released})
    if len(entries) > 1:
        raise UsageError(
            f"'{name}' matches several entries: {', '.join(entries)}.",
            hint=f"All seeds of one of them: tdsnn-zoo compare {quote(entries[0] + _ALL_SEEDS)}",
        )
    return _by_seed(released)


def _twins(ours: Mapping[int, Release]) -> dict[int, Release]:
    names = [resolve(release.name).twin for release in ours.values()]
    released = _released(names)
    if not released:
        raise MissingError(
            f"The twin of '{_entry(ours)}' was not released.",
            hint=f"Train it: tdsnn-zoo train {quote(names[0])}",
        )
    return _by_seed(released)


def _released(names: Iterable[str]) -> list[Release]:
    return [release for name in names if (release := load_release(name)) is not None]


def _by_seed(releases: Iterable[Release]) -> dict[int, Release]:
    return {entry_and_seed(release.name)[1]: release for release in releases}


def _entry(side: Mapping[int, Release]) -> str:
    return entry_and_seed(next(iter(side.values())).name)[0]
