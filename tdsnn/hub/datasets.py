"""Files of dataset repositories, through the Hub client's own cache; content is checked once decoded."""

from __future__ import annotations

from pathlib import Path

from tdsnn.errors import MissingError
from tdsnn.hub._client import endpoint, public, require_network


def fetch_dataset_file(repo: str, filename: str) -> Path:
    """One file of a dataset repository at its newest revision, in the Hub client's cache.

    Raises:
        MissingError: not cached and not to be had (no network, offline mode, no such repository or file).
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

    what = f"'{filename}' of dataset {repo}"

    def download(*, local_files_only: bool) -> Path:
        return Path(
            hf_hub_download(
                repo,
                filename,
                repo_type="dataset",
                revision="main",
                endpoint=endpoint(),
                local_files_only=local_files_only,
            )
        )

    try:
        return download(local_files_only=True)
    except HFValidationError as error:
        raise MissingError(f"{what} cannot be on a Hub: {error}.") from error
    except (OSError, EntryNotFoundError):
        require_network(what)
    try:
        return download(local_files_only=False)
    except (OSError, EntryNotFoundError, httpx.HTTPError) as error:
        reason = public(str(error)).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise MissingError(
            f"{what} could not be fetched from {public(endpoint())}: {reason}.",
            hint="Check the name, your access (HF_TOKEN) and the free disk space, then try again.",
        ) from None


def has_dataset_file(repo: str, filename: str) -> bool:
    """Whether a file of a dataset repository is in the Hub client's cache; asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, filename, repo_type="dataset", revision="main")
    except HFValidationError:
        return False
    return isinstance(found, str)
