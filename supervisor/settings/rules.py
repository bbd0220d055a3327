"""Rules between keys, between kernels, and on what single keys contain.

Owns what types and bounds cannot say.  A rule yields the keys that it is about
and what is wrong; the blame falls on the first of them that the kernel itself
sets, else on ``[defaults]``, so that the message names a line of the file.
Of the machine it asks nothing but who its users are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations
from typing import Any

from supervisor.settings.config import CONNECTION_FILE, EVENTS, KernelConfig, PortsConfig
from supervisor.settings.keys import keys_of
from supervisor.settings.mistakes import closest, dotted, listed, quoted, spelled
from supervisor.settings.values import Path, Tell, Values

Found = Iterator[tuple[tuple[Path, ...], str]]

CHOSEN_IP: str = keys_of(KernelConfig)["ip"].default  # with ipc: the daemon chooses a place
_LONGEST_PREFIX = 100  # of the 107 bytes of a socket's path, unix(7), "-65535" is ours
_LONGEST_SOCKET = 107
# Options of sbatch(1) on which the identity of a job depends, or where its kernel is found.
_OURS = {
    *("--job-name", "-J", "--comment", "--dependency", "-d", "--requeue", "--no-requeue", "--array", "-a"),
    *("--output", "-o", "--error", "-e", "--parsable", "--wrap", "--test-only", "--export", "--chdir", "-D"),
    *("--wait", "-W", "--nodes", "-N", "--ntasks", "-n", "--hold", "-H", "--clusters", "-M"),
}
_CHANNELS = tuple(keys_of(PortsConfig))


@dataclass(frozen=True, slots=True, repr=False)  # it holds the values of environments
class Draft:
    """A kernel as declared: its own keys over those of ``[defaults]`` over the built-in ones.

    ``given`` is its own table as written; ``own`` and ``defaults`` hold what is right in the two,
    ``wrong`` the paths (within the kernel) of what is not.
    """

    name: str
    own: Values
    defaults: Values
    given: Mapping[str, Any]
    wrong: frozenset[Path]
    tell: Tell
    tell_defaults: Tell

    def values(self) -> Values:
        """The merged values: nested tables and the environment key by key."""
        merged: Values = {**self.defaults, **self.own}
        for key, value in self.own.items():
            if isinstance(value, dict) and isinstance(self.defaults.get(key), dict):
                merged[key] = {**self.defaults[key], **value}
        if "argv" in self.given and "kernelspec" not in self.given:
            merged.pop("kernelspec", None)
        if "kernelspec" in self.given and "argv" not in self.given:
            merged.pop("argv", None)
        return merged

    def origins(self) -> dict[str, str]:
        """Where the keys are set that are not as built in: "own" or "defaults"."""
        return {key: "own" if key in self.own else "defaults" for key in self.values()}

    def kernel(self) -> KernelConfig:
        """The settings; keys that are wrong have their default."""
        tables = {name: key.table for name, key in keys_of(KernelConfig).items() if key.table}
        values = self.values()
        values |= {key: table(**values[key]) for key, table in tables.items() if key in values}
        return KernelConfig(name=self.name, **values)

    def tries_command(self) -> bool:
        """Whether a key that is wrong was probably to say what to run."""
        known = keys_of(KernelConfig)
        unknown = [key for key in self.given if key not in known]
        return (
            any(path[0] in ("argv", "kernelspec") for path in self.wrong)
            or any(closest(key, known) in ("argv", "kernelspec") for key in unknown)
            or any(isinstance(self.given[key], dict) for key in unknown)
        )

    def blame(self, paths: tuple[Path, ...], what: str) -> None:
        """Tell a mistake at the first of the paths that was written; not if one of them is wrong anyway."""
        if any(path[:length] in self.wrong for path in paths for length in range(1, len(path) + 1)):
            return
        for values, tell in ((self.own, self.tell), (self.defaults, self.tell_defaults)):
            for path in paths:
                if has(values, path):
                    tell(path, what)
                    return
        self.tell(paths[0], what)


def has(values: Mapping[str, Any], path: Path) -> bool:
    """Whether the values, or the tables in them, have the key at this path."""
    value: Any = values
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


# What single keys contain, in [defaults] as in a kernel.


def check_contents(values: Values, tell: Tell) -> None:
    """Tell what is wrong within single keys of a kernel's table or of ``[defaults]``."""
    argv: tuple[str, ...] = values.get("argv", ())
    for index, argument in enumerate(argv):
        if not argument:
            tell(("argv", index), '"" is empty: remove it')
    if argv and not any(CONNECTION_FILE in argument for argument in argv):
        tell(("argv",), f'does not contain {CONNECTION_FILE}: add it, for example "-f", "{CONNECTION_FILE}"')
    if what := _wrong_home(values.get("cwd", "")):
        tell(("cwd",), what)
    for name in values.get("env", {}):
        if what := _wrong_variable(name):
            tell(("env", name), what)
    _check_slurm(values.get("slurm", {}), tell)


