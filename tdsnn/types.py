"""Frozen records shared by all parts. No torch here: ``list`` and ``info`` must answer instantly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WEIGHTS_FILE = "model.safetensors"
"""Name of the weights in a checkpoint folder."""


@dataclass(frozen=True, kw_only=True)
class Topography:
    """How the cortical sheets are laid out and which spatial loss shapes them."""

    loss: str = "stc"
    """Name of the spatial loss, a module of ``tdsnn.topography``."""
    alpha: float = 0.0
    """Weight of the rate term L_L, or of a spatial loss that is one term; the non-topographic twin has 0."""
    beta: float = 0.0
    """Weight of the spike-timing term L_S; the non-topographic twin has 0."""
    window: int = 1
    """Largest lag W of the cross-correlogram, in time steps."""
    window_shape: str = "flat"
    """How the lags of ``stc`` count: ``flat`` (the paper) or ``triangular``, which keeps |r_CCG| <= 1."""
    form: str = "relative"
    """What ``tdann`` asks of similarity: ``relative`` (to follow proximity) or ``absolute`` (to equal it)."""
    factor_h: float = 3.0
    factor_w: float = 3.0
    """By how much ``topoloss`` reduces the grid of a layer's units before it enlarges it again; 3 and 8 are
    the values of its authors' examples (github.com/murtylab/topoloss)."""
    clusters: int = 10
    """Neighbourhoods M drawn per layer and step."""
    cluster_units: int = 150
    """Units N in each neighbourhood."""
    warmup_epochs: float = 0.0
    """Epochs over which the weights rise linearly from zero."""
    sheet_seed: int = 0
    """Seed of the unit positions."""
    unit_mm: dict[str, float] = field(default_factory=dict)
    """Layer to the distance that counts as one in 1 / (1 + distance); 1 mm for layers not named."""
    preparation: str = "retinotopic"
    """How the positions are prepared: ``retinotopic`` (random within the receptive field), or
    ``pre-optimised``: then units change places until those that a network without spatial loss drives alike
    are neighbours."""
    attempts_per_unit: float = 100.0
    """Swaps tried for each unit of a pre-optimised sheet."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run besides model, data and topography."""

    seed: int = 0
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "adamw"
    """``adamw``, ``sgd`` (Nesterov momentum 0.9), or ``muon`` (convolutions) with ``adamw`` for the rest."""
    lr: float = 2e-3
    matrix_lr: float = 0.06
    """Step of ``muon``'s convolutions as a fraction of the weight's norm; the others have ``lr``."""
    weight_decay: float = 0.05
    """Applied to weights of rank 2 and more only."""
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    """Decay per step of the averaged weights that are saved; 0 turns averaging off."""
    bn_batches: int = 0
    """Training batches whose mean statistics replace the running ones of batch normalisation at the end, as
    "precise BN" (Wu and Johnson 2021, arXiv:2105.07576); 0 keeps the running ones."""
    rate_penalty: float = 0.0
    """Weight of the mean output of the layers with sheets: of spikes, their mean firing rate, as fewer spikes
    are fewer operations. 0 leaves it out."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 turns clipping off."""
    precision: str = "bf16"
    """``bf16`` (autocast) or ``fp32``."""
    weight_format: str = "fp32"
    """``fp16`` rounds the final matrices and kernels to half precision, before statistics are settled and
    anything is measured, so that the checkpoint of half the size is exactly the network that was measured."""
    compile: bool = False
    """Run the training step through the compiled operators."""
    augmentation: tuple[str, ...] = ()
    """Names of augmentations in the order they are applied."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One zoo entry, hand-written in ``zoo/models/NAME.toml``."""

    name: str
    summary: str
    architecture: str
    arguments: Mapping[str, Any]
    dataset: str
    twin: str
    """Name of the entry that differs only in the topographic weights."""
    default: bool = False
    """Whether the bare architecture name (before the dot) means this entry."""
    topography: Topography = field(default_factory=Topography)
    recipe: Recipe = field(default_factory=Recipe)
    licence: str = "Apache-2.0"
    citation: str = ""
    notes: str = ""

    @property
    def topographic(self) -> bool:
        """Whether a spatial loss shaped the weights."""
        return self.topography.alpha > 0 or self.topography.beta > 0


@dataclass(frozen=True, kw_only=True)
class About:
    """What is said about a dataset in texts."""

    repo: str | None
    """Its repository on the Hub, ``owner/name``; None if it has none."""
    title: str
    shape: tuple[int, int, int]
    """(C, H, W) of every image."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of a release."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """What exists for a zoo entry, machine-written in ``zoo/releases/NAME.json``."""

    name: str
    files: tuple[FileRecord, ...]
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    hub_repo: str | None = None
    hub_commit: str | None = None
    """40-hex commit of ``hub_repo``."""

    @property
    def weights_sha256(self) -> str | None:
        """Content of the released weights, 64 hex digits; None where the release lists none."""
        return next((file.sha256 for file in self.files if file.path == WEIGHTS_FILE), None)
