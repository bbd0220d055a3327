"""The distribution as its users get it: an sdist, a wheel built from that, without the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.cli.tools import ROOT
from tests.e2e.daemon import MINI
from tests.waiting import DEADLINE, wait_for

sdists = pytest.importorskip("hatchling.builders.sdist")
wheels = pytest.importorskip("hatchling.builders.wheel")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is unpacked that was built from the sdist."""
    scratch: Path = tmp_path_factory.mktemp("distribution")
    sdist = next(sdists.SdistBuilder(str(ROOT)).build(directory=str(scratch)))
    with tarfile.open(sdist) as tar:
        tar.extractall(scratch / "source", filter="data")
    (source,) = (scratch / "source").iterdir()
    assert {"README.md", "systemd", "packaging", "docs", "tests", "config"} <= {
        path.name for path in source.iterdir()
    }
    wheel = next(wheels.WheelBuilder(str(source)).build(directory=str(scratch)))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch / "installed")
    assert {"supervisor"} == {p.name for p in (scratch / "installed").iterdir() if p.suffix != ".dist-info"}
    return scratch / "installed"


def run(installed: Path, *words: str) -> str:
    """The command line of the installation, away from the project."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "supervisor", *words]
    done = subprocess.run(
        command, env=env, cwd="/", capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert 0 == done.returncode, (words, done.stderr)
    return done.stdout


def test_it_has_its_units_its_page_and_its_types(installed: Path) -> None:
    assert (installed / "supervisor/py.typed").exists()
    for kind in ([], ["--user"], ["--instance", "a"], ["--user", "--instance", "a"]):
        assert "KillMode=process" in run(installed, "systemd", "print", *kind)


def test_it_keeps_a_kernel_alive(installed: Path, tmp_path: Path) -> None:
    file = tmp_path / "kernels.toml"
    command = [sys.executable, str(MINI), "-f", "{connection_file}"]
    file.write_text(
        f'[supervisor]\nstate_dir = "state"\nruntime_dir = "run"\n[kernels.a]\nargv = {command}\n'
    )
    assert "[kernels.a]" in run(installed, "check", str(file))
    daemon = [sys.executable, "-m", "supervisor", "run", str(file)]
    with subprocess.Popen(daemon, env={**os.environ, "PYTHONPATH": str(installed)}, cwd="/") as process:
        try:
            wait_for((tmp_path / "state/control.sock").exists, "the daemon")
            run(installed, "start", "a", "--config", str(file))
            (view,) = json.loads(run(installed, "status", "--json", "--config", str(file)))["kernels"]
            assert "running" == view["phase"]
            run(installed, "shutdown", "--config", str(file))
            assert 0 == process.wait(DEADLINE)
        finally:
            process.kill()
