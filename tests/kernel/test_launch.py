"""From settings to a process, with real processes; what is inherited and what is not."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import Cause
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.launch import (
    Command,
    environment,
    format_argv,
    interrupt_mode,
    lacking,
    resolve,
    spawn,
)
from supervisor.settings.config import Config, KernelConfig
from tests.waiting import DEADLINE

MARK = {"KERNEL_SUPERVISOR_RUN": "digest/a/1"}
REPORT = """
import json, os, sys
json.dump({"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv, "fds": os.listdir("/proc/self/fd"),
           "sid": os.getsid(0), "pid": os.getpid(), "stdin": os.read(0, 9).decode()}, open(sys.argv[1], "w"))
print("on stdout", flush=True)
os.write(2, b"on stderr\\n")
"""


def command(*argv: str, cwd: str = "/", **env: str) -> Command:
    return Command(argv, env, cwd, "signal", "k", "", "")


def config(**keys: Any) -> KernelConfig:
    return KernelConfig(name="a", **({"argv": ("sh", "{connection_file}")} | keys))


def finish(process: subprocess.Popen[bytes]) -> int:
    return process.wait(DEADLINE)


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prefix with a python whose ``share/jupyter/kernels`` is the only place of kernelspecs."""
    kernels = tmp_path / "prefix" / "share" / "jupyter" / "kernels"
    kernels.mkdir(parents=True)
    (tmp_path / "prefix" / "bin").mkdir()
    (tmp_path / "prefix" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *_: [str(kernels)])
    return kernels


def install(kernels: Path, name: str, *argv: str, **content: Any) -> Path:
    (kernels / name).mkdir()
    (kernels / name / "kernel.json").write_text(json.dumps({"argv": argv} | content))
    return kernels / name


