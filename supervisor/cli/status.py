"""The verb ``status``: a table of the kernels, once or again and again."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from supervisor.cli import words
from supervisor.cli.asking import View, chosen, client_of, get
from supervisor.cli.exits import DONE
from supervisor.cli.screen import (
    PHASE_COLOURS,
    has_colour,
    is_terminal,
    paint,
    say,
    say_json,
    size,
    tell,
)
from supervisor.cli.table import Cell, Column, cut, render
from supervisor.control.client import Broken, Client, NoDaemon
from supervisor.version import __version__
from supervisor.wording import one_line

_COLUMNS = (
    Column("NAME", least=12),
    Column("PHASE"),
    Column("PID", is_number=True),
    Column("UPTIME", is_number=True),
    Column("RESTARTS", is_number=True),
    Column("LAST DEATH", least=10),
    Column("HEALTH"),
    Column("CONNECTION FILE", least=0, keeps_end=True),
)
_USAGE = (Column("MEMORY", is_number=True), Column("CORE", is_number=True), Column("THREADS", is_number=True))
_TAIL_LINES = 10


def status(arguments: Namespace) -> int:
    """Show how the kernels are."""
    client = client_of(arguments)
    if arguments.watch:
        return _watch(client, arguments)
    found = _ask(client, arguments)
    tell(found, _lines(found, arguments), as_json=arguments.json)
    return DONE


def _lines(found: dict[str, Any], arguments: Namespace) -> Iterator[str]:
    """The lines for a person, made when they are asked for."""
    terminal = size(sys.stdout)
    width = terminal[0] if terminal else None
    yield from report(found, arguments.names, width, colours=has_colour(sys.stdout))


def _ask(client: Client, arguments: Namespace) -> dict[str, Any]:
    found = get(client, "/v1/status")
    if arguments.names:
        names = [view["name"] for view in chosen(found["kernels"], arguments.names)]
        found = {**found, "kernels": [get(client, f"/v1/kernels/{name}")["kernel"] for name in names]}
    if arguments.usage:
        # Of all where none is named: the names of hundreds are too many for a request.
        query = {"kernel": [view["name"] for view in found["kernels"]]} if arguments.names else None
        usage = get(client, "/v1/usage", query)["usage"]
        found = {
            **found,
            "kernels": [{**view, "usage": usage.get(view["name"])} for view in found["kernels"]],
        }
    return found


def report(found: dict[str, Any], patterns: Sequence[str], width: int | None, *, colours: bool) -> list[str]:
    """The lines of a status: the daemon, what is wrong with it, the kernels, remarks on them."""
    now = words.now()
    views: list[View] = found["kernels"]
    lines = [cut(line, width) if width else line for line in _of_daemon(found, now)]
    lines = [
        paint(line, "faint" if index == 0 or line.startswith("cgroups:") else "yellow", colours=colours)
        for index, line in enumerate(lines)
    ]
    if views:
        columns = (*_COLUMNS[:4], *_USAGE, *_COLUMNS[4:]) if "usage" in views[0] else _COLUMNS
        lines += render(columns, [_row(view, now) for view in views], width, colours=colours)
    else:
        lines.append("no kernel is declared")
    for view in views:
        lines += _remarks(view, now, with_tail=bool(patterns))
    return lines


def _of_daemon(found: dict[str, Any], now: float) -> list[str]:
    config = found.get("config") or {}
    up = words.span(words.seconds_since(found.get("started_at"), now))
    path = one_line(config.get("path", ""))
    lines = [f"daemon {found.get('version')}, pid {found.get('pid')}, up {up}, {path}"]
    if found.get("version") != __version__:
        lines.append(
            f"daemon {found.get('version')}, installed {__version__}: restart the service, the kernels go on"
        )
    if mistakes := config.get("mistakes"):
        since = words.ago(config.get("ahead_since"), now)
        lines.append(
            f"the file was changed {since} and has mistakes; the settings before it are in force:".replace(
                "  ", " "
            )
        )
        lines += [f"  {one_line(mistake)}" for mistake in mistakes]
    elif config.get("ahead_since"):
        since = words.ago(config["ahead_since"], now)
        lines.append(f"the file was changed {since} and is not in force: kernel-supervisor reload")
    if advice := (found.get("cgroups") or {}).get("advice"):
        lines.append(f"cgroups: {one_line(found['cgroups'].get('state'))}: {one_line(advice)}")
    return lines + [f"degraded: {one_line(trouble)}" for trouble in found.get("degraded") or ()]


def _row(view: View, now: float) -> list[Cell]:
    health = view.get("health")
    phase_colour = PHASE_COLOURS.get(str(view.get("phase")), "plain")
    return [
        Cell(str(view["name"])),
        Cell(words.phase(view, now), phase_colour),
        Cell(_process(view)),
        Cell(words.span(view.get("uptime"))),
        *(_usage(view["usage"]) if "usage" in view else ()),
        Cell(str(view.get("restarts", 0))),
        Cell(words.last_death(view, now)),
        Cell(health or "-", PHASE_COLOURS.get(str(health), "plain")),
        Cell(_short(view.get("connection_file"))),
    ]


def _process(view: View) -> str:
    if job := view.get("job"):
        return f"job {job['number']}".strip()
    return str(view.get("pid") or "-")


def _queue(view: View, now: float) -> Iterator[str]:
    """Where the job of a kernel is, or what it waits for."""
    if (job := view.get("job")) is None:
        return
    if (queue := job["queue"]) is None:
        yield f"{view['name']}: job {job['number']} on {job['node'] or 'its node'}"
        return
    left = words.seconds_since(queue["estimate"], now)
    begins = f", to begin in {words.span(-left)}" if left else ""
    yield f"{view['name']}: in the queue: {one_line(queue['reason']) or 'no reason is known'}{begins}"


def _usage(usage: dict[str, Any] | None) -> list[Cell]:
    if usage is None:
        return [Cell("-")] * len(_USAGE)
    memory, core, threads = usage["memory"], usage["core"], usage["threads"]
    return [Cell(f"{memory / 1e6:.0f} MB"), Cell(f"{core:.2f}"), Cell(str(threads))]


def _short(path: str | None) -> str:
    """The path, below ``~`` on a terminal."""
    if not path:
        return "-"
    home = f"{os.path.expanduser('~')}/"  # noqa: PTH111 - Path.home raises where there is none
    return "~/" + path.removeprefix(home) if sys.stdout.isatty() and path.startswith(home) else path


def _remarks(view: View, now: float, *, with_tail: bool) -> list[str]:
    name = view["name"]
    lines = []
    if view.get("phase") in ("failed", "waiting"):
        reason = one_line(view.get("reason") or "no reason is known")
        todo = f": when it is mended: kernel-supervisor reset {name}" if view["phase"] == "failed" else ""
        lines.append(f"{name}: {view['phase']}: {reason}{todo}")
    lines += _queue(view, now)
    if keys := view.get("pending"):
        edited = ", ".join(keys)
        lines.append(
            f"{name}: edited, in force from its next start: {edited}: kernel-supervisor restart {name}"
        )
    if cell := view.get("executing"):
        since = words.span(words.seconds_since(cell["since"], now))
        lines.append(f"{name}: executes In [{cell['count']}] for {since}: {one_line(cell['code'])}")
    if (begun := view.get("begun") or {}).get("why"):
        lines.append(f"{name}: started {begun['how']}: {one_line(begun['why'])}")
    if with_tail and (death := view.get("last_death")):
        detail = f": {one_line(death['detail'])}" if death.get("detail") else ""
        lines.append(f"{name}: {_death(death, now, 'last death')}{detail}")
        lines += [f"  | {one_line(line)}" for line in words.tail(view, _TAIL_LINES)]
        lines += [f"{name}: {line}" for line in _earlier_deaths(view, now)]
    return lines


def _earlier_deaths(view: View, now: float) -> list[str]:
    """The deaths before the last one, the latest first, one line each."""
    earlier = (view.get("deaths") or [])[-2::-1]
    return [f"run {death.get('generation')}: {_death(death, now, 'died')}" for death in earlier]


def _death(death: View, now: float, word: str) -> str:
    how, when = words.how_it_died(death), words.ago(death.get("at"), now)
    if death.get("pid") is None and not death.get("uptime"):
        return f"could not be launched {when}: {how}"
    return f"{word} {when}: {how} after {words.span(death.get('uptime'))}"


def _watch(client: Client, arguments: Namespace) -> int:
    """Show it again and again; a daemon that goes away is waited for."""
    in_place = is_terminal(sys.stdout) and not arguments.json
    if in_place:
        sys.stdout.write("\x1b[?25l\x1b[2J")
    try:
        is_first = True
        while True:
            _show(client, arguments, in_place=in_place, is_first=is_first)
            is_first = False
            time.sleep(arguments.interval)
    except KeyboardInterrupt:
        return DONE
    finally:
        if in_place:
            sys.stdout.write("\x1b[?25h\n")


def _show(client: Client, arguments: Namespace, *, in_place: bool, is_first: bool) -> None:
    try:
        found = _ask(client, arguments)
    except (NoDaemon, Broken) as missing:
        if is_first:
            raise
        headline = missing.headline if isinstance(missing, NoDaemon) else "the daemon broke off"
        found = {"error": f"{headline}: {missing}", "kernels": []}
    if arguments.json:
        say_json(found)
    else:
        lines = [found["error"]] if "error" in found else list(_lines(found, arguments))
        _draw(lines, in_place=in_place)
    sys.stdout.flush()


def _draw(lines: Sequence[str], *, in_place: bool) -> None:
    terminal = size(sys.stdout)
    if not in_place or terminal is None:
        say("\n".join([*lines, ""]))
        return
    columns, height = terminal
    shown = list(lines)
    if len(shown) >= height:
        hidden = len(shown) - height + 2
        shown = [*shown[: height - 2], f"… {hidden} lines more"]
    # Lines with colours were cut by the table; the others must not wrap.
    cut_lines = [line if "\x1b" in line else cut(line, columns) for line in shown]
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in cut_lines) + "\x1b[J")
