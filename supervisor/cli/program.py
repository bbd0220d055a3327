"""The command: finds the verb, parses its arguments, and turns what goes wrong into an exit code.

Owns usage and help.  Only the parser of the verb that was called is built.
"""

from __future__ import annotations

import errno
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, cast

from supervisor.cli.exits import BAD_CONFIG, DONE, FAILED, MEANINGS, NO_DAEMON, USAGE, Quit
from supervisor.cli.screen import accept_all, complain, open_all, say
from supervisor.cli.verbs import PROGRAM, VERBS, Verb, parser_of, verb_at
from supervisor.wording import one_line

GROUPS = {
    "seeing": "See",
    "orders": "Give orders (NAME… or --all; each waits for the outcome unless --no-wait)",
    "using": "Use a kernel",
    "configuration": "Configure",
    "daemon": "The daemon",
}

_NOT_WRITTEN = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns its exit code."""
    open_all()
    accept_all()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except Quit as quit_:
        if quit_.message:
            complain(_lines_of(quit_))
        return quit_.code
    except KeyboardInterrupt:
        return FAILED
    except OSError as error:
        if error.errno not in _NOT_WRITTEN or error.filename is not None:
            raise
        # The interpreter must not complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # else nobody reads
            complain(f"the answer cannot be written: {error.strerror}")
        return FAILED
    return code


def _lines_of(quit_: Quit) -> str:
    """The message with its hint, fit for a terminal."""
    text = f"{quit_.message}: {quit_.hint}" if quit_.hint else quit_.message
    return "\n".join(one_line(line) for line in text.splitlines())


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in {"-h", "--help", "help"}:
        say(overview())
        return DONE
    if argv[0] in {"-V", "--version"}:
        from supervisor.version import __version__

        say(f"{PROGRAM} {__version__}")
        return DONE
    if argv[0] == "__complete":
        from supervisor.cli.completion import complete

        return complete(argv[1:])
    at = verb_at(argv)
    if at is None:
        raise Quit(USAGE, f"no verb in: {' '.join(argv)}", f"see {PROGRAM} --help")
    name = argv.pop(at)
    verb = VERBS.get(name)
    if verb is None:
        from supervisor.settings.mistakes import did_you_mean

        hint = did_you_mean(name, VERBS) or f"see {PROGRAM} --help"
        raise Quit(USAGE, f"{name!r} is not a verb", hint)
    arguments = parse(name, verb, argv)
    from supervisor.control.client import Broken, NoDaemon
    from supervisor.control.lookup import BadPath, NoConfig

    try:
        return _act(verb)(arguments)
    except NoDaemon as missing:
        tried = [f"  {path}: {reason}" for path, reason in missing.tried]
        hint = _ways_out(missing)
        raise Quit(NO_DAEMON, "\n".join([f"{missing.headline}; tried:", *tried, hint])) from None
    except Broken as broken:
        raise Quit(FAILED, str(broken), "the daemon may have ended; try again") from None
    except BadPath as mistake:
        raise Quit(USAGE, str(mistake)) from None
    except NoConfig as mistake:
        raise Quit(BAD_CONFIG, str(mistake)) from None


def _ways_out(missing: Exception) -> str:
    from supervisor.control.client import OtherDaemon, Unresponsive

    match missing:
        case OtherDaemon():
            return "to run both, give this file a state_dir of its own in [supervisor]"
        case Unresponsive():
            return "if it stays so, end its process: its kernels live on, and the next daemon takes them up"
        case _:
            return f'start one with "{PROGRAM} run", or name its socket with --socket or --config'


def _act(verb: Verb) -> Callable[[Any], int]:
    module, _, function = verb.act.partition(":")
    return cast("Callable[[Any], int]", getattr(import_module(module), function))


def parse(name: str, verb: Verb, argv: Sequence[str]) -> Namespace:
    """The arguments of a verb.  Raises Quit."""
    parser = parser_of(name, verb)
    options = [option for action in parser._actions for option in action.option_strings]
    arguments, unknown = parser.parse_known_intermixed_args(list(argv))
    if unknown:
        from supervisor.settings.mistakes import did_you_mean

        hint = did_you_mean(unknown[0].partition("=")[0], options) or f"see {parser.prog} --help"
        kind = "option" if unknown[0].startswith("-") else "argument"
        raise Quit(USAGE, f"{name}: {unknown[0]!r} is not an {kind} of it", hint)
    arguments.verb = name
    return arguments


def overview() -> str:
    """The help of the whole command."""
    lines = [f"Usage: {PROGRAM} VERB [NAME…] [--json] [--socket PATH | --config FILE]", ""]
    lines += ["Keeps Jupyter kernels alive at a stable address.", ""]
    for group, title in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<12}{verb.summary}" for name, verb in VERBS.items() if verb.group == group]
        lines.append("")
    lines += [
        f"{PROGRAM} VERB --help tells more about a verb. Kernel names may be quoted patterns: 'an*'.",
        "The daemon is looked for at --socket, --config, $KERNEL_SUPERVISOR_SOCKET, the usual places.",
        f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in MEANINGS.items())}.",
    ]
    return "\n".join(lines)