def executable(path: Path, content: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


# resolve


def test_a_kernelspec_gives_command_language_and_interrupt_mode(specs: Path) -> None:
    there = install(specs, "deno", "sh", "{connection_file}", interrupt_mode="message", language="ts")

    found = resolve(config(argv=None, kernelspec="deno", extra_arguments=("--x={connection_file}",)))

    assert ("sh", "{connection_file}", "--x={connection_file}") == found.argv
    assert ("message", "deno", str(there), "ts") == (
        found.interrupt_mode,
        found.kernel_name,
        found.resource_dir,
        found.language,
    )


def test_how_a_kernelspec_is_interrupted_is_known_though_it_cannot_be_launched(specs: Path) -> None:
    install(specs, "deno", "/nowhere/at/all", interrupt_mode="message")

    assert "message" == interrupt_mode(config(argv=None, kernelspec="deno", cwd="/nowhere"))
    assert "signal" == interrupt_mode(config())


def test_what_a_configuration_lacks_here_is_what_its_launches_would_fail_for(specs: Path) -> None:
    install(specs, "Mine", "sh", "{connection_file}")
    kernels = {
        "good": KernelConfig(name="good", kernelspec="mINE"),
        "off": KernelConfig(name="off", kernelspec="nope", enabled=False),
        "spec": KernelConfig(name="spec", kernelspec="nope"),
        "a.b": KernelConfig(name="a.b", argv=("no-such-program", "{connection_file}")),
        "long": KernelConfig(name="long", argv=("./run", "{connection_file}"), cwd="/" + 300 * "x"),
        "env": KernelConfig(name="env", argv=("sh", "{connection_file}"), env={"PATH": "/nowhere"}),
    }

    told = lacking(Config(kernels=kernels))

    assert [
        'kernels.spec: kernelspec "nope" is not installed: installed: "mine"',
        'kernels."a.b": executable "no-such-program" is not on the PATH of the kernel: give its full path',
        f'kernels.long: working directory "/{300 * "x"}": File name too long: make it or change cwd',
        'kernels.env: executable "sh" is not on the PATH of the kernel: give its full path',
    ] == told


def test_a_bare_python_elsewhere_is_looked_up_on_the_path_of_the_kernel(specs: Path, tmp_path: Path) -> None:
    (specs.parents[2] / "bin" / "python").unlink()
    install(specs, "python3", "python", "-m", "ipykernel_launcher")
    executable(tmp_path / "bin" / "python")

    settings = config(argv=None, kernelspec="python3", env={"PATH": str(tmp_path / "bin")})

    assert "python" == resolve(settings).argv[0]
    with pytest.raises(LaunchError, match='"python" is not on the PATH of the kernel: give its full path'):
        resolve(config(argv=None, kernelspec="python3", env={"PATH": str(tmp_path)}))


def test_home_is_filled_in_in_command_and_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    executable(tmp_path / "run")

    found = resolve(config(argv=("~/run", "~/x", "--y=~"), cwd="~"))

    assert (f"{tmp_path}/run", f"{tmp_path}/x", "--y=~") == found.argv
    assert str(tmp_path) == found.cwd


def test_variables_are_filled_in_from_our_environment_and_the_kernelspecs(
    specs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(specs, "k", "sh", env={"A": "${OURS}:a", "B": "b"})
    monkeypatch.setenv("OURS", "ours")
    monkeypatch.setenv("A", "our a")

    found = resolve(config(argv=None, kernelspec="k", env={"C": "${A}|${NO_SUCH}|$OURS|${", "B": "mine"}))

    assert {"A": "ours:a", "B": "mine", "C": "ours:a|${NO_SUCH}|$OURS|${"} == found.env
    assert "mine" not in repr(found)


def test_a_given_environment_stands_in_for_ours(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(specs, "k", "my-program", env={"A": "${OURS}|${THEIRS}"})
    monkeypatch.setenv("OURS", "ours")
    executable(tmp_path / "bin" / "my-program")
    settings = config(argv=None, kernelspec="k")

    found = resolve(settings, base={"THEIRS": "theirs", "PATH": str(tmp_path / "bin")})

    assert {"A": "${OURS}|theirs"} == found.env
    with pytest.raises(LaunchError, match='"my-program" is not on the PATH'):
        resolve(settings)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kernelspec": "no-such", "argv": None}, '"no-such" is not installed'),
        ({"cwd": "/no/such"}, 'working directory "/no/such" does not exist: make it or change cwd'),
        ({"cwd": "/etc/passwd"}, 'working directory "/etc/passwd" is not a directory'),
        ({"cwd": "/etc/passwd/x"}, 'working directory "/etc/passwd/x" does not exist'),
        ({"cwd": "/a\0b"}, "has a NUL character in its name"),
        ({"argv": ("/no/such",)}, 'executable "/no/such" does not exist: install it or change argv'),
        ({"argv": ("/etc",)}, 'executable "/etc" is not a file'),
        ({"argv": ("/etc/passwd",)}, 'executable "/etc/passwd" may not be executed'),
        ({"argv": ("no-such-program",)}, '"no-such-program" is not on the PATH of the kernel'),
        ({"env": {"PATH": "/no/such"}}, '"sh" is not on the PATH of the kernel'),
    ],
)
def test_what_is_missing_is_told_with_what_to_do(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(LaunchError) as told:
        resolve(config(**keys))

    assert Cause.NOT_FOUND is told.value.cause
    assert message in str(told.value)


def test_a_relative_command_is_looked_for_in_the_working_directory(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "run", "#!/bin/sh\nexit 5\n")

    found = resolve(config(argv=("bin/run",), cwd=str(tmp_path)))

    assert 5 == finish(spawn(found, tmp_path / "c", None, MARK))


# format_argv


def test_known_names_are_filled_in_and_all_else_stays() -> None:
    template = [
        "{connection_file}",
        "a{resource_dir}b",
        "{n}",
        "{unknown}",
        "{",
        "{}",
        "{a b}",
        '{"json": {n}}',
        "${n}",
    ]

    assert ["/c", "a/rb", "5", "{unknown}", "{", "{}", "{a b}", '{"json": 5}', "$5"] == format_argv(
        template, "/c", "/r", {"n": 5}
    )


def test_what_was_filled_in_is_not_filled_in_again() -> None:
    assert ["/{resource_dir}"] == format_argv(["{connection_file}"], "/{resource_dir}", "/r")


def test_the_prefix_is_that_of_the_kernelspec_if_it_has_a_python(specs: Path) -> None:
    there = install(specs, "k", "sh")

    assert [str(specs.parents[2])] == format_argv(["{prefix}"], "", str(there))
    assert [sys.prefix] == format_argv(["{prefix}"], "", "")
    (specs.parents[2] / "bin" / "python").unlink()
    assert [sys.prefix] == format_argv(["{prefix}"], "", str(there))


# environment


def test_what_is_about_us_alone_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    names = """JPY_PARENT_PID NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_FDS LISTEN_PID LISTEN_FDNAMES
    JOURNAL_STREAM INVOCATION_ID PYTHONEXECUTABLE MAINPID SYSTEMD_EXEC_PID STATE_DIRECTORY RUNTIME_DIRECTORY
    LOGS_DIRECTORY CONFIGURATION_DIRECTORY CACHE_DIRECTORY KERNEL_SUPERVISOR_RUN
    KERNEL_SUPERVISOR_CONFIG"""
    ours = names.split()
    theirs = {
        "HOME": "/h",
        "CREDENTIALS_DIRECTORY": "/c",
        "MY_LISTEN_FDS": "1",
        "XDG_RUNTIME_DIR": "/r",
        "PYTHONPATH": "/p",
    }

    for name in ours:
        monkeypatch.setenv(name, "x")
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)

    assert theirs == environment(command("sh"), {}, dict.fromkeys(ours, "x") | theirs)
    assert not set(ours) & environment(command("sh"), {}).keys()


def test_what_has_such_a_name_and_is_not_ours_was_set_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "3")
    monkeypatch.delenv("LISTEN_PID", raising=False)

    given = {"LISTEN_FDS": "1", "LISTEN_PID": "7"}
    assert given == environment(command("sh"), {}, given)


