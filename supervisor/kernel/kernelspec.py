"""Installed kernelspecs: where they are and what they say.

Owns the look-up by name along Jupyter's search path and the reading of
``kernel.json``.  Never starts anything and never writes.  It does not use
jupyter_client, whose import costs more than the whole daemon needs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.core.model import Cause
from supervisor.disk.files import read_bounded
from supervisor.process.account import Account
from supervisor.settings.mistakes import closest, cut

NATIVE_NAMES = ("python3", "python")
LOCAL_PROVISIONER = "local-provisioner"
_LARGEST = 1 << 20
"""Bytes of a ``kernel.json``: it may be another account's."""
_LONGEST_WORD = 200
_VALID_NAME = re.compile(r"^[a-z0-9._-]+$")


class LaunchError(Exception):
    """A kernel cannot be launched; the message says why and what to do.

    ``cause`` is NOT_FOUND where trying again without a change cannot help,
    and UNKNOWN where it may (no memory, no more processes, disk full).
    """

    def __init__(self, message: str, cause: Cause = Cause.NOT_FOUND) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """What an installed ``kernel.json`` says, checked.

    ``resource_dir`` is the directory it was found in.  The environment is not
    in the repr: its values may be secrets.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    interrupt_mode: str = "signal"
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    resource_dir: str = ""
    display_name: str = ""
    language: str = ""


def installed() -> dict[str, Path]:
    """Name (lower case) and directory of every kernelspec on Jupyter's search path.

    Of two with the same name the first on the path counts.
    """
    return _search()[0]


def _places(account: Account | None) -> list[Path]:
    """Jupyter's search path; that of another account begins in its home, and has nothing of ours alone."""
    from jupyter_core import paths

    if account is None:
        return [Path(place) for place in paths.jupyter_path("kernels")]
    shared = [*paths.ENV_JUPYTER_PATH, *paths.SYSTEM_JUPYTER_PATH]
    return [Path(place, "kernels") for place in (f"{account.home}/.local/share/jupyter", *shared)]


def _search(account: Account | None = None) -> tuple[dict[str, Path], OSError | None]:
    """What is installed, and why there may be more: a directory that is there could not be listed."""
    found: dict[str, Path] = {}
    unlisted: OSError | None = None
    for directory in _places(account):
        try:
            candidates = sorted(directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            unlisted = error
            continue
        for candidate in candidates:
            name = candidate.name.lower()
            # Not is_file(), which raises where the directory may not be entered.
            if name not in found and _VALID_NAME.match(name) and os.path.isfile(candidate / "kernel.json"):  # noqa: PTH113
                found[name] = candidate
    return found, unlisted


def find(name: str, account: Account | None = None) -> KernelSpec:
    """The kernelspec of that name, in any case of letters, as the account (ours) finds it.

    ``python`` stands for ``python3`` where no spec has that very name, and
    where neither is installed, for the ipykernel of the running environment,
    as everywhere in Jupyter.  Raises LaunchError, cause NOT_FOUND, if there is
    none, if its ``kernel.json`` is damaged, or if it needs a provisioner.
    """
    there, unlisted = _search(account)
    key = name.lower()
    if key not in there and key in NATIVE_NAMES:
        if "python3" not in there:
            return _native(name, there)
        key = "python3"
    if key not in there:
        raise LaunchError(_unknown(name, there)) from unlisted
    return read(there[key], key)


def read(directory: Path, name: str) -> KernelSpec:
    """The kernelspec in this directory; raises LaunchError if it is damaged or needs a provisioner."""
    path = directory / "kernel.json"
    try:
        content = json.loads(read_bounded(path, _LARGEST))
    except OSError as error:
        raise LaunchError(
            f'kernelspec "{name}": cannot read {path}: {error.strerror}: check its permissions'
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise _damaged(path, "not a JSON object")
    metadata = content.get("metadata") or {}
    _refuse_provisioner(name, metadata)
    return KernelSpec(
        name=name,
        argv=_argv(path, content.get("argv")),
        env=_env(path, content.get("env") or {}),
        interrupt_mode=_interrupt_mode(path, content.get("interrupt_mode") or "signal"),
        metadata=metadata if isinstance(metadata, dict) else {},
        resource_dir=str(directory),
        display_name=_word(content.get("display_name")),
        language=_word(content.get("language")),
    )


def _damaged(path: Path, what: str) -> LaunchError:
    return LaunchError(f"{path}: {what}: mend the file or install the kernelspec again")


def _word(value: object) -> str:
    """It goes on record and to all clients: not what would fill them."""
    return str(value or "")[:_LONGEST_WORD]


def _argv(path: Path, value: object) -> tuple[str, ...]:
    if not (isinstance(value, list) and value and all(isinstance(element, str) for element in value)):
        raise _damaged(path, '"argv" is not a list of strings with at least one element')
    return tuple(value)


def _env(path: Path, value: object) -> dict[str, str]:
    # The mistake names the variable, never its value: values may be secrets.
    if not isinstance(value, dict):
        raise _damaged(path, '"env" is not an object')
    for variable, content in value.items():
        if not isinstance(content, str):
            raise _damaged(path, f'"env": the value of "{variable}" is not a string')
    return dict(value)


def _interrupt_mode(path: Path, value: object) -> str:
    if value not in ("signal", "message"):
        raise _damaged(path, f'"interrupt_mode": {cut(json.dumps(value))} is not one of "signal", "message"')
    return str(value)


def _refuse_provisioner(name: str, metadata: object) -> None:
    provisioner = metadata.get("kernel_provisioner") if isinstance(metadata, dict) else None
    if not provisioner:
        return
    wanted = provisioner.get("provisioner_name") if isinstance(provisioner, dict) else provisioner
    if wanted != LOCAL_PROVISIONER:
        raise LaunchError(
            f'kernelspec "{name}" needs the kernel provisioner "{wanted}": only kernels that run '
            "as local processes can be supervised; use another kernelspec or give argv"
        )


def _native(name: str, there: Mapping[str, Path]) -> KernelSpec:
    ipykernel = importlib.util.find_spec("ipykernel")
    if ipykernel is None:
        raise LaunchError(_unknown(name, there))
    resources = Path(ipykernel.origin or "").parent / "resources"
    return KernelSpec(
        name="python3",
        argv=(sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"),
        resource_dir=str(resources) if resources.is_dir() else "",
        display_name="Python 3 (ipykernel)",
        language="python",
    )


def _unknown(name: str, there: Mapping[str, Path]) -> str:
    if not there:
        return f'kernelspec "{name}" is not installed, nor is any other: install a kernel or give argv'
    meant = closest(name, there)
    hint = f'did you mean "{meant}"? ' if meant else ""
    listed = ", ".join(f'"{known}"' for known in there)
    return f'kernelspec "{name}" is not installed: {hint}installed: {listed}'
