"""Kernels of two accounts under one daemon that runs as root: what each can do to the other's: nothing."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.records.record import MARK_VARIABLE
from tests.accounts import PACKAGES, as_account, find_python, made_accounts
from tests.e2e.daemon import ROOT, Scene, table
from tests.waiting import wait_for

# An ipykernel that every account can run, once the accounts are made.
ARGV = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
Accounts = list[pwd.struct_passwd]
# What a stranger would do who has the path of a connection file.
CONNECT = """
import sys
from jupyter_client import BlockingKernelClient
client = BlockingKernelClient(connection_file=sys.argv[1])
client.load_connection_file()
client.start_channels(hb=False)
client.execute_interactive("print(6 * 7)", timeout=20)
"""
# What of the files that it was given a kernel can open anew.
REOPEN = """
import os
def tried(path):
    try:
        return open(path).read()
    except OSError as error:
        return type(error).__name__
fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
print(*(tried(fd) for fd in fds if os.path.lexists(fd) and os.readlink(fd).endswith(".log")))
"""


@pytest.fixture(scope="module")
def accounts() -> Iterator[Accounts]:
    with made_accounts("alice", "bob") as made:
        ARGV[0] = find_python(made[0])
        yield made


@pytest.fixture
def scene(accounts: Accounts, open_path: Path) -> Iterator[Scene]:
    """In a directory that everybody may enter."""
    made = Scene(open_path)
    try:
        yield made
    finally:
        made.clean_up()


def kernel(name: str, account: pwd.struct_passwd | None, **keys: str) -> str:
    user = {} if account is None else {"user": json.dumps(account.pw_name)}
    env = f"{{ PYTHONPATH = {json.dumps(PACKAGES)} }}"
    return table(name, argv=json.dumps(ARGV), env=env, **user, **keys)


def connect(account: pwd.struct_passwd, file: Path) -> tuple[int, str]:
    done = as_account(account, ARGV[0], "-c", CONNECT, str(file))
    return done.returncode, done.stdout.strip() or done.stderr[-300:]


def test_a_kernel_of_an_account_is_the_accounts_in_all_and_nobody_elses(
    scene: Scene, accounts: Accounts
) -> None:
    alice, bob = accounts
    scene.write(kernel("a", alice), kernel("b", bob), kernel("r", None, cwd='"/"'))
    scene.start("a", "b", "r")
    look = (
        "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd(), oct(os.umask(63)),"
        "[os.environ.get(k) for k in ('HOME', 'USER', 'LOGNAME', 'SHELL', 'JUPYTER_RUNTIME_DIR')])"
    )

    ids, group = (alice.pw_uid,) * 3, alice.pw_gid
    mine = [alice.pw_dir, alice.pw_name, alice.pw_name, "/bin/sh", None]
    assert f"{ids} {(group,) * 3} [{group}] {alice.pw_dir} 0o77 {mine}" == scene.run("a", look)
    assert str(Path(alice.pw_dir) / ".ipython") == scene.run(
        "a", "import os; print(get_ipython().ipython_dir)"
    )
    file = scene.connection_file("a")
    assert (alice.pw_uid, 0o600) == (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode))
    assert (0, "42") == connect(alice, file)
    assert "42" == scene.command("exec", "a", "6 * 7").out.strip()
    for stranger, name in ((bob, "a"), (alice, "b"), (alice, "r")):
        code, said = connect(stranger, scene.connection_file(name))
        assert (1, True) == (code, "Permission" in said), said
    for place in (scene.runtime_dir, scene.state_dir, scene.state_dir / "output"):
        assert as_account(alice, "ls", str(place)).returncode


def test_what_each_account_is_given_to_write_to_neither_can_read(scene: Scene, accounts: Accounts) -> None:
    scene.write(*(kernel(each.pw_name[3:4], each) for each in accounts))
    scene.start("a", "b")

    scene.execute("a", "import os; os.write(1, b'secret of alice\\n')")

    wait_for(lambda: "secret of alice" in scene.command("output", "a").out, "it is written")
    # Captured by ipykernel, which keeps the file itself open elsewhere.
    assert {"PermissionError"} == set(scene.run("a", REOPEN).split())
    log = scene.state_dir / "output" / "a.log"
    assert as_account(accounts[1], "cat", str(log)).returncode


def test_kernels_of_accounts_live_on_through_a_killed_daemon(scene: Scene, accounts: Accounts) -> None:
    scene.write(*(kernel(each.pw_name[3:4], each) for each in accounts))
    scene.start("a", "b")
    scene.wait_recorded("a", "b")
    pids, file = scene.pids(), scene.connection_file("a").stat()
    scene.kill()

    scene.start("a", "b")

    assert pids == scene.pids()
    assert file == scene.connection_file("a").stat()
    assert accounts[0].pw_uid == scene.record("a")["uid"]
    scene.connection_file("a").unlink()
    wait_for(scene.connection_file("a").exists, "its file is there again")
    assert accounts[0].pw_uid == scene.connection_file("a").stat().st_uid


def test_a_process_of_another_account_is_never_taken_for_the_kernel(scene: Scene, accounts: Accounts) -> None:
    alice, bob = accounts
    scene.write(kernel("a", alice), kernel("b", bob))
    scene.start("a", "b")
    mark = scene.run("b", f"import os; print(os.environ['{MARK_VARIABLE}'])")
    later = mark.rpartition("/")[0] + "/9"
    # Alice knows the marks, and what is looked for: a leader that was given the connection file.
    forge = f"setsid env {MARK_VARIABLE}={later} sh -c 'sleep 300; :' {scene.connection_file('b')}"
    scene.execute("a", f"import os; os.system({forge + ' &'!r})")
    pid = scene.pids()["b"]
    scene.kill()
    os.killpg(pid, signal.SIGKILL)

    scene.start("a", "b")

    assert scene.kernel("b")["generation"] < 9
    process = Path("/proc") / str(scene.kernel("b")["pid"])
    assert bob.pw_uid == process.stat().st_uid


def test_another_account_gets_the_ports_and_not_the_key(scene: Scene, accounts: Accounts) -> None:
    alice, bob = accounts
    scene.write(kernel("a", alice))
    scene.start("a")
    before = json.loads(scene.connection_file("a").read_bytes())

    for account in (bob, None):
        generation = scene.kernel("a")["generation"]
        scene.write(kernel("a", account, cwd='"/"'))
        assert 0 == scene.command("reload").code
        scene.wait_running("a", after=generation)

        after = json.loads(scene.connection_file("a").read_bytes())
        assert before["shell_port"] == after["shell_port"]
        assert before["key"] != after["key"]
        assert (0 if account is None else account.pw_uid) == scene.connection_file("a").stat().st_uid
        assert connect(alice, scene.connection_file("a"))[0]
        before = after


def test_an_account_that_was_edited_while_no_daemon_ran_has_the_key_no_more(
    scene: Scene, accounts: Accounts
) -> None:
    alice, bob = accounts
    scene.write(kernel("a", alice))
    scene.start("a")
    key = json.loads(scene.connection_file("a").read_bytes())["key"]
    assert 200 == scene.order("stop", "a").status
    scene.write(kernel("a", bob))
    assert 0 == scene.command("reload").code
    wait_for(lambda: scene.record("a")["launched"]["user"] == bob.pw_name, "it is on record")
    scene.kill()

    scene.start()
    scene.order("start", "a")

    assert key != json.loads(scene.connection_file("a").read_bytes())["key"]


def test_the_kernel_of_an_account_that_is_removed_is_taken_up_and_ended_like_any_other(scene: Scene) -> None:
    with made_accounts("eve") as (eve,):
        scene.write(kernel("e", eve, cwd='"/"'), scene.mini("b"))
        scene.start("e", "b")
        scene.wait_recorded("e", "b")
        pids = scene.pids()
        subprocess.run(["userdel", "--force", eve.pw_name], check=True, capture_output=True)

        assert f'"{eve.pw_name}": no user of this name' in scene.command("reload").err
        scene.kill()
        scene.start("e", "b")

        assert pids == scene.pids()
        assert 200 == scene.order("stop", "e").status
        assert not scene.connection_file("e").exists()
        assert [] == scene.leaders("e")
        scene.order("start", "e")
        assert f'user "{eve.pw_name}" does not exist' in scene.wait_event("kernel.died", kernel="e")["detail"]
        assert pids["b"] == scene.kernel("b")["pid"]


def test_a_home_that_is_missing_or_not_writable_is_told_or_does_no_harm(
    scene: Scene, accounts: Accounts
) -> None:
    with made_accounts("hal") as (hal,):
        home = Path(hal.pw_dir)
        os.chown(home, 0, hal.pw_gid)
        home.chmod(0o550)
        scene.write(kernel("a", hal))
        scene.start("a")
        assert hal.pw_dir == scene.run("a", "import os; print(os.getcwd())")

        shutil.rmtree(home)
        scene.write(kernel("b", hal, max_restarts="1"), kernel("c", hal, cwd='"/"'))
        scene.command("reload")

        died = scene.wait_event("kernel.died", kernel="b")
        assert ("not-found", f'working directory "{home}" does not exist: make it or change cwd') == (
            died["cause"],
            died["detail"],
        )
        scene.wait_running("c")
        assert "42" == scene.run("c", "print(6 * 7)")
        scene.command("stop", "a", "c")  # the account is removed before the daemon ends


def test_a_kernelspec_is_the_accounts_own_and_learns_nothing_of_ours(
    scene: Scene, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_ROOT", "hush")
    for account in accounts:
        place = Path(account.pw_dir, ".local/share/jupyter/kernels/mine")
        spec = {"argv": ARGV, "env": {"ASKED": "${SECRET_OF_ROOT}", "WHOSE": "${USER}"}}
        made = as_account(
            account, "sh", "-c", f"mkdir -p {place}; cat > {place}/kernel.json <<'E'\n{json.dumps(spec)}\nE"
        )
        assert 0 == made.returncode, made.stderr
    given = f'{{ GIVEN = "${{SECRET_OF_ROOT}}", PYTHONPATH = "{PACKAGES}" }}'
    scene.write(
        *(
            table(each.pw_name[3:4], kernelspec='"mine"', user=f'"{each.pw_name}"', env=given)
            for each in accounts
        ),
        '[kernels.r]\nkernelspec = "mine"',
    )
    scene.start("a", "b")
    look = "import os; print(*(os.environ.get(k) for k in ('ASKED', 'WHOSE', 'GIVEN', 'SECRET_OF_ROOT')))"

    assert "${SECRET_OF_ROOT} " + accounts[0].pw_name + " hush None" == scene.run("a", look)
    assert 'kernelspec "mine" is not installed' in scene.wait_event("kernel.died", kernel="r")["detail"]


def test_nothing_of_a_kernel_that_is_to_start_warm_is_begun_as_root(scene: Scene, accounts: Accounts) -> None:
    """Neither at its launch nor when the next daemon takes it up: its kernelspec may name any program."""
    alice, begun = accounts[0], scene.directory / "begun"
    begun.touch()
    begun.chmod(0o666)
    program = scene.directory / "python"
    program.write_text(f'#!/bin/sh\nid -u >>{begun}\nexec {ARGV[0]} "$@"\n')
    program.chmod(0o755)
    argv = json.dumps([str(program), *ARGV[1:]])
    env = f"{{ PYTHONPATH = {json.dumps(PACKAGES)} }}"
    scene.write(
        table("a", argv=argv, env=env, user=json.dumps(alice.pw_name), warm_start='"fork"'),
        scene.mini("b"),
    )
    scene.start("a", "b")
    assert "cold" == scene.kernel("a")["begun"]["how"]
    scene.wait_recorded("a")
    scene.kill()

    scene.start("a", "b")
    scene.order("stop", "a")

    assert {str(alice.pw_uid)} == set(begun.read_text().split())
    assert not [event for event in scene.events() if str(event["event"]).startswith("zygote.")]


def test_sockets_of_ipc_are_in_a_directory_of_the_account_alone(scene: Scene, accounts: Accounts) -> None:
    alice, bob = accounts
    scene.write(kernel("a", alice, transport='"ipc"'))
    scene.start("a")

    address = json.loads(scene.connection_file("a").read_bytes())

    place = Path(address["ip"]).parent
    assert (alice.pw_uid, 0o700) == (place.stat().st_uid, stat.S_IMODE(place.stat().st_mode))
    assert (0, "42") == connect(alice, scene.connection_file("a"))
    assert as_account(bob, "ls", str(place)).returncode


def test_no_link_of_an_account_leads_root_anywhere(scene: Scene, accounts: Accounts) -> None:
    alice, bob = accounts
    closed = scene.directory / "closed"
    closed.mkdir(mode=0o700)
    made = as_account(
        alice,
        *("sh", "-c"),
        f"mkdir -p ~/.local/share/jupyter/kernels/linked && cd && ln -s {closed} closed"
        " && ln -s /dev/zero zero && ln -s /etc/shadow shadow"
        " && ln -s /etc/shadow .local/share/jupyter/kernels/linked/kernel.json",
    )
    assert 0 == made.returncode, made.stderr
    expected = {
        "spec": ({"kernelspec": '"linked"'}, "Permission denied"),
        # What is imported by a daemon whose own files are closed to the account.
        "typo": ({"kernelspec": '"linkde"'}, 'did you mean "linked"?'),
        "start": ({"startup_file": '"~/shadow"'}, "Permission denied"),
        "zero": ({"startup_file": '"~/zero"'}, "it is no regular file"),
        "cwd": ({"cwd": '"~/closed"'}, "may not be entered"),
        "ipc": ({"transport": '"ipc"', "ip": f'"{alice.pw_dir}/closed/below/k"'}, "Permission denied"),
    }
    of_alice = {"user": json.dumps(alice.pw_name), "max_restarts": "1"}
    tables = [
        table(name, **({} if "kernelspec" in keys else {"argv": json.dumps(ARGV)}), **of_alice, **keys)
        for name, (keys, _) in expected.items()
    ]
    scene.write(kernel("b", bob), *tables)
    scene.start("b")

    for name, (_, told) in expected.items():
        assert told in scene.wait_event("kernel.died", kernel=name)["detail"]
    assert [] == list(closed.iterdir())
    assert "root:" not in (scene.state_dir / "events.jsonl").read_text()


def test_an_account_that_cannot_get_to_its_file_is_told_what_to_type(
    scene: Scene, accounts: Accounts
) -> None:
    scene.write(kernel("a", accounts[0], max_restarts="1"))
    scene.directory.chmod(0o700)
    scene.start()

    detail = scene.wait_event("kernel.died", kernel="a")["detail"]

    assert f"{accounts[0].pw_name} may not enter it: chmod o+x it" in detail
    assert str(scene.directory) in detail


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv (util-linux)")
def test_the_rights_that_the_unit_leaves_to_root_are_enough(scene: Scene, accounts: Accounts) -> None:
    page = (ROOT / "docs/systemd.md").read_text()
    rights = re.findall(
        r"CAP_([A-Z_]+)", " ".join(re.findall(r"^CapabilityBoundingSet=(CAP.*)$", page, re.MULTILINE))
    )
    bounds = ",".join(["-all", *(f"+{right.lower()}" for right in rights)])
    within = ("setpriv", "--no-new-privs", "--bounding-set", bounds, sys.executable)
    alice, bob = accounts
    scene.write(
        kernel("a", alice, nice="5", oom_score_adj="1"),
        kernel("b", bob, transport='"ipc"'),
        supervisor='log_level = "debug"',
    )
    scene.start("a", "b", within=within)
    scene.wait_recorded("a", "b")
    pids = scene.pids()
    scene.kill()

    scene.start("a", "b", within=within)

    assert pids == scene.pids()
    assert [] == scene.status()["degraded"]
    assert (0, "42") == connect(alice, scene.connection_file("a"))
    assert 200 == scene.order("restart", "b").status
    assert "1" == Path(f"/proc/{pids['a']}/oom_score_adj").read_text().strip()
    assert 200 == scene.order("stop", "a").status
    assert [] == scene.leaders("a")
