"""What mypy says of programs that are none of ours and use the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.tools import ROOT


def strict_mypy(directory: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    """``mypy --strict``, run in this directory, as outside of the project."""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache")]
    return subprocess.run(
        [*command, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=directory,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
