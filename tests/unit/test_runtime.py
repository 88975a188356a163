"""Device choice, code digests and the git record."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from tdsnn.errors import UsageError
from tdsnn.runtime import choose_device, code_digest, deterministic, environment, git_state


def test_devices_are_chosen_from_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="'cuda:2' is not on this machine, which has 2"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "cuda:", "tpu", ""):
        with pytest.raises(UsageError):
            choose_device(name)


def test_the_environment_names_versions_and_threads() -> None:
    record = environment(torch.device("cpu"))
    assert record["packages"]["torch"] == torch.__version__ or torch.__version__.startswith(
        record["packages"]["torch"]
    )
    assert record["threads"] == torch.get_num_threads()
    assert set(record) >= {"device", "platform", "python", "code"}


def test_deterministic_kernels_are_only_asked_for_inside_the_block() -> None:
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    with deterministic():
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32) == before


def test_a_code_digest_covers_its_parts_and_extra_files(tmp_path: Path) -> None:
    extra = tmp_path / "outside.py"
    extra.write_text("a = 1\n")
    one = code_digest(parts=["attacks", "stats.py"], extra=[extra])
    assert one == code_digest(parts=["stats.py", "attacks"], extra=[extra])
    assert one != code_digest(parts=["attacks"], extra=[extra])
    extra.write_text("a = 2\n")
    assert one != code_digest(parts=["attacks", "stats.py"], extra=[extra])


def test_git_state_sees_commits_changes_and_folders_that_are_not_tracked(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    package = tmp_path / "tdsnn"
    package.mkdir()
    (package / "errors.py").write_text("a = 1\n")
    assert git_state(package) is None
    git("init")
    git("commit", "--allow-empty", "-m", "empty")
    assert git_state(package) is None, "an installed copy below somebody's checkout"
    git("add", ".")
    git("commit", "-m", "package")
    clean = git_state(package)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (package / "errors.py").write_text("a = 2\n")
    assert git_state(package) == {**clean, "dirty": True}
