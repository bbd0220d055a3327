"""Which daemon is asked, for which kernels, and what is told when it is not there or hangs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from supervisor.cli.program import main
from supervisor.cli.verbs import VERBS
from tests.cli.tools import Cli, begin, read_until, run
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.e2e.daemon import weaken

ASKING = [verb for verb, what in VERBS.items() if what.asks_daemon]
NEEDS = {
    **{verb: ["--all"] for verb in ("start", "stop", "restart", "interrupt", "kill", "reset")},
    **{verb: ["robot"] for verb in ("output", "connection", "console", "replay", "stacks")},
    "signal": ["TERM", "--all"],
    "exec": ["robot", "1"],
    "hooks": ["test", "robot"],
}


STRANGER = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX)
os.chdir(os.path.dirname(sys.argv[1]))
listening.bind(os.path.basename(sys.argv[1]))
os.setuid(4242)
listening.listen()
print("listens", flush=True)
while True:
    caller, _ = listening.accept()
    caller.settimeout(1)
    try:
        heard = caller.recv(1000).decode()
    except TimeoutError:
        heard = ""
    print(f"{heard}end", flush=True)
    caller.close()
"""


def test_patterns_names_and_all_choose_kernels(cli: Cli, steering: FakeSteering) -> None:
    cli("start", "*s", "robot", "rob*")
    assert {"analysis", "stats", "robot"} == {order.kernel for order in steering.orders}
    assert 3 == len(steering.orders)

    cli("stop", "--all")
    assert 6 == len(steering.orders)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["status", "robto"], 1, "no kernel is named 'robto': did you mean 'robot'?"),
        (["stop", "x*"], 1, "no kernel matches 'x*': there are analysis, robot, stats"),
        (["output", "nothing"], 1, "no kernel is named 'nothing'"),
        (["connection", "*"], 1, "'*' means several kernels: analysis, robot, stats: name one of them"),
        (["logs", "x*"], 1, "no kernel matches 'x*': there are analysis, robot, stats"),
        (["exec", "robto", "1"], 1, "did you mean 'robot'?"),
        (["console", "robto"], 1, "did you mean 'robot'?"),
        (["signal", "TERN", "robot"], 2, "'TERN' is not a signal: did you mean 'SIGTERM'?"),
        (["stop"], 2, "stop: no kernel is named: give names, quoted patterns, or --all"),
        (["stop", "--all", "robot"], 2, "stop: both names and --all are given"),
        (["status", "--jsn"], 2, "status: '--jsn' is not an option of it: did you mean '--json'?"),
        (["statsu"], 2, "'statsu' is not a verb: did you mean 'status'?"),
        (["connection", "robot", "stats"], 2, "connection: 'stats' is not an argument of it"),
        (["logs", "--since", "soon"], 2, "--since: 'soon' is not a time: give a span such as 10m"),
        (["logs", "-n", "-1"], 2, "logs --help"),
        (["status", "--watch", "--interval", "0"], 2, "status --help"),
        (["console", "robot"], 1, "robot is running and has no connection file"),
    ],
)
def test_a_mistake_gets_a_line_that_says_what_to_do(cli: Cli, words: list[str], code: int, told: str) -> None:
    done = cli(*words)

    assert code == done.code
    assert told in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "patience"),
    [
        (["detach"], ("ending.QUICK_TIMEOUT",)),
        (["shutdown", "--now"], ("ending.QUICK_TIMEOUT",)),
        (["reload"], ("files.READING_TIMEOUT",)),
        (["plan"], ("files.READING_TIMEOUT",)),
    ],
)
def test_a_daemon_that_hangs_is_not_waited_for(
    hanging: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    patience: tuple[str, ...],
) -> None:
    for name in patience:
        monkeypatch.setattr(f"supervisor.cli.{name}", 0.1)

    assert 3 == main([*words, "--socket", str(hanging)])
    told = "accepts connections, but did not answer within 0.1 s (is it stopped?)"
    assert f"the daemon does not answer; tried:\n  {hanging}: {told}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ASKING)
def test_without_a_daemon_each_verb_says_what_was_tried_and_ends_with_3(tmp_path: Path, verb: str) -> None:
    code, out, err = run(tmp_path, verb, *NEEDS.get(verb, []), env={"XDG_RUNTIME_DIR": str(tmp_path)})

    assert (3, "") == (code, out)
    assert f"{tmp_path}/.local/state/kernel-supervisor/control.sock: there is no such socket" in err
    assert 'start one with "kernel-supervisor run", or name its socket with --socket or --config' in err


def test_a_daemon_that_does_not_answer_is_told_apart(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "s"))

    code, _, err = run(tmp_path, "status", "--socket", "s")

    assert 3 == code
    assert "s: nobody answers (left over from a daemon that is gone)" in err


