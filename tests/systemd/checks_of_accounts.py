"""Kernels of two accounts, and an operator of a third, in the service as docs/systemd.md has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service import PROGRAM, Service, check, run, until, write

# As in docs/systemd.md (tests/docs/test_accounts.py).
DROP_IN = """\
[Service]
User=root
# Become the accounts, give them their files, see and end their processes.
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE CAP_KILL CAP_SYS_PTRACE
# For limits of processes, `nice` and `oom_score_adj`.
CapabilityBoundingSet=CAP_SYS_RESOURCE CAP_SYS_NICE
# The accounts pass through to their connection files, groups to the socket; nothing in there is listed.
RuntimeDirectoryMode=0711
"""
KERNELS = """\
[supervisor]
operators = "ops"
readers = "watchers"
[kernels.a]
kernelspec = "python3"
user = "alice"
[kernels.b]
kernelspec = "python3"
user = "bob"
nice = 5
oom_score_adj = 1
"""
# Whose kernels these are, and who is let in besides, by the group.
GROUPS = {"alice": "", "bob": "", "carol": "ops", "dave": "watchers"}
CONNECT = """
import sys
from jupyter_client import BlockingKernelClient
client = BlockingKernelClient(connection_file=sys.argv[1])
client.load_connection_file()
client.start_channels(hb=False)
client.execute_interactive(
    "import getpass, os; print(getpass.getuser(), 0 not in os.getresuid(), os.getcwd(), 6 * 7)", timeout=60
)
"""
SERVICE = Service("kernel-supervisor@many", client=("--socket", "/run/kernel-supervisor-many/control.sock"))
PLACE = Path("/run/kernel-supervisor-many/jupyter")


def _as(account: str, *command: str, expect: int | None = 0) -> str:
    return run("runuser", "-u", account, "--", *command, expect=expect)


def _connect(account: str, kernel: str, expect: int | None = 0) -> str:
    python = str(Path(PROGRAM).with_name("python"))
    return _as(account, python, "-c", CONNECT, str(PLACE / f"kernel-{kernel}.json"), expect=expect)


def _settle() -> dict[str, int]:
    for account, group in GROUPS.items():
        if run("id", "-u", account, expect=None).strip().isdigit() is False:
            run("useradd", "--create-home", account)
        run("chmod", "0700", f"/home/{account}")
        if group:
            run("groupadd", "--force", group)
            run("usermod", "--append", "--groups", group, account)
    write(KERNELS, "many")
    run(PROGRAM, "systemd", "install", "--instance", "many", "--replace")
    SERVICE.drop_in(DROP_IN)
    SERVICE.systemctl("start")
    return SERVICE.pids()


@check
def two_accounts_have_kernels_under_one_service_and_cannot_reach_each_others() -> None:
    pids = _settle()
    try:
        assert {"a": "alice", "b": "bob"} == {k: Path(f"/proc/{p}").owner() for k, p in pids.items()}
        assert "alice True /home/alice 42" in _connect("alice", "a")
        assert "bob True /home/bob 42" in _connect("bob", "b")
        for stranger, kernel in (("bob", "a"), ("alice", "b"), ("carol", "a")):
            assert "PermissionError" in _connect(stranger, kernel, expect=1)
        _as("alice", "ls", str(PLACE), expect=2)
        assert "1" == Path(f"/proc/{pids['b']}/oom_score_adj").read_text().strip()

        for verb in ("restart", "crash"):
            SERVICE.systemctl("restart") if verb == "restart" else SERVICE.crash()
            assert pids == SERVICE.pids()
            assert "42" in _connect("alice", "a")
            assert "PermissionError" in _connect("bob", "a", expect=1)
    finally:
        SERVICE.systemctl("stop")


@check
def an_operator_steers_kernels_of_others_and_strangers_do_not_get_in() -> None:
    pids = _settle()
    try:
        until("the operator is let in", lambda: "alice" in _ask("carol", "status", "--json", expect=None))
        assert "permission denied" in _ask("bob", "status", expect=3)
        _ask("carol", "restart", "b")

        after = SERVICE.pids()
        assert pids["a"] == after["a"]
        assert pids["b"] != after["b"]
        _ask("carol", "output", "b")
        assert "you may not read it" in _ask("carol", "exec", "b", "1", expect=1)
        assert "is for the account of the daemon" in _ask("carol", "shutdown", expect=None)
    finally:
        SERVICE.systemctl("stop")


@check
def a_reader_sees_how_kernels_of_others_are_and_nothing_of_what_is_in_them() -> None:
    pids = _settle()
    try:
        status = until("the reader is let in", lambda: _status_for("dave"))
        assert pids == {view["name"]: view["pid"] for view in status["kernels"]}
        assert "key" not in json.loads(_ask("dave", "connection", "a", "--json"))
        assert "kernel.ready" in _ask("dave", "logs", "a", "--json")
        for words in (("output", "a"), ("restart", "a"), ("stop", "--all"), ("reload",), ("shutdown",)):
            assert "and you are one of the readers" in _ask("dave", *words, expect=1), words
        assert "you may not read it" in _ask("dave", "exec", "a", "1", expect=1)

        assert pids == SERVICE.pids()
    finally:
        SERVICE.systemctl("stop")


def _status_for(account: str) -> dict[str, Any] | None:
    told = _ask(account, "status", "--json", expect=None)
    return json.loads(told) if told.startswith("{") else None


def _ask(account: str, verb: str, *words: str, expect: int | None = 0) -> str:
    socket = "/run/kernel-supervisor-many/control.sock"
    return _as(account, PROGRAM, verb, "--socket", socket, *words, expect=expect)
