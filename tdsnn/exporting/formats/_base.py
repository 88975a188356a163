"""What a format must be able to do: make a file of a program, and read it back to run it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

from msgspec import Meta
from torch import Tensor

from tdsnn.errors import IntegrityError, MissingError
from tdsnn.exporting.program import Program
from tdsnn.paths import install_command
from tdsnn.registry import Registry
from tdsnn.schema import Sha256, Table, plain
from tdsnn.validation import check


class Metadata(Table, frozen=True, kw_only=True):
    """What an exported file says about itself."""

    name: str
    """Zoo entry, or the architecture of a model in memory."""
    architecture: str
    weights_sha256: Sha256
    timesteps: Annotated[int, Meta(ge=1)]
    image_shape: tuple[int, int, int]
    """(C, H, W) of the images, float in [0, 1]; normalisation is inside."""
    labels: tuple[str, ...]
    """Classes in the order of the logits."""
    dataset: str
    licence: str
    """Empty where nobody said."""
    tdsnn_version: str

    def texts(self) -> dict[str, str]:
        """One text for each field: a name as it is, all else as JSON."""
        return {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in plain(self).items()
        }

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], *, path: Path) -> Metadata:
        """The inverse of :meth:`texts`; other keys are left out.

        Raises:
            IntegrityError: a field is missing or does not fit.
        """
        numbers = ("timesteps", "image_shape", "labels")
        try:
            values = {
                key: json.loads(texts[key]) if key in numbers else texts[key]
                for key in cls.__struct_fields__
                if key in texts
            }
        except ValueError as error:
            raise IntegrityError(f"What '{path}' says about itself cannot be read: {error}.") from error
        return check(values, cls, name=f"What '{path}' says about itself", error=IntegrityError)


class Exported(ABC):
    """An exported file, read back and ready to run."""

    metadata: Metadata

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W), float32 in [0, 1], on the CPU."""

    @abstractmethod
    def spikes(self, images: Tensor) -> dict[str, Tensor]:
        """Layer to its spikes (T, N, ...), bool; every spiking layer of the network."""


class Exporter(ABC):
    """One format. A module of this folder offers one instance of a class that extends it."""

    suffix: ClassVar[str]
    """Of its files, for examples."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What it needs besides PyTorch, as imported."""
    timed: ClassVar[bool] = True
    """Whether what runs its files here is a runtime, whose times mean something."""

    def prepare(self) -> None:
        """Import what the format needs.

        Raises:
            MissingError: a package is not installed.
        """
        import importlib

        for package in self.packages:
            try:
                importlib.import_module(package)
            except ModuleNotFoundError as error:
                raise MissingError(
                    f"This format needs the package '{error.name}', which is not installed.",
                    hint=f"Install it: {install_command('export')}",
                ) from error

    def unrolled(self, timesteps: int) -> int:
        """Steps that the program must have; 1 for a format that describes a step and not a sequence."""
        return timesteps

    @abstractmethod
    def encode(self, program: Program, metadata: Metadata) -> bytes:
        """Content of the file; the program stays as it is.

        Raises:
            UsageError: an operator that the format cannot express, which it names.
        """

    @abstractmethod
    def read(self, path: Path) -> Exported:
        """Read a file back.

        Raises:
            IntegrityError: it is damaged, or its content is not from :meth:`encode`.
        """

    @property
    @abstractmethod
    def runtime(self) -> str:
        """What runs its files here, with its version."""


@contextmanager
def readable(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a library raises about a file inside the block into a sentence about ``path``.

    Raises:
        IntegrityError: for any of ``errors``.
    """
    try:
        yield
    except errors as error:
        reason: Any = str(error).strip().split("\n")[0] or type(error).__name__
        raise IntegrityError(
            f"The exported file '{path}' cannot be read: {reason}.", hint="Export the model again."
        ) from error


FORMATS: Registry[Exporter] = Registry("format", "tdsnn.exporting.formats", "tdsnn-zoo export --help")
"""All formats by name, with ``_`` for ``-``."""
