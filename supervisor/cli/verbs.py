"""The verbs of the command line: their arguments, their help, and who carries them out.

Owns the one table of verbs, from which help and completion are made too.  A
verb's module is imported when it is called, so that none pays for another.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import NamedTuple

Arguments = Callable[[ArgumentParser], None]


class Verb(NamedTuple):
    """A verb: what it does, its arguments, and ``module:function`` that does it."""

    summary: str
    arguments: Arguments
    act: str
    group: str = "orders"
    asks_daemon: bool = True
    names: str = "none"
    """What completes its first words: "kernels", "files", or "none"."""


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
    parser.add_argument("action", choices=("print", "install", "uninstall"), help="to stdout, or for systemd")
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


_PACKAGE = "supervisor.cli"
_JUPYTER = "supervisor.jupyter.verbs"


def _own(module: str, function: str) -> str:
    return f"{_PACKAGE}.{module}:{function}"


_ORDERS = _own("orders", "give")

VERBS: Mapping[str, Verb] = {
    "run": Verb(
        "the daemon, in the foreground",
        _run,
        "supervisor.daemon.run:run",
        "daemon",
        asks_daemon=False,
        names="files",
    ),
    "check": Verb(
        "validate a configuration; print the effective settings",
        _check,
        _own("files", "check"),
        "configuration",
        asks_daemon=False,
        names="files",
    ),
    "schema": Verb(
        "the JSON schema of the configuration",
        _nothing,
        _own("files", "schema"),
        "configuration",
        asks_daemon=False,
    ),
    "plan": Verb(
        "what a reload would do; does nothing", _plan, _own("files", "plan"), "configuration", names="files"
    ),
    "reload": Verb("read the configuration now", _nothing, _own("files", "reload"), "configuration"),
    "status": Verb(
        "the kernels and how they are", _status, _own("status", "status"), "seeing", names="kernels"
    ),
    "health": Verb(
        "exit 0 if all that is wanted up is ready and well",
        _some_names,
        _own("health", "health"),
        "seeing",
        names="kernels",
    ),
    "metrics": Verb("the kernels as Prometheus metrics", _nothing, _own("metrics", "metrics"), "seeing"),
    "logs": Verb("what happened to the kernels", _logs, _own("logs", "logs"), "seeing", names="kernels"),
    "output": Verb(
        "what a kernel process itself wrote", _output, _own("output", "output"), "seeing", names="kernels"
    ),
    "start": Verb("start kernels", _order, _ORDERS, names="kernels"),
    "stop": Verb("stop kernels", _stop, _ORDERS, names="kernels"),
    "restart": Verb("restart kernels at their address", _restart, _ORDERS, names="kernels"),
    "interrupt": Verb("interrupt what kernels execute", _order, _ORDERS, names="kernels"),
    "kill": Verb("stop kernels with SIGKILL", _order, _ORDERS, names="kernels"),
    "reset": Verb("clear a kernel's failures and start it", _order, _ORDERS, names="kernels"),
    "signal": Verb("send a signal to a kernel's process group", _signal, _ORDERS, names="kernels"),
    "connection": Verb(
        "the path of a kernel's connection file", _name, _own("using", "connection"), "using", names="kernels"
    ),
    "exec": Verb("run code in a kernel", _exec, _own("execute", "execute"), "using", names="kernels"),
    "console": Verb(
        "a Jupyter console in a kernel", _name, _own("using", "console"), "using", names="kernels"
    ),
    "hooks": Verb("run a hook with a sample event", _hooks, _own("hooks", "hooks"), "configuration"),
    "replay": Verb(
        "what a kernel's cells gave, as recorded", _replay, f"{_JUPYTER}:replay", "using", names="kernels"
    ),
    "serve": Verb(
        "a Jupyter server with the kernels, on a port of its own",
        _serve,
        f"{_JUPYTER}:serve",
        "using",
        asks_daemon=False,
    ),
    "jupyter": Verb(
        "connect JupyterLab and other programs of Jupyter",
        _jupyter,
        f"{_JUPYTER}:jupyter",
        "using",
        asks_daemon=False,
    ),
    "detach": Verb("the daemon exits, the kernels stay", _detach, _own("ending", "detach"), "daemon"),
    "shutdown": Verb("stop all kernels, then the daemon", _shutdown, _own("ending", "shutdown"), "daemon"),
    "completion": Verb(
        "a completion script for a shell",
        _completion,
        _own("completion", "script"),
        "daemon",
        asks_daemon=False,
    ),
    "systemd": Verb(
        "print, install or remove a systemd unit of this installation",
        _systemd,
        _own("systemd", "systemd"),
        "daemon",
        asks_daemon=False,
    ),
}
HIDDEN: Mapping[str, Verb] = {
    "__names": Verb("the names of the kernels, for completion", _nothing, _own("completion", "names")),
}


def add_arguments(verb: Verb, parser: ArgumentParser) -> None:
    """Give a parser the arguments of a verb, with those of all that ask the daemon."""
    verb.arguments(parser)
    if verb.asks_daemon:
        _which_daemon(parser)
        _json(parser)
