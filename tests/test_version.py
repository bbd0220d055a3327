"""One version, told to whoever asks, without the rest of the program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from supervisor.version import __version__
from tests.cli.tools import run


def test_the_version_is_told_and_is_one_of_semantic_versioning(tmp_path: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert f"kernel-supervisor {__version__}\n" == run(tmp_path, "--version").out


def test_who_asks_for_the_version_need_not_import_the_rest() -> None:
    heavy = ("asyncio", "zmq", "msgspec")
    program = f"import sys, supervisor.version; print([m for m in {heavy} if m in sys.modules])"

    assert "[]\n" == subprocess.check_output([sys.executable, "-c", program], text=True, timeout=30)
