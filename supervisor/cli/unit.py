"""A systemd unit as files: the shipped one with this installation's program in it, and its drop-in.

Owns where systemd and the service have their files.  The text is the folder's
``systemd/``, which a wheel has as ``supervisor/cli/units``.  Writes nothing.
The rules are those of systemd.unit(5), systemd.service(5) and systemd.exec(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

NAME = "kernel-supervisor"
PROGRAM = f"/opt/{NAME}/bin/{NAME}"
SYSTEM_UNITS = Path("/etc/systemd/system")
VENDOR_UNITS = Path("/usr/lib/systemd")
SYSTEM_STATE = Path("/var/lib")

_CONFIG = re.compile(r'^Environment="?KERNEL_SUPERVISOR_CONFIG=([^"\n]*)', re.MULTILINE)
_ACCOUNT = re.compile(r"^User=(.*)$", re.MULTILINE)

_HEAD = f'# Written by "{NAME} systemd install". Yours go into "systemctl edit", which wins.\n[Service]\n'
_TIMEOUT_STOP = 90  # the units' own
_STOPPING = 30  # after a stop_timeout: SIGTERM, SIGKILL, and the daemon's own end


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: for the system or for a user's own manager; the template's if it has an ``instance``."""

    for_user: bool = False
    instance: str | None = None

    @property
    def name(self) -> str:
        """What is given to ``systemctl``."""
        return NAME if self.instance is None else f"{NAME}@{self.instance}"

    @property
    def directory(self) -> str:
        """The name of its directories; those of instances are siblings, as each may have another owner."""
        return NAME if self.instance is None else f"{NAME}-{self.instance}"

    @property
    def place(self) -> Path:
        """Where systemd looks for units that an administrator, or a user, put there."""
        return config_home() / "systemd/user" if self.for_user else SYSTEM_UNITS

    @property
    def path(self) -> Path:
        """The unit file, which instances share."""
        return self.place / (f"{NAME}.service" if self.instance is None else f"{NAME}@.service")

    @property
    def vendor(self) -> Path:
        """The unit file of a distribution's package; one at ``path`` hides it."""
        return VENDOR_UNITS / ("user" if self.for_user else "system") / self.path.name

    @property
    def drop_in(self) -> Path:
        """What is chosen for this one; that of ``systemctl edit``, ``override.conf``, wins."""
        return self.place / f"{self.name}.service.d" / "install.conf"

    @property
    def timeout(self) -> Path:
        """The drop-in with what follows from the configuration; it does not win either."""
        return self.drop_in.with_name("install-timeout.conf")

    @property
    def state_dir(self) -> Path:
        """The records, events and output of the kernels."""
        return (Path.home() / ".local/state" if self.for_user else SYSTEM_STATE) / self.directory

    @property
    def runtime_dir(self) -> Path:
        """The control socket, and connection files."""
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        return Path(runtime if self.for_user else "/run") / self.directory

    def text(self, program: tuple[str, ...]) -> str:
        """The unit file for this program, word by word.  Raises ValueError, as ``quoted`` does."""
        shipped = units() / ("user" if self.for_user else "") / self.path.name
        return shipped.read_text("utf-8").replace(PROGRAM, command(program))

    def account(self, changed: Mapping[Path, str]) -> str:
        """The account in force with these texts in place of what is there."""
        of_template = self.path.with_name(f"{self.path.name}.d")
        drop_ins = {*self.drop_in.parent.glob("*.conf"), *of_template.glob("*.conf"), *changed} - {self.path}
        files = [self.vendor, self.path, *sorted(drop_ins, key=lambda path: path.name)]
        return (self._found(_ACCOUNT, files, changed) or ["root"])[-1]

    def config(self, changed: Mapping[Path, str]) -> str:
        """The configuration's path as a person types it, with these texts in place of what is there."""
        path = self._found(_CONFIG, (self.vendor, *self.files), changed)[-1].replace("%%", "\0")
        path = path.replace("%E", str(config_home())).replace("%i", self.instance or "")
        return path.replace("\0", "%")

    @property
    def files(self) -> tuple[Path, Path]:
        """What an installation writes."""
        return self.path, self.drop_in

    def _found(
        self, pattern: re.Pattern[str], files: Iterable[Path], changed: Mapping[Path, str]
    ) -> list[str]:
        texts = [changed[path] if path in changed else read(path) or "" for path in files]
        return pattern.findall("\n".join(texts))


def serving(words: tuple[str, ...]) -> str:
    """The unit of the Jupyter server that these words begin.  Raises ValueError, as ``quoted`` does."""
    shipped = units() / "user" / f"{NAME}-serve.service"
    return shipped.read_text("utf-8").replace(f"{PROGRAM} serve", command(words))


def read(path: Path) -> str | None:
    """The text of a regular file, ``None`` if it is none."""
    try:
        return path.read_text("utf-8", "replace") if path.is_file() and not path.is_symlink() else None
    except OSError:
        return None


def units() -> Path:
    """The shipped units: in the package, or beside it in a checkout."""
    inside = Path(__file__).parent / "units"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "systemd"


def config_home() -> Path:
    """Where a user's configurations are."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def drop_in_text(run_as: str | None, config: str | None) -> str:
    """The drop-in with an account and a configuration of its own; ``""`` without either."""
    lines = [f"User={run_as}"] if run_as else []
    if config:
        lines.append(f"Environment={quoted(literal(f'KERNEL_SUPERVISOR_CONFIG={config}'))}")
    return _HEAD + "".join(f"{line}\n" for line in lines) if lines else ""


def timeout_text(stop_timeout: float) -> str:
    """The drop-in for kernels that may take so many seconds to stop; ``""`` where the unit gives enough."""
    seconds = ceil(min(stop_timeout, 1e9)) + _STOPPING
    return f"{_HEAD}TimeoutStopSec={seconds}\n" if seconds > _TIMEOUT_STOP else ""


def quoted(word: str) -> str:
    """A word for a unit file, in quotes where it needs them; specifiers such as ``%i`` stay.

    Raises ValueError for a character that a unit file cannot hold.
    """
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in word):
        raise ValueError(f"{word!r}: a control character cannot be in a unit")
    if re.fullmatch(r"[\w@%+=:,./{}$~-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def literal(path: str) -> str:
    """A path with no specifier in it: each ``%`` is one of its own."""
    return path.replace("%", "%%")


def command(words: tuple[str, ...]) -> str:
    """A command line for a unit file; none of its words has a specifier or a variable in it."""
    first, *rest = (quoted(literal(word)) for word in words)
    return " ".join([first, *(word.replace("$", "$$") for word in rest)])
