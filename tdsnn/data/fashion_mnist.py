"""Fashion-MNIST: grey pictures of ten kinds of clothing."""

from __future__ import annotations

from pathlib import Path

from tdsnn.data._base import Dataset, SplitInfo
from tdsnn.data._sources import HubRepo, IdxFolder, LocalMirror, ParquetLayout

__all__ = ["FASHION_MNIST"]

_LAYOUT = ParquetLayout(config="fashion_mnist", image="image", label="label")

FASHION_MNIST = Dataset(
    title="Fashion-MNIST",
    shape=(1, 28, 28),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    splits={
        "train": SplitInfo(
            size=60_000, digest="8fb0b95e59477a26fd504125da3384b417502ec5d1b0915f50875d4ef76e0235"
        ),
        "test": SplitInfo(
            size=10_000, digest="5d8c141c11e6ff1531f3a8931e39859b10b2a9b77f28f837221e6d6391b551a9"
        ),
    },
    held_out=SplitInfo(size=5_000, digest="7032e5aa9d34cfdcaaf517443f481e16f5e2bbde661de8b12208ffa995d1d4d4"),
    sources=(
        LocalMirror(folder="fashion_mnist", layout=_LAYOUT),
        IdxFolder(
            folder=Path("/usr/share/datasets/fashion-mnist"),
            files={
                "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
                "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
            },
            package="dataset-fashion-mnist",
        ),
        HubRepo(repo="zalando-datasets/fashion_mnist", layout=_LAYOUT),
    ),
    licence="MIT",
    citation="Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
)