def _check_slurm(slurm: Values, tell: Tell) -> None:
    """What the supervisor says to Slurm by itself cannot be said otherwise, and a line is one line."""
    for index, option in enumerate(slurm.get("extra", ())):
        name = option.partition("=")[0].rstrip()
        if name in _OURS or (name[:2] in _OURS and name[:2] != "--"):
            tell(("slurm", "extra", index), f"{spelled(name)} is said by the supervisor itself: remove it")
        elif not option.startswith("-"):
            todo = "write an option with its value in one string, such as "
            tell(("slurm", "extra", index), f"{spelled(option)}: {todo}" + '"--reservation=lab"')
    for key in ("extra", "setup"):
        for index, line in enumerate(slurm.get(key, ())):
            if "\n" in line:
                tell(("slurm", key, index), "contains a new line: write a string for each")
    if what := _wrong_home(slurm.get("directory", "")):
        tell(("slurm", "directory"), what)


def _wrong_variable(name: str) -> str:
    if not name:
        return "the name of a variable is empty: name it, or remove it"
    if "=" in name or "\0" in name:
        return f"the name of a variable cannot contain {'NUL' if chr(0) in name else spelled('=')}: rename it"
    if name == "JPY_PARENT_PID":
        return "a kernel that is given it exits as soon as that process ends: remove it"
    return ""


def check_hook(values: Values, tell: Tell) -> None:
    """Tell what is wrong within the keys of one of ``[[hooks]]``."""
    for key in ("events", "kernels", "command"):
        for index, text in enumerate(values.get(key, ())):
            if not text:
                tell((key, index), '"" is empty: remove it')
    for index, pattern in enumerate(values.get("events", ())):
        if pattern and not any(fnmatchcase(event, pattern) for event in EVENTS):
            meant = closest(pattern, EVENTS)
            todo = f"did you mean {quoted(meant)}?" if meant else f"there are {listed(EVENTS)}"
            tell(("events", index), f"{spelled(pattern)} is not an event; {todo}")
    program = next(iter(values.get("command", ())), "")
    if what := _wrong_home(program):
        tell(("command", 0), what)


def check_supervisor(values: Values, tell: Tell) -> None:
    """Tell what is wrong within the keys of ``[supervisor]``."""
    for key in ("runtime_dir", "state_dir", "socket"):
        if what := _wrong_home(values.get(key, "")):
            tell((key,), what)
    for key in ("operators", "readers"):
        if (group := values.get(key)) is not None and not _is_group(group):
            tell((key,), f"{spelled(group)}: no group of this name is known here: make it, or mend the name")
    size = len(os.fsencode(values.get("socket", "")))
    if size > _LONGEST_SOCKET:
        tell(
            ("socket",),
            f"a path of {size} bytes; a socket's has at most {_LONGEST_SOCKET}: choose a shorter one",
        )


