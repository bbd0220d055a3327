"""The Debian package, built and then installed, upgraded, removed and purged under a real systemd."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.systemd.container import (
    CHECKS_UNIT,
    PACKAGES,
    PROJECT,
    TOOLS,
    boot,
    install_project,
    require_tools,
    root_of,
    run,
)
from tests.systemd.test_in_a_container import Results, checks_in, judge, results_in

pytestmark = [pytest.mark.deb, pytest.mark.timeout(1200)]
MODULE = "checks_of_package"
UNIT = CHECKS_UNIT.replace("results.jsonl", f"results.jsonl {MODULE}").replace(
    "[Service]\n", "[Service]\nEnvironment=CHECKS_PROGRAM=/usr/bin/kernel-supervisor\n"
)
VERSION = "supervisor/version.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    scratch: Path = tmp_path_factory.mktemp("package")
    return results_in(_build_and_boot, scratch, checks_in(MODULE))


def _build_and_boot(scratch: Path, wanted: list[str]) -> Results:
    require_tools(*TOOLS, ("dh", "debhelper"), ("dpkg-buildpackage", "dpkg-dev"))
    debs = scratch / "debs"
    _build(debs, scratch / "tree")
    with root_of("container", PACKAGES) as root:
        install_project(root, scratch)  # what the package has to get on with
        return boot(root, scratch, wanted, [f"--bind-ro={debs}:/debs"], UNIT)


def _build(debs: Path, tree: Path) -> None:
    """The package, the next version of it, and one that cannot be installed."""
    debs.mkdir()
    run("make", "-C", PROJECT, "deb", f"VENV={sys.prefix}")
    (built,) = (PROJECT / "build").glob("*.deb")
    shutil.copy(built, debs / "old.deb")
    run("dpkg-deb", "--raw-extract", built, tree)
    (version,) = tree.rglob(VERSION)
    run("sed", "-i", "s/^Version:.*/&+next/", tree / "DEBIAN/control")
    run("sed", "-i", 's/^__version__ = "[^"]*/&+next/', version)
    for compiled in version.parent.glob("__pycache__/version.*"):
        compiled.unlink()
    run("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, debs / "new.deb")
    (tree / "DEBIAN/preinst").write_text("#!/bin/sh\nexit 1\n")
    (tree / "DEBIAN/preinst").chmod(0o755)
    run("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, debs / "broken.deb")


@pytest.mark.parametrize("check", checks_in(MODULE))
def test_the_package_in_a_real_systemd(check: str, results: Results) -> None:
    judge(results, check)
