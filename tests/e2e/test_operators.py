"""Operators and readers of one daemon: other accounts, which may steer or see kernels that are not theirs."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen

import pytest

from tests.accounts import as_account, find_python, made_accounts, made_group
from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for


class Cast(Scene):
    """A scene in a directory that everybody may enter, and three accounts that have nothing to do with it."""

    def __init__(self, directory: Path, accounts: list[pwd.struct_passwd], groups: tuple[str, str]) -> None:
        super().__init__(directory)
        self.operator, self.reader, self.stranger = accounts
        self.operators, self.readers = groups
        self.python = find_python(self.operator)

    @property
    def groups(self) -> str:
        return f'operators = "{self.operators}"\nreaders = "{self.readers}"'

    def by(self, account: pwd.struct_passwd, *words: str) -> CompletedProcess[str]:
        """The command line of somebody else."""
        verb, *rest = words
        return as_account(account, self.python, "-m", "supervisor", verb, "--socket", str(self.socket), *rest)

    def wait_let_in(self) -> None:
        wait_for(lambda: self.by(self.operator, "status").returncode == 0, "the operator is let in")


@pytest.fixture(scope="module")
def accounts() -> Iterator[tuple[list[pwd.struct_passwd], tuple[str, str]]]:
    with (
        made_accounts("ann", "rob", "sam") as made,
        made_group("ops", made[0].pw_name) as operators,
        made_group("see", made[1].pw_name) as readers,
    ):
        yield made, (operators, readers)


@pytest.fixture
def cast(accounts: tuple[list[pwd.struct_passwd], tuple[str, str]], open_path: Path) -> Iterator[Cast]:
    made = Cast(open_path, *accounts)
    try:
        yield made
    finally:
        made.clean_up()


def test_operators_steer_readers_see_how_things_are_and_strangers_do_not_get_in(cast: Cast) -> None:
    cast.write(cast.mini("a"), supervisor=cast.groups)
    cast.start("a")
    cast.wait_let_in()
    pid = cast.kernel("a")["pid"]

    seen = cast.by(cast.reader, "status", "--json")
    assert (0, pid) == (seen.returncode, json.loads(seen.stdout)["kernels"][0]["pid"])
    for verb in (
        ["restart", "a"],
        ["output", "a"],
        ["reload"],
        ["plan"],
        ["shutdown"],
        ["signal", "TERM", "a"],
    ):
        refused = cast.by(cast.reader, *verb)
        assert 0 != refused.returncode
        assert "and you are one of the readers" in refused.stderr
    assert "permission denied" in cast.by(cast.stranger, "status").stderr
    assert pid == cast.kernel("a")["pid"]

    assert 0 == cast.by(cast.operator, "restart", "a").returncode
    assert pid != cast.kernel("a")["pid"]
    for verb in ("shutdown", "detach"):
        assert "is for the account of the daemon" in cast.by(cast.operator, verb).stderr
    cast.wait_running("a")


def test_what_a_kernel_writes_and_executes_operators_see_and_readers_do_not(cast: Cast) -> None:
    cast.write(cast.ipykernel("a", cwd='"/"'), supervisor=cast.groups)
    cast.start("a")
    cast.wait_let_in()
    cast.execute("a", "import os; os.write(1, b'hush, said the kernel\\n'); os.write(2, b'hush\\n')")
    wait_for(lambda: "hush" in cast.by(cast.operator, "output", "a").stdout, "the operator reads it")
    with cast.client("a") as client:
        client.execute("os._exit(7)")
    cast.wait_event("kernel.died")
    cast.wait_running("a", after=1)

    for verb in (["status", "--json"], ["status", "a", "--json"], ["logs", "--json"]):
        assert "hush" in cast.by(cast.operator, *verb).stdout
        told = cast.by(cast.reader, *verb).stdout
        assert '"exit_code": 7' in told.replace('":7', '": 7')
        assert "hush" not in told
    assert 0 == cast.by(cast.reader, "status").returncode


def test_who_may_order_a_kernel_about_cannot_run_code_in_it(cast: Cast) -> None:
    cast.write(cast.mini("a"), supervisor=cast.groups)
    cast.start("a")
    cast.wait_let_in()

    for verb in (["exec", "a", "1"], ["console", "a"]):
        refused = cast.by(cast.operator, *verb)
        assert 1 == refused.returncode
        assert "only the account of the daemon, and root, may use a itself" in refused.stderr
    told = cast.by(cast.operator, "connection", "a", "--json").stdout
    assert "key" not in json.loads(told)["content"]
    assert cast.record("a")["address"]["key"] not in told
    for place in (cast.state_dir, cast.state_dir / "kernels", cast.runtime_dir, cast.connection_file("a")):
        assert as_account(cast.operator, "ls", str(place) + "/.").returncode


def test_operators_plan_the_daemons_own_file_and_no_other(cast: Cast) -> None:
    cast.write(cast.mini("a"), supervisor=cast.groups)
    cast.start("a")
    cast.wait_let_in()
    secret = cast.directory / "secret"
    secret.write_text("root:hash\n")
    secret.chmod(0o600)

    assert 0 == cast.by(cast.operator, "plan").returncode
    refused = cast.by(cast.operator, "plan", str(secret))

    assert 0 != refused.returncode
    assert "to plan another file is for the account of the daemon" in refused.stderr
    assert "hash" not in refused.stderr


def test_the_groups_are_edited_live_and_whoever_is_in_none_any_more_is_out_at_once(cast: Cast) -> None:
    cast.write(cast.mini("a"), supervisor=cast.groups)
    cast.start("a")
    cast.wait_let_in()
    following = threading.Thread(target=cast.by, args=(cast.operator, "output", "--follow", "a"))
    following.start()

    edited = cast.toml(cast.mini("a"), supervisor=f'readers = "{cast.readers}"')
    other = cast.directory / "other.toml"
    other.write_text(edited)
    assert "[supervisor] operators: would be applied" in cast.command("plan", str(other)).out
    cast.config.write_text(edited)
    assert 0 == cast.command("reload").code

    wait_for(lambda: "permission denied" in cast.by(cast.operator, "status").stderr, "the operator is out")
    assert 0 == cast.by(cast.reader, "status").returncode
    following.join(DEADLINE)
    assert not following.is_alive()


def test_a_group_that_is_renamed_keeps_its_members_in_until_the_daemon_is_started_anew(cast: Cast) -> None:
    with made_group("old", cast.operator.pw_name) as group:
        cast.write(cast.mini("a"), supervisor=f'operators = "{group}"')
        cast.start("a")
        cast.wait_let_in()
        cast.wait_recorded("a")
        pid = cast.kernel("a")["pid"]
        renamed = f"{group}-new"
        subprocess.run(["groupmod", "--new-name", renamed, group], check=True)
        try:
            assert "no group of this name is known here" in cast.command("reload").err
            assert 0 == cast.by(cast.operator, "status").returncode
            cast.kill()
            cast.start("a")

            assert pid == cast.kernel("a")["pid"]
            wait_for(lambda: "not let in" in str(cast.status()["degraded"]), "it is told")
            assert "permission denied" in cast.by(cast.operator, "status").stderr
        finally:
            subprocess.run(["groupmod", "--new-name", group, renamed], check=True)


FLOOD = """
import socket, sys
held = []
for _ in range(300):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(sys.argv[1])
print("there", flush=True)
sys.stdin.read()
"""


def test_readers_who_take_every_place_do_not_shut_out_the_daemons_own_user(cast: Cast) -> None:
    cast.write(cast.mini("a"), supervisor=cast.groups)
    cast.start("a")
    cast.wait_let_in()
    words = [cast.python, "-c", FLOOD, str(cast.socket)]
    reader = {"user": cast.reader.pw_uid, "group": cast.reader.pw_gid}
    groups = os.getgrouplist(cast.reader.pw_name, cast.reader.pw_gid)
    with Popen(words, stdin=PIPE, stdout=PIPE, extra_groups=groups, **reader) as flood:  # type: ignore[call-overload]
        assert flood.stdout is not None
        assert b"there\n" == flood.stdout.readline()

        assert "too many connections" in cast.by(cast.reader, "status").stderr
        assert 0 == cast.command("status").code
