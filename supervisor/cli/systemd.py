"""``kernel-supervisor systemd``: prints, installs or removes the unit of this very installation.

Owns what becomes of files that are there already, and the words about what to
type next; what is in a unit is ``unit``'s.  Enables and reloads nothing: that is
the person's to type.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import unified_diff
from itertools import count
from pathlib import Path

from supervisor.cli.account import account_exists
from supervisor.cli.exits import DONE, FAILED, Quit
from supervisor.cli.screen import complain, say
from supervisor.cli.unit import NAME, Unit, drop_in_text, read, timeout_text
from supervisor.core.model import ProcessId
from supervisor.disk.files import write_atomically
from supervisor.process.identity import current_boot_id, is_running

_HOME_OF_ITS_OWN = "--create-home --key HOME_MODE=0700 --shell /usr/sbin/nologin"


def systemd(arguments: Namespace) -> int:
    """Carry out ``print``, ``install``, ``clean`` or ``uninstall``."""
    unit = Unit(arguments.user, arguments.instance)
    if arguments.action == "clean":
        return _clean(unit, arguments)
    if arguments.action == "uninstall":
        return _uninstall(unit, arguments)
    wanted = _wanted(unit, arguments)
    if arguments.action == "print":
        sys.stdout.write("\n".join(wanted.values()))
        return DONE
    return _install(unit, wanted, arguments)


def _wanted(unit: Unit, arguments: Namespace) -> dict[Path, str]:
    """The files of an installation: the unit, what is chosen for this one, and what follows from it."""
    config = str(Path(arguments.config).absolute()) if arguments.config else None
    try:
        texts = unit.text(program()), drop_in_text(arguments.run_as, config)
        "".join(texts).encode()
    except ValueError as mistake:
        raise Quit(FAILED, f"systemd: {mistake}") from None
    wanted = {path: text for path, text in zip(unit.files, texts, strict=True) if text}
    if timeout := timeout_text(_longest_stop(unit.config(wanted))):
        wanted[unit.timeout] = timeout
    if arguments.action == "install" and read(unit.vendor) == texts[0] and not os.path.lexists(unit.path):
        del wanted[unit.path]  # a package has it there already
    return wanted


def _longest_stop(config: str) -> float:
    """How long the kernels of a configuration may take to stop, 0 if it has mistakes or is not there."""
    from supervisor.settings.file import ConfigError, load

    try:
        return max((kernel.longest_stop for kernel in load(config).config.kernels.values()), default=0)
    except ConfigError:
        return 0


def program() -> tuple[str, ...]:
    """The command that is running now, so that systemd finds the same installation without any PATH."""
    script = Path(sys.prefix, "bin", NAME)
    # Not resolved: a tool's link to its newest installation is to be followed at each start.
    return (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-m", "supervisor")


# Install


def _install(unit: Unit, wanted: dict[Path, str], arguments: Namespace) -> int:
    account = unit.account(wanted)
    differing = {path: text for path, text in wanted.items() if read(path) != text}
    edited = [path for path in differing if os.path.lexists(path)]
    owner = _other_owner(unit, account) if differing else ""
    if arguments.dry_run or ((edited or owner) and not arguments.replace):
        sys.stdout.write("".join(_diff(path, text) for path, text in differing.items()))
    if owner:
        complain(
            f"warning: it has run as {owner} and would run as {account}, which cannot take up the kernels "
            f'of {owner}: have none left: "systemctl stop {unit.name}" comes first'
        )
    if arguments.dry_run:
        say("nothing is written" if differing else "all is as it would be written")
        return DONE
    if (edited or owner) and not arguments.replace:
        which = " and ".join(map(str, edited)) or f"the account of {unit.name}"
        raise Quit(FAILED, f"systemd: {which} would change", "--replace does it, and keeps the old file")
    for path, text in differing.items():
        with _told(path, "install", unit):
            say(f"{path} is written{_write(path, text)}.")
    there = unit.path if unit.path in wanted else unit.vendor
    say(f"\n{next_steps(unit, account, wanted)}" if differing else f"{there} is as it is to be.")
    for remark in _remarks(unit, account, arguments.run_as):
        complain(f"warning: {remark}")
    return DONE


@contextmanager
def _told(path: Path, what: str, unit: Unit) -> Iterator[None]:
    """Say of an OSError which file it is about, and what helps."""
    try:
        yield
    except OSError as error:
        hint = "" if unit.for_user else f'become root, or use "{NAME} systemd {what} --user"'
        raise Quit(FAILED, f"systemd: {what}: {path}: {error.strerror}", hint) from None


def _diff(path: Path, text: str) -> str:
    old = read(path)
    was, is_ = ((lines or "").splitlines(keepends=True) for lines in (old, text))
    return "".join(unified_diff(was, is_, "/dev/null" if old is None else str(path), str(path)))


def _other_owner(unit: Unit, account: str) -> str:
    """Whose the service's files are, if they are another account's than it would run as."""
    try:
        owner = unit.state_dir.owner()
    except (OSError, KeyError):
        return ""
    return "" if unit.for_user or owner == account else owner


def _write(path: Path, text: str) -> str:
    """Put the file in place; tells where the one before it is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = ""
    if os.path.lexists(path):
        # As `cp --backup=numbered` has it; systemd reads no files of such names.
        old = next(place for n in count(1) if not os.path.lexists(place := Path(f"{path}.~{n}~")))
        shutil.copy2(path, old, follow_symlinks=False)
        kept = f", what was there is {old}"
    write_atomically(path, text.encode(), 0o644)
    return kept