def _is_group(name: str) -> bool:
    try:
        import grp

        grp.getgrnam(name)
    except (ImportError, KeyError):
        return False
    return True


def _wrong_home(path: str) -> str:
    """What is wrong with a path below ``~``, or ``~USER``, whose directory nobody knows."""
    if not path.startswith("~"):
        return ""
    filled_in = os.path.expandvars(path)
    if os.path.expanduser(filled_in) != filled_in:  # noqa: PTH111 - Path.expanduser raises
        return ""
    unknown = "home directory" if path[1:2] in ("", "/") else "user of this name"
    return f"{spelled(path)}: no {unknown} is known here: write the whole path"


# Rules between the keys of one kernel.


def check_kernel(draft: Draft) -> KernelConfig:
    """Tell which keys of a kernel contradict each other; the kernel's settings all the same."""
    kernel = draft.kernel()
    _check_command(draft, kernel)
    for rule in (_user, _startup, _backoff, _tcp, _ipc, _ports, _slurm):
        for paths, what in rule(kernel):
            draft.blame(paths, what)
    return kernel


def _check_command(draft: Draft, kernel: KernelConfig) -> None:
    both = "argv and kernelspec are both given: keep one of them"
    if {"argv", "kernelspec"} <= draft.given.keys():
        draft.tell(("argv",), both)
    elif kernel.argv is not None and kernel.kernelspec is not None:
        draft.blame((("argv",), ("kernelspec",)), both)
    elif kernel.argv is None and kernel.kernelspec is None and not draft.tries_command():
        todo = f'add kernelspec = "python3", or argv = ["…", "{CONNECTION_FILE}"]'
        draft.tell((), f"neither kernelspec nor argv is given: {todo}")


def _user(kernel: KernelConfig) -> Found:
    if kernel.user is None:
        return
    try:
        import pwd

        uid = pwd.getpwnam(kernel.user).pw_uid
    except ImportError:
        yield (("user",),), "this system has no such accounts: remove it"
    except KeyError:
        todo = "make the account, or mend the name"
        yield (("user",),), f"{spelled(kernel.user)}: no user of this name is known here: {todo}"
    else:
        own = os.geteuid()
        if uid == 0 and kernel.user != "root":
            yield (("user",),), f'{spelled(kernel.user)} is root by another name: write "root" to mean it'
        elif own not in (0, uid):
            what = f"{spelled(kernel.user)} takes a daemon that runs as root, and this is run by uid {own}"
            yield (("user",),), f"{what}: remove it, or run the daemon (and check) as root"


def _startup(kernel: KernelConfig) -> Found:
    if kernel.startup is not None and kernel.startup_file is not None:
        yield (("startup",), ("startup_file",)), "startup and startup_file are both given: keep one of them"


def _slurm(kernel: KernelConfig) -> Found:
    slurm = kernel.slurm
    if slurm is None:
        return
    at = (("slurm", "directory"), ("slurm",))
    if slurm.directory is None:
        yield at, "directory is missing: name one that this machine and the nodes share"
    elif not slurm.directory.startswith(("/", "~")):
        yield at, f"{spelled(slurm.directory)} is not an absolute path: write one"
    for key in ("startup", "startup_file", "user"):
        if getattr(kernel, key) is not None:
            yield ((key,), ("slurm",)), f"{key} is not done in a job of Slurm: remove one of the two"
    if kernel.warm_start != "off":
        yield (("warm_start",), ("slurm",)), 'a job of Slurm does not start warm: write warm_start = "off"'
    if kernel.transport == "ipc":
        yield (("transport",), ("slurm",)), 'a job of Slurm is reached by TCP: write transport = "tcp"'


def _backoff(kernel: KernelConfig) -> Found:
    backoff = kernel.backoff
    for key, delay in (("initial", backoff.initial), ("next", backoff.next)):
        if delay > backoff.max:
            what = f"backoff.{key}, {delay:g}, is more than backoff.max, {backoff.max:g}"
            yield (("backoff", key), ("backoff", "max")), f"{what}: lower {key}, or raise max"