def test_what_the_settings_add_counts_and_the_mark_before_all() -> None:
    made = environment(
        command("sh", LISTEN_FDS="9", A="new", KERNEL_SUPERVISOR_RUN="forged"), MARK, {"A": "old"}
    )

    assert {"LISTEN_FDS": "9", "A": "new"} | MARK == made


def test_our_python_environment_is_not_passed_on_to_a_kernel_of_another(specs: Path) -> None:
    base = {
        "VIRTUAL_ENV": sys.prefix,
        "VIRTUAL_ENV_PROMPT": "ours",
        "PYTHONHOME": "/x",
        "PATH": "/usr/bin:/bin",
    }

    assert {"PATH": "/usr/bin:/bin"} == environment(command("/bin/sh"), {}, base)
    assert base == environment(command(sys.executable), {}, base)


def test_an_active_environment_that_is_not_ours_is_the_users_choice() -> None:
    base = {"VIRTUAL_ENV": "/users/own", "PATH": "/bin"}

    assert base == environment(command("/bin/sh"), {}, base)


# spawn


def test_the_process_has_session_directory_environment_and_output_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "output" / "a.log"
    there = command(sys.executable, "-c", REPORT, "{connection_file}", "{other}", cwd=str(tmp_path), A="1")
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)

    try:
        assert 0 == finish(spawn(there, tmp_path / "c", out, MARK))
    finally:
        os.close(read_end)
        os.close(write_end)

    told = json.loads((tmp_path / "c").read_text())
    assert told["pid"] == told["sid"]
    assert str(tmp_path) == told["cwd"]
    assert ["-c", str(tmp_path / "c"), "{other}"] == told["argv"]
    assert ("1", MARK["KERNEL_SUPERVISOR_RUN"]) == (told["env"]["A"], told["env"]["KERNEL_SUPERVISOR_RUN"])
    assert "" == told["stdin"]
    assert {"0", "1", "2"} == set(told["fds"]) - {"3", "4"}  # /proc/self/fd itself, and the file it writes
    assert b"on stdout\non stderr\n" == out.read_bytes()
    assert 0o600 == stat.S_IMODE(out.stat().st_mode)
    assert 0o700 == stat.S_IMODE(out.parent.stat().st_mode)


def test_output_is_added_to_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "a.log"
    out.write_bytes(b"before\n")

    finish(spawn(command("sh", "-c", "echo after"), tmp_path, out, MARK))

    assert b"before\nafter\n" == out.read_bytes()


