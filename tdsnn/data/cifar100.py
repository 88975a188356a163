"""CIFAR-100: small colour photographs of a hundred kinds of things, five in each of twenty groups.

Its digests are those of a lossless copy with 500 and 100 images of each class; it was not compared with the
original files.
"""

from __future__ import annotations

from tdsnn.data._base import Dataset, SplitInfo
from tdsnn.data._sources import HubRepo, LocalMirror, ParquetLayout

__all__ = ["CIFAR100"]

_LAYOUT = ParquetLayout(config="cifar100", image="img", label="fine_label")

_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
    dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
    leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
    otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
    road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""

CIFAR100 = Dataset(
    title="CIFAR-100",
    shape=(3, 32, 32),
    classes=tuple(_CLASSES.split()),
    splits={
        "train": SplitInfo(
            size=50_000, digest="3e0cdbb4e16aa28b106a9471f655ece97edd8dc11cfe1bbe276521893e6267bb"
        ),
        "test": SplitInfo(
            size=10_000, digest="2f7d39d680bd5f996206b21468b3e1a4b3f7f73c8d519b120303fce7bdd6ca14"
        ),
    },
    held_out=SplitInfo(size=5_000, digest="15dbe96bff1a64536484c8a7853256c313ed16a15fc94848e2913d89dcc588c4"),
    sources=(
        LocalMirror(folder="cifar100", layout=_LAYOUT),
        HubRepo(repo="uoft-cs/cifar100", layout=_LAYOUT),
    ),
    licence="not stated by the authors",
    citation="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
)
