"""What this machine lacks of what a Config asks for: warnings, never mistakes.

Owns looking; a kernelspec, directory or program may come later, and its
absence is a failure of that kernel's start only.  Changes nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from string import Template

from supervisor.settings.config import Config, KernelConfig
from supervisor.settings.mistakes import dotted, listed, quoted


def warnings(config: Config) -> list[str]:
    """What is missing here for the kernels that are to run, one line each: *key: what: what to do*."""
    installed = installed_kernelspecs()
    return [
        f"{dotted(('kernels', name, key))}: {what}"
        for name, kernel in config.kernels.items()
        if kernel.enabled
        for key, what in _missing(kernel, installed)
    ]


def installed_kernelspecs() -> Mapping[str, Path]:
    """The kernelspecs of this machine by lower-case name; of two alike the one that Jupyter finds first."""
    from jupyter_core.paths import jupyter_path  # only `check` needs it

    found: dict[str, Path] = {}
    for directory in map(Path, jupyter_path("kernels")):
        try:
            candidates = sorted(directory.iterdir())
        except OSError:
            continue
        for candidate in candidates:
            # Not is_file(), which raises where the directory may not be entered.
            if os.path.isfile(candidate / "kernel.json"):  # noqa: PTH113
                found.setdefault(candidate.name.lower(), candidate)
    return found


def _missing(kernel: KernelConfig, installed: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    if kernel.kernelspec is not None and not _is_installed(kernel.kernelspec.lower(), installed):
        known = f"installed are {listed(sorted(installed))}" if installed else "none is installed"
        yield "kernelspec", f"{quoted(kernel.kernelspec)} is not installed here: {known}"
    cwd = Path(os.path.expanduser(kernel.cwd))  # noqa: PTH111 - Path.expanduser raises for unknown users
    if what := _wrong_directory(cwd):
        yield "cwd", f"{quoted(kernel.cwd)} {what}"
    if kernel.argv and not _found(kernel.argv[0], cwd, kernel.env):
        yield (
            "argv",
            f"{quoted(kernel.argv[0])} is not an executable found here: install it, or write its whole path",
        )


def _is_installed(name: str, installed: Mapping[str, Path]) -> bool:
    """As a launch has it: Python's names stand for each other, and for the ipykernel that runs here."""
    if name not in ("python", "python3"):
        return name in installed
    return name in installed or "python3" in installed or find_spec("ipykernel") is not None


def _wrong_directory(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist here: create it, or choose another"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}: choose another, or let the kernel's user enter it"
    if not stat.S_ISDIR(mode):
        return "is not a directory: choose another"
    return "" if os.access(path, os.R_OK | os.X_OK) else "cannot be entered: let the kernel's user read it"


def _found(program: str, cwd: Path, env: Mapping[str, str]) -> bool:
    """Whether the program is there, on the kernel's PATH; one with a {template} may be."""
    if "{" in program:
        return True
    program = os.path.expanduser(program)  # noqa: PTH111
    if os.sep in program:
        return os.access(cwd / program, os.X_OK) and os.path.isfile(cwd / program)  # noqa: PTH113
    path = Template(env["PATH"]).safe_substitute(os.environ) if "PATH" in env else None
    return shutil.which(program, path=path) is not None
