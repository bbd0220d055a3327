"""From settings to a process: the command, its environment, what must not be inherited.

Owns the way from kernelspec or argv to a running process.  Never waits for the
process, never signals it, and decides nothing about when.

Left as they are, for the kernel to inherit: resource limits, scheduling and the OOM score, and, unless it
has another account (``user``), the umask.  So ``OOMScoreAdjust=`` of a systemd unit counts for the
kernels too: a negative one would protect them, the large ones, as well.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from supervisor.core.model import Cause, Exit
from supervisor.disk.off_loop import Hanging
from supervisor.kernel import kernelspec
from supervisor.kernel.connection import PortOfAnother
from supervisor.kernel.kernelspec import KernelSpec, LaunchError
from supervisor.kernel.ports import PortTaken
from supervisor.output.file import open_for_writer
from supervisor.process.account import Account, account_of, acting, expand, may
from supervisor.process.descriptors import give_back_limit
from supervisor.process.dispositions import default_signals
from supervisor.settings.config import Config, KernelConfig, SlurmConfig
from supervisor.settings.mistakes import dotted

DEFAULT_KERNELSPEC = "python3"

# What the machine has no room for now, and may have later (errno(3)); no fault of the kernel's.
_NO_ROOM = ("EAGAIN", "ENOMEM", "EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "EROFS", "EIO")
_PASSING = frozenset(getattr(errno, name) for name in _NO_ROOM if hasattr(errno, name))

# Why there is no process (execve(2), fork(2)), with the way out; and where no other try makes one.
_REMEDIES = {
    errno.EAGAIN: "no more processes are to be had: raise LimitNPROC or TasksMax",
    errno.E2BIG: "its arguments and environment are too long together: shorten argv or env",
    errno.ENOEXEC: "it is no program for this machine: change argv",
}
_LASTING = frozenset({errno.E2BIG, errno.ENOEXEC})

# About this process, and wrong in every other: the first stops an ipykernel
# whose parent has that pid no more, the rest is said by systemd to its service
# (systemd.exec(5), sd_notify(3)) or by Python to itself.
_OURS_ALONE = re.compile(
    r"(JPY_PARENT_PID|JPY_INTERRUPT_EVENT|IPY_INTERRUPT_EVENT|JPY_SESSION_NAME"
    r"|NOTIFY_SOCKET|JOURNAL_STREAM|INVOCATION_ID|MAINPID|MANAGERPID|SYSTEMD_EXEC_PID|PIDFILE|FDSTORE"
    r"|(STATE|RUNTIME|LOGS|CONFIGURATION|CACHE)_DIRECTORY"
    r"|MEMORY_PRESSURE_(WATCH|WRITE)|PYTHONEXECUTABLE|__PYVENV_LAUNCHER__"
    r"|(WATCHDOG|LISTEN|KERNEL_SUPERVISOR)_.*)",
    re.DOTALL,
)
# Only right in the Python environment that this process runs in.
_OF_OUR_VENV = ("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT")

_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_]+)\}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BARE_PYTHON = re.compile(r"^python(3(\.\d+)?)?$")


class Command(Struct, frozen=True):
    """What to launch.

    ``argv`` is a template (see ``format_argv``), ``env`` what the kernelspec
    and the settings add to the environment; not in the repr, values may be secrets.
    ``interrupt_mode`` is the kernelspec's; the settings may say otherwise at any time.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    interrupt_mode: str
    kernel_name: str
    resource_dir: str
    language: str
    account: Account | None = None
    """Whose it is, if not ours."""

    def __repr__(self) -> str:
        return f"Command(argv={self.argv!r})"


