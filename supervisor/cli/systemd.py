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
from pathlib import Path
from typing import NoReturn

from supervisor.cli.exits import DONE, FAILED, USAGE, Quit
from supervisor.cli.screen import complain, say
from supervisor.cli.unit_text import NAME, USER, Unit, literal

SYSTEM_UNITS = Path("/etc/systemd/system")
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*[$]?")


def main(args: list[str]) -> int:
    """Carry out ``print`` or ``install``; returns the exit code.

    Raises Quit, and SystemExit(2) for arguments that do not parse.
    """
    arguments = parser().parse_args(args)
    unit = _unit(arguments)
    try:
        text = unit.render()
    except ValueError as mistake:
        raise Quit(FAILED, f"systemd: {mistake}") from None
    if arguments.action == "print":
        sys.stdout.write(text)
        return DONE
    path = unit_directory(os.environ, for_user=unit.for_user) / unit.file_name
    try:
        _write(path, text)
    except OSError as error:
        hint = "" if unit.for_user else f'become root, or use "{NAME} systemd install --user"'
        raise Quit(FAILED, f"systemd: cannot write {path}: {error.strerror}", hint) from None
    say(f"{path} is written.\n\n{next_steps(unit, arguments.instance)}")
    for remark in _remarks(unit):
        complain(f"warning: {remark}")
    return DONE


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    found = argparse.ArgumentParser(
        prog=f"{NAME} systemd",
        description="Print or install a systemd unit with the paths of this installation.",
        allow_abbrev=False,
    )
    found.add_argument("action", choices=("print", "install"), help="to stdout, or to where systemd looks")
    found.add_argument("--user", action="store_true", help="a unit for your own systemd, not the system's")
    found.add_argument("--config", metavar="FILE", help="the configuration that it runs")
    found.add_argument(
        "--instance", metavar="NAME", help="the template instead: one service for each file beside NAME.toml"
    )
    found.add_argument("--run-as", metavar="ACCOUNT", help=f"the account of the kernels ({USER})")
    return found


def _unit(arguments: argparse.Namespace) -> Unit:
    """The unit that is meant.  Raises Quit where that makes no sense."""
    instance, config, run_as = arguments.instance, arguments.config, arguments.run_as
    if instance is not None and not _INSTANCE.fullmatch(instance):
        _refuse(f"--instance: {instance!r} has other signs than letters, digits, '.', '_' and '-'")
    if instance is not None and config is not None:
        _refuse("--config: the file of an instance is named by the instance", "leave one of them out")
    if arguments.user and run_as is not None:
        _refuse("--run-as: a user's own systemd runs everything as that user", "leave it out")
    if run_as is not None and not _ACCOUNT.fullmatch(run_as):
        _refuse(f"--run-as: {run_as!r} is not the name of an account")
    return Unit(
        for_user=arguments.user,
        is_template=instance is not None,
        program=program(),
        config=literal(str(Path(config).absolute())) if config is not None else None,
        run_as=run_as or USER,
    )


def _refuse(message: str, hint: str = "") -> NoReturn:
    raise Quit(USAGE, f"systemd: {message}", hint)


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
    manager = " --user" if unit.for_user else ""
    config = _readable(unit, instance)
    there = "" if os.path.exists(config) else ", which is not there yet: write it first"  # noqa: PTH110
    steps = [f"{shlex.join(unit.program)} check {shlex.quote(config)}"]
    if unit.for_user:
        steps.append("loginctl enable-linger    # so that it does not end when you log out")
    elif not _account_exists(unit.run_as):
        steps.append(f"useradd --system --create-home --shell /usr/sbin/nologin {shlex.quote(unit.run_as)}")
    steps += [
        f"systemctl{manager} daemon-reload",
        f"systemctl{manager} enable --now {name}",
        f"systemctl{manager} status {name}",
        f"journalctl{manager} --unit {name} --follow",
    ]
    lines = [f"It runs the kernels of {config}{there}.", "What to type next:", ""]
    lines += [f"  {step}" for step in steps]
    lines += [
        "",
        f'"systemctl{manager} restart {name}" leaves the kernels running, "stop" stops them.',
        f'To change the unit, use "systemctl{manager} edit {name}": another install writes the file anew.',
    ]
    return "\n".join(lines)


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
        f"{place}: not everyone gets there, and the unit runs as {unit.run_as}: "
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