def test_the_daemon_is_found_by_socket_config_environment_and_place(tmp_path: Path) -> None:
    for name in ("by-option", "by-config", "by-environment", "by-place"):
        (tmp_path / name).mkdir()
    (tmp_path / "k.toml").write_text('[supervisor]\nsocket = "by-config/s"\n')
    environ = {"XDG_STATE_HOME": str(tmp_path / "by-place")}
    by_environment = environ | {"KERNEL_SUPERVISOR_SOCKET": str(tmp_path / "by-environment/s")}

    def found(*words: str, env: dict[str, str]) -> str:
        return str(json.loads(run(tmp_path, "status", "--json", *words, env=env).out)["instance"])

    steerings = {
        name: FakeSteering(tmp_path) for name in ("by-option", "by-config", "by-environment", "by-place")
    }
    paths = {name: tmp_path / name / "s" for name in steerings}
    paths["by-place"] = tmp_path / "by-place/kernel-supervisor/control.sock"
    for name, steering in steerings.items():
        steering.instance = name
    daemons = [FakeDaemon(steerings[name], paths[name]) for name in steerings]
    for daemon in daemons:
        daemon.__enter__()
    try:
        option = ["--socket", str(paths["by-option"])]
        assert "by-option" == found(*option, "--config", "k.toml", env=by_environment)
        assert "by-config" == found("--config", "k.toml", env=by_environment)
        assert "by-environment" == found(env=by_environment)
        assert "by-place" == found(env=environ)
    finally:
        for daemon in daemons:
            daemon.__exit__()


@pytest.mark.parametrize("verb", ASKING)
def test_a_daemon_of_another_file_is_not_the_one_of_a_file_that_is_named(
    tmp_path: Path, usual: FakeSteering, verb: str
) -> None:
    (tmp_path / "team.toml").write_text('[kernels.a]\nkernelspec = "python3"\n')
    socket = tmp_path / ".local/state/kernel-supervisor/control.sock"
    (tmp_path / ".local/state/kernel-supervisor/events.jsonl").write_text('{"event": "kernel.ready"}\n')

    code, out, err = run(tmp_path, verb, *NEEDS.get(verb, []), "--config", "team.toml")

    assert (3, "") == (code, out)
    runs = f"a daemon answers, but it runs {tmp_path}/kernels.toml, not {tmp_path}/team.toml"
    assert err.startswith("kernel-supervisor: the daemon of this file does not answer; tried:\n")
    assert 1 == err.count(f"{socket}: {runs} (--socket {socket} asks it all the same)")
    assert "start one" not in err
    assert ([], []) == (usual.orders, usual.ended)


def test_a_daemon_of_the_named_file_is_asked_by_any_name_of_it(tmp_path: Path, usual: FakeSteering) -> None:
    (tmp_path / "kernels.toml").touch()
    (tmp_path / "link.toml").symlink_to("kernels.toml")

    for file in ("kernels.toml", str(tmp_path / "kernels.toml"), "link.toml"):
        assert 0 == run(tmp_path, "status", "--config", file).code
        assert 0 == run(tmp_path, "stop", "--all", "--config", file).code
        assert 0 == run(tmp_path, "reload", "--config", file).code
    assert 9 == len(usual.orders)


@pytest.mark.parametrize(
    ("words", "looks"),
    [
        (["status", "--config", "kernels.toml"], 1),
        (["stop", "--all", "--config", "kernels.toml"], 1),
        (["reload", "--config", "kernels.toml"], 1),
        (["reload", "--config", "own.toml"], 0),
        (["reload"], 0),
    ],
)
def test_the_daemon_is_asked_which_file_it_runs_only_where_that_is_in_doubt_and_once(
    tmp_path: Path, usual: FakeSteering, words: list[str], looks: int
) -> None:
    (tmp_path / "kernels.toml").touch()
    (tmp_path / "own.toml").write_text('[supervisor]\nstate_dir = ".local/state/kernel-supervisor"\n')

    assert 0 == run(tmp_path, *words).code
    assert looks == usual.looks


def test_a_directory_that_may_not_be_entered_is_no_obstacle(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    process = begin(closed, "status", env={"HOME": str(tmp_path)}, preexec_fn=weaken)
    _, err = process.communicate(timeout=30)
    closed.chmod(0o700)

    assert 3 == process.returncode
    assert "no daemon answers; tried:" in err


def test_a_config_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "status", "--config", "missing.toml")

    assert (2, "kernel-supervisor: missing.toml: cannot be read: No such file or directory\n") == (code, err)


def test_a_stopped_daemon_with_a_full_backlog_does_not_answer_which_is_not_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "full"
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as callers:
        listening.bind(str(path))
        listening.listen(0)
        with suppress(BlockingIOError):
            while True:
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(path))
        code, _, err = run(tmp_path, "status", "--socket", str(path))

    assert 3 == code
    assert "the daemon does not answer; tried:" in err
    assert "does not accept connections (is the daemon stopped?)" in err
    assert "start one" not in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("verb", ["status", "stop", "exec", "shutdown", "reload"])
def test_nothing_is_sent_to_another_users_process_unless_its_socket_is_named(
    tmp_path: Path, verb: str
) -> None:
    path = tmp_path / ".local/state/kernel-supervisor/control.sock"
    path.parent.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(path)], stdout=subprocess.PIPE, text=True
    ) as stranger:
        try:
            read_until(stranger.stdout, "listens")
            code, out, err = run(tmp_path, verb, *NEEDS.get(verb, []))
            unsaid = read_until(stranger.stdout, "end")
            run(tmp_path, "status", "--socket", str(path))
            said = read_until(stranger.stdout, "end")
        finally:
            stranger.kill()

    assert (3, "") == (code, out)
    who = f"nothing is sent to process {stranger.pid} of another user (uid 4242), which listens there"
    assert f"{path}: {who} (--socket {path} asks it all the same)" in err
    assert unsaid == "end\n"
    assert said.startswith("GET /v1/status")
