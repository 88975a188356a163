"""The only part that talks to the Hugging Face Hub, or to a server of its kind.

``HF_ENDPOINT`` is read at every call and may hold a user and a password; ``HF_HUB_OFFLINE``,
``HF_HUB_DOWNLOAD_TIMEOUT`` and ``HF_TOKEN`` (or the login of ``hf auth login``) act as in every other Hub
client. A password or token is never stored, printed or part of an error.
"""

from tdsnn.hub._client import Connection, connection
from tdsnn.hub._endpoint import require_client
from tdsnn.hub.datasets import dataset_digests, fetch_dataset_files, has_dataset_file
from tdsnn.hub.download import fetch_file
from tdsnn.hub.repository import PREFIX, Contents, Reference, RemoteFile, is_reference, look_up
from tdsnn.hub.snapshot import Snapshot, complete, take_snapshot
from tdsnn.hub.upload import Change, Comparison, Published, compare, publish, require_publishing

__all__ = [
    "PREFIX",
    "Change",
    "Comparison",
    "Connection",
    "Contents",
    "Published",
    "Reference",
    "RemoteFile",
    "Snapshot",
    "compare",
    "complete",
    "connection",
    "dataset_digests",
    "fetch_dataset_files",
    "fetch_file",
    "has_dataset_file",
    "is_reference",
    "look_up",
    "publish",
    "require_client",
    "require_publishing",
    "take_snapshot",
]
