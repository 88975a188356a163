"""``save_pretrained``, ``from_pretrained`` and ``push_to_hub``, as other libraries' models have them.

Unlike huggingface_hub's mixin these are strict (every tensor, its shape and type), verify content, and never
unpickle anything.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from tdsnn import hub, paths, store
from tdsnn.errors import UsageError
from tdsnn.models._checkpoint import read_model, write_model
from tdsnn.runtime import choose_device

if TYPE_CHECKING:
    import torch

    from tdsnn.models._base import Model

_CARD = """---
library_name: tdsnn-zoo
pipeline_tag: image-classification
tags:
- spiking-neural-network
---
# {name}

```python
import tdsnn

model = tdsnn.load("hf:{repo}")  # logits = model(images), images (N, C, H, W) in [0, 1]
```
"""


class Pretrained:
    """What a model can do with checkpoint folders and with repositories of a Hub."""

    dataset: str | None = None
    """Registered name of the dataset that the weights were trained on; known of a model that was loaded."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load a model of this class, in eval mode.

        Args:
            name: a zoo entry, a folder or a repository, as for :func:`tdsnn.naming.parse`.
            revision: branch, tag or commit of the repository.
            device: ``cpu``, ``cuda``, ``cuda:INDEX`` or ``auto``, or a device of PyTorch.

        Raises:
            UsageError: no such name, or the checkpoint is of another class.
            MissingError, IntegrityError: as :func:`tdsnn.store.locate`; also for tensors that do not fit.
        """
        target = choose_device(device)
        location = store.locate(name, revision=revision)
        model, _ = read_model(location.folder, known=location.weights)
        if not isinstance(model, cls):
            raise UsageError(
                f"'{name}' is a {type(model).__name__}, not a {cls.__name__}.",
                hint=f'Load it with tdsnn.load("{location.name}").',
            )
        return model.to(target)

    def save_pretrained(self, folder: str | os.PathLike[str], *, dataset: str | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``, which :meth:`from_pretrained` reads.

        Args:
            dataset: registered name of the dataset that the model was trained on, for ``bench`` to find it; a
                loaded model knows it.

        Raises:
            UsageError: no dataset was named, or the model is not what its architecture and arguments make,
                or has weights that are not finite; nothing is written.
            TdsnnError: the folder cannot be written; what was there is as it was.
        """
        path = paths.expanded(os.fspath(folder))
        write_model(cast("Model", self), path, name=path.resolve().name, dataset=self._dataset(dataset))

    def push_to_hub(
        self,
        repo: str,
        *,
        dataset: str | None = None,
        revision: str = "main",
        private: bool = False,
        message: str = "Upload model",
    ) -> hub.Published:
        """Publish the model as one commit; none if the repository has the same already.

        A ``README.md`` that is there stays. Zoo entries are published with ``tdsnn-zoo publish``: it checks
        them first and writes a full card.

        Args:
            repo: ``owner/name``.
            dataset: as for :meth:`save_pretrained`.
            revision: branch, made as needed.
            private: the repository must not be public.

        Raises:
            UsageError: no such name is possible, or as :meth:`save_pretrained`.
            TdsnnError: no token, no right, or the Hub failed.
        """
        reference = hub.Reference(repo=repo, revision=revision)
        name = repo.partition("/")[2]
        with tempfile.TemporaryDirectory() as folder:
            write_model(cast("Model", self), Path(folder), name=name, dataset=self._dataset(dataset))
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        card = {"README.md": _CARD.format(name=name, repo=repo).encode()}
        if "README.md" not in hub.compare(reference, files).others:
            files |= card
        return hub.publish(reference, files, message=message, private=private)

    def _dataset(self, given: str | None) -> str:
        known = given or self.dataset
        if known is None:
            raise UsageError(
                "The checkpoint must name the dataset that the model was trained on.",
                hint='For example dataset="cifar10"; known ones: tdsnn-zoo data list',
            )
        return known
