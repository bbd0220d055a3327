"""The verbs about configurations: ``run``, ``check``, ``schema``, ``plan``, ``reload``."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervisor.cli.asking import client_of, refuse
from supervisor.cli.exits import BAD_CONFIG, DONE
from supervisor.cli.screen import complain, say, say_json
from supervisor.control.client import Answer, Client, NoDaemon, OtherDaemon, Unresponsive
from supervisor.control.lookup import BadPath, config_of, default_config, lead
from supervisor.wording import one_line

READING_TIMEOUT = 60.0
"""Seconds in which a daemon that is well has read its file, however many it includes."""

_PENDING = "takes effect when the daemon is started anew"


def check(arguments: Namespace) -> int:
    """Validate a configuration, and print what is in force with it."""
    path = config_of(os.environ, arguments.file or arguments.config_option).absolute()
    if arguments.run_as:
        from supervisor.cli.account import become

        become(arguments.run_as)
    from supervisor.settings import file as toml_file

    try:
        loaded = toml_file.load(path)
    except toml_file.ConfigError as error:
        return _tell_mistakes([str(mistake) for mistake in error.mistakes], as_json=arguments.json)
    from supervisor.kernel.launch import lacking

    remarks = [*lacking(loaded.config), *_ambiguous(list(loaded.config.kernels))]
    if arguments.json:
        import msgspec

        settings = msgspec.to_builtins(loaded.config)
        say_json({"accepted": True, "mistakes": [], "warnings": remarks, "config": settings})
        return DONE
    say(toml_file.effective_toml(loaded.config).rstrip("\n"))
    for remark in remarks:
        complain(f"warning: {one_line(remark)}")
    return DONE


def _ambiguous(names: Sequence[str]) -> list[str]:
    """Names by which Jupyter's own programs may find another kernel: any file that contains it."""
    return [
        f'kernels.{name}: the name is part of {other!r}, so "--existing {name}" may mean either: '
        f"use kernel-supervisor console {name}, or --existing kernel-{name}.json"
        for name in names
        for other in names
        if name != other and name in other
    ]


def schema(arguments: Namespace) -> int:  # noqa: ARG001 - the form of all verbs
    """Print the JSON schema of configurations."""
    import json

    from supervisor.settings.schema import json_schema

    say(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return DONE


def plan(arguments: Namespace) -> int:
    """Tell what a reload would do."""
    file = Path(arguments.file).absolute() if arguments.file else None
    client = _client_for(arguments, file)
    try:
        fields = {"path": str(file)} if file else {}
        answer = client.ask("POST", "/v1/plan", fields, timeout=READING_TIMEOUT)
    except (OtherDaemon, Unresponsive):
        raise  # there is one
    except NoDaemon:
        # Without a socket that was meant, and with a file, what a start would do is the answer.
        named = arguments.file or arguments.config or default_config(os.environ)
        if arguments.socket or named is None:
            raise
        complain("no daemon answers: this is what a start would do")
        _hint_at(lead(os.environ, config=str(named)).state_dir)
        answer = Answer(200, _plan_of_start(Path(named)), "")
    return _tell_outcome(answer, "kernels", arguments, ("would be applied", "nothing would be done"))


def _hint_at(state_dir: Path | None) -> None:
    """What a start would meet at its state directory."""
    assert state_dir is not None, "no socket was named"
    # Not is_dir(), which raises where the directory above may not be entered.
    there = next(path for path in (state_dir, *state_dir.parents) if os.path.exists(path))  # noqa: PTH110
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):  # noqa: PTH112
        complain(
            f"{state_dir}: a start could not write there: make {there} writable, or choose another state_dir"
        )
    elif there != state_dir:
        complain(f"{state_dir} is not there yet: a start makes it")


def _plan_of_start(path: Path) -> dict[str, Any]:
    from msgspec.structs import asdict

    from supervisor.core import plan as planning
    from supervisor.core.events import Load
    from supervisor.core.model import State
    from supervisor.settings import file as toml_file

    try:
        config = toml_file.load(path).config
    except toml_file.ConfigError as error:
        mistakes = [str(mistake) for mistake in error.mistakes]
        return {"accepted": False, "mistakes": mistakes, "kernels": [], "supervisor": []}
    lines = planning.plan(State(), Load(config.kernels, config.supervisor.max_concurrent_starts), 0.0)
    kernels = [asdict(line) for line in lines]
    return {"accepted": True, "mistakes": [], "kernels": kernels, "supervisor": []}


def reload(arguments: Namespace) -> int:
    """Have the daemon read its configuration now."""
    answer = client_of(arguments).ask("POST", "/v1/reload", {}, timeout=READING_TIMEOUT)
    return _tell_outcome(answer, "changes", arguments, ("applied", "accepted; nothing was to be done"))


def _client_for(arguments: Namespace, file: Path | None) -> Client:
    """The daemon that is meant; a file to be planned may name its own daemon too."""
    if file is None or arguments.config or arguments.socket:
        return client_of(arguments)
    try:
        own = lead(os.environ, config=str(file))
        client = Client(found=own)
        client.connect().close()
        return client
    except (NoDaemon, BadPath):
        # The daemon that would be asked anyway may be asked about any file, and tells what is wrong with it.
        return client_of(arguments)


def _tell_outcome(answer: Answer, lines_key: str, arguments: Namespace, told: tuple[str, str]) -> int:
    """Tell the lines; ``told`` is what is said of a key of the daemon that is live, and of no line at all."""
    body = answer.body
    if "accepted" not in body:
        refuse(answer)
    if arguments.json:
        say_json(body)
        return DONE if body["accepted"] else BAD_CONFIG
    if not body["accepted"]:
        return _tell_mistakes(body.get("mistakes") or [], as_json=False)
    applied, nothing = told
    lines = [
        f"[supervisor] {line['key']}: {applied if line['action'] == 'apply' else _PENDING}"
        for line in body.get("supervisor") or []
    ]
    lines += [_line(line) for line in body.get(lines_key) or [] if line.get("action") != "none"]
    for line in lines or [nothing]:
        say(line)
    return DONE


def _line(line: dict[str, Any]) -> str:
    keys = ", ".join(line.get("keys") or [])
    parts = [f"{line['kernel']}: {line['action']}", keys, one_line(line.get("note") or "")]
    return ": ".join(part for part in parts if part)


def _tell_mistakes(mistakes: Sequence[str], *, as_json: bool) -> int:
    if as_json:
        say_json({"accepted": False, "mistakes": list(mistakes)})
    for mistake in mistakes:
        sys.stderr.write(f"{one_line(mistake)}\n")
    return BAD_CONFIG
