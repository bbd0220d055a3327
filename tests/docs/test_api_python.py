"""The examples of docs/api-python.md run, and the public types are seen from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import supervisor
from supervisor.manager import KernelManager
from tests.cli.tools import ROOT
from tests.typed import strict_mypy

PAGE = (ROOT / "docs" / "api-python.md").read_text()
EXAMPLES = re.findall(r"(<!-- not run: [^\n]*-->\n)?```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", [n for n, (not_run, _) in enumerate(EXAMPLES) if not not_run])
def test_an_example_runs(number: int, tmp_path: Path) -> None:
    environ = {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "TMPDIR": str(tmp_path),
    }
    example = tmp_path / "example.py"
    example.write_text(EXAMPLES[number][1])

    done = subprocess.run(
        [sys.executable, str(example)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environ},
    )

    assert 0 == done.returncode, done.stderr
    assert [] == list((tmp_path / "runtime").glob("kernel-*"))
    assert [] == list(tmp_path.glob("kernel-supervisor-*"))


def test_the_examples_that_do_not_run_compile() -> None:
    assert EXAMPLES
    for _, example in EXAMPLES:
        compile(example, "docs/api-python.md", "exec")


def rows(heading: str) -> dict[str, str]:
    """The members in the first column of a table, and whether they are the same, differ, or are not here."""
    table = PAGE[PAGE.index(f"| {heading} |") :].split("\n\n")[0]
    found: dict[str, str] = {}
    for line in table.splitlines()[2:]:
        names, verdict, _ = (cell.strip() for cell in line.strip("|").split("|", 2))
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), verdict)
    return found


TABLES = {
    "`KernelManager`, `AsyncKernelManager`": {
        "jupyter_client.manager.KernelManager": KernelManager,
        "jupyter_client.manager.AsyncKernelManager": supervisor.AsyncKernelManager,
    },
    "`MultiKernelManager`, `AsyncMultiKernelManager`": {
        "jupyter_client.multikernelmanager.MultiKernelManager": supervisor.MultiKernelManager,
        "jupyter_client.multikernelmanager.AsyncMultiKernelManager": supervisor.AsyncMultiKernelManager,
    },
}


@pytest.mark.parametrize(
    ("heading", "original", "ours"), [(h, o, k) for h, kinds in TABLES.items() for o, k in kinds.items()]
)
def test_every_member_of_the_originals_is_in_the_table_and_what_it_says_is_so(
    heading: str, original: str, ours: type
) -> None:
    module, _, name = original.rpartition(".")
    members = {each for each in dir(getattr(import_module(module), name)) if not each.startswith("_")}
    table = {**rows("`KernelManager`, `AsyncKernelManager`"), **rows(heading)}

    assert set() == members - table.keys()
    assert {"same", "differs", "no"} >= set(table.values())
    here = {each for each in members if table[each] != "no"}
    assert set() == {each for each in here if not hasattr(ours, each)}
    assert set() == {each for each in members - here - {"config", "parent"} if hasattr(ours, each)}


def test_every_public_member_of_the_manager_is_on_the_page() -> None:
    members = [name for name in dir(KernelManager) if not name.startswith("_")]

    assert [] == [name for name in members if f"`{name}" not in PAGE]


def test_every_public_name_of_the_package_is_there() -> None:
    for name in supervisor.__all__:
        assert getattr(supervisor, name) is not None
    with pytest.raises(AttributeError):
        _ = supervisor.nonsense  # type: ignore[attr-defined]


CONSUMER = """
from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

from supervisor import KernelConfig, KernelManager, Supervisor, run_kernel, start_new_kernel
from supervisor.core.model import Death, Exit
from supervisor.supervision.embedded import SupervisedKernel
from supervisor.kernel.managerabc import KernelManagerABC
from supervisor.kernel.subproc import KernelManager as Run

manager = KernelManager(kernel_name="python3", autorestart=False)
assert_type(manager.is_alive(), bool)
assert_type(manager.has_kernel, bool)
assert_type(manager.connection_file, str)
assert_type(manager.shell_port, int)
assert_type(manager.key, bytes)
assert_type(manager.pid, int | None)
assert_type(manager.last_exit, Exit | None)
assert_type(manager.format_kernel_cmd(), list[str])
assert_type(KernelManager.attach("a"), KernelManager)
manager.start_kernel(cwd="/")
manager.restart_kernel(now=True)
manager.shutdown_kernel(now=True, restart=False)
manager.add_restart_callback(lambda: None, "dead")
started, client = start_new_kernel(startup_timeout=1.5)
assert_type(started, KernelManager)
client.start_channels()
with run_kernel() as client:
    client.stop_channels()


async def main() -> None:
    async with Supervisor(KernelConfig(name="a"), state_dir=Path("x")) as supervisor:
        mapping: Mapping[str, SupervisedKernel] = supervisor
        assert_type(mapping["a"].pid, int | None)
        assert_type(supervisor["a"].last_death, Death | None)
        async for event in supervisor.events():
            assert_type(event, dict[str, object])


def take(run: Run) -> KernelManagerABC:
    return run


manager.shutdown_kernel(now=3.5)
manager.no_such_member
"""


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_sees_the_types_from_outside(tmp_path: Path) -> None:
    assert (ROOT / "supervisor" / "py.typed").exists()
    consumer = tmp_path / "consumer.py"
    consumer.write_text(CONSUMER)

    done = strict_mypy(tmp_path, consumer)

    # The two mistakes at the end are seen, and nothing else.
    found = [line.split(": ", 2)[2] for line in done.stdout.splitlines() if "consumer.py" in line]
    assert 2 == len(found), done.stdout + done.stderr
    assert 'has incompatible type "float"' in found[0]
    assert 'has no attribute "no_such_member"' in found[1]
