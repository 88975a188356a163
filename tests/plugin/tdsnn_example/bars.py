"""Bars: 1,000 noisy pictures of 8x8 pixels with an upright or a level bar, drawn by this file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdsnn.data import Dataset, PythonPackage, SplitInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZES = {"train": 800, "test": 200}


def read(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 1, 8, 8) and labels (N,): 0 upright, 1 level."""
    import numpy as np

    draws = np.random.RandomState(list(SIZES).index(split))
    labels = draws.randint(0, 2, SIZES[split])
    images = draws.randint(0, 100, (SIZES[split], 1, 8, 8))
    for image, label, place in zip(images, labels, draws.randint(1, 7, SIZES[split]), strict=True):
        bar = image[0, place] if label else image[0, :, place]
        bar += 120
    return images.astype(np.uint8), labels.astype(np.int64)


BARS = Dataset(
    title="Bars",
    shape=(1, 8, 8),
    classes=("upright", "level"),
    splits={
        "train": SplitInfo(
            size=SIZES["train"], digest="c4a73cb9c9088ae474d6cbf1acf07df0d16ec72d5bf9fcdf4d146a6ca672b9f8"
        ),
        "test": SplitInfo(
            size=SIZES["test"], digest="a569ea16c571abedc6d63c2320f672b89f3fee92d2181f7dc40bbaf43719e1b9"
        ),
    },
    held_out=SplitInfo(size=80, digest="01a51a91de6e2ccc5c609f013d11f07d4c6940681dfef5c0e1605abdfee77d56"),
    sources=(PythonPackage(package="tdsnn-example", module="tdsnn_example", reader=read),),
    licence="Apache-2.0",
    citation="Made by tdsnn-example",
)
