"""Digits: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn.

The package has no split of its own. Here a fifth of every class is the test split: the samples are permuted
with numpy's frozen MT19937 stream under seed 0, and of each class the first fifth in that order is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdsnn.data._base import Dataset, SplitInfo
from tdsnn.data._sources import PythonPackage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DIGITS"]

_SEED = 0
_TEST_SHARE = 5
_GREY_LEVELS = 16


def _read(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 1, 8, 8), the grey levels 0..16 spread over 0..255, and labels (N,)."""
    import numpy as np
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    images = np.rint(grey * (255 / _GREY_LEVELS)).astype(np.uint8).reshape(-1, 1, 8, 8)
    # RandomState, because numpy promises its stream for ever and default_rng's may change (NEP 19).
    order = np.random.RandomState(_SEED).permutation(len(labels))
    in_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        in_test[members[: len(members) // _TEST_SHARE]] = True
    chosen = in_test if split == "test" else ~in_test
    return images[chosen], labels[chosen]


DIGITS = Dataset(
    title="Digits (scikit-learn)",
    shape=(1, 8, 8),
    classes=tuple("0123456789"),
    splits={
        "train": SplitInfo(
            size=1_442, digest="d5e58d41f59a506d6c5c784a2b8bc8dae6f2625346df200143ffe214a4c624d0"
        ),
        "test": SplitInfo(
            size=355, digest="dde6176621954bba5e7bcfaf66e903e5e76a51d6b34c370a4ff2c8b56c88fea1"
        ),
    },
    held_out=SplitInfo(size=144, digest="fc22317410f59cf119f5aa80bd8119f0dc00891d5ab3e40483829fa370935da7"),
    sources=(PythonPackage(package="scikit-learn", module="sklearn", reader=_read),),
    licence="CC BY 4.0",
    citation="Alpaydin and Kaynak 1998, UCI, doi:10.24432/C50P49",
)
