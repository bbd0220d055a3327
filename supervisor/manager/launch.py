"""How a manager launches: kernelspec or command, launch keywords, remembered across restarts.

Owns the rules in which ``supervisor.manager`` follows jupyter_client and not
the daemon: our own interpreter for a bare ``python``, the keywords of ``Popen``, a
kernel that ends with us.  Never decides when to launch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.model import Cause
from supervisor.kernel import kernelspec
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.launch import Command, Launcher, format_argv, resolve, spawn, without_ours
from supervisor.manager.pipes import Pipes
from supervisor.settings.config import CONNECTION_FILE, KernelConfig

_PYTHONS = {"python", f"python{sys.version_info[0]}", "python{}.{}".format(*sys.version_info[:2])}
_STREAMS = ("stdin", "stdout", "stderr")
# Those above are anybody's once they are closed.
_LAST_STANDARD = 2
# Numbers that are no descriptors.
_SPECIAL = (None, subprocess.DEVNULL, subprocess.STDOUT, subprocess.PIPE)


class Stream:
    """A descriptor of our own for a file that its giver may close.

    It is closed with the last launch that has it.
    """

    def __init__(self, name: str, given: Any) -> None:
        self.given = given
        try:
            self._descriptor = os.dup(given if isinstance(given, int) else given.fileno())
        except (OSError, ValueError):
            raise ValueError(f"{name}: is not an open file: give one, or DEVNULL") from None
        weakref.finalize(self, os.close, self._descriptor).atexit = False

    def fileno(self) -> int:
        """The descriptor, as ``Popen`` asks for it."""
        return self._descriptor


@dataclass(frozen=True)
class GivenUp:
    """A descriptor that was let go of; its number may be another file's by now."""

    number: int


def words(name: str, given: Iterable[str]) -> tuple[str, ...]:
    """The words of a command.  Raises TypeError for a text, which would be taken letter by letter."""
    if isinstance(given, str | bytes):
        raise TypeError(f"{name}: a list of words, not a text: shlex.split({given!r}) makes one of it")
    return tuple(given)


@dataclass(frozen=True)
class Launch:
    """What is launched.

    ``options`` are keywords of ``subprocess.Popen``; the texts among them also
    fill ``{names}`` of the command.  ``independent``: it outlives this process.
    """

    kernel_name: str
    kernel_cmd: tuple[str, ...] = ()
    extra_arguments: tuple[str, ...] = ()
    independent: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # env values may be secrets

    def updated(self, keywords: Mapping[str, Any]) -> Launch:
        """The same with the keywords of ``start_kernel``."""
        options = {**self.options, **keywords}
        options.pop("newports", None)  # no matter of the process
        if keywords.get("env") is not None:
            options["env"] = without_ours(keywords["env"])
        return Launch(
            str(options.pop("kernel_name", self.kernel_name)),
            words("kernel_cmd", options.pop("kernel_cmd", self.kernel_cmd)),
            words("extra_arguments", options.pop("extra_arguments", self.extra_arguments)),
            bool(options.pop("independent", self.independent)),
            options,
        )

    def named_as(self, other: Launch) -> Launch:
        """The same, but for the kernelspec and the command."""
        return replace(self, kernel_name=other.kernel_name, kernel_cmd=other.kernel_cmd)

    def holding(self) -> Launch:
        """The same with streams of its own.  Raises ValueError for one that is closed."""
        return replace(self, options={name: _held(name, value) for name, value in self.options.items()})

    def letting_go(self) -> Launch:
        """The same without; a file that is still open can be held again, a number cannot."""
        return replace(self, options={name: _let_go(value) for name, value in self.options.items()})

    def argv(self, extra_arguments: Sequence[str] | None = None) -> tuple[tuple[str, ...], str]:
        """The command with its ``{names}``, and the resource directory.  Raises LaunchError."""
        extra = self.extra_arguments if extra_arguments is None else tuple(extra_arguments)
        if self.kernel_cmd:
            command, resource_dir = self.kernel_cmd, ""
        else:
            spec = kernelspec.find(self.kernel_name)
            command, resource_dir = spec.argv, spec.resource_dir
        if command[0] in _PYTHONS:
            command = (sys.executable, *command[1:])
        return (*command, *extra), resource_dir

    def formatted(self, connection_file: Path, extra_arguments: Sequence[str] | None = None) -> list[str]:
        """The command as it is launched.  Raises LaunchError."""
        argv, resource_dir = self.argv(extra_arguments)
        expanded = [os.path.expanduser(element) for element in argv]  # noqa: PTH111 - not all are paths
        return format_argv(expanded, str(connection_file), resource_dir, self.words)

    def missing(self, error: LaunchError) -> Exception:
        """What jupyter_client raises where ``argv`` raised this: NoSuchKernel, or RuntimeError."""
        if self.kernel_name.lower() in kernelspec.installed():
            return RuntimeError(str(error))
        from jupyter_client.kernelspec import NoSuchKernel

        return NoSuchKernel(self.kernel_name)

    @property
    def words(self) -> dict[str, str]:
        """The launch keywords that fill ``{names}``."""
        return {name: value for name, value in self.options.items() if isinstance(value, str)}


