"""``kernel-supervisor systemd``: prints or installs a unit for this very installation.

Owns the paths that a unit needs and the words about what to type next; the
text of the units is ``unit_text``'s.  Starts, enables and reloads nothing:
that is the person's to type.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from supervisor.unit_text import NAME, USER, Unit, literal

DONE, FAILED = 0, 1
SYSTEM_UNITS = Path("/etc/systemd/system")
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def main(args: list[str]) -> int:
    """Carry out ``print`` or ``install``; returns the exit code, and raises SystemExit(2) for wrong usage."""
    arguments = _parser().parse_args(args)
    try:
        unit = _unit(arguments)
        text = unit.render()
    except ValueError as mistake:
        return _fail(str(mistake))
    if arguments.action == "print":
        sys.stdout.write(text)
        return DONE
    path = unit_directory(os.environ, for_user=unit.for_user) / unit.file_name
    try:
        _write(path, text)
    except OSError as error:
        hint = "" if unit.for_user else f': become root, or use "{NAME} systemd install --user"'
        return _fail(f"cannot write {path}: {error.strerror}{hint}")
    sys.stdout.write(f"{path} is written.\n\n{next_steps(unit, arguments.instance)}")
    for remark in _remarks(unit):
        sys.stderr.write(f"{NAME}: warning: {remark}\n")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{NAME} systemd",
        description="Print or install a systemd unit with the paths of this installation.",
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=("print", "install"), help="to stdout, or to where systemd looks")
    parser.add_argument("--user", action="store_true", help="a unit for your own systemd, not the system's")
    parser.add_argument("--config", metavar="FILE", help="the configuration that it runs")
    parser.add_argument(
        "--instance", metavar="NAME", help="the template instead: one service for each file beside NAME.toml"
    )
    parser.add_argument("--run-as", metavar="ACCOUNT", help=f"the account of the kernels ({USER})")
    return parser


def _unit(arguments: argparse.Namespace) -> Unit:
    """The unit that is meant.  Raises ValueError where that makes no sense."""
    if arguments.instance is not None and not _INSTANCE.fullmatch(arguments.instance):
        raise ValueError(f"--instance: {arguments.instance!r} is not made of letters, digits, '.', '_', '-'")
    if arguments.instance is not None and arguments.config is not None:
        raise ValueError("--config: an instance's file is named by the instance: leave one of them out")
    if arguments.user and arguments.run_as is not None:
        raise ValueError("--run-as: a user's own systemd runs everything as that user: leave it out")
    unit = Unit(for_user=arguments.user, is_template=arguments.instance is not None, program=program())
    if arguments.config is not None:
        unit = replace(unit, config=literal(str(Path(arguments.config).absolute())))
    if arguments.run_as is not None:
        if not re.fullmatch(r"[\w.-]+", arguments.run_as):
            raise ValueError(f"--run-as: {arguments.run_as!r} is not the name of an account")
        unit = replace(unit, run_as=arguments.run_as)
    return unit


def program() -> tuple[str, ...]:
    """The command that is running now, so that systemd finds the same installation without any PATH."""
    script = Path(sys.prefix, "bin", NAME)
    # Not resolved: a tool's link to its newest installation is to be followed at each start.
    return (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-m", "supervisor")


def unit_directory(environ: Mapping[str, str], *, for_user: bool) -> Path:
    """Where systemd looks for units that an administrator, or a user, put there (systemd.unit(5))."""
    if not for_user:
        return SYSTEM_UNITS
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"


def _write(path: Path, text: str) -> None:
    """Put the whole file in place, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, "utf-8")
        new.chmod(0o644)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def next_steps(unit: Unit, instance: str | None = None) -> str:
    """What to type after ``install``, one step a line."""
    name = f"{NAME}@{instance}" if instance else NAME
    systemctl, logs = (
        ("systemctl --user", "journalctl --user") if unit.for_user else ("systemctl", "journalctl")
    )
    config = _readable(unit, instance)
    steps = [f"{shlex.join(unit.program)} check {shlex.quote(config)}    # the kernels that it is to run"]
    if not unit.for_user and not _account_exists(unit.run_as):
        steps.append(
            f"useradd --system --home-dir /var/lib/{NAME} --shell /usr/sbin/nologin {shlex.quote(unit.run_as)}"
        )
    if unit.for_user:
        steps.append("loginctl enable-linger    # kernels go on after you log out")
    steps += [
        f"{systemctl} daemon-reload",
        f"{systemctl} enable --now {name}",
        f"{systemctl} status {name}",
        f"{logs} --unit {name} --follow    # of one kernel: {logs} KERNEL=NAME",
    ]
    lines = ["What to type next:", "", *(f"  {step}" for step in steps), ""]
    lines += [
        f'"{systemctl} restart {name}" leaves the kernels running; "stop" stops them.',
        f'Change the unit with "{systemctl} edit {name}": another install overwrites the file.',
    ]
    return "\n".join(lines) + "\n"


def _readable(unit: Unit, instance: str | None) -> str:
    """The configuration's path as a person types it."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    path = unit.config_path.replace("%E", home)
    return path.replace("%i", instance or "NAME").replace("%%", "%")


def _account_exists(name: str) -> bool:
    try:
        import pwd

        pwd.getpwnam(name)
    except (ImportError, KeyError):
        return False
    return True


def _remarks(unit: Unit) -> list[str]:
    """What will keep the unit from working."""
    place = Path(unit.program[0])
    if unit.for_user or unit.run_as == "root" or not _is_closed(place):
        return []
    return [
        f"{place}: only its owner gets there, and the unit runs as {unit.run_as}: "
        f"install {NAME} where everyone may read it, such as /opt/{NAME}, or give --run-as"
    ]


def _is_closed(place: Path) -> bool:
    """Whether a directory on the way is closed to all but its owner and group."""
    try:
        # The interpreter counts as well: a script is of no use without it.
        ways = [place.resolve(), Path(sys.executable).resolve(), place.absolute()]
        return any(not parent.stat().st_mode & 0o001 for way in ways for parent in way.parents)
    except OSError:
        return True


def _fail(message: str) -> int:
    sys.stderr.write(f"{NAME}: systemd: {message}\n")
    return FAILED
