"""The verbs that connect the programs of Jupyter: ``jupyter``, ``serve`` and ``replay``.

Owns what is written into an environment's configuration of Jupyter, and what
is printed.  The table of verbs names these functions; nothing imports them.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from supervisor.control.client import STATUS_PATH, Client
from supervisor.control.lookup import lead
from supervisor.disk.files import write_atomically

Fields = dict[str, Any]

DONE, FAILED = 0, 1
_FILE = "kernel-supervisor.json"
_NEEDED = "jupyter_server"
_MODULE = "supervisor.jupyter"
# All but line ends, tabs and colours: what a kernel wrote must not steer a terminal.
_CONTROL = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _complain(message: str) -> int:
    print(f"kernel-supervisor: {message}", file=sys.stderr)
    return FAILED


def _status(arguments: Namespace) -> Fields:
    """The status of the daemon.  Raises NoDaemon, Broken and BadPath."""
    found = lead(os.environ, socket=arguments.socket, config=arguments.config)
    return Client(found=found).ask("GET", STATUS_PATH).body


def _missing() -> str:
    if find_spec(_NEEDED) is not None:
        return ""
    todo = "in the environment of your JupyterLab: pip install 'kernel-supervisor[jupyter]'"
    return f"{_NEEDED} is not installed in {sys.prefix}: {todo}"


def jupyter(arguments: Namespace) -> int:
    """Carry out one of the actions of ``jupyter``."""
    if missing := _missing():
        return _complain(missing)
    actions: dict[str, Callable[[Namespace], int]] = {
        "enable": _enable,
        "disable": _disable,
        "status": _tell,
        "kernelspecs": _kernelspecs,
    }
    try:
        return actions[arguments.action](arguments)
    except OSError as error:
        return _complain(f"jupyter {arguments.action}: {error}")


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
        return _complain(told)
    directory = _configuration(arguments)
    _write(
        directory / "jupyter_server_config.d" / _FILE, {"ServerApp": {"jpserver_extensions": {_MODULE: True}}}
    )
    _name_daemon(directory, arguments)
    print(f"enabled in {directory}; start JupyterLab anew: jupyter lab")
    return DONE


def _name_daemon(directory: Path, arguments: Namespace) -> None:
    """Have the server ask this daemon, where one was named; else whatever it finds."""
    from jupyter_server.config_manager import BaseJSONConfigManager

    manager = BaseJSONConfigManager(config_dir=str(directory))
    content = manager.get("jupyter_server_config")
    before = content.pop("SupervisedKernels", None)
    if named := _named(arguments):
        content["SupervisedKernels"] = named
    if before != content.get("SupervisedKernels"):
        manager.set("jupyter_server_config", content)


def _named(arguments: Namespace) -> dict[str, str]:
    named = {"socket": arguments.socket, "configuration": arguments.config}
    return {key: str(Path(value).absolute()) for key, value in named.items() if value}


def _disable(arguments: Namespace) -> int:
    directory = _configuration(arguments)
    file = directory / "jupyter_server_config.d" / _FILE
    if not file.exists():
        return _complain(f"not enabled in {directory}: see kernel-supervisor jupyter status")
    file.unlink()
    _name_daemon(directory, Namespace(socket=None, config=None))
    print(f"disabled in {directory}; a server that runs goes on as it is")
    return DONE


def _tell(arguments: Namespace) -> int:
    """Whether it works, and where it does not."""
    from jupyter_core.paths import jupyter_config_path

    from supervisor.jupyter.extension import foreign_supervisor

    places = [Path(place) / "jupyter_server_config.d" / _FILE for place in jupyter_config_path()]
    enabled = [str(place) for place in places if place.is_file()]
    try:
        names = [view["name"] for view in _status(arguments)["kernels"]]
        daemon = f"answers, with {len(names)} kernels: {', '.join(names)}"
    except Exception as error:
        names, daemon = None, f"does not answer: {error}"
    kernelspecs = sorted(name for _, name in _ours())
    found: Fields = {
        "jupyter_server": version(_NEEDED),
        "jupyterlab": _version("jupyterlab"),
        "notebook": _version("notebook"),
        "enabled": enabled,
        "daemon": daemon,
        "kernels": names,
        "kernelspecs": kernelspecs,
        "problem": foreign_supervisor(),
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"extension    {', '.join(enabled) or 'not enabled: kernel-supervisor jupyter enable'}")
        print(f"daemon       {daemon}")
        installed = [
            f"{key} {found[key]}" for key in ("jupyter_server", "jupyterlab", "notebook") if found[key]
        ]
        print(f"installed    {', '.join(installed)}")
        print(f"kernelspecs  {', '.join(kernelspecs) or 'none: kernel-supervisor jupyter kernelspecs'}")
        if found["problem"]:
            print(f"problem      {found['problem']}")
    return DONE if enabled and names is not None and not found["problem"] else FAILED


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# Kernelspecs, for what runs without a server


def _ours(*directories: str) -> Iterator[tuple[Path, str]]:
    """The kernelspecs that were written by us, below these directories or all that Jupyter looks at."""
    from jupyter_core.paths import jupyter_path

    from supervisor.jupyter.specs import MARK

    for directory in directories or jupyter_path("kernels"):
        for file in sorted(Path(directory).glob("*/kernel.json")):
            try:
                if MARK in json.loads(file.read_bytes()).get("metadata", {}):
                    yield file, file.parent.name
            except (OSError, ValueError, AttributeError):
                continue


def _kernelspecs(arguments: Namespace) -> int:
    from jupyter_core.paths import jupyter_data_dir

    from supervisor.jupyter.specs import spec_of

    base = Path(arguments.prefix) / "share" / "jupyter" if arguments.prefix else Path(jupyter_data_dir())
    directory = base / "kernels"
    before = {name: file for file, name in _ours(str(directory))}
    written = []
    for view in _status(arguments)["kernels"]:
        name = view["name"].lower()
        if (directory / name).exists() and name not in before:
            name += "-supervised"  # the name is somebody else's
        _write(directory / name / "kernel.json", spec_of(view, **_named(arguments)).to_dict())
        written.append(name)
    for name in before.keys() - set(written):
        before[name].unlink()
        before[name].parent.rmdir()
    print(f"{directory}: {', '.join(written) or 'none'}")
    return DONE


def _write(file: Path, content: Fields) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, (json.dumps(content, indent=2) + "\n").encode(), mode=0o644)


# A server of its own


def serve(arguments: Namespace) -> int:
    """Be a Jupyter server with the supervised kernels."""
    if missing := _missing():
        return _complain(missing)
    from supervisor.jupyter.serve import run, unit

    if arguments.print_unit:
        chosen = {"port": arguments.port, "ip": arguments.ip, "root": arguments.root or Path.cwd()}
        chosen |= {"allow-origin": arguments.allow_origin, "token-file": arguments.token_file}
        chosen |= {"socket": arguments.socket, "config": arguments.config}
        words = [f"--{key}={value}" for key, value in chosen.items() if value]
        print(unit([sys.executable, "-m", "supervisor", "serve", *words]), end="")
        return DONE
    try:
        return run(arguments, _named(arguments))
    except OSError as error:
        return _complain(f"serve: {error}")


# What was recorded


def replay(arguments: Namespace) -> int:
    """Print what cells gave, the recorded ones, whoever looked."""
    from supervisor.jupyter.recorder import connect, executions

    status = _status(arguments)
    view = next((view for view in status["kernels"] if view["name"] == arguments.name), None)
    if view is None:
        known = ", ".join(view["name"] for view in status["kernels"])
        return _complain(f"no kernel is named {arguments.name!r}: there are {known}")
    file = Path(status["state_dir"]) / "recorder" / f"{view['id']}.sqlite"
    if not file.exists():
        return _complain(f"nothing is recorded of {view['name']}: a Jupyter server records while it runs")
    try:
        found = list(executions(connect(file)))[-arguments.number :]
    except (sqlite3.Error, OSError) as error:
        return _complain(f"{file}: {error}")
    for request, messages in found:
        told: list[Fields] = [{"kind": message.kind, "content": message.content} for message in messages]
        if arguments.json:
            print(json.dumps({"at": request.at, "code": request.code, "cell": request.cell, "told": told}))
        else:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(request.at))
            print(harmless(f"# {when}\n>>> " + request.code.replace("\n", "\n... ")))
            sys.stdout.write(harmless("".join(text_of(one["kind"], one["content"]) for one in told)))
    return DONE


def text_of(kind: str, content: Fields) -> str:
    """A message as text; empty for one that shows nothing."""
    if kind == "stream":
        return str(content.get("text", ""))
    if kind in ("execute_result", "display_data"):
        data = content.get("data", {})
        return f"{data.get('text/plain', '(' + ', '.join(data) + ')')}\n"
    return "\n".join(map(str, content.get("traceback", []))) + "\n" if kind == "error" else ""


def harmless(text: str) -> str:
    """The text with nothing in it that steers a terminal, but colours."""
    return _CONTROL.sub(lambda found: found[0] if found[0].endswith("m") and len(found[0]) > 1 else "", text)
