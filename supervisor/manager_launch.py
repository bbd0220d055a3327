"""How a manager launches: kernelspec or command, launch keywords, remembered across restarts.

Owns the rules in which ``supervisor.manager`` follows jupyter_client and not
the daemon: our own interpreter for a bare ``python``, the keywords of ``Popen``, a
kernel that ends with us.  Never decides when to launch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from supervisor.config import CONNECTION_FILE, KernelConfig
from supervisor.core.model import Cause
from supervisor.kernel import kernelspec
from supervisor.kernel.equipment import Launcher
from supervisor.kernel.launch import Command, LaunchError, format_argv, resolve, spawn

_PYTHONS = {"python", f"python{sys.version_info[0]}", "python{}.{}".format(*sys.version_info[:2])}


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
        """The same with the keywords of ``start_kernel``; raises ValueError for a pipe."""
        options = {**self.options, **keywords}
        for stream in ("stdin", "stdout", "stderr"):
            if options.get(stream) == subprocess.PIPE:
                # Nobody empties it across restarts, and a full pipe stops the kernel.
                raise ValueError(f"{stream}: a pipe would block the kernel: give a file, or DEVNULL")
        return Launch(
            str(options.pop("kernel_name", self.kernel_name)),
            tuple(options.pop("kernel_cmd", self.kernel_cmd)),
            tuple(options.pop("extra_arguments", self.extra_arguments)),
            bool(options.pop("independent", self.independent)),
            options,
        )

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

    @property
    def path(self) -> dict[str, str]:
        """The PATH on which the command is looked for, if ``env`` gives one."""
        env = self.options.get("env") or {}
        return {"PATH": env["PATH"]} if "PATH" in env else {}


class ManagerLauncher(Launcher):
    """Launches what ``launch`` says; ``error`` is why the last launch failed."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.error: Exception | None = None

    def resolve(self, config: KernelConfig) -> Command:
        """The command of the kernelspec or of ``kernel_cmd``."""
        self.error = None
        launch = self.launch
        try:
            argv, resource_dir = launch.argv()
        except LaunchError as error:
            self.error = launch.missing(error)
            raise
        own = msgspec.structs.replace(
            config,
            # Its environment and its interrupt mode count, whatever the command is made of.
            kernelspec=None if launch.kernel_cmd else launch.kernel_name,
            argv=tuple(format_argv(argv, CONNECTION_FILE, resource_dir, launch.words)),
            cwd=str(launch.options.get("cwd") or "."),
            env=launch.path,
        )
        try:
            return resolve(own)
        except (LaunchError, OSError) as error:
            self.error = _as_builtin(error)
            raise

    def spawn(
        self, command: Command, connection_file: Path, output: Path, mark: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start it; unless it is to be independent, ipykernel ends with the process that started it."""
        tie = {} if self.launch.independent else {"JPY_PARENT_PID": str(os.getpid())}
        try:
            return spawn(command, connection_file, output, {**tie, **mark}, self.launch.options)
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
