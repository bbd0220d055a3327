"""The verbs of the command line: their arguments, their help, and who carries them out.

Owns the one table of verbs, from which help and completion are made too.  A
verb's module is imported when it is called, so that none pays for another.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from supervisor.cli.exits import USAGE, Quit

Arguments = Callable[[ArgumentParser], None]

PROGRAM = "kernel-supervisor"
WITH_VALUE = ("--socket", "--config")


class Verb(NamedTuple):
    """A verb: where help has it, what it does, its arguments, and ``module:function`` that does it."""

    group: str
    summary: str
    arguments: Arguments
    act: str
    names: str = ""
    """What completes its first words: "kernels", "files", or nothing."""
    asks_daemon: bool = True


def _nothing(parser: ArgumentParser) -> None:
    pass


def _run(parser: ArgumentParser) -> None:
    _config(parser, "the configuration; default: the first of the usual places")
    parser.add_argument("--config", dest="config_option", metavar="FILE", help="the same as CONFIG")
    parser.add_argument("--state-dir", metavar="DIR", help="instead of [supervisor] state_dir")
    parser.add_argument("--socket", metavar="PATH", help="instead of [supervisor] socket")
    parser.add_argument("--log-format", choices=("auto", "json", "console"), help="instead of log_format")


def _check(parser: ArgumentParser) -> None:
    _config(parser, "the configuration; default: the first of the usual places")
    parser.add_argument("--config", dest="config_option", metavar="FILE", help="the same as CONFIG")
    parser.add_argument("--run-as", metavar="ACCOUNT", help="judge as this account, as its service would")
    _json(parser)


def _plan(parser: ArgumentParser) -> None:
    _config(parser, "a file to be planned; default: the daemon's own")


def _config(parser: ArgumentParser, text: str) -> None:
    parser.add_argument("file", nargs="?", metavar="CONFIG", help=text)


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _status(parser: ArgumentParser) -> None:
    _some_names(parser)
    parser.add_argument("--usage", action="store_true", help="measure memory and processor, too")
    parser.add_argument("-w", "--watch", action="store_true", help="show it again and again, until Ctrl-C")
    parser.add_argument("--interval", type=_positive, default=1.0, metavar="S", help="seconds between (1)")


def _hooks(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("test",), metavar="test", help="send a sample event")
    parser.add_argument("name", metavar="NAME", help="the name of a hook, or its program")


def _some_names(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="kernels, or quoted patterns; default: all")


def _order(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="kernels, or quoted patterns such as 'an*'")
    parser.add_argument("--all", action="store_true", help="all kernels")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the outcome")
    parser.add_argument("--timeout", type=_positive, metavar="S", help="wait so many seconds at most")


def _stop(parser: ArgumentParser) -> None:
    _order(parser)
    parser.add_argument("--now", action="store_true", help="begin with SIGKILL instead of asking")


def _restart(parser: ArgumentParser) -> None:
    _stop(parser)
    parser.add_argument("--new-ports", action="store_true", help="at a new address; clients must reconnect")


def _signal(parser: ArgumentParser) -> None:
    parser.add_argument("signal", metavar="SIGNAL", help="such as USR1, SIGUSR1 or 10")
    _order(parser)


def _logs(parser: ArgumentParser) -> None:
    _some_names(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on as events happen")
    parser.add_argument("-n", "--lines", type=_count, metavar="N", help="the last N (50; with --since all)")
    parser.add_argument("--event", metavar="E", help="only this event, such as kernel.died")
    parser.add_argument("--cause", metavar="C", help="only deaths of this cause, such as oom")
    parser.add_argument("--since", metavar="T", help="10m, 2h, 3d, or an ISO 8601 date and time")
    parser.add_argument("--until", metavar="T", help="the same; nothing after it")
    parser.add_argument("--summary", action="store_true", help="a table: deaths by cause, longest run, …")


def _output(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a kernel")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it writes")
    parser.add_argument("-n", "--lines", type=_count, default=100, metavar="N", help="the last N lines (100)")
    _raw(parser)


def _raw(parser: ArgumentParser) -> None:
    parser.add_argument("--raw", action="store_true", help="pass control sequences on to the terminal")


def _name(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a kernel")


def _exec(parser: ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("code", nargs="?", metavar="CODE", help="the code; - reads it from stdin")
    parser.add_argument("--timeout", type=_positive, metavar="S", help="give up after so many seconds")
    _raw(parser)


def _detach(parser: ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the daemon is gone")


def _shutdown(parser: ArgumentParser) -> None:
    _detach(parser)
    parser.add_argument("--now", action="store_true", help="begin with SIGKILL instead of asking")


def _completion(parser: ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def _systemd(parser: ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("print", "install", "clean", "uninstall"), help="clean: end what it left"
    )
    whose, which = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    whose.add_argument("--user", action="store_true", help="a unit for your own systemd, not the system's")
    whose.add_argument(
        "--run-as", type=_account, metavar="ACCOUNT", help="of the kernels (kernel-supervisor)"
    )
    which.add_argument("--instance", type=_instance, metavar="NAME", help="one service for each NAME.toml")
    which.add_argument("--config", metavar="FILE", help="the configuration that it runs")
    parser.add_argument("--dry-run", action="store_true", help="show what would be written or removed")
    parser.add_argument(
        "--replace", action="store_true", help="over a unit that differs, which is kept beside it"
    )
    parser.add_argument("--purge", action="store_true", help="uninstall: records, events and output as well")


def _jupyter(parser: ArgumentParser) -> None:
    actions = ("enable", "disable", "status", "kernelspecs")
    parser.add_argument("action", choices=actions, help="what is to be done, in this environment of Jupyter")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--user", action="store_true", help="for your user, in all environments")
    whose.add_argument("--prefix", metavar="P", help="in the environment at P")
    _which_daemon(parser)
    _json(parser)


def _serve(parser: ArgumentParser) -> None:
    parser.add_argument("--port", type=_count, default=8899, metavar="N", help="the port (8899)")
    parser.add_argument("--ip", default="127.0.0.1", metavar="IP", help="the address (127.0.0.1)")
    parser.add_argument("--root", metavar="DIR", help="the directory of the notebooks; default: this one")
    parser.add_argument("--allow-origin", metavar="URL", help="whose pages may use it, as Colab's")
    parser.add_argument("--token-file", metavar="FILE", help="with the token; made if it is not there")
    parser.add_argument("--print-unit", action="store_true", help="print a unit for systemd, and do nothing")
    _which_daemon(parser)


def _replay(parser: ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("-n", "--number", type=_count, default=10, metavar="N", help="the last N cells (10)")


def _which_daemon(parser: ArgumentParser) -> None:
    parser.add_argument("--socket", metavar="PATH", help="the daemon's control socket")
    parser.add_argument("--config", metavar="FILE", help="ask the daemon of this configuration")


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise ValueError
    return number


_positive.__name__ = "number of seconds"


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


_count.__name__ = "number"


def _account(text: str) -> str:
    return _matching(text, r"[A-Za-z0-9_][A-Za-z0-9_.-]*[$]?")


_account.__name__ = "account"


def _instance(text: str) -> str:
    return _matching(text, r"[A-Za-z0-9][A-Za-z0-9_.-]*")


_instance.__name__ = "name of letters, digits, '.', '_' and '-'"


def _matching(text: str, pattern: str) -> str:
    import re

    if not re.fullmatch(pattern, text):
        raise ValueError
    return text


_CLI, _JUPYTER = "supervisor.cli", "supervisor.jupyter.verbs"
_ORDERS, _FILES = f"{_CLI}.orders:give", f"{_CLI}.files"


def _order_of(summary: str, arguments: Arguments = _order) -> Verb:
    return Verb("orders", summary, arguments, _ORDERS, "kernels")


def _local(group: str, summary: str, arguments: Arguments, act: str, names: str = "") -> Verb:
    """A verb that asks no daemon."""
    return Verb(group, summary, arguments, act, names, asks_daemon=False)


VERBS: Mapping[str, Verb] = {
    "run": _local("daemon", "the daemon, in the foreground", _run, "supervisor.daemon.run:run", "files"),
    "check": _local(
        "configuration", "validate, and print what is in force", _check, f"{_FILES}:check", "files"
    ),
    "schema": _local("configuration", "the JSON schema", _nothing, f"{_FILES}:schema"),
    "plan": Verb("configuration", "what a reload would do; does nothing", _plan, f"{_FILES}:plan", "files"),
    "reload": Verb("configuration", "read the configuration now", _nothing, f"{_FILES}:reload"),
    "status": Verb("seeing", "the kernels and how they are", _status, f"{_CLI}.status:status", "kernels"),
    "health": Verb(
        "seeing", "exit 0 if all that is wanted up is well", _some_names, f"{_CLI}.health:health", "kernels"
    ),
    "metrics": Verb("seeing", "the kernels as Prometheus metrics", _nothing, f"{_CLI}.metrics:metrics"),
    "logs": Verb("seeing", "what happened to the kernels", _logs, f"{_CLI}.logs:logs", "kernels"),
    "output": Verb("seeing", "what a kernel process wrote", _output, f"{_CLI}.output:output", "kernels"),
    "stacks": Verb("using", "the Python stacks of one that hangs", _name, f"{_CLI}.using:stacks", "kernels"),
    "start": _order_of("start kernels"),
    "stop": _order_of("stop kernels", _stop),
    "restart": _order_of("restart kernels at their address", _restart),
    "interrupt": _order_of("interrupt what kernels execute"),
    "kill": _order_of("stop kernels with SIGKILL"),
    "reset": _order_of("clear a kernel's failures and start it"),
    "signal": _order_of("send a signal to a kernel's process group", _signal),
    "connection": Verb(
        "using", "the path of a kernel's connection file", _name, f"{_CLI}.using:connection", "kernels"
    ),
    "exec": Verb("using", "run code in a kernel", _exec, f"{_CLI}.execute:execute", "kernels"),
    "console": Verb("using", "a Jupyter console in a kernel", _name, f"{_CLI}.using:console", "kernels"),
    "hooks": Verb("configuration", "run a hook with a sample event", _hooks, f"{_CLI}.hooks:hooks"),
    "replay": Verb(
        "using", "what a kernel's cells gave, as recorded", _replay, f"{_JUPYTER}:replay", "kernels"
    ),
    "serve": _local(
        "using", "a Jupyter server with the kernels, on its own port", _serve, f"{_JUPYTER}:serve"
    ),
    "jupyter": _local("using", "connect JupyterLab and other programs", _jupyter, f"{_JUPYTER}:jupyter"),
    "detach": Verb("daemon", "the daemon exits, the kernels stay", _detach, f"{_CLI}.ending:detach"),
    "shutdown": Verb("daemon", "stop all kernels, then the daemon", _shutdown, f"{_CLI}.ending:shutdown"),
    "completion": _local("daemon", "a script for a shell", _completion, f"{_CLI}.completion:script"),
    "systemd": _local("daemon", "print, install or remove a unit", _systemd, f"{_CLI}.systemd:systemd"),
}


class _Parser(ArgumentParser):
    """Says what is wrong with the arguments in one line, and what to do."""

    def error(self, message: str) -> NoReturn:
        raise Quit(USAGE, message, f"see {self.prog} --help")


def verb_at(argv: Sequence[str]) -> int | None:
    """Where the verb is: the first word that is neither an option nor the value of one."""
    takes_next = False
    for index, word in enumerate(argv):
        if not takes_next and not word.startswith("-"):
            return index
        takes_next = not takes_next and word in WITH_VALUE
    return None


def parser_of(name: str, verb: Verb) -> ArgumentParser:
    """The parser of one verb."""
    parser = _Parser(
        prog=f"{PROGRAM} {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        allow_abbrev=False,
    )
    verb.arguments(parser)
    if verb.asks_daemon:
        _which_daemon(parser)
        _json(parser)
    return parser
