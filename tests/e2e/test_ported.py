"""Programs that were written for jupyter_client run, with real kernels; and mypy finds nothing in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tools import ROOT
from tests.e2e.ported import PROGRAMS
from tests.kernels.using import MINI
from tests.typed import strict_mypy


def program(name: str, directory: Path, *, command: list[str], count: int, kinds: list[str]) -> Path:
    """The file of the program; ``command`` is that of its kernels, ``[]`` for an ipykernel."""
    file = directory / f"test_{name.replace(' ', '_')}.py"
    given = f"COMMAND: list[str] = {command!r}\nCOUNT = {count}\nKINDS: list[str] = {kinds!r}\n"
    file.write_text(given + PROGRAMS[name])
    return file


def run(file: Path, timeout: float) -> str:
    """What it printed; it must end well, quietly, and leave nothing."""
    runtime_dir = file.parent / "runtime"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(file), str(file.parent / "notebook.ipynb")],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JUPYTER_RUNTIME_DIR": str(runtime_dir),
            "IPYTHONDIR": str(file.parent / "ipython"),
            "TMPDIR": str(file.parent),
            "JUPYTER_PLATFORM_DIRS": "1",
        },
    )
    assert "well" == done.stdout.splitlines()[-1] if done.stdout else "", done.stdout + done.stderr
    assert [] == list(runtime_dir.glob("*.json"))
    assert [] == list(file.parent.glob("kernel-supervisor-*"))
    return done.stdout


@pytest.mark.parametrize(
    ("name", "command", "count", "kinds"),
    [
        ("fifty in threads", MINI, 50, []),
        ("fifty in threads", [], 6, []),
        ("server", MINI, 20, []),
        ("server", [], 3, []),
        ("front end", [], 1, []),
        ("notebook", [], 1, ["class", "plain"]),
        ("papermill", [], 1, []),
        ("many", [], 1, []),
        ("launch", MINI, 1, []),
        ("launch", [], 1, []),
    ],
)
def test_a_program_runs_with_one_import_changed(
    tmp_path: Path, name: str, command: list[str], count: int, kinds: list[str]
) -> None:
    run(program(name, tmp_path, command=command, count=count, kinds=kinds), 110)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "count"), [("fifty in threads", 50), ("server", 20), ("notebook", 1)])
def test_a_program_runs_with_all_its_ipykernels(tmp_path: Path, name: str, count: int) -> None:
    kinds = ["class", "given", "once", "plain"]
    run(program(name, tmp_path, command=[], count=count, kinds=kinds), 580)


def test_mypy_finds_nothing_in_any_of_them(tmp_path: Path) -> None:
    files = [program(name, tmp_path, command=[], count=1, kinds=[]) for name in PROGRAMS]

    done = strict_mypy(tmp_path, *files)

    assert f"Success: no issues found in {len(files)} source files\n" == done.stdout, (
        done.stdout + done.stderr
    )
