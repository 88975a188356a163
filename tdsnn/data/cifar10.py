"""CIFAR-10: small colour photographs of ten kinds of animals and vehicles."""

from __future__ import annotations

from tdsnn.data._base import Dataset, SplitInfo
from tdsnn.data._sources import HubRepo, LocalMirror, ParquetLayout

__all__ = ["CIFAR10"]

_LAYOUT = ParquetLayout(config="plain_text", image="img", label="label")

CIFAR10 = Dataset(
    title="CIFAR-10",
    shape=(3, 32, 32),
    classes=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    splits={
        "train": SplitInfo(
            size=50_000, digest="128a530b2a45b2f63b733d8870230c3421f32a999160ea7cf4747695ba0bcd07"
        ),
        "test": SplitInfo(
            size=10_000, digest="ca6dab0fd3abb862f130b1f4abcf53085195ee001c5da0e4f96ee1b50a13c7da"
        ),
    },
    held_out=SplitInfo(size=5_000, digest="03da876a68b7c23502a199339c393e05688d698df39609d8036ac530baab56dc"),
    sources=(
        LocalMirror(folder="cifar10", layout=_LAYOUT),
        HubRepo(repo="uoft-cs/cifar10", layout=_LAYOUT),
    ),
    licence="not stated by the authors",
    citation="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
)
