"""What this machine lacks of what a Config asks for: warnings, never mistakes.

Owns looking; a kernelspec, directory or program may come later, and its
absence is a failure of that kernel's start only.  Changes nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

from supervisor.config import Config, KernelConfig
from supervisor.mistakes import dotted, listed, quoted


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
            if (candidate / "kernel.json").is_file():
                found.setdefault(candidate.name.lower(), candidate)
    return found


def _missing(kernel: KernelConfig, installed: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    if kernel.kernelspec is not None and kernel.kernelspec.lower() not in installed:
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


def _wrong_directory(path: Path) -> str:
    if not path.exists():
        return "does not exist here: create it, or choose another"
    if not path.is_dir():
        return "is not a directory: choose another"
    return "" if os.access(path, os.R_OK | os.X_OK) else "cannot be entered: let the kernel's user read it"


def _found(program: str, cwd: Path, env: Mapping[str, str]) -> bool:
    """Whether the program is there, on the kernel's PATH; one with a {template} may be."""
    if "{" in program:
        return True
    program = os.path.expanduser(program)  # noqa: PTH111
    if os.sep in program:
        return os.access(cwd / program, os.X_OK) and (cwd / program).is_file()
    path = Template(env["PATH"]).safe_substitute(os.environ) if "PATH" in env else None
    return shutil.which(program, path=path) is not None
