"""A plug-in of pytest: the Triton operators, in Triton's interpreter, take the place of those for the CPU.

``TRITON_INTERPRET=1`` has to be set before Triton is imported, so ``test_triton.py`` runs tests of the
operators under this plug-in in a process of its own. Sums are shared among few programs, so that each walks
through several tiles, of which the last is not full.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def in_place_of_the_cpu() -> Iterator[None]:
    from tdsnn.kernels import _operators, bn_add_lif, moments
    from tdsnn.kernels.gpu import _tiles
    from tdsnn.kernels.gpu import bn_add_lif as layer
    from tdsnn.kernels.gpu.moments import moments as of_channels

    for name, function in (
        ("bn_add_lif", layer.forward),
        ("bn_add_lif_backward", layer.backward),
        ("bn_add_lif_adaptive_backward", layer.adaptive_backward),
        ("moments", of_channels),
    ):
        _operators._NAMESPACE.impl(name, function, "CPU", allow_override=True)
    with pytest.MonkeyPatch.context() as patch:
        for module in (bn_add_lif, moments):
            patch.setattr(module, "library", None)
        for name, value in (("WIDTH", 32), ("HELD", 4096), ("PROGRAMS", 6)):
            patch.setattr(_tiles, name, value)
        yield
