"""Datasets, one per file, and what a dataset is declared with."""

from tdsnn.data._base import DATASETS, Dataset, Split, SplitInfo, load_split, load_training
from tdsnn.data._sources import (
    HubRepo,
    IdxFolder,
    ImageFolder,
    LocalMirror,
    ParquetLayout,
    PythonPackage,
    RawSplit,
    Source,
)

__all__ = [
    "DATASETS",
    "Dataset",
    "HubRepo",
    "IdxFolder",
    "ImageFolder",
    "LocalMirror",
    "ParquetLayout",
    "PythonPackage",
    "RawSplit",
    "Source",
    "Split",
    "SplitInfo",
    "load_split",
    "load_training",
]
