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
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from supervisor.cli.asking import client_of, get, one
from supervisor.cli.exits import DONE, FAILED, Quit
from supervisor.cli.screen import Shown, say, say_json, tell
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
    actions: dict[str, Callable[[Namespace], int]] = {
        "enable": _enable,
        "disable": _disable,
        "status": _tell,
        "kernelspecs": _kernelspecs,
    }
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
    found["kernelspecs"] = sorted(file.parent.name for file in _ours())
    found["problem"] = foreign_supervisor() or (None if found["enabled"] else _NOT_ENABLED)
    lines = [
        f"{key:<16}{', '.join(value) if isinstance(value, list) else value}"
        for key, value in found.items()
        if value
    ]
    tell(found, lines, as_json=arguments.json)
    return DONE if found["kernels"] is not None and not found["problem"] else FAILED


# Kernelspecs, for what runs without a server


def _ours(*directories: str) -> Iterator[Path]:
    """The kernelspecs that were written by us, below these directories or all that Jupyter looks at."""
    from jupyter_core.paths import jupyter_path

    from supervisor.jupyter.specs import MARK

    for directory in directories or jupyter_path("kernels"):
        for file in sorted(Path(directory).glob("*/kernel.json")):
            try:
                if MARK in json.loads(file.read_bytes()).get("metadata", {}):
                    yield file
            except (OSError, ValueError, AttributeError):
                continue


def _kernelspecs(arguments: Namespace) -> int:
    from jupyter_core.paths import jupyter_data_dir

    from supervisor.jupyter.specs import spec_of

    base = Path(arguments.prefix) / "share" / "jupyter" if arguments.prefix else Path(jupyter_data_dir())
    directory = base / "kernels"
    before = {file.parent.name: file for file in _ours(str(directory))}
    written = []
    for view in _kernels(arguments):
        name = view["name"].lower()
        if (directory / name).exists() and name not in before:
            name += "-supervised"  # the name is somebody else's
        _write(directory / name / "kernel.json", spec_of(view, **_named(arguments)).to_dict())
        written.append(name)
    for name in before.keys() - set(written):
        before[name].unlink()
        before[name].parent.rmdir()
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

        chosen = {"port": arguments.port, "ip": arguments.ip, "root": arguments.root or Path.cwd()}
        chosen |= {"allow-origin": arguments.allow_origin, "token-file": arguments.token_file}
        chosen |= {"socket": arguments.socket, "config": arguments.config}
        words = [f"--{key}={value}" for key, value in chosen.items() if value]
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
    file = file_of(state_dir, view["id"])
    if not file.exists():
        raise Quit(FAILED, f"nothing is recorded of {view['name']}", "a Jupyter server records while it runs")
    try:
        found = deque(executions(connect(file)), arguments.number)
    except (sqlite3.Error, OSError) as error:
        raise Quit(FAILED, f"{file}: {error}") from None
    for request, messages in found:
        told = [{"kind": message.kind, "content": message.content} for message in messages]
        if arguments.json:
            say_json({"at": request.at, "code": request.code, "cell": request.cell, "told": told})
        else:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(request.at))
            code = request.code.replace("\n", "\n... ")
            gave = "".join(text_of(message.kind, message.content) for message in messages)
            sys.stdout.write(Shown().of(f"# {when}\n>>> {code}\n{gave}", ends=True))
    return DONE


def text_of(kind: str, content: Fields) -> str:
    """A message as text; empty for one that shows nothing."""
    if kind == "stream":
        return str(content.get("text", ""))
    if kind in ("execute_result", "display_data"):
        data = content.get("data", {})
        return f"{data.get('text/plain', '(' + ', '.join(data) + ')')}\n"
    return "\n".join(map(str, content.get("traceback", []))) + "\n" if kind == "error" else ""