def test_a_session_of_its_own_cannot_be_declined(tmp_path: Path) -> None:
    options = {"start_new_session": False, "process_group": os.getpgid(0)}
    process = spawn(command("sleep", "600"), tmp_path, None, MARK, options)

    try:
        assert process.pid == os.getsid(process.pid)
    finally:
        process.kill()
        finish(process)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("/no/such",), 'executable "/no/such" does not exist'),
        (("no-such-program",), '"no-such-program" is not on the PATH'),
        (("/etc/passwd",), "may not be executed"),
    ],
)
def test_a_missing_executable_is_told_from_a_missing_directory(
    tmp_path: Path, argv: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LaunchError, match=message) as told:
        spawn(command(*argv), tmp_path, None, MARK)
    assert Cause.NOT_FOUND is told.value.cause

    with pytest.raises(LaunchError, match="working directory") as told:
        spawn(command("sh", cwd=str(tmp_path / "gone")), tmp_path, None, MARK)
    assert Cause.NOT_FOUND is told.value.cause


def test_a_script_whose_interpreter_is_missing_is_told_as_that(tmp_path: Path) -> None:
    script = executable(tmp_path / "script", "#!/no/such/interpreter\n")

    with pytest.raises(LaunchError, match=r"its interpreter \(see its first line\) does not exist") as told:
        spawn(command(str(script)), tmp_path, None, MARK)

    assert Cause.NOT_FOUND is told.value.cause


def test_a_directory_that_goes_away_at_the_last_moment_is_still_told_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    real = subprocess.Popen

    def late(*args: Any, **kwargs: Any) -> Any:
        there.rmdir()
        return real(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", late)

    with pytest.raises(LaunchError, match=r"working directory .* does not exist"):
        spawn(command("sh", cwd=str(there)), tmp_path, None, MARK)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EAGAIN, "no more processes are to be had: raise LimitNPROC or TasksMax"),
        (errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_what_may_pass_is_not_called_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(subprocess, "Popen", refuse)

    with pytest.raises(LaunchError, match=words) as told:
        spawn(command("sh"), tmp_path, tmp_path / "out", MARK)

    assert Cause.UNKNOWN is told.value.cause


def test_what_no_other_try_makes_a_process_of_is_told_with_its_reason(tmp_path: Path) -> None:
    no_program = executable(tmp_path / "no-program", "\x7fELF of another machine")
    for there, words in (
        (command("sh", "-c", "x" * 3_000_000), "its arguments and environment are too long together"),
        (command("sh", A="x" * 3_000_000), "its arguments and environment are too long together"),
        (command(str(no_program)), "it is no program for this machine"),
    ):
        with pytest.raises(LaunchError, match=words) as told:
            spawn(there, tmp_path, tmp_path / "out", MARK)

        assert Cause.NOT_FOUND is told.value.cause


def test_an_output_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(LaunchError, match="cannot be opened: it is a directory: remove it") as told:
        spawn(command("sh"), tmp_path, tmp_path / "out", MARK)

    assert Cause.UNKNOWN is told.value.cause


def test_a_character_that_cannot_be_passed_on_is_told_without_the_value(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="has a character that cannot be passed on") as told:
        spawn(command("sh", TOKEN="hid\0den"), tmp_path, None, MARK)

    assert "hid" not in repr(told.value.__cause__) + str(told.value)


def test_a_keyword_that_popen_does_not_take_is_told_as_that(tmp_path: Path) -> None:
    with (tmp_path / "closed").open("wb") as file:
        pass

    with pytest.raises(ValueError, match="closed file"):
        spawn(command("sh"), tmp_path, None, MARK, {"stdout": file})
    with pytest.raises(LaunchError, match="has a character that cannot be passed on"):
        spawn(command("sh"), tmp_path, None, MARK, {"env": {"A=B": "c", "PATH": os.environ["PATH"]}})


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    for argv in (("true",), ("/no/such",)):
        for _ in range(5):
            try:
                finish(spawn(command(*argv), tmp_path, tmp_path / "out", MARK))
            except LaunchError:
                pass

    assert before == set(Path("/proc/self/fd").iterdir())


def test_limits_and_umask_are_the_kernels_to_inherit(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        out = tmp_path / "out"
        finish(spawn(command("sh", "-c", "umask; cat /proc/self/oom_score_adj"), tmp_path, out, MARK))
    finally:
        os.umask(old)

    assert f"0027\n{Path('/proc/self/oom_score_adj').read_text()}" == out.read_text()
