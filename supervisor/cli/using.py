"""The verbs that lead to a kernel: ``connection``, ``stacks`` and ``console``."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from supervisor.cli.asking import View, client_of, get, one, post
from supervisor.cli.exits import DONE, FAILED, Quit
from supervisor.cli.screen import say, say_json, tell
from supervisor.control.client import Client
from supervisor.wording import one_line


def connection(arguments: Namespace) -> int:
    """Print where the connection file is."""
    client = client_of(arguments)
    view = one(client, arguments.name)
    refuse_planted(client, view)
    if arguments.json:
        say_json(get(client, f"/v1/kernels/{view['name']}/connection"))
    else:
        say(str(view["connection_file"]))
    return DONE


def stacks(arguments: Namespace) -> int:
    """Print what the threads of the kernel do."""
    client = client_of(arguments)
    view = one(client, arguments.name)
    found = post(client, f"/v1/kernels/{view['name']}/stacks")
    tell(found, map(one_line, found["stacks"]), as_json=arguments.json)
    return DONE


def refuse_planted(client: Client, view: View) -> None:
    """A file that neither the daemon's user nor we nor root put there leads to somebody else's kernel."""
    file = str(view["connection_file"])
    try:
        owner = os.lstat(file).st_uid
    except OSError:
        return  # none is there, or not for us
    trusted = {0, os.geteuid(), client.uid}
    if user := view.get("user"):
        # Loaded where it is needed, and nowhere else.
        from supervisor.process.account import uid_of

        trusted.add(uid_of(user))
    if owner not in trusted:
        hint = "remove it, or choose another runtime_dir"
        raise Quit(FAILED, f"{file}: another user (uid {owner}) put it there", hint)


def refuse_closed(view: View) -> None:
    """Who may run code in a kernel has its account; others are told so, whatever they may ask the daemon."""
    file = str(view["connection_file"])
    try:
        Path(file).stat()
        is_closed = not os.access(file, os.R_OK)
    except PermissionError:
        is_closed = True
    except OSError:
        return  # none is there
    if is_closed:
        hint = (
            f"only {view.get('user') or 'the account of the daemon'}, and root, may use {view['name']} itself"
        )
        raise Quit(FAILED, f"{file}: you may not read it", hint)


def console(arguments: Namespace) -> int:
    """Become a Jupyter console that is connected to the kernel."""
    client = client_of(arguments)
    view = one(client, arguments.name)
    file = str(view["connection_file"])
    refuse_planted(client, view)
    refuse_closed(view)
    # Not is_file(), which raises where the directory may not be entered.
    if not os.path.isfile(file):  # noqa: PTH113
        hint = f"start it: kernel-supervisor start {view['name']}"
        raise Quit(FAILED, f"{view['name']} is {view['phase']} and has no connection file", hint)
    command = console_command()
    if command is None:
        raise Quit(
            FAILED, "jupyter-console is not installed", f"pip install jupyter-console, then connect to {file}"
        )
    sys.stdout.flush()
    os.execvp(command[0], [*command, "--existing", file])  # noqa: S606 - becoming it is the purpose


def console_command() -> list[str] | None:
    """How a Jupyter console is started here: beside our interpreter, as its module, or from PATH."""
    import shutil
    from importlib.util import find_spec

    beside = Path(sys.executable).parent / "jupyter-console"
    if os.access(beside, os.X_OK):
        return [str(beside)]
    if find_spec("jupyter_console") is not None:
        return [sys.executable, "-m", "jupyter_console"]
    found = shutil.which("jupyter-console")
    return [found] if found else None
