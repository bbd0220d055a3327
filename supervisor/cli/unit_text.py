"""The systemd units as text: every directive, and why it is there.

The single source of the files in ``systemd/`` and of what ``kernel-supervisor
systemd`` writes.  Knows nothing of the machine.  The rules are those of
systemd.service(5), systemd.exec(5) and systemd.kill(5), as of systemd 252.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

NAME = "kernel-supervisor"
PROGRAM = (f"/opt/{NAME}/bin/{NAME}",)
USER = NAME


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: for the system or for a user's own manager, for one file or one for many.

    ``program`` is the command, word by word.  ``config`` is the file, ``None``
    for the usual place; in a template it has ``%i`` where the instance's name goes.
    """

    for_user: bool = False
    is_template: bool = False
    program: tuple[str, ...] = PROGRAM
    config: str | None = None
    run_as: str = USER

    @property
    def file_name(self) -> str:
        """The name of the unit file."""
        return f"{NAME}@.service" if self.is_template else f"{NAME}.service"

    @property
    def config_path(self) -> str:
        """The configuration, in the unit's own language: specifiers are not filled in."""
        if self.config is not None:
            return self.config
        base = "%E" if self.for_user else "/etc"
        return f"{base}/{NAME}/{'%i' if self.is_template else 'kernels'}.toml"

    @property
    def directory(self) -> str:
        """The name of the unit's directories.

        Those of instances are siblings, not one inside the other: each may
        belong to another user.
        """
        return f"{NAME}-%i" if self.is_template else NAME

    def render(self) -> str:
        """The text of the unit file."""
        parts = [self._head(), _SERVICE, self._identity(), self._directories(), _LIMITS]
        if not self.for_user:
            parts.append(_HARDENING)
        parts.append(f"[Install]\nWantedBy={'default' if self.for_user else 'multi-user'}.target\n")
        values = {
            "run": command((*self.program, "run")),
            "reload": command((*self.program, "reload")),
            "config": quoted(f"KERNEL_SUPERVISOR_CONFIG={self.config_path}"),
            "directory": self.directory,
            "user": self.run_as,
        }
        text = "\n".join(part for part in parts if part)
        return re.sub(r"\{([a-z]+)\}", lambda found: values[found[1]], text)

    def _head(self) -> str:
        of = " (%i)" if self.is_template else ""
        after = "" if self.for_user else _AFTER
        return _HEAD.replace("{of}", of) + after

    def _identity(self) -> str:
        return "" if self.for_user else _IDENTITY

    def _directories(self) -> str:
        text = _STATE_OF_USER if self.for_user else _STATE
        if self.for_user and not self.is_template:
            text = ""  # without an instance to tell apart, the usual places are right
        text += _RUNTIME
        if self.is_template or not self.for_user:
            text += _CONNECTION_FILES
        return text


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


_HEAD = """\
# Kernel Supervisor keeps Jupyter kernels alive at a stable address.
# Yours to change by "systemctl edit": lines there win, and survive an upgrade.

[Unit]
Description=Kernel Supervisor{of}

# A crash loop never ends in "failed", where kernels would live on and nobody
# would look after them; RestartSec= keeps it slow.
StartLimitIntervalSec=0
"""

_AFTER = """
# When the machine goes down, kernels stop while there still is a network.
After=network.target nss-user-lookup.target
"""

_SERVICE = """\
[Service]
# READY is told when the control socket is open and the first kernels are being
# started; the status line counts them.
Type=notify
# Only the daemon itself speaks to systemd: a kernel cannot say READY in its place.
NotifyAccess=main

# One place for the file, for the daemon and for "reload".
Environment={config}
ExecStart={run} ${KERNEL_SUPERVISOR_CONFIG}
# Waits until the file is accepted, or makes "systemctl reload" fail and tells
# why in the journal; the service goes on with what it had. A bare SIGHUP could
# tell neither.
ExecReload={reload}

# Signals go to the daemon alone. It stops the kernels itself: each is asked
# first, and no memory is lost by a mere restart of the daemon.
KillMode=process
# "stop" means: stop all kernels, then exit.
KillSignal=SIGTERM
# "restart" means: exit and leave the kernels to the next daemon, which takes
# them up with pid, ports and memory.
RestartKillSignal=SIGUSR2
# The daemon asks for more time as long as it waits for kernels with a longer
# stop_timeout; this is for one that does not.
TimeoutStopSec=90

# After a crash, soon: kernels live on meanwhile, but nobody revives or stops them.
Restart=on-failure
RestartSec=500ms
# 78: the configuration is bad. Another attempt would not mend it.
RestartPreventExitStatus=78

# Fed by the daemon's one loop: a loop that hangs is killed and started again,
# which costs no kernel anything. SIGABRT, so that it tells where it hung.
WatchdogSec=30
WatchdogSignal=SIGABRT
# ... and SIGKILL, should writing the core dump take longer than this.
TimeoutAbortSec=20
"""

