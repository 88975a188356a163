"""The command line as a function, for tests."""

from __future__ import annotations

import pytest

from tdsnn.cli.main import main


def run(*arguments: str) -> int:
    """Exit code of ``tdsnn-zoo`` with these arguments."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    code = caught.value.code
    return code if isinstance(code, int) else 0
