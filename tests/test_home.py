"""What is in the user's directories has no effect on the tests, and they leave it alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Of each kind one that looks where a user's things are.
LOOKING = (
    "tests/cli/test_asking.py::test_the_daemon_is_found_by_socket_config_environment_and_place",
    "tests/cli/test_files.py::test_a_plan_without_a_daemon_tells_what_a_start_would_do",
    "tests/daemon/test_daemon.py::test_those_who_follow_find_its_last_words_and_then_an_orderly_end",
    "tests/manager/test_ipykernel.py::test_a_new_kernel_comes_with_its_manager_and_a_client_that_is_ready",
    "tests/supervision/test_embedded.py::test_kernels_are_had_by_name_and_gone_afterwards",
    "tests/test_home.py::test_a_test_has_an_empty_home_and_no_variable_of_the_users",
)
JUNK = {
    "kernel-supervisor/kernels.toml": "[kernels.a",
    "kernel-supervisor/kernels/a.json": "{",
    "kernel-supervisor/events.jsonl": "\0",
    "kernel-supervisor/control.sock": "no socket",
    "kernels/python3/kernel.json": '{"argv": ["false"], "display_name": "junk"}',
    "runtime/kernel-a.json": "{",
    "jupyter_config.py": "raise SystemExit('junk')",
    "profile_default/startup/junk.py": "raise SystemExit('junk')",
}
PLACES = (
    *("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"),
    *("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"),
    *("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CONFIGURATION_DIRECTORY"),
)
UNDER_HOME = (".config", ".local/state", ".local/share/jupyter", ".jupyter", ".ipython")


def test_a_test_has_an_empty_home_and_no_variable_of_the_users(home: Path) -> None:
    assert str(home) == os.environ["HOME"]
    assert home == Path.cwd()
    assert [] == list(home.iterdir())
    assert set() == os.environ.keys() & {*PLACES, "KERNEL_SUPERVISOR_SOCKET", "NOTIFY_SOCKET"}


def plant(directory: Path) -> None:
    for name, content in JUNK.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.timeout(300)
def test_junk_in_each_place_of_the_users_has_no_effect_and_stays(tmp_path: Path) -> None:
    user = tmp_path / "user"
    places = {place: user / place for place in PLACES}
    for directory in (
        *places.values(),
        *(user / under for under in (".config", ".local/state", ".local/share/jupyter")),
    ):
        plant(directory)
    before = contents(user)
    socket = user / "XDG_RUNTIME_DIR/kernel-supervisor/control.sock"
    env = os.environ | {place: str(directory) for place, directory in places.items()}
    env |= {
        "HOME": str(user),
        "KERNEL_SUPERVISOR_CONFIG": str(user / ".config/kernel-supervisor/kernels.toml"),
    }
    env |= {"KERNEL_SUPERVISOR_SOCKET": str(socket), "NOTIFY_SOCKET": str(socket), "JOURNAL_STREAM": "1:1"}

    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *LOOKING],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert 0 == told.returncode, told.stdout + told.stderr
    assert f"{len(LOOKING) + 1} passed" in told.stdout  # one of them has two cases
    assert before == contents(user)