_IDENTITY = """\
# Kernels run code that people send them: an account of its own, or, where the
# kernels are one person's, that person's ("systemctl edit" and User=NAME). Not
# DynamicUser=: files that user code makes must still have an owner tomorrow.
User={user}
# Where relative paths of user code begin, unless a kernel has its own cwd.
WorkingDirectory=~
"""

_STATE = """\
# Records, events and output of the kernels: /var/lib/{directory}.
StateDirectory={directory}
# Output of user code is nobody else's to read.
StateDirectoryMode=0700
"""

_STATE_OF_USER = """\
# Records, events and output of the kernels. Not StateDirectory=: before
# systemd 254 that is below ~/.config in a user's manager.
Environment=STATE_DIRECTORY=%h/.local/state/{directory}
"""

_RUNTIME = """\
# The control socket: %t/{directory}/control.sock.
RuntimeDirectory={directory}
RuntimeDirectoryMode=0700
# Kernels outlive the daemon, and their clients need what is in it meanwhile.
RuntimeDirectoryPreserve=yes
"""

_CONNECTION_FILES = """\
# Connection files, where "jupyter console --existing NAME" finds them once it
# has the same variable. A directory of its own, so that kernels of the same
# name in two units do not overwrite each other's.
Environment=JUPYTER_RUNTIME_DIR=%t/{directory}/jupyter
"""

_LIMITS = """\
# A kernel that the OOM killer ends is revived and reported; the service goes on.
OOMPolicy=continue
# Its evidence is the count of OOM kills that the unit's cgroup keeps.
MemoryAccounting=yes
# systemd-oomd ends whole units, which is all kernels at once: rather not this one.
ManagedOOMPreference=avoid
# The daemon keeps about ten descriptors for each kernel, and user code wants its
# own: 1024 is too few. The second number is what user code may raise it to.
LimitNOFILE=16384:524288
"""

_HARDENING = """\
# User code must find the machine as it is. What follows takes away only what an
# account without privileges has no use for; docs/systemd.md tells what else was
# weighed, and what it would break.
# No way up through a setuid program. Where user code needs sudo, set this to "no"
# and the next to "~". (What would bring it back, unasked, is not in this unit:
# ProtectKernel...=, Restrict...=, SystemCall...=, LockPersonality=,
# MemoryDenyWriteExecute=, PrivateDevices=, ProtectClock=, ProtectHostname=,
# DynamicUser=; systemd.exec(5) has the list.)
NoNewPrivileges=yes
# Nor capabilities, however they might be come by: nobody loads a kernel module,
# sets the clock or writes to a raw device.
CapabilityBoundingSet=
# /usr, /boot and /etc are read-only; /home, /srv, /tmp and the rest are not.
ProtectSystem=full
# Nobody writes its own limits, or the count of OOM kills.
ProtectControlGroups=yes
"""


def all_units() -> dict[str, Unit]:
    """The units as they are shipped, by their path below ``systemd/``."""
    shipped: dict[str, Unit] = {}
    for for_user in (False, True):
        for is_template in (False, True):
            unit = Unit(for_user=for_user, is_template=is_template)
            shipped[("user/" if for_user else "") + unit.file_name] = unit
    return shipped


def write_all(directory: Path) -> None:
    """Write the units as they are shipped: ``python -m supervisor.cli.unit_text systemd``."""
    for path, unit in all_units().items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(unit.render(), "utf-8")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
