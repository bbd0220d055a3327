"""The units as text, and the verb that prints and installs them."""

import configparser
import re
import signal
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest

from supervisor.cli import systemd
from supervisor.cli.exits import Quit
from supervisor.cli.program import main
from supervisor.cli.unit_text import Unit, all_units, command, literal, quoted, write_all

SHIPPED = Path(__file__).resolve().parents[2] / "systemd"
UNITS = list(all_units().items())


def directives(text: str) -> list[tuple[str, str]]:
    return [
        (line.partition("=")[0], line.partition("=")[2]) for line in text.splitlines() if "=" in line[:40]
    ]


@pytest.mark.parametrize(("path", "unit"), UNITS, ids=[path for path, _ in UNITS])
class TestShippedUnit:
    def test_the_file_is_what_the_program_would_print(self, path: str, unit: Unit) -> None:
        assert (SHIPPED / path).read_text() == unit.render(), "python -m supervisor.cli.unit_text systemd"

    def test_it_keeps_the_kernels_when_the_daemon_goes(self, path: str, unit: Unit) -> None:
        found = dict(directives(unit.render()))

        assert {
            "Type": "notify",
            "NotifyAccess": "main",
            "KillMode": "process",
            "KillSignal": "SIGTERM",
            "RestartKillSignal": "SIGUSR2",
            "Restart": "on-failure",
            "RestartPreventExitStatus": "78",
            "OOMPolicy": "continue",
            "RuntimeDirectoryPreserve": "yes",
            "StartLimitIntervalSec": "0",
        }.items() <= found.items()
        assert float(found["WatchdogSec"]) > 0

    def test_it_has_nothing_that_a_restart_would_take_from_the_kernels(self, path: str, unit: Unit) -> None:
        # A private /tmp is emptied, the others go with a namespace or an account of one life of the daemon.
        keys = {key for key, _ in directives(unit.render())}

        assert not keys & {"PrivateTmp", "DynamicUser", "RemoveIPC", "PrivateNetwork", "PrivateIPC"}

    def test_nothing_but_itself_brings_no_new_privileges(self, path: str, unit: Unit) -> None:
        # systemd.exec(5): these override "NoNewPrivileges=no", and sudo would not work for all that.
        keys = {key for key, _ in directives(unit.render())}
        listed = {"DynamicUser", "LockPersonality", "MemoryDenyWriteExecute", "PrivateDevices"}

        assert not keys & (listed | {"ProtectClock", "ProtectHostname"})
        assert not [key for key in keys if key.startswith(("ProtectKernel", "Restrict", "SystemCall"))]

    def test_every_directive_of_the_service_has_a_reason_above_it(self, path: str, unit: Unit) -> None:
        for paragraph in unit.render().split("[Service]\n")[1].split("[Install]")[0].split("\n\n"):
            reasoned = False
            for line in filter(None, paragraph.splitlines()):
                assert reasoned or line.startswith("#"), line
                reasoned = True

    def test_nothing_is_left_to_be_filled_in(self, path: str, unit: Unit) -> None:
        text = unit.render().replace("${KERNEL_SUPERVISOR_CONFIG}", "")

        assert not re.search(r"[{}]", text)
        configparser.RawConfigParser(strict=False, delimiters=("=",)).read_string(text)


def test_all_of_them_are_written_where_they_are_shipped(tmp_path: Path) -> None:
    write_all(tmp_path)

    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.service")}
    assert {str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*.service")} == written


def test_instances_share_no_directory() -> None:
    for for_user in (False, True):
        text = Unit(for_user=for_user, is_template=True).render()
        assert "RuntimeDirectory=kernel-supervisor-%i" in text
        assert "JUPYTER_RUNTIME_DIR=%t/kernel-supervisor-%i/jupyter" in text
        assert re.search(r"STATE_DIRECTORY=.*-%i$|^StateDirectory=kernel-supervisor-%i$", text, re.MULTILINE)


def test_words_are_quoted_as_systemd_reads_them() -> None:
    assert "/opt/x-1.2/%i~" == quoted("/opt/x-1.2/%i~")
    assert '"/opt/my kernels/x"' == quoted("/opt/my kernels/x")
    assert r'"a\"b\\c"' == quoted('a"b\\c')
    assert '"it\'s"' == quoted("it's")
    assert "100%%" == literal("100%")
    assert '"/a b/c" -m 50%% $$HOME' == command(("/a b/c", "-m", "50%", "$HOME"))
    with pytest.raises(ValueError, match="control character"):
        quoted("a\nExecStartPre=/bin/false")


# The verb


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc"))
    monkeypatch.setattr(systemd, "SYSTEM_UNITS", tmp_path / "system")
    return tmp_path


def test_print_prints_the_unit_of_this_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["systemd", "print"])

    assert Unit(program=systemd.program()).render() == capsys.readouterr().out


