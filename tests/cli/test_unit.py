"""The shipped units, and what an installation makes of them."""

import configparser
import re
import zipfile
from pathlib import Path

import pytest

from supervisor.cli.unit import Unit, command, drop_in_text, literal, quoted, timeout_text, units
from tests.cli.tools import ROOT

UNITS = [Unit(for_user, instance) for for_user in (False, True) for instance in (None, "team")]
SHIPPED = pytest.mark.parametrize("unit", UNITS, ids=[str(unit.place / unit.path.name) for unit in UNITS])
PROGRAM = ("/opt/k/python", "-m", "supervisor")


def directives(unit: Unit) -> list[tuple[str, str]]:
    lines = [line.partition("=") for line in unit.text(PROGRAM).splitlines() if not line.startswith("#")]
    return [(key, value) for key, is_one, value in lines if is_one]


@SHIPPED
def test_it_keeps_the_kernels_when_the_daemon_goes(unit: Unit) -> None:
    found = dict(directives(unit))

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


@SHIPPED
def test_nothing_in_it_takes_from_the_kernels_at_a_restart_or_brings_no_new_privileges(unit: Unit) -> None:
    # A private /tmp is emptied, the others go with a namespace or an account of one life of the daemon.
    lost = {"PrivateTmp", "DynamicUser", "RemoveIPC", "PrivateNetwork", "PrivateIPC"}
    # systemd.exec(5): these override "NoNewPrivileges=no", and sudo would not work for all that.
    lost |= {"LockPersonality", "MemoryDenyWriteExecute", "PrivateDevices", "ProtectClock", "ProtectHostname"}
    keys = {key for key, _ in directives(unit)}

    assert not keys & lost
    assert not [key for key in keys if key.startswith(("ProtectKernel", "Restrict", "SystemCall"))]


@SHIPPED
def test_every_directive_of_the_service_has_a_reason_above_it(unit: Unit) -> None:
    for paragraph in unit.text(PROGRAM).split("[Service]\n")[1].split("[Install]")[0].split("\n\n"):
        reasoned = False
        for line in filter(None, paragraph.splitlines()):
            assert reasoned or line.startswith("#"), line
            reasoned = True


@SHIPPED
def test_the_program_is_this_installations(unit: Unit) -> None:
    found = dict(directives(unit))

    assert "/opt/k/python -m supervisor run ${KERNEL_SUPERVISOR_CONFIG}" == found["ExecStart"]
    assert "/opt/k/python -m supervisor reload" == found["ExecReload"]
    assert "/opt/kernel-supervisor/bin" not in unit.text(PROGRAM)
    configparser.RawConfigParser(strict=False, delimiters=("=",)).read_string(unit.text(PROGRAM))


@SHIPPED
def test_its_directories_are_where_the_unit_says(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    filled_in = [(key, value.replace("%i", "team")) for key, value in directives(unit)]

    assert ("RuntimeDirectory", unit.runtime_dir.name) in filled_in
    if not unit.for_user:
        assert ("StateDirectory", unit.state_dir.name) in filled_in
        assert {("UMask", "0077"), ("StateDirectoryMode", "0700")} <= set(filled_in)
    elif unit.instance:
        assert ("Environment", f"STATE_DIRECTORY=%h/.local/state/{unit.state_dir.name}") in filled_in
    assert Path("/run/user/7" if unit.for_user else "/run") == unit.runtime_dir.parent


@pytest.mark.parametrize("for_user", [False, True])
def test_an_instance_differs_from_the_one_in_its_names_only(for_user: bool) -> None:
    one, template = (Unit(for_user, instance).text(PROGRAM) for instance in (None, "team"))
    as_one = template.replace(" (%i)", "").replace("/%i.toml", "/kernels.toml").replace("-%i", "")

    # A user's only service has the usual places.
    of_instance = (
        r"# Records, events(?:(?!\n#).)*?\n(?:#.*\n)*Environment=STATE.*\n|# Connection files(?:.*\n){4}"
    )
    assert one == (re.sub(of_instance, "", as_one) if for_user else as_one)


def test_they_are_in_a_wheel_as_they_are_in_the_folder(tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.builders.wheel")
    built = next(build.WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))

    with zipfile.ZipFile(built) as wheel:
        names = [name for name in wheel.namelist() if name.startswith("supervisor/cli/units/")]
        there = {name.removeprefix("supervisor/cli/units/"): wheel.read(name) for name in names}
    assert {str(path.relative_to(units())): path.read_bytes() for path in units().rglob("*.service")} == there


def test_words_are_quoted_as_systemd_reads_them() -> None:
    assert "/opt/x-1.2/%i~" == quoted("/opt/x-1.2/%i~")
    assert '"/opt/my kernels/x"' == quoted("/opt/my kernels/x")
    assert r'"a\"b\\c"' == quoted('a"b\\c')
    assert '"it\'s"' == quoted("it's")
    assert "100%%" == literal("100%")
    assert '"/a b/c" -m 50%% $$HOME' == command(("/a b/c", "-m", "50%", "$HOME"))
    with pytest.raises(ValueError, match="control character"):
        quoted("a\nExecStartPre=/bin/false")


def test_what_is_chosen_for_one_service_is_a_drop_in() -> None:
    assert "" == drop_in_text(None, None)
    text = drop_in_text("alice", "/srv/my 100%.toml")
    assert 'User=alice\nEnvironment="KERNEL_SUPERVISOR_CONFIG=/srv/my 100%%.toml"\n' in text


@SHIPPED
def test_a_stop_that_the_unit_gives_no_time_for_is_a_drop_in_that_an_edit_goes_before(unit: Unit) -> None:
    enough = int(dict(directives(unit))["TimeoutStopSec"])

    assert "" == timeout_text(enough - 30)
    assert f"\nTimeoutStopSec={enough + 1}\n" in timeout_text(enough - 29.5)
    assert "TimeoutStopSec=1000000030\n" in timeout_text(1e308)
    assert unit.timeout.name < "override.conf"


def test_the_last_drop_in_by_name_says_which_account_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.cli.unit.SYSTEM_UNITS", tmp_path)
    unit = Unit(instance="team")
    wanted = {unit.path: unit.text(PROGRAM)}
    assert "kernel-supervisor" == unit.account(wanted)

    for place, name, account in [("@", "z", "zoe"), ("@team", "install", "alice"), ("@team", "zz", "bob")]:
        path = tmp_path / f"kernel-supervisor{place}.service.d" / f"{name}.conf"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[Service]\nUser={account}\n")

    assert "bob" == unit.account(wanted)
    assert "zoe" == Unit(instance="other").account(wanted)
    assert "/etc/kernel-supervisor/team.toml" == unit.config(wanted)
