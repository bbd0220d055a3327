"""The verbs that connect the programs of Jupyter: ``jupyter``, ``serve`` and ``replay``.

Owns what is written into an environment's configuration of Jupyter, and what
is printed.  The table of verbs names these functions; nothing imports them.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from argparse import Namespace
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from supervisor.cli.asking import client_of, get, one
from supervisor.cli.execute import Printer
from supervisor.cli.exits import DONE, FAILED, Quit
from supervisor.cli.screen import say, say_json, tell
from supervisor.control.client import STATUS_PATH
from supervisor.disk.files import write_atomically

Fields = dict[str, Any]

_FILE = "jupyter_server_config.d/kernel-supervisor.json"
_NEEDED = "jupyter_server"
_MODULE = "supervisor.jupyter"
_NOT_ENABLED = "not enabled: kernel-supervisor jupyter enable"


def _kernels(arguments: Namespace) -> list[Fields]:
    """What the daemon tells of its kernels.  Raises Quit, NoDaemon, Broken, BadPath and NoConfig."""
    return list(get(client_of(arguments), STATUS_PATH)["kernels"])


def _check_needed() -> None:
    if find_spec(_NEEDED) is None:
        todo = "in the environment of your JupyterLab: pip install 'kernel-supervisor[jupyter]'"
        raise Quit(FAILED, f"{_NEEDED} is not installed in {sys.prefix}", todo)


def jupyter(arguments: Namespace) -> int:
    """Carry out one of the actions of ``jupyter``."""
    _check_needed()
    actions = {"enable": _enable, "disable": _disable, "status": _tell, "kernelspecs": _kernelspecs}
    try:
        return actions[arguments.action](arguments)
    except OSError as error:
        raise Quit(FAILED, f"jupyter {arguments.action}: {error}") from None


# Enabled or not


def _configuration(arguments: Namespace) -> Path:
    """The directory of Jupyter's configuration that is meant: the user's, or an environment's."""
    from jupyter_core.paths import jupyter_config_dir

    if arguments.user:
        return Path(jupyter_config_dir())
    return Path(arguments.prefix or sys.prefix) / "etc" / "jupyter"


def _enable(arguments: Namespace) -> int:
    from supervisor.jupyter.extension import foreign_supervisor

    if told := foreign_supervisor():
        raise Quit(FAILED, told)
    directory = _configuration(arguments)
    content = {"ServerApp": {"jpserver_extensions": {_MODULE: True}}, "SupervisedKernels": _named(arguments)}
    _write(directory / _FILE, content)
    say(f"enabled in {directory}; start JupyterLab anew: jupyter lab")
    return DONE


def _named(arguments: Namespace) -> dict[str, str]:
    named = {"socket": arguments.socket, "configuration": arguments.config}
    return {key: str(Path(value).absolute()) for key, value in named.items() if value}


def _disable(arguments: Namespace) -> int:
    directory = _configuration(arguments)
    try:
        (directory / _FILE).unlink()
    except FileNotFoundError:
        raise Quit(FAILED, f"not enabled in {directory}", "see kernel-supervisor jupyter status") from None
    say(f"disabled in {directory}; a server that runs goes on as it is")
    return DONE


def _tell(arguments: Namespace) -> int:
    """Whether it works, and where it does not."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_core.paths import jupyter_config_path

    from supervisor.jupyter.extension import foreign_supervisor, version_of

    places = [Path(place) / _FILE for place in jupyter_config_path()]
    found: Fields = {"enabled": [str(place) for place in places if place.is_file()]}
    found |= {package: version_of(package) for package in (_NEEDED, "jupyterlab", "notebook")}
    try:
        found["kernels"] = [view["name"] for view in _kernels(arguments)]
        found["daemon"] = f"answers, with {len(found['kernels'])} kernels"
    except Exception as error:
        found |= {"kernels": None, "daemon": f"does not answer: {error}"}
    found["kernelspecs"] = _ours(KernelSpecManager())
    found["problem"] = foreign_supervisor() or (None if found["enabled"] else _NOT_ENABLED)
    texts = {
        key: value if isinstance(value, str) else ", ".join(value) for key, value in found.items() if value
    }
    tell(found, [f"{key:<16}{text}" for key, text in texts.items()], as_json=arguments.json)
    return DONE if found["kernels"] is not None and not found["problem"] else FAILED


# Kernelspecs, for what runs without a server


def _ours(specs: Any) -> list[str]:
    """The kernelspecs that were written by us, of those of a KernelSpecManager."""
    from supervisor.jupyter.specs import MARK

    return sorted(name for name, it in specs.get_all_specs().items() if MARK in it["spec"]["metadata"])


def _kernelspecs(arguments: Namespace) -> int:
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_core.paths import jupyter_data_dir

    from supervisor.jupyter.specs import spec_of

    base = Path(arguments.prefix) / "share" / "jupyter" if arguments.prefix else Path(jupyter_data_dir())
    directory = base / "kernels"
    specs = KernelSpecManager(kernel_dirs=[str(directory)], ensure_native_kernel=False)
    before, written = _ours(specs), []
    for view in _kernels(arguments):
        name = view["name"].lower()
        if (directory / name).exists() and name not in before:
            name += "-supervised"  # the name is somebody else's
        _write(directory / name / "kernel.json", spec_of(view, **_named(arguments)).to_dict())
        written.append(name)
    for name in set(before) - set(written):
        specs.remove_kernel_spec(name)
    say(f"{directory}: {', '.join(written) or 'none'}")
    return DONE


def _write(file: Path, content: Fields) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(content, indent=2).encode() + b"\n", 0o644)


# A server of its own


def serve(arguments: Namespace) -> int:
    """Be a Jupyter server with the supervised kernels."""
    if arguments.print_unit:
        from supervisor.cli.unit import serving

        arguments.root = arguments.root or Path.cwd()
        chosen = ("port", "ip", "root", "allow_origin", "token_file", "socket", "config")
        words = [f"--{key.replace('_', '-')}={value}" for key in chosen if (value := getattr(arguments, key))]
        sys.stdout.write(serving((sys.executable, "-m", "supervisor", "serve", *words)))
        return DONE
    _check_needed()
    from supervisor.jupyter.serve import run

    try:
        return run(arguments, _named(arguments))
    except OSError as error:
        raise Quit(FAILED, f"serve: {error}") from None


# What was recorded


def replay(arguments: Namespace) -> int:
    """Print what cells gave, the recorded ones, whoever looked."""
    from supervisor.jupyter.recorder import connect, executions, file_of

    client = client_of(arguments)
    view, state_dir = one(client, arguments.name), get(client, STATUS_PATH)["state_dir"]
    file = Path(file_of(state_dir, view["id"]))
    if not file.exists():
        raise Quit(FAILED, f"nothing is recorded of {view['name']}", "a Jupyter server records while it runs")
    try:
        found = deque(executions(connect(file)), arguments.number)
    except (sqlite3.Error, OSError) as error:
        raise Quit(FAILED, f"{file}: {error}") from None
    printer = Printer(is_raw=False)
    for request, messages in found:
        code = str(request.content.get("code"))
        if arguments.json:
            told = [{"kind": message.kind, "content": message.content} for message in messages]
            say_json({"at": request.at, "code": code, "cell": request.cell, "told": told})
            continue
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(request.at))
        lines = code.replace("\n", "\n... ")
        printer.show("stream", {"text": f"# {when}\n>>> {lines}\n"})
        for message in messages:
            printer.show(message.kind, message.content)
    return DONE
