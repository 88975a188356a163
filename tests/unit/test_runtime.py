"""Device choice, code digests and the git record."""

from __future__ import annotations

import importlib
import subprocess
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from tdsnn.errors import UsageError
from tdsnn.runtime import (
    choose_device,
    code_digest,
    deterministic,
    environment,
    fp32_products,
    git_state,
    machine,
)
from tests.second_device import second_device


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


def test_equal_gpus_are_one_machine() -> None:
    """What the processes of a launcher store, each of a GPU of its own, one process goes on from."""
    with second_device(1):
        one, other = (machine(torch.device(name)) for name in ("cuda", "cuda:1"))
    assert one == other
    assert one["device"] == "cuda"


def test_deterministic_kernels_are_only_asked_for_inside_the_block() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    with deterministic():
        assert cudnn.deterministic
        assert not cudnn.benchmark
        assert not cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == before


def precisions() -> dict[str, object]:
    """All that PyTorch says of the precision of products, by either set of names."""
    backends, said = torch.backends, {}
    for name, read in {
        "products, old": torch.get_float32_matmul_precision,
        "convolutions, old": lambda: backends.cudnn.allow_tf32,
        "products": lambda: backends.cuda.matmul.fp32_precision,
        "convolutions": lambda: backends.cudnn.conv.fp32_precision,
        "recurrent": lambda: backends.cudnn.rnn.fp32_precision,
        "cuDNN": lambda: backends.cudnn.fp32_precision,
        "all": lambda: backends.fp32_precision,
    }.items():
        try:
            said[name] = read()
        except RuntimeError:
            said[name] = "cannot be read"
    return said


def holds_precision(chosen: str, tf32: bool) -> None:
    """The blocks mean what they say, and leave all as it was set by ``chosen``."""
    exec(chosen, {"backends": torch.backends})
    found = precisions()
    for _ in range(2):
        with fp32_products(tf32=tf32):
            inside = precisions()
            with deterministic():
                assert precisions()["convolutions"] == "ieee"
            assert precisions() == inside
        wanted = "tf32" if tf32 else "ieee"
        assert [inside[kind] for kind in ("products", "convolutions", "recurrent")] == [wanted] * 3
        assert precisions() == found


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9")
@pytest.mark.parametrize(
    "chosen",
    [
        "pass",
        "backends.cuda.matmul.allow_tf32 = True",
        "backends.cudnn.allow_tf32 = False",
        "backends.cuda.matmul.fp32_precision = 'tf32'",
        "backends.cudnn.conv.fp32_precision = 'ieee'",
        "backends.cudnn.fp32_precision = 'tf32'",
        "backends.fp32_precision = 'ieee'",
        "backends.fp32_precision = 'tf32'",
    ],
)
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.filterwarnings("ignore:Please use the new API")
def test_precision_is_what_was_asked_for_whoever_set_it_before(chosen: str, tf32: bool) -> None:
    # In a process of its own: what mixes old and new names cannot be taken back.
    process = get_context("fork").Process(target=holds_precision, args=(chosen, tf32))
    process.start()
    process.join()
    assert process.exitcode == 0


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
