"""Documents that people write or the program leaves: each field declared once, with its range and choices.

:func:`tdsnn.validation.check` holds a document against its type. No torch here: ``list`` and ``info`` must
answer instantly. What one spatial loss or one architecture takes besides is declared beside its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import asdict

WEIGHTS_FILE = "model.safetensors"
"""Name of the weights in a checkpoint folder."""

Count = Annotated[int, Meta(ge=0)]
Augmentation = Literal["crop", "flip", "cutout", "resized_crop", "randaugment", "mixup", "cutmix"]
Seed = Annotated[int, Meta(ge=0, le=2**48)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(ge=0, le=1e6)]
Epochs = Annotated[float, Meta(ge=0, le=100_000)]
Rate = Annotated[float, Meta(ge=1e-8, le=100)]
Millimetres = Annotated[float, Meta(gt=0, le=1e6)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="a sha256 of 64 hex digits")]
Commit = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z", description="a commit of 40 hex digits")]
# A release also comes from other people's pull requests: it must not name files outside its folder.
InnerPath = Annotated[
    str,
    Meta(
        pattern=r"^\w[\w .-]*(?:/\w[\w .-]*)*\Z",
        max_length=200,
        description="a plain name that does not leave the checkpoint folder",
    ),
]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all documents and of the tables in them: immutable, and nothing unknown is passed over."""


class Topography(Table, frozen=True, kw_only=True):
    """How the cortical sheets are laid out and which spatial loss shapes them."""

    loss: str = "stc"
    """Name of the spatial loss, a module of :mod:`tdsnn.topography.losses`."""
    alpha: Weight = 0.0
    """Weight of the rate term L_L, or of a spatial loss that is one term; the non-topographic twin has 0."""
    beta: Weight = 0.0
    """Weight of the spike-timing term L_S; the non-topographic twin has 0."""
    window: Annotated[int, Meta(ge=0, le=1_000)] = 1
    """Largest lag W of the cross-correlogram, in time steps."""
    options: Mapping[str, Any] = {}
    """What the named loss takes besides; in documents these stand in the table itself. It declares and checks
    them: :func:`tdsnn.topography.losses._base.complete`."""
    clusters: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """Neighbourhoods M drawn per layer and step."""
    cluster_units: Annotated[int, Meta(ge=5, le=10_000)] = 150
    """Units N in each neighbourhood."""
    warmup_epochs: Epochs = 0.0
    """Epochs over which the weights rise linearly from zero."""
    sheet_seed: Seed = 0
    """Seed of the unit positions."""
    unit_mm: dict[str, Millimetres] = {}
    """Layer to the distance that counts as one in 1 / (1 + distance); 1 mm for layers not named."""
    preparation: Literal["retinotopic", "pre-optimised"] = "retinotopic"
    """How the positions are prepared: ``retinotopic`` (random within the receptive field), or
    ``pre-optimised``: then units change places until those that a network without spatial loss drives alike
    are neighbours."""
    attempts_per_unit: Annotated[float, Meta(gt=0, le=1e6)] = 100.0
    """Swaps tried for each unit of a pre-optimised sheet."""

    def table(self) -> dict[str, Any]:
        """The table of a document: the options of the loss stand among the other fields."""
        found: dict[str, Any] = {}
        for key, value in asdict(self).items():
            found |= value if key == "options" else {key: value}
        return found


def split_options(table: Any) -> Any:
    """Inverse of :meth:`Topography.table`: what is no field of its own is an option of the loss."""
    if not isinstance(table, Mapping):
        return table
    fields = {key: value for key, value in table.items() if key in TOPOGRAPHY_FIELDS}
    return fields | {"options": {key: value for key, value in table.items() if key not in fields}}


TOPOGRAPHY_FIELDS = tuple(field for field in Topography.__struct_fields__ if field != "options")


class Adversarial(Table, frozen=True, kw_only=True):
    """The attack on each training batch; :mod:`tdsnn.training.adversarial` says what is learned from it."""

    eps_255: Annotated[float, Meta(gt=0, le=255)]
    """Radius of the ball around an image, in units of 1/255."""
    norm: Literal["linf", "l2"] = "linf"
    steps: Annotated[int, Meta(ge=1, le=100)] = 1
    """Gradient steps from a start drawn in the ball: 1 is FGSM-RS (Wong et al. 2020, arXiv:2001.03994), more
    are PGD training (Madry et al. 2018, arXiv:1706.06083)."""
    step_fraction: Annotated[float, Meta(gt=0, le=10)] = 1.25
    """Length of a step as a fraction of eps; the default is that of Wong et al. for one step."""


