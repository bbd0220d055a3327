"""The verb that prints, installs and removes the unit."""

import os
import pwd
import signal
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest

from supervisor.cli import systemd, unit
from supervisor.cli.program import main
from supervisor.cli.unit import Unit, drop_in_text


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc"))
    monkeypatch.setattr(unit, "SYSTEM_UNITS", tmp_path / "system")
    monkeypatch.setattr(unit, "SYSTEM_STATE", tmp_path / "state")
    monkeypatch.setattr(unit, "VENDOR_UNITS", tmp_path / "vendor")
    return tmp_path


@pytest.fixture
def fake_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that tells the ``state`` in this directory, and notes ``orders``."""
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncd {program.parent}\n[ "$1" = show ] && exec cat state\necho "$@" >> orders\n'
    )
    program.chmod(0o755)
    (program.parent / "state").write_text("inactive")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program.parent


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ([], Unit()),
        (["--user"], Unit(for_user=True)),
        (["--instance", "a"], Unit(instance="a")),
        (["--user", "--instance", "a"], Unit(for_user=True, instance="a")),
    ],
)
def test_print_prints_the_unit_of_this_installation(
    capsys: pytest.CaptureFixture[str], arguments: list[str], kind: Unit
) -> None:
    assert 0 == main(["systemd", "print", *arguments])

    assert kind.text(systemd.program()) == capsys.readouterr().out


def test_print_has_what_is_chosen_at_its_end_where_it_wins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    assert 0 == main(["systemd", "print", "--config", "my.toml", "--run-as", "alice"])

    assert capsys.readouterr().out.endswith("\n" + drop_in_text("alice", f"{tmp_path}/my.toml"))


def test_the_program_is_the_script_of_this_environment_or_its_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    assert (sys.executable, "-m", "supervisor") == systemd.program()
    script = tmp_path / "bin" / "kernel-supervisor"
    script.parent.mkdir()
    script.touch(mode=0o755)
    assert (str(script),) == systemd.program()


# Install


def test_install_writes_the_users_unit_and_tells_what_to_type(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["systemd", "install", "--user"])

    written = home / "etc/systemd/user/kernel-supervisor.service"
    assert Unit(for_user=True).text(systemd.program()) == written.read_text()
    assert (0o644, [written]) == (written.stat().st_mode & 0o777, list(written.parent.iterdir()))
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


def test_an_account_is_a_drop_in_of_its_instance_and_no_others(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["systemd", "install", "--instance", "team", "--run-as", "root"])
    assert 0 == main(["systemd", "install", "--instance", "lab", "--run-as", "nobody-has-this-name"])

    assert "User=root" in (home / "system/kernel-supervisor@team.service.d/install.conf").read_text()
    template = (home / "system/kernel-supervisor@.service").read_text()
    assert Unit(instance="team").text(systemd.program()) == template
    told = capsys.readouterr().out
    assert "check --run-as root /etc/kernel-supervisor/team.toml" in told
    assert "systemctl enable --now kernel-supervisor@team" in told
    assert 1 == told.count("useradd --system --create-home --key HOME_MODE=0700")


def test_install_warns_of_an_installation_that_the_account_cannot_read(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.chmod(0o700)
    monkeypatch.setattr(systemd, "program", lambda: (str(home / "bin/kernel-supervisor"),))

    assert 0 == main(["systemd", "install", "--run-as", "nobody"])

    assert "not everyone gets there, and the unit runs as nobody" in capsys.readouterr().err


def test_install_warns_of_another_drop_in_that_says_another_account(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = home / "system/kernel-supervisor.service.d/override.conf"
    edited.parent.mkdir(parents=True)
    edited.write_text("[Service]\nUser=carol\n")

    assert 0 == main(["systemd", "install", "--run-as", "nobody"])

    assert "kernel-supervisor runs as carol, as another drop-in says" in capsys.readouterr().err


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_unit_that_differs_is_shown_and_replaced_only_when_told_and_kept(
    home: Path, capsys: pytest.CaptureFixture[str], is_masked: bool
) -> None:
    there = home / "etc/systemd/user/kernel-supervisor.service"
    there.parent.mkdir(parents=True)
    if is_masked:
        there.symlink_to(os.devnull)
    else:
        there.write_text("[Service]\nNice=5\n")

    assert 1 == main(["systemd", "install", "--user"])

    shown = capsys.readouterr()
    assert f"+++ {there}" in shown.out
    assert "--replace" in shown.err
    assert is_masked == there.is_symlink()
    assert is_masked or "-Nice=5" in shown.out

    for n in (1, 2):
        assert 0 == main(["systemd", "install", "--user", "--replace"])
        assert Unit(for_user=True).text(systemd.program()) == there.read_text()
        kept = there.with_name(f"{there.name}.~{n}~")
        assert kept.is_symlink() if n == 1 and is_masked else "Nice=5" in kept.read_text()
        assert f"what was there is {kept}" in capsys.readouterr().out
        there.write_text("[Service]\nNice=5\n")


def test_an_install_again_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["systemd", "install", "--run-as", "nobody"])
    capsys.readouterr()

    assert 0 == main(["systemd", "install", "--run-as", "nobody"])
    assert 0 == main(["systemd", "install"]), "what was chosen before stays"

    assert 2 == capsys.readouterr().out.count("kernel-supervisor.service is as it is to be.")
    assert "User=nobody" in (home / "system/kernel-supervisor.service.d/install.conf").read_text()


def test_a_dry_run_shows_all_and_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["systemd", "install", "--run-as", "nobody", "--dry-run"])

    shown = capsys.readouterr().out
    assert "--- /dev/null" in shown
    assert "+User=nobody" in shown
    assert not (home / "system").exists()


def test_another_account_than_that_of_the_kernels_takes_replace_and_is_warned_of(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert 0 == main(["systemd", "install", "--run-as", me])
    (home / "state/kernel-supervisor").mkdir(parents=True)
    capsys.readouterr()

    assert 1 == main(["systemd", "install", "--run-as", "nobody"])

    told = capsys.readouterr()
    assert f"-User={me}\n+User=nobody" in told.out
    assert f"it has run as {me} and would run as nobody, which cannot take up the kernels of {me}" in told.err
    assert 0 == main(["systemd", "install", "--run-as", "nobody", "--replace"])


def test_what_cannot_be_written_is_told_with_a_way_out(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "system").write_text("in the way")

    assert 1 == main(["systemd", "install"])

    told = capsys.readouterr().err
    assert f"install: {home}/system/kernel-supervisor.service: File exists: become root" in told


def test_the_unit_gives_the_kernel_that_takes_longest_the_time_to_stop_and_tells_when_that_changes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "kernels.toml"
    kernel = '[kernels.{}]\nkernelspec = "python3"\nstop_timeout = {}\n'
    file.write_text(kernel.format("a", 10) + kernel.format("b", 60))
    drop_in = home / "system/kernel-supervisor.service.d/install-timeout.conf"
    install = ["systemd", "install", "--config", str(file)]
    assert 0 == main(install)
    assert not drop_in.exists(), "the unit's own is enough"

    file.write_text(kernel.format("a", 10) + kernel.format("b", 299.5))
    assert 0 == main(install)

    assert drop_in.read_text().endswith("[Service]\nTimeoutStopSec=330\n")
    file.write_text(kernel.format("a", 600))
    assert 1 == main(install)
    told = capsys.readouterr()
    assert "-TimeoutStopSec=330\n+TimeoutStopSec=630\n" in told.out
    assert f"{drop_in} would change" in told.err
    for text in ("", "[kernels.a", kernel.format("a", "-1")):
        file.write_text(text)
        assert 0 == main(install), "what is not to be read is the affair of check"
    assert 0 == main(["systemd", "uninstall"])
    assert not drop_in.exists()


def test_a_unit_that_a_package_has_put_there_is_not_written_again(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = home / "vendor/system/kernel-supervisor.service"
    packaged.parent.mkdir(parents=True)
    packaged.write_text(Unit().text(systemd.program()))

    assert 0 == main(["systemd", "install"])
    assert f"{packaged} is as it is to be" in capsys.readouterr().out
    assert 0 == main(["systemd", "install", "--run-as", "nobody"])

    assert "It runs the kernels of /etc/kernel-supervisor/kernels.toml" in capsys.readouterr().out
    written = [path for path in (home / "system").rglob("*") if path.is_file()]
    assert [home / "system/kernel-supervisor.service.d/install.conf"] == written
    packaged.write_text("[Service]\n")
    assert 0 == main(["systemd", "install"]), "another's is no reason to have none"
    assert Unit().text(systemd.program()) == (home / "system/kernel-supervisor.service").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["remove"],
        ["print", "--nonsense"],
        ["print", "--instance", "a/b"],
        ["print", "--instance", "a", "--config", "x.toml"],
        ["print", "--user", "--run-as", "alice"],
        ["print", "--run-as", "alice\nExecStartPre=/bin/false"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(arguments: list[str]) -> None:
    assert 2 == main(["systemd", *arguments])


# Uninstall


def test_uninstall_removes_what_install_wrote_and_purge_what_the_service_kept(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    output = home / ".local/state/kernel-supervisor/output"
    output.mkdir(parents=True)
    units = home / "etc/systemd/user"
    for arguments in (["--config", "a.toml"], ["--config", "b.toml", "--replace"]):
        assert 0 == main(["systemd", "install", "--user", *arguments])
    before = sorted(units.rglob("*"))

    assert 0 == main(["systemd", "uninstall", "--user", "--dry-run", "--purge"])
    assert before == sorted(units.rglob("*"))
    assert 0 == main(["systemd", "uninstall", "--user"])

    assert [units / "kernel-supervisor.service.d"] == list(units.rglob("*"))
    assert output.is_dir()
    assert "systemctl --user daemon-reload" in capsys.readouterr().out
    assert 0 == main(["systemd", "uninstall", "--user", "--purge"])
    assert [] == [*units.iterdir(), *(home / ".local/state").iterdir()]
    assert 0 == main(["systemd", "uninstall", "--user", "--purge"])
    assert "there is nothing of kernel-supervisor" in capsys.readouterr().out


def test_the_template_stays_as_long_as_another_instance_needs_it(home: Path) -> None:
    for name in ("a", "b"):
        assert 0 == main(["systemd", "install", "--instance", name, "--run-as", "nobody"])
    template = home / "system/kernel-supervisor@.service"

    assert 0 == main(["systemd", "uninstall", "--instance", "a", "--purge"])
    assert template.exists()
    assert 0 == main(["systemd", "uninstall", "--instance", "b", "--purge"])

    assert [] == list((home / "system").iterdir())


def test_what_is_enabled_is_not_removed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["systemd", "install"])
    link = home / "system/multi-user.target.wants/kernel-supervisor.service"
    link.parent.mkdir()
    link.symlink_to(home / "system/kernel-supervisor.service")

    assert 1 == main(["systemd", "uninstall"])

    assert "systemctl disable --now kernel-supervisor" in capsys.readouterr().err


def alive(state_dir: Path) -> Path:
    """The records of a kernel that lives."""
    from supervisor.process.identity import identify

    process = identify(os.getpid())
    records = state_dir / "kernels"
    records.mkdir(parents=True)
    fields = f'"pid":{process.pid},"start_time":{process.start_time},"boot_id":"{process.boot_id}"'
    (records / "robot.json").write_text(f'{{"process":{{{fields}}}}}')
    return records


def test_records_of_living_kernels_are_not_purged(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = alive(home / ".local/state/kernel-supervisor")
    for n, text in enumerate(["", "[]", '{"process":null}', '{"process":{"pid":1}}', '{"pid":1}']):
        (records / f"none{n}.json").write_text(text)

    assert 1 == main(["systemd", "uninstall", "--user", "--purge"])

    assert "kernels live on: robot" in capsys.readouterr().err
    assert records.is_dir()


# Clean


def test_clean_has_nothing_to_do_without_living_kernels(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["systemd", "clean", "--user"])

    assert "no kernel of kernel-supervisor lives\n" == capsys.readouterr().out


@pytest.mark.parametrize("state", ["active", "activating"])
def test_clean_leaves_a_service_alone_that_is_up(
    home: Path, capsys: pytest.CaptureFixture[str], fake_systemctl: Path, state: str
) -> None:
    (fake_systemctl / "state").write_text(state)

    assert 1 == main(["systemd", "clean", "--instance", "lab"])

    assert "to end them: systemctl stop kernel-supervisor@lab" in capsys.readouterr().err


def test_clean_starts_and_stops_it_so_that_a_daemon_ends_them_in_order(
    home: Path, fake_systemctl: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alive(home / "state/kernel-supervisor")

    assert 0 == main(["systemd", "clean", "--dry-run"])
    assert not (fake_systemctl / "orders").exists()
    assert 0 == main(["systemd", "clean"])

    assert "start kernel-supervisor\nstop kernel-supervisor\n" == (fake_systemctl / "orders").read_text()
    assert "living: robot" in capfd.readouterr().out


# The service, from its first moment


def test_an_order_by_signal_that_comes_while_the_daemon_is_imported_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held_back: set[signal.Signals] = set()

    class Imported(types.ModuleType):
        @staticmethod
        def live(*_: object, **__: object) -> int:
            held_back.update(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            return 0

    imported = Imported("supervisor.daemon.life")
    monkeypatch.setitem(sys.modules, "supervisor.daemon.life", imported)
    monkeypatch.setattr(import_module("supervisor.daemon"), "life", imported, raising=False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert 0 == main(["run", str(tmp_path / "kernels.toml")])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2} <= held_back
