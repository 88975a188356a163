"""What ``bench`` answers before it measures anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tdsnn.cli.main import main


def test_a_mistyped_model_is_answered_without_torch() -> None:
    code = (
        "import sys\nfrom tdsnn.cli.main import main\n"
        "try: main(['bench', 'tsresnet81'])\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Did you mean tsresnet18" in done.stderr
    assert done.stdout.strip() == "False"


def test_help_is_quick_to_import_and_lists_the_attacks() -> None:
    code = (
        "import sys\nfrom tdsnn.cli.main import main\n"
        "try: main(['bench', '--help'])\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("False")
    assert "fgsm, gaussian, pgd" in " ".join(done.stdout.replace("│", " ").split())


def test_ctrl_c_while_models_load_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tdsnn.benchmark.entries.load_entries", stop)
    with pytest.raises(SystemExit) as caught:
        main(["bench", "tsresnet18", "--n", "20", "--eps", "2"])
    assert caught.value.code == 130
    printed = capsys.readouterr()
    assert "Stopped before the first cell." in printed.err
    assert "Go on with: tdsnn-zoo bench tsresnet18 --eps 2 --n 20" in printed.err
    assert printed.out == ""
