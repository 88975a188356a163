"""Device choice, code digests and the git record."""

from __future__ import annotations

import importlib
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


def test_a_code_digest_covers_its_parts_and_whole_packages_of_plug_ins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "outside_attacks"
    package.mkdir()
    for name in ("__init__", "strong", "helper"):
        (package / f"{name}.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("outside_attacks.strong")
    parts = ["attacks", "stats.py"]
    own = code_digest(parts=parts)
    one = code_digest(parts=parts, plug_ins=["outside_attacks.strong"])
    assert one != own
    assert one == code_digest(parts=parts[::-1], plug_ins=["outside_attacks.strong"])
    assert own != code_digest(parts=["attacks"])
    # What the plug-in imports from its own package changes its numbers as well.
    (package / "helper.py").write_text("a = 2\n")
    assert one != code_digest(parts=parts, plug_ins=["outside_attacks.strong"])
    # These count by their versions, or are in the parts already.
    assert own == code_digest(parts=parts, plug_ins=["torch.nn.modules.conv", "tdsnn.attacks.pgd"])


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