class Recipe(Table, frozen=True, kw_only=True):
    """Everything that decides a training run besides model, data and topography."""

    seed: Seed = 0
    epochs: Annotated[int, Meta(ge=1, le=100_000)] = 10
    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 128
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    """``adamw``, ``sgd`` (Nesterov momentum 0.9), or ``muon`` (convolutions) with ``adamw`` for the rest."""
    lr: Rate = 2e-3
    matrix_lr: Annotated[float, Meta(ge=1e-8, le=1)] = 0.06
    """Step of ``muon``'s convolutions as a fraction of the weight's norm; the others have ``lr``."""
    weight_decay: Annotated[float, Meta(ge=0, le=10)] = 0.05
    """Applied to weights of rank 2 and more only."""
    warmup_epochs: Epochs = 1.0
    label_smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    ema_decay: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Decay per step of the averaged weights that are saved; 0 turns averaging off."""
    bn_batches: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """Training batches whose mean statistics replace the running ones of batch normalisation at the end, as
    "precise BN" (Wu and Johnson 2021, arXiv:2105.07576); 0 keeps the running ones."""
    rate_penalty: Weight = 0.0
    """Weight of the mean output of the layers with sheets: of spikes, their mean firing rate, as fewer spikes
    are fewer operations. 0 leaves it out."""
    clip_norm: Weight = 0.0
    """Largest gradient norm; 0 turns clipping off."""
    precision: Literal["bf16", "tf32", "fp32"] = "bf16"
    """``bf16`` (autocast), ``fp32``, or ``tf32``: fp32 whose products a GPU may round to TF32."""
    weight_format: Literal["fp32", "fp16"] = "fp32"
    """``fp16`` rounds the final matrices and kernels to half precision, before statistics are settled and
    anything is measured, so that the checkpoint of half the size is exactly the network that was measured."""
    compile: bool = False
    """Run the training step through the compiled operators."""
    augmentation: tuple[Augmentation, ...] = ()
    """Names of augmentations of :mod:`tdsnn.data._augment`, in the order they are applied; ``resized_crop``
    comes first, as it is made where a streamed picture is decoded, and ``mixup`` or ``cutmix`` last."""
    adversarial: Adversarial | UnsetType = UNSET
    """Train on attacked images. Without it documents do not have the key, as those from before there was it:
    a digest of settings must not change."""
    sync_batch_norm: bool | UnsetType = UNSET
    """Whether batch normalisation takes the statistics of the whole batch where several processes share it.
    Without it documents do not have the key either."""
    accumulate: Annotated[int, Meta(ge=1, le=10_000)] | UnsetType = UNSET
    """Passes in which each process computes its share of a batch, whose gradients add up to those of one;
    batch normalisation, STC and TDANN see the images of one pass at a time: their statistics and correlations
    are of fewer images. Without it, which means 1, documents do not have the key."""


class Description(Table, frozen=True, kw_only=True):
    """What a manifest says of an entry besides its tables."""

    summary: str
    twin: str
    """Name of the entry that differs only in the topographic weights."""
    default: bool = False
    """Whether the bare architecture name (before the dot) means this entry."""
    licence: str = "Apache-2.0"
    citation: str = ""
    notes: str = ""


class Manifest(Description, frozen=True, kw_only=True):
    """One zoo entry, hand-written in ``zoo/models/NAME.toml``."""

    name: str
    architecture: str
    arguments: Mapping[str, Any] = {}
    """What the architecture is built with; it declares and checks them itself."""
    dataset: str
    topography: Topography = Topography()
    recipe: Recipe = Recipe()

    @property
    def topographic(self) -> bool:
        """Whether a spatial loss shaped the weights."""
        return self.topography.alpha > 0 or self.topography.beta > 0

    def document(self) -> dict[str, Any]:
        """As plain values, one table for each part."""
        return {**plain(self), "topography": self.topography.table()}


class About(Table, frozen=True, kw_only=True):
    """What is said about a dataset in texts."""

    repo: str | None
    """Its repository on the Hub, ``owner/name``; None if it has none."""
    title: str
    shape: tuple[int, int, int]
    """(C, H, W) of every image."""


class FileRecord(Table, frozen=True, kw_only=True):
    """One file of a release."""

    path: InnerPath
    size: Count
    sha256: Sha256


class _Figure(TypedDict):
    unit: str


class Metric(_Figure, total=False):
    """One figure of a release, of the whole model or layer by layer."""

    value: int | Finite
    n: Count
    interval: tuple[int | Finite, int | Finite]
    """Ends of the 95 % interval."""
    layers: dict[str, int | Finite]
    intervals: dict[str, tuple[int | Finite, int | Finite]]
    without_interval: dict[str, str]
    """Layer to the reason why it has none."""


class Release(Table, frozen=True, kw_only=True):
    """What exists for a zoo entry, machine-written in ``zoo/releases/NAME.json``."""

    name: str
    files: tuple[FileRecord, ...]
    metrics: Mapping[str, Any]
    """Name to :class:`Metric`."""
    provenance: Mapping[str, Any]
    hub_repo: str | None = None
    hub_commit: Commit | None = None
    """Commit of ``hub_repo``."""

    @property
    def weights_sha256(self) -> str | None:
        """Content of the released weights, 64 hex digits; None where the release lists none."""
        return next((file.sha256 for file in self.files if file.path == WEIGHTS_FILE), None)


class _Sheet(TypedDict):
    shape: tuple[Count, Count, Count]
    """(C, H, W) of the layer's output as maps."""
    size_mm: Millimetres
    neighbourhood_mm: Millimetres
    seed: Count
    preparation: str


class SheetRecord(_Sheet, total=False):
    """One cortical sheet of a checkpoint, everything but its positions."""

    layout: Literal["maps", "tokens"]
    """Of the layer's output; maps if it is not there."""
    unit_mm: Millimetres
    """1 mm if it is not there."""
    log: dict[str, Any]
    """What its preparation did."""


def plain(record: object) -> dict[str, Any]:
    """A document, or a dataclass with parts of one, as plain values, deep."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    return values