def next_steps(unit: Unit, account: str, wanted: Mapping[Path, str]) -> str:
    """What to type after ``install``, one step a line."""
    manager, name, config = " --user" if unit.for_user else "", unit.name, unit.config(wanted)
    there = "" if os.path.exists(config) else ", which is not there yet: write it first"  # noqa: PTH110
    first, judge = f"  useradd --system {_HOME_OF_ITS_OWN} {shlex.quote(account)}\n", ["--run-as", account]
    if unit.for_user:
        first, judge = "  loginctl enable-linger    # so that it does not end when you log out\n", []
    elif account_exists(account):
        first = ""
    return f"""\
It runs the kernels of {config}{there}.
What to type next:

{first}\
  {shlex.join([*program(), "check", *judge, config])}
  systemctl{manager} daemon-reload
  systemctl{manager} enable --now {name}
  systemctl{manager} status {name}
  journalctl{manager} --unit {name} --follow

"systemctl{manager} restart {name}" leaves the kernels running, "stop" stops them.
To change the unit, use "systemctl{manager} edit {name}"."""


def _remarks(unit: Unit, account: str, wanted: str | None) -> list[str]:
    """What will keep the unit from working as it is meant."""
    if unit.for_user or account == "root":
        return []
    remarks, place = [], Path(program()[0])
    if wanted not in (None, account):
        remarks.append(f"{unit.name} runs as {account}, as another drop-in says: systemctl cat {unit.name}")
    if _is_closed(place):
        remarks.append(
            f"{place}: not everyone gets there, and the unit runs as {account}: "
            f"install {NAME} where everyone may read it, such as /opt/{NAME}, or give --run-as"
        )
    return remarks


def _is_closed(place: Path) -> bool:
    """Whether a directory on the way is closed to all but its owner and group."""
    try:
        # The interpreter counts as well: a script is of no use without it.
        ways = [place.resolve(), Path(sys.executable).resolve(), place.absolute()]
        return any(not parent.stat().st_mode & 0o001 for way in ways for parent in way.parents)
    except OSError:
        return True


# Clean and uninstall


def _clean(unit: Unit, arguments: Namespace) -> int:
    """End the kernels of a service that was stopped while no daemon was there to stop them."""
    manager = ["--user"] if unit.for_user else []
    if _is_up(unit):
        hint = shlex.join(["systemctl", *manager, "stop", unit.name])
        raise Quit(FAILED, f"systemd: {unit.name} is up, and looks after its kernels", f"to end them: {hint}")
    living = _living(unit.state_dir)
    say(f"living: {', '.join(living)}" if living else f"no kernel of {unit.name} lives")
    for verb in ("start", "stop") if living and not arguments.dry_run else ():
        # A daemon takes them up, and ends them in order: each is asked first.
        command = ["systemctl", *manager, verb, unit.name]
        if subprocess.run(command, check=False).returncode:
            raise Quit(FAILED, f"systemd: {shlex.join(command)} failed", f"journalctl --unit {unit.name}")
    return DONE


def _uninstall(unit: Unit, arguments: Namespace) -> int:
    manager = " --user" if unit.for_user else ""
    if _is_up(unit) or any(unit.place.glob(f"*.wants/{unit.name}.service")):
        hint = f"systemctl{manager} disable --now {unit.name}"
        raise Quit(FAILED, f"systemd: {unit.name} is up, or is to be", hint)
    if arguments.purge and (living := _living(unit.state_dir)):
        hint = f'"systemctl{manager} start {unit.name}" and then "stop" end them in order'
        raise Quit(FAILED, f"systemd: kernels live on: {', '.join(living)}", hint)
    doomed = [path for path in _doomed(unit, purge=arguments.purge) if os.path.lexists(path)]
    for path in doomed:
        if not arguments.dry_run:
            with _told(path, "uninstall", unit):
                _remove(path)
        say(f"{path} {'would be' if arguments.dry_run else 'is'} removed")
    if not doomed:
        say(f"there is nothing of {unit.name}")
    elif not arguments.dry_run:
        say(f"systemctl{manager} daemon-reload    # is what to type next")
    return DONE


def _doomed(unit: Unit, *, purge: bool) -> Iterator[Path]:
    """What is to be removed; the template stays as long as another instance is enabled or has settings."""
    yield from (unit.drop_in, unit.timeout, *unit.drop_in.parent.glob("*~"))
    mine = unit.drop_in.parent.name
    others = [*unit.place.glob(f"{NAME}@?*.service.d"), *unit.place.glob(f"*.wants/{NAME}@?*.service")]
    if unit.instance is None or not [path for path in others if path.name != mine]:
        yield from (unit.path, *unit.place.glob(f"{unit.path.name}.~*~"))
    if purge:
        yield from (unit.drop_in.parent, unit.state_dir, unit.runtime_dir)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_up(unit: Unit) -> bool:
    """Whether systemd has it, or will have it in a moment; not, where there is no systemd."""
    manager = ["--user"] if unit.for_user else []
    words = ["systemctl", *manager, "show", "--property=ActiveState", "--value", f"{unit.name}.service"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.stdout.strip() not in ("inactive", "failed", "")


def _living(state_dir: Path) -> list[str]:
    """The kernels whose process on record lives."""
    living = []
    for file in sorted((state_dir / "kernels").glob("*.json")):
        try:
            process = json.loads(file.read_bytes())["process"]
            # Of whatever boot: within the unit and outside of it, its id may differ in a container.
            if process and is_running(ProcessId(process["pid"], process["start_time"], current_boot_id())):
                living.append(file.stem)
        except (OSError, ValueError, TypeError, KeyError):
            continue  # nothing is known of a process
    return living