def _held(name: str, value: Any) -> Any:
    if name not in _STREAMS or value in _SPECIAL or isinstance(value, Stream):
        return value
    if isinstance(value, GivenUp):
        raise ValueError(
            f"{name}: descriptor {value.number} was let go of at the shutdown: give it anew, or DEVNULL"
        )
    return Stream(name, value)


def _let_go(value: Any) -> Any:
    if not isinstance(value, Stream):
        return value
    if isinstance(value.given, int) and value.given > _LAST_STANDARD:
        return GivenUp(value.given)
    return value.given


class ManagerLauncher(Launcher):
    """Launches what ``launch`` says.

    ``popen`` is what came of the last launch, ``error`` why that failed.
    """

    def __init__(self) -> None:
        self.launch: Launch | None = None
        self.popen: subprocess.Popen[bytes] | None = None
        self.error: Exception | None = None

    @property
    def _ordered(self) -> Launch:
        assert self.launch is not None, "it is ordered first"
        return self.launch

    def resolve(self, config: KernelConfig) -> Command:
        """The command of the kernelspec or of ``kernel_cmd``."""
        self.error = None
        launch = self._ordered
        try:
            argv, resource_dir = launch.argv()
        except LaunchError as error:
            self.error = launch.missing(error)
            raise
        own = self._own(config, format_argv(argv, CONNECTION_FILE, resource_dir, launch.words))
        try:
            return resolve(own, base=launch.options.get("env"))
        except (LaunchError, OSError) as error:
            self.error = _as_builtin(error)
            raise

    def _own(self, config: KernelConfig, argv: Sequence[str]) -> KernelConfig:
        launch = self._ordered
        return msgspec.structs.replace(
            config,
            # Its environment and its interrupt mode count, whatever the command is made of.
            kernelspec=None if launch.kernel_cmd else launch.kernel_name,
            argv=tuple(argv),
            cwd=str(launch.options.get("cwd") or "."),
        )

    def let_go(self) -> None:
        """Hold nobody's files open any more."""
        if self.launch is not None:
            self.launch = self.launch.letting_go()

    def spawn(
        self, command: Command, connection_file: Path, output: Path, mark: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start it; unless it is to be independent, ipykernel ends with the process that started it."""
        launch = self._ordered
        tie = {} if launch.independent else {"JPY_PARENT_PID": str(os.getpid())}
        try:
            with Pipes(launch.options, output) as pipes:
                self.popen = spawn(command, connection_file, output, {**tie, **mark}, pipes.options)
                pipes.give(self.popen)
            return self.popen
        except LaunchError as error:
            self.error = _as_builtin(error)
            raise
        except Exception as error:
            # A keyword that Popen does not know; every launch must be answered.
            self.error = error
            raise LaunchError(f"cannot be launched: {error}") from error


def _as_builtin(error: LaunchError | OSError) -> Exception:
    """The exception that ``Popen`` has for it."""
    if isinstance(error, OSError):
        return error
    if error.cause is not Cause.NOT_FOUND:
        return RuntimeError(str(error))
    return (PermissionError if "may not be" in str(error) else FileNotFoundError)(str(error))