def _tcp(kernel: KernelConfig) -> Found:
    if kernel.transport == "tcp" and _address(kernel.ip) is None:
        if kernel.ip.startswith("/"):
            todo = 'for a path set transport = "ipc"'
        else:
            todo = 'write one, such as "127.0.0.1", or "localhost"'
        yield (("ip",), ("transport",)), f"{spelled(kernel.ip)} is not an IP address: {todo}"


def _ipc(kernel: KernelConfig) -> Found:
    if kernel.transport != "ipc":
        return
    size = len(os.fsencode(kernel.ip))
    at = (("ip",), ("transport",))
    if kernel.ip != CHOSEN_IP and not kernel.ip.startswith("/"):
        yield at, f"{spelled(kernel.ip)} is not a path: for ipc write an absolute one, or remove the key"
    elif size > _LONGEST_PREFIX:
        yield at, f"a path of {size} bytes; for ipc it has at most {_LONGEST_PREFIX}: choose a shorter one"
    for channel in _CHANNELS:
        port = getattr(kernel.ports, channel)
        if port > len(_CHANNELS):
            what = f"{port} is not a port of ipc: write 1 to {len(_CHANNELS)}, or remove the key"
            yield (("ports", channel), ("transport",)), what


def _ports(kernel: KernelConfig) -> Found:
    for first, second in combinations(_CHANNELS, 2):
        port = getattr(kernel.ports, second)
        if port and port == getattr(kernel.ports, first):
            what = f"{port} is the {first} port too: give each channel its own"
            yield (("ports", second), ("ports", first)), what


# Rules between kernels.


_Address = IPv4Address | IPv6Address
_Owners = dict[
    tuple[int, _Address | int], tuple[str, str]
]  # (port, address or any of a family): kernel, channel


def check_together(drafts: Iterable[tuple[Draft, KernelConfig]]) -> None:
    """Tell which kernels cannot be declared together."""
    names: dict[str, str] = {}
    owners: _Owners = {}
    prefixes: dict[str, str] = {}
    for draft, kernel in drafts:
        same = names.setdefault(kernel.name.lower(), kernel.name)
        if same != kernel.name:
            what = f"differs only by case from {_table(same)}, and their files may collide"
            draft.tell((), f"{what}: choose another name")
        if kernel.transport == "tcp":
            _check_ports(draft, kernel, owners)
        elif kernel.ip != CHOSEN_IP:
            owner = prefixes.setdefault(kernel.ip, kernel.name)
            if owner != kernel.name:
                what = f"{spelled(kernel.ip)} is used by {_table(owner)} and {_table(kernel.name)}"
                draft.blame((("ip",),), f"{what}: give each kernel its own")


def _check_ports(draft: Draft, kernel: KernelConfig, owners: _Owners) -> None:
    """Tell the ports that another kernel has at an address that overlaps, and take the others.

    The unspecified address (0.0.0.0, ::) overlaps with all of its family.
    """
    address = _address(kernel.ip)
    if address is None:
        return
    unspecified = IPv4Address(0) if address.version == 4 else IPv6Address(0)
    overlapping = address.version if address == unspecified else address
    for channel in _CHANNELS:
        port = getattr(kernel.ports, channel)
        owner, other = owners.get((port, overlapping)) or owners.get((port, unspecified)) or ("", "")
        if port and owner and owner != kernel.name:
            users = f"{_table(owner)} ({other}) and {_table(kernel.name)} ({channel})"
            draft.blame((("ports", channel),), f"{port} is used by {users}: give each kernel its own")
        elif port:
            owners.setdefault((port, address), (kernel.name, channel))
            owners.setdefault((port, address.version), (kernel.name, channel))


def _table(name: str) -> str:
    return dotted(("kernels", name))


def _address(ip: str) -> _Address | None:
    try:
        return ip_address("127.0.0.1" if ip == "localhost" else ip)
    except ValueError:
        return None
