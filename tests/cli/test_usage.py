"""The command line without a daemon: help, mistakes, where it looks, what it imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.verbs import VERBS
from supervisor.cli.words import ago, how_it_died, span
from tests.cli.tools import ROOT, begin, environment, run
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.e2e.daemon import weaken

ASKING = [verb for verb, what in VERBS.items() if what.asks_daemon]
NEEDS = {
    **{verb: ["--all"] for verb in ("start", "stop", "restart", "interrupt", "kill", "reset")},
    **{verb: ["robot"] for verb in ("output", "connection", "console")},
    "signal": ["TERM", "--all"],
    "exec": ["robot", "1"],
}


def test_no_argument_is_help(tmp_path: Path) -> None:
    code, out, err = run(tmp_path)

    assert (0, "") == (code, err)
    for verb in VERBS:
        assert f"  {verb} " in out


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "systemd"])
def test_each_verb_has_help(tmp_path: Path, verb: str) -> None:
    code, out, _ = run(tmp_path, verb, "--help")

    assert 0 == code
    assert out.startswith(f"usage: kernel-supervisor {verb}")


def test_version_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").out.startswith("kernel-supervisor ")


@pytest.mark.parametrize("verb", ASKING)
def test_without_a_daemon_each_verb_says_what_was_tried_and_ends_with_3(tmp_path: Path, verb: str) -> None:
    code, out, err = run(tmp_path, verb, *NEEDS.get(verb, []), env={"XDG_RUNTIME_DIR": str(tmp_path)})

    assert (3, "") == (code, out)
    for place in ["kernel-supervisor/control.sock", ".local/state/kernel-supervisor/control.sock"]:
        assert f"{tmp_path}/{place}: there is no such socket" in err
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
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "by-place")}
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


@pytest.fixture
def usual(tmp_path: Path) -> Iterator[FakeSteering]:
    """A daemon of ``kernels.toml`` at the usual place."""
    steering = FakeSteering(tmp_path)
    with FakeDaemon(steering, tmp_path / ".local/state/kernel-supervisor/control.sock"):
        yield steering


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


def test_a_file_is_planned_by_the_daemon_that_would_be_asked_anyway(
    tmp_path: Path, usual: FakeSteering
) -> None:
    (tmp_path / "team.toml").touch()

    assert 0 == run(tmp_path, "plan", "team.toml").code
    assert str(tmp_path / "team.toml") == usual.planned_path


def test_a_directory_that_may_not_be_entered_is_no_obstacle(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    process = begin(closed, "status", env={"HOME": str(tmp_path)}, preexec_fn=weaken)
    _, err = process.communicate(timeout=30)
    closed.chmod(0o700)

    assert 3 == process.returncode
    assert "no daemon answers; tried:" in err


def test_options_may_come_before_the_verb(tmp_path: Path) -> None:
    assert (3, "") == run(tmp_path, "--json", "--socket", "/nowhere", "status")[:2]


def test_a_config_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "status", "--config", "missing.toml")

    assert (2, "kernel-supervisor: missing.toml: cannot be read: No such file or directory\n") == (code, err)


def test_a_configuration_is_checked(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text('[kernels.a]\nkernelspec = "python3"\n')
    (tmp_path / "bad.toml").write_text('[kernels.a]\nkernelspce = "python3"\nrestart = "allways"\n')

    good, bad = run(tmp_path, "check", "good.toml"), run(tmp_path, "check", "bad.toml")

    assert (0, "") == (good.code, good.err)
    assert "[kernels.a]" in good.out
    assert (78, "") == (bad.code, bad.out)
    assert 2 <= len(bad.err.splitlines())
    assert 'did you mean "kernelspec"' in bad.err
    assert (
        "python3"
        == json.loads(run(tmp_path, "check", "--json", "good.toml").out)["config"]["kernels"]["a"][
            "kernelspec"
        ]
    )
    assert json.loads(run(tmp_path, "check", "--json", "bad.toml").out)["mistakes"]


@pytest.mark.parametrize("verb", ["run", "check"])
def test_no_configuration_at_all_is_78(tmp_path: Path, verb: str) -> None:
    code, _, err = run(tmp_path, verb)

    assert 78 == code
    assert "no configuration is named, and none is found: name one; looked for kernels.toml" in err


def test_the_schema_is_json(tmp_path: Path) -> None:
    assert "kernels" in json.loads(run(tmp_path, "schema").out)["properties"]


@pytest.mark.parametrize(
    "words", [["status"], ["stop", "--all"], ["connection", "robot"], ["logs"], ["__names"], ["reload"]]
)
def test_the_light_verbs_import_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    with FakeDaemon(FakeSteering(tmp_path), tmp_path / "s") as daemon:
        script = (
            "import sys\n"
            "from supervisor.__main__ import main\n"
            f"code = main({[*words, '--socket', str(daemon.path)]!r})\n"
            "heavy = {'zmq', 'tornado', 'structlog', 'msgspec', 'asyncio', 'watchdog', 'psutil', 'email',\n"
            "         'jupyter_client', 'platformdirs', 'http.client', 'dataclasses', 'inspect'}\n"
            "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert "0 []\n" == done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_one_for_its_shell(tmp_path: Path, shell: str) -> None:
    code, out, _ = run(tmp_path, "completion", shell)

    assert 0 == code
    for verb in VERBS:
        assert verb in out
    assert "kernel-supervisor __names" in out
    assert "install print" in out
    assert "run-as" in out
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

    told = ["status start", "--no-wait --now --new-ports", "analysis", "zsh", "install", "--run-as"]
    assert [*told, "", *["analysis"] * 3] == done.stdout.splitlines()
    assert "" == done.stderr


def test_the_example_of_the_readme_is_accepted_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "kernels.toml").write_text(
        (ROOT / "README.md").read_text().partition("```toml\n")[2].partition("```")[0]
    )

    code, out, err = run(tmp_path, "check", "kernels.toml")

    assert (0, "") == (code, err)
    assert "[kernels.analysis]" in out


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    process = begin(tmp_path, "schema")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.wait(30)
    process.stderr.close()

    assert "" == err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.4, "0.4 s"),
        (119, "1 min 59 s"),
        (172800, "2 d"),
    ],
)
def test_a_span_is_worded_as_everywhere(seconds: float | None, text: str) -> None:
    assert text == span(seconds)


def test_an_instant_is_told_from_now() -> None:
    assert "5 min ago" == ago("1970-01-01T00:00:00Z", 300.0)
    assert "" == ago(None, 300.0)


@pytest.mark.parametrize(
    ("death", "text"),
    [
        ({"cause": "killed", "signal": "SIGKILL"}, "SIGKILL"),
        ({"cause": "oom", "signal": "SIGKILL"}, "out of memory"),
        ({"cause": "exited", "exit_code": 7}, "exit 7"),
        ({"cause": "unknown", "exit_code": None, "signal": None}, "cause unknown"),
    ],
)
def test_a_death_is_told_by_its_cause(death: dict[str, object], text: str) -> None:
    assert text == how_it_died(death)


def test_a_plan_without_a_daemon_tells_what_a_start_would_do(tmp_path: Path) -> None:
    file = tmp_path / "k.toml"
    file.write_text(
        '[supervisor]\nstate_dir = "state"\n[kernels.a]\nkernelspec = "python3"\n'
        '[kernels.b]\nkernelspec = "python3"\nenabled = false\n'
    )

    code, out, err = run(tmp_path, "plan", "--config", str(file))

    assert (0, "a: start\n") == (code, out)
    assert "no daemon answers" in err
    assert not (tmp_path / "state").exists()


def test_a_plan_of_a_bad_file_without_a_daemon_tells_its_mistakes(tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text("[kernels.a]\nkernelspce = 'x'\n")

    code, _out, err = run(tmp_path, "plan", "k.toml")

    assert 78 == code
    assert 'did you mean "kernelspec"?' in err


def test_an_order_that_names_no_kernel_is_wrong_usage_with_or_without_a_daemon(tmp_path: Path) -> None:
    code, _out, err = run(tmp_path, "restart")

    assert 2 == code
    assert "--all" in err