class Launcher:
    """From settings to a process, as the daemon does it."""

    def resolve(self, config: KernelConfig) -> Command:
        """The command for these settings.  Raises LaunchError."""
        return resolve(config)

    def spawn(
        self, command: Command, connection_file: Path, output: Path, mark: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start the process, in a session of its own.  Raises LaunchError."""
        return spawn(command, connection_file, output, mark)


def lacking(config: Config) -> list[str]:
    """Why kernels that are to run could not be launched here and now, one line each: *key: what: what to do*.

    Warnings and no mistakes: what is missing may come later.
    """
    told = []
    for kernel in config.kernels.values():
        try:
            if kernel.enabled:
                resolve(kernel)
        except (LaunchError, OSError) as error:
            told.append(f"{dotted(('kernels', kernel.name))}: {error}")
        if kernel.enabled and kernel.slurm is not None and (mistake := _asked(kernel.slurm)):
            told.append(f"{dotted(('kernels', kernel.name, 'slurm'))}: {mistake}")
    return told


@cache
def _asked(slurm: SlurmConfig) -> str:
    # Loaded where a kernel is a job, and nowhere else.
    from supervisor.machines.slurm import mistake

    return mistake(slurm)


def interrupt_mode(config: KernelConfig) -> str:
    """How the kernelspec of these settings is interrupted, whether or not it could be launched now.

    Raises LaunchError.
    """
    account = owner(config)
    with acting(account):
        return _spec(config, account).interrupt_mode


def owner(config: KernelConfig) -> Account | None:
    """Whose the kernel of these settings is, ``None`` for ours.  Raises LaunchError."""
    try:
        return account_of(config.user)
    except KeyError:
        raise LaunchError(f'user "{config.user}" does not exist: make the account or change user') from None


def resolve(config: KernelConfig, *, base: Mapping[str, str] | None = None) -> Command:
    """The command for these settings, in the environment ``base`` (ours).

    A bare ``python``, ``python3`` or ``python3.N`` of a kernelspec that is
    installed in ``PREFIX/share/jupyter/kernels`` means ``PREFIX/bin/python``:
    under systemd no environment is active, and our own is the wrong one.

    All of it is as the account of the kernel finds it; its kernelspecs are told nothing of our environment.

    Raises LaunchError if the kernelspec, the working directory or the
    executable is not there or not usable, or if there is no such account.
    """
    account = owner(config)
    with acting(account):
        return _resolve(config, account, base)


def _resolve(config: KernelConfig, account: Account | None, base: Mapping[str, str] | None) -> Command:
    spec = _spec(config, account)
    argv = config.argv if config.argv is not None else spec.argv
    argv = tuple(expand(element, account) for element in (*argv, *config.extra_arguments))
    prefix = _prefix(spec.resource_dir) if config.argv is None else None
    values = _environment(account) if base is None else base
    env = _fill(spec.env, values)
    # What the configuration asks of our environment it is given: it is ours.
    env |= _fill(config.env, {**(os.environ if base is None else base), **values, **env})
    command = Command(
        argv=(_python(argv[0], prefix), *argv[1:]),
        env=env,
        cwd=str(Path(expand(config.cwd, account)).absolute()),
        interrupt_mode=spec.interrupt_mode,
        kernel_name=spec.name,
        resource_dir=spec.resource_dir,
        language=spec.language,
        account=account,
    )
    if config.slurm is not None:
        return command  # what is there is another machine's affair
    _check_cwd(command.cwd)
    if "{connection_file}" not in command.argv[0]:
        program = format_argv(command.argv[:1], "", command.resource_dir)[0]
        _executable(program, {**values, **command.env}, command.cwd)
    return command


def format_argv(
    template: Sequence[str], connection_file: str, resource_dir: str, extra: Mapping[str, object] = {}
) -> list[str]:
    """Fill ``{connection_file}``, ``{resource_dir}``, ``{prefix}`` and the ``extra`` names in.

    ``{prefix}`` is that of the Python environment that the kernelspec is
    installed in, else our own.  Unknown names and other braces stay as they are.
    """
    values = {
        "connection_file": connection_file,
        "resource_dir": resource_dir,
        "prefix": _prefix(resource_dir) or sys.prefix,
        **extra,
    }

    def fill(match: re.Match[str]) -> str:
        return str(values.get(match[1], match[0]))

    return [_PLACEHOLDER.sub(fill, element) for element in template]


def environment(
    command: Command, mark: Mapping[str, str], base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of the kernel: ``base`` less what is about us alone, the additions, the mark.

    ``base`` is ours, or that of its account.

    What is removed may still be set on purpose, by the kernelspec or the settings.
    """
    env = without_ours(_environment(command.account) if base is None else base)
    if not _is_of_our_environment(command, env):
        env.pop("PYTHONHOME", None)
        # An active environment that is not ours is the user's choice; but IPython
        # would put the packages of ours into a kernel of another one.
        if "VIRTUAL_ENV" in env and os.path.realpath(env["VIRTUAL_ENV"]) == os.path.realpath(sys.prefix):
            for variable in _OF_OUR_VENV:
                env.pop(variable, None)
    return {**env, **command.env, **mark}


def _environment(account: Account | None) -> Mapping[str, str]:
    return os.environ if account is None else account.environment()


def without_ours(env: Mapping[str, str]) -> dict[str, str]:
    """The environment less what is about this process alone.

    That is told by the name and by our own value: another was set on purpose.
    """
    return {
        variable: value
        for variable, value in env.items()
        if not (_OURS_ALONE.fullmatch(variable) and os.environ.get(variable) == value)
    }


def spawn(
    command: Command,
    connection_file: Path,
    output: Path | None,
    mark: Mapping[str, str],
    popen_options: Mapping[str, Any] = {},
) -> subprocess.Popen[bytes]:
    """Start the process, in a session of its own; blocks for milliseconds, may be called in any thread.

    It is the account's from its first instruction; of ours it has no more than the output file, to write to.

    stdout and stderr go to the end of the file ``output`` (0600, made if need
    be, with its directory), never into a pipe, which would block the kernel
    once nobody reads; to wherever ours go if it is ``None``.  ``popen_options``
    are further keywords of ``subprocess.Popen``; their ``env`` stands in for
    our own environment, their ``cwd`` for the command's.

    Raises LaunchError, or TypeError or ValueError if ``Popen`` does not take
    the keywords; there is no process then.
    """
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    with ExitStack() as held:
        if output is not None:
            options["stdout"] = options["stderr"] = fd = open_output(output)
            held.callback(os.close, fd)
        held.enter_context(acting(command.account))
        options |= popen_options
        cwd = str(Path(options.get("cwd") or command.cwd).absolute())
        env = environment(command, mark, options.get("env"))
        keywords = {key: value for key, value in popen_options.items() if isinstance(value, str)}
        argv = format_argv(command.argv, str(connection_file), command.resource_dir, keywords)
        _check_cwd(cwd)
        options.setdefault("executable", _executable(argv[0], env, cwd))
        options.pop("process_group", None)
        # Always: a group signal to a kernel in our own group would reach us.
        options |= {"start_new_session": True, "cwd": cwd, "env": env}
        if command.account is not None:
            options |= command.account.popen_options()
        return start(argv, options)


def start(argv: list[str], options: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """``subprocess.Popen`` with default signals, its errors in our words; ``options`` has env and cwd."""
    try:
        with default_signals():
            process = subprocess.Popen(argv, **options)
        give_back_limit(process)
        return process
    except OSError as error:
        raise _launch_error(error, str(options["executable"]), options["cwd"]) from error
    except ValueError:
        if not _has_odd_character(argv, options):
            raise
        # Not chained: the original may show an environment value.
        raise LaunchError("argv, env or cwd has a character that cannot be passed on: mend it") from None


def _has_odd_character(argv: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether execve(2) could not take this: a NUL anywhere, a ``=`` in the name of a variable."""
    env: Mapping[str, str] = options["env"]
    words = (*argv, options["executable"], options["cwd"], *env, *env.values())
    return any("\0" in os.fsdecode(word) for word in words) or any("=" in os.fsdecode(name) for name in env)


def _spec(config: KernelConfig, account: Account | None) -> KernelSpec:
    if config.argv is not None and config.kernelspec is None:
        return KernelSpec(name="", argv=config.argv)
    return kernelspec.find(config.kernelspec or DEFAULT_KERNELSPEC, account)


def _fill(additions: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Fill ``${VAR}`` in; an unknown one stays as it is."""
    return {
        variable: _VARIABLE.sub(lambda match: values.get(match[1], match[0]), text)
        for variable, text in additions.items()
    }


def _prefix(resource_dir: str) -> str | None:
    """The Python environment that a kernelspec is installed in, if it is in one."""
    parents = Path(resource_dir).parents
    if len(parents) < 4 or parents[0].parts[-3:] != ("share", "jupyter", "kernels"):
        return None
    # Not resolved: the python of a virtual environment is a link out of it.
    return str(parents[3]) if may(parents[3] / "bin" / "python", os.X_OK) else None


def _python(program: str, prefix: str | None) -> str:
    if prefix is None or not _BARE_PYTHON.match(program):
        return program
    return str(Path(prefix, "bin", "python"))


def _check_cwd(cwd: str) -> None:
    if not stat.S_ISDIR(_mode(Path(cwd), f'working directory "{cwd}"', "make it or change cwd")):
        raise LaunchError(f'working directory "{cwd}" is not a directory: change cwd')
    if not may(cwd, os.X_OK):
        raise LaunchError(f'working directory "{cwd}" may not be entered: change its mode or cwd')


def _mode(path: Path, what: str, remedy: str) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise LaunchError(f"{what} does not exist: {remedy}") from None
    except OSError as error:
        raise LaunchError(f"{what}: {error.strerror}: {remedy}") from error
    except ValueError:
        raise LaunchError(f"{what} has a NUL character in its name: {remedy}") from None


def _executable(program: str, env: Mapping[str, str], cwd: str) -> str:
    """The absolute path of the program, as the kernel's PATH and working directory have it."""
    if os.sep not in program:
        found = shutil.which(program, path=env.get("PATH", os.defpath))
        if found is None:
            raise LaunchError(f'executable "{program}" is not on the PATH of the kernel: give its full path')
        program = found
    path = Path(cwd, program)
    if not stat.S_ISREG(_mode(path, f'executable "{path}"', "install it or change argv")):
        raise LaunchError(f'executable "{path}" is not a file: change argv')
    if not may(path, os.X_OK):
        raise LaunchError(f'executable "{path}" may not be executed: change its mode or argv')
    return str(path)


def _is_of_our_environment(command: Command, env: Mapping[str, str]) -> bool:
    try:
        program = format_argv(command.argv[:1], "", command.resource_dir)[0]
        path = _executable(program, {**env, **command.env}, command.cwd)
    except LaunchError:
        return False
    return os.path.realpath(Path(path).parent.parent) == os.path.realpath(sys.prefix)


def open_output(output: Path) -> int:
    """A descriptor at the end of an output file, made if need be.  Raises LaunchError."""
    if str(output) == os.devnull:
        return os.open(os.devnull, os.O_WRONLY)
    try:
        fd = open_for_writer(output)
        # To the kernel it is a file like any other.
        os.set_blocking(fd, True)
        return fd
    except OSError as error:
        raise LaunchError(
            f'output file "{output}" cannot be opened: {error.strerror}', Cause.UNKNOWN
        ) from error


def _launch_error(error: OSError, executable: str, cwd: str) -> LaunchError:
    try:
        _check_cwd(cwd)
    except LaunchError as gone:
        return gone
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        missing = "its interpreter (see its first line)" if Path(executable).exists() else "it"
        return LaunchError(f'executable "{executable}": {missing} does not exist: install it or change argv')
    if isinstance(error, PermissionError):
        return LaunchError(f'executable "{executable}": {reason}: change its mode or argv')
    cause = Cause.NOT_FOUND if error.errno in _LASTING else Cause.UNKNOWN
    reason = _REMEDIES.get(error.errno or 0, reason)
    return LaunchError(f'executable "{executable}" cannot be started: {reason}', cause)


def describe_failure(error: Exception) -> Exit:
    """Why there is no process, in the words of the core."""
    is_passing = _is_passing(error)
    if isinstance(error, LaunchError):
        # Not found for want of a descriptor, say, is not known to be missing.
        return Exit(Cause.UNKNOWN if is_passing else error.cause, detail=str(error), is_passing=is_passing)
    cause = Cause.PORT_TAKEN if isinstance(error, PortTaken) else Cause.UNKNOWN
    return Exit(cause, detail=str(error) or type(error).__name__, is_passing=is_passing)


def _is_passing(error: Exception) -> bool:
    return isinstance(error, Hanging | PortOfAnother) or _errno_of(error) in _PASSING


def _errno_of(error: BaseException | None) -> int | None:
    """The number of the system's error behind this one, if there is one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return None if error is None else error.errno
