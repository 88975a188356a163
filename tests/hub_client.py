"""What the tests of the Hub on this machine ask the real client to do."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download

REPO = "alice/net"
TEXT = b'{"classes": 10}\n'
WEIGHTS = bytes(range(256)) * 800
FILES = {"config.json": TEXT, "weights/model.safetensors": WEIGHTS}
GET_WEIGHTS = r"^GET .*model\.safetensors"


def push(
    api: HfApi,
    files: dict[str, bytes] = FILES,
    *,
    revision: str = "main",
    parent_commit: str | None = None,
) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(
        REPO, operations, commit_message="Add files", revision=revision, parent_commit=parent_commit
    ).oid


def download(name: str = "weights/model.safetensors") -> bytes:
    return Path(hf_hub_download(REPO, name)).read_bytes()
