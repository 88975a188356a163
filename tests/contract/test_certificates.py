"""The official certificates are about what is released now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdsnn import certificates, paths
from tdsnn.manifest import load_release

FILES = sorted(paths.bundled("benchmarks", "results", "export").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_certificate_is_about_the_released_weights(path: Path) -> None:
    found = certificates.read(path)
    release = load_release(found.name)
    assert release is not None
    assert found.weights_sha256 == release.weights_sha256
    assert path.name == f"{found.name}.{found.format}.json"
    assert (found.split, found.n) == ("test", 1000)
    assert not found.provenance["code"]["dirty"]


def test_there_are_some() -> None:
    assert FILES
