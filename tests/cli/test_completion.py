"""Completion in the shells: scripts, verbs, options, names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli.verbs import VERBS
from tests.cli.tools import ROOT, environment, run
from tests.control.fake_steering import FakeDaemon, FakeSteering


def test_names_for_completion_come_from_the_daemon_and_no_daemon_is_no_error(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    def completed(*words: str) -> list[str]:
        code, out, err = run(tmp_path, "__complete", *words)
        assert (0, "") == (code, err)
        return [line.partition("\t")[0] for line in out.splitlines()]

    socket = ["--socket", str(daemon.path)]
    assert ["analysis", "robot", "stats"] == completed("stop", *socket, "")
    assert ["analysis", "robot", "stats"] == completed(*socket, "stop", "")
    assert ["analysis", "robot", "stats"] == completed("stop", f"--socket={daemon.path}", "")
    assert [] == completed("stop", "--socket", "/nowhere", "")
    assert [] == completed("stop", "--socket", "")
    assert [] == completed("check", "")
    assert ["auto", "json", "console"] == completed("run", "--log-format", "")
    assert [*VERBS, "--help", "--version"] == completed("")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_one_for_its_shell(tmp_path: Path, shell: str) -> None:
    code, out, _ = run(tmp_path, "completion", shell)

    assert 0 == code
    assert "kernel-supervisor __complete" in out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=out, text=True, check=True, timeout=30)


def test_bash_completes_verbs_options_and_names(tmp_path: Path) -> None:
    run_bash = (
        'kernel-supervisor() { "$PYTHON" -m supervisor "$@"; }\n'
        'eval "$(kernel-supervisor completion bash)"\n'
        'try() { COMP_WORDS=(kernel-supervisor "$@"); COMP_CWORD=$#; _kernel_supervisor\n'
        '        echo "${COMPREPLY[*]}"; }\n'
        "try sta\ntry restart --n\ntry restart an\ntry completion z\ntry systemd in\ntry systemd --r\n"
        'SOCKET="$KERNEL_SUPERVISOR_SOCKET"; HOME="${SOCKET%/s}"; unset KERNEL_SUPERVISOR_SOCKET\n'
        'try stop an\ntry stop --socket "$SOCKET" an\ntry stop --socket = "$SOCKET" an\n'
        "try stop --socket '~/s' an\n"
    )
    with FakeDaemon(FakeSteering(tmp_path), tmp_path / "s") as daemon:
        env = environment(tmp_path, KERNEL_SUPERVISOR_SOCKET=str(daemon.path), PYTHON=sys.executable)
        done = subprocess.run(
            ["bash", "-c", run_bash],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

    told = [
        "status stacks start",
        "--no-wait --now --new-ports",
        "analysis",
        "zsh",
        "install",
        "--run-as --replace",
    ]
    assert [*told, "", *["analysis"] * 3] == done.stdout.splitlines()
    assert "" == done.stderr