def test_print_knows_all_four_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, for_user, is_template in [
        (["--user"], True, False),
        (["--instance", "a"], False, True),
        (["--user", "--instance", "a"], True, True),
    ]:
        assert 0 == main(["systemd", "print", *arguments])

        unit = Unit(for_user=for_user, is_template=is_template, program=systemd.program())
        assert unit.render() == capsys.readouterr().out


def test_the_program_is_the_script_of_this_environment_or_its_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    assert (sys.executable, "-m", "supervisor") == systemd.program()
    script = tmp_path / "bin" / "kernel-supervisor"
    script.parent.mkdir()
    script.touch(mode=0o755)
    assert (str(script),) == systemd.program()


def test_the_configuration_and_the_account_can_be_chosen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    assert 0 == main(["systemd", "print", "--config", "my 100%.toml", "--run-as", "alice"])

    text = capsys.readouterr().out
    assert f'Environment="KERNEL_SUPERVISOR_CONFIG={tmp_path}/my 100%%.toml"\n' in text
    assert "\nUser=alice\n" in text


def test_install_writes_the_users_unit_and_tells_what_to_type(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["systemd", "install", "--user"])

    written = home / "etc/systemd/user/kernel-supervisor.service"
    assert Unit(for_user=True, program=systemd.program()).render() == written.read_text()
    assert [written] == list(written.parent.iterdir())
    told = capsys.readouterr().out
    assert f"{home}/etc/kernel-supervisor/kernels.toml, which is not there yet" in told
    for step in [
        f"check {home}/etc/kernel-supervisor/kernels.toml",
        "loginctl enable-linger",
        "systemctl --user daemon-reload",
        "systemctl --user enable --now kernel-supervisor",
        "journalctl --user --unit kernel-supervisor --follow",
    ]:
        assert step in told


def test_install_writes_the_template_and_names_the_instance(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["systemd", "install", "--instance", "team", "--run-as", "root"])

    assert (home / "system/kernel-supervisor@.service").exists()
    told = capsys.readouterr().out
    assert "check /etc/kernel-supervisor/team.toml" in told
    assert "systemctl enable --now kernel-supervisor@team" in told
    assert "useradd" not in told


def test_install_tells_how_to_make_an_account_that_is_missing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["systemd", "install", "--run-as", "nobody-has-this-name"])

    assert "useradd --system --create-home" in capsys.readouterr().out


def test_install_warns_of_an_installation_that_the_account_cannot_read(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.chmod(0o700)
    monkeypatch.setattr(systemd, "program", lambda: (str(home / "bin/kernel-supervisor"),))

    assert 0 == main(["systemd", "install", "--run-as", "nobody"])

    assert "warning" in capsys.readouterr().err


def test_an_install_again_writes_the_unit_anew(home: Path) -> None:
    assert 0 == main(["systemd", "install", "--user"])
    written = home / "etc/systemd/user/kernel-supervisor.service"
    written.write_text("of an older version")

    assert 0 == main(["systemd", "install", "--user"])

    assert "of an older version" not in written.read_text()


def test_what_cannot_be_written_is_told_with_a_way_out(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "system").write_text("in the way")

    assert 1 == main(["systemd", "install"])

    told = capsys.readouterr().err
    assert "cannot write" in told
    assert "become root" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["--instance", "a/b"],
        ["--instance", "a", "--config", "x.toml"],
        ["--user", "--run-as", "alice"],
        ["--run-as", "alice\nExecStartPre=/bin/false"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(Quit) as quit_:
        systemd.main(["print", *arguments])

    assert 2 == quit_.value.code


@pytest.mark.parametrize("arguments", [[], ["remove"], ["print", "--nonsense"]])
def test_arguments_that_do_not_parse_are_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        systemd.main(arguments)

    assert 2 == left.value.code


# The service, from its first moment


def test_an_order_by_signal_that_comes_while_the_daemon_is_imported_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held_back: set[signal.Signals] = set()

    class Imported(types.ModuleType):
        @staticmethod
        def run(*_: object, **__: object) -> int:
            held_back.update(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            return 0

    imported = Imported("supervisor.daemon.daemon")
    monkeypatch.setitem(sys.modules, "supervisor.daemon.daemon", imported)
    monkeypatch.setattr(import_module("supervisor.daemon"), "daemon", imported, raising=False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert 0 == main(["run", str(tmp_path / "kernels.toml")])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2} <= held_back
