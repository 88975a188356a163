"""fLoc: grey pictures of ten subcategories of five categories, and scrambled ones, to localise categories.

Not for training: its one split, ``train``, is a stimulus set. The images of 1024x1024 pixels are reduced to
128x128. They carry no licence, so they are read where the user has them and never passed on.
"""

from __future__ import annotations

from tdsnn.data._base import Dataset, SplitInfo
from tdsnn.data._sources import ImageFolder, LocalMirror, ParquetLayout

__all__ = ["FLOC"]

_LAYOUT = ParquetLayout(config="default", image="image", label="subcategory")
_CLASSES = (
    "adult",
    "body",
    "car",
    "child",
    "corridor",
    "house",
    "instrument",
    "limb",
    "number",
    "scrambled",
    "word",
)

CATEGORIES = {
    "faces": ("adult", "child"),
    "bodies": ("body", "limb"),
    "characters": ("number", "word"),
    "places": ("corridor", "house"),
    "objects": ("car", "instrument"),
}
"""Category to its subcategories; scrambled images belong to none."""

FLOC = Dataset(
    title="fLoc category localiser",
    shape=(1, 128, 128),
    classes=_CLASSES,
    # No digest: a folder of JPEGs decodes a little differently with every version of the decoder.
    splits={"train": SplitInfo(size=1_584, digest=None)},
    sources=(
        LocalMirror(folder="floc", layout=_LAYOUT),
        ImageFolder(folder="floc", classes=_CLASSES, suffix=".jpg", origin="https://github.com/VPNL/fLoc"),
    ),
    licence="not stated by the authors",
    citation="Stigliani, Weiner and Grill-Spector 2015, doi:10.1523/JNEUROSCI.4822-14.2015",
)
