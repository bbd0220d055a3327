"""The paths of the control API, and what each asks of the daemon.

Owns the table from method and path to ``Steering``; never reads from a socket.
The table is also what ``openapi.py`` describes, so that the two agree.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from supervisor.control import requests
from supervisor.control.callers import Role, stream_without_contents, without_contents
from supervisor.control.requests import NoFields, OrderRequest, Request, RequestError
from supervisor.control.steering import Fields, Steering, UnknownKernel
from supervisor.core import events
from supervisor.settings.mistakes import did_you_mean


class Reply(Struct, frozen=True):
    """An answer: status, and a JSON object or a stream of them."""

    status: int
    fields: Fields | None = None
    stream: AsyncIterator[Sequence[Fields]] | None = None


Act = Callable[[Steering, str, Any], Awaitable[Reply]]


class Route(Struct, frozen=True, dict=True):
    """One method on one path: ``{name}`` in it stands for a kernel; ``least`` is who may ask for it."""

    method: str
    path: str
    asked: type[Request]
    act: Act
    summary: str
    least: Role = Role.OPERATOR

    @property
    def operation(self) -> str:
        """A name for the operation, for clients that are generated."""
        words = re.findall(r"\w+", self.path.removeprefix("/v1/").removesuffix(".json"))
        return "_".join([self.method.lower(), *words])

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What a path of it looks like; the kernel, if there is one, is its group."""
        return re.compile(self.path.replace(".", r"\.").replace("{name}", "([^/]+)"))


async def _status(steering: Steering, _: str, asked: requests.StatusRequest) -> Reply:
    status = steering.status(asked.kernel)
    for view in status["kernels"] if asked.kernel else ():
        view["executing"] = await steering.executing(view["name"])
    return Reply(200, status)


async def _kernel(steering: Steering, name: str, _: Request) -> Reply:
    view = steering.status([name])["kernels"][0]
    return Reply(200, {"kernel": {**view, "executing": await steering.executing(name)}})


async def _stacks(steering: Steering, name: str, _: Request) -> Reply:
    if stacks := await steering.stacks(name):
        return Reply(200, {"stacks": stacks})
    hint = "only ipykernels that run and were started with warm_start tell them; else: py-spy dump"
    return Reply(409, {"error": f"{name} tells no stacks", "hint": hint})


async def _connection(steering: Steering, name: str, _: Request) -> Reply:
    return Reply(200, steering.connection(name))


async def _settings(steering: Steering, name: str, _: Request) -> Reply:
    return Reply(200, {"settings": steering.settings(name)})


async def _usage(steering: Steering, _: str, asked: requests.StatusRequest) -> Reply:
    return Reply(200, {"usage": await steering.usage(asked.kernel)})


async def _usage_of_one(steering: Steering, name: str, _: Request) -> Reply:
    return Reply(200, {"usage": (await steering.usage([name])).get(name)})


async def _counts(steering: Steering, _: str, __: Request) -> Reply:
    return Reply(200, await steering.counts())


async def _output(steering: Steering, name: str, asked: requests.OutputRequest) -> Reply:
    return Reply(200, stream=steering.output(name, asked))


async def _test_hook(steering: Steering, name: str, _: Request) -> Reply:
    outcome = await steering.test_hook(name)
    return Reply(200, outcome) if outcome["ok"] else Reply(409, {**outcome, "error": outcome["message"]})


async def _reload(steering: Steering, _: str, __: Request) -> Reply:
    return _of_file(await steering.reload())


async def _plan(steering: Steering, _: str, asked: requests.PlanRequest) -> Reply:
    return _of_file(await steering.plan(asked.path))


def _of_file(outcome: Fields) -> Reply:
    if outcome["accepted"]:
        return Reply(200, outcome)
    error = f"the configuration has {len(outcome['mistakes'])} mistakes"
    return Reply(
        422, {**outcome, "error": error, "hint": "mend them; the settings in force stay as they are"}
    )


async def _events(steering: Steering, _: str, asked: requests.EventsRequest) -> Reply:
    return Reply(200, stream=steering.events(asked))


async def _detach(steering: Steering, _: str, __: Request) -> Reply:
    if (reason := await steering.detach()) is not None:
        raise RequestError(409, "detach is refused", reason)
    return Reply(202, {"ok": True, "message": "the daemon exits, the kernels stay"})


async def _shutdown(steering: Steering, _: str, asked: requests.ShutdownRequest) -> Reply:
    await steering.shutdown(now=asked.now)
    return Reply(202, {"ok": True, "message": "the daemon stops its kernels and exits"})


def _order(
    verb: str, summary: str, make: Callable[[str, Any], events.Order], asked: type[Request] = OrderRequest
) -> Route:
    """The route of an order to a kernel."""

    async def act(steering: Steering, name: str, asked: OrderRequest) -> Reply:
        order = replace(make(name, asked), if_generation=asked.if_generation)
        outcome = await steering.order(order, wait=asked.wait, timeout=asked.timeout)
        if outcome["ok"]:
            return Reply(200 if asked.wait else 202, outcome)
        hint = f"GET /v1/kernels/{name} and GET /v1/events?kernel={name} tell more"
        return Reply(409, {**outcome, "error": outcome["message"], "hint": hint})

    return Route("POST", f"/v1/kernels/{{name}}/{verb}", asked, act, summary)


def _signal(name: str, asked: requests.SignalRequest) -> events.Order:
    return events.SendSignal(name, requests.signal_number(asked.signal))


def _stop(name: str, asked: requests.StopRequest) -> events.Order:
    return events.Stop(name, now=asked.now)


def _restart(name: str, asked: requests.RestartRequest) -> events.Order:
    return events.Restart(name, now=asked.now, new_ports=asked.new_ports)


_KERNEL, _READER = "/v1/kernels/{name}", Role.READER

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/status", requests.StatusRequest, _status, "The daemon and its kernels.", _READER),
    Route("GET", "/v1/kernels/{name}", NoFields, _kernel, "One kernel.", _READER),
    Route("GET", f"{_KERNEL}/connection", NoFields, _connection, "Its address, without the key.", _READER),
    _order("start", "Want the kernel up.", lambda name, _: events.Start(name)),
    _order("stop", "Want it down.", _stop, requests.StopRequest),
    _order("restart", "Want a new run of it, at the same address.", _restart, requests.RestartRequest),
    _order("interrupt", "Interrupt what it executes.", lambda name, _: events.Interrupt(name)),
    _order("kill", "Stop it with SIGKILL; it stays stopped.", lambda name, _: events.Stop(name, now=True)),
    _order("reset", "Clear its failures and start it.", lambda name, _: events.Reset(name)),
    _order("signal", "Send a signal to its process group.", _signal, requests.SignalRequest),
    Route("POST", f"{_KERNEL}/stacks", NoFields, _stacks, "What its threads do at the moment."),
    Route("GET", f"{_KERNEL}/settings", NoFields, _settings, "Its settings in force."),
    Route("GET", f"{_KERNEL}/usage", NoFields, _usage_of_one, "Memory, processor, …", _READER),
    Route("GET", f"{_KERNEL}/output", requests.OutputRequest, _output, "What it wrote itself."),
    Route("GET", "/v1/usage", requests.StatusRequest, _usage, "The usage of many kernels.", _READER),
    Route("GET", "/v1/counts", NoFields, _counts, "How often things happened, for metrics.", _READER),
    Route("POST", "/v1/hooks/{name}/test", NoFields, _test_hook, "A sample event to a hook."),
    Route("POST", "/v1/reload", NoFields, _reload, "Read the configuration now."),
    Route("POST", "/v1/plan", requests.PlanRequest, _plan, "What a reload would do; does nothing."),
    Route("GET", "/v1/events", requests.EventsRequest, _events, "Lifecycle events, one a line.", _READER),
    Route("POST", "/v1/detach", NoFields, _detach, "Exit; the kernels stay.", Role.OWNER),
    Route("POST", "/v1/shutdown", requests.ShutdownRequest, _shutdown, "Stop all, then exit.", Role.OWNER),
)
DESCRIPTION_PATH = "/v1/openapi.json"


def find(method: str, path: str) -> tuple[Route, str]:
    """The route for a request, and the kernel it names.  Raises RequestError."""
    allowed = ["GET"] if path == DESCRIPTION_PATH else []
    for route in ROUTES:
        if (found := route.pattern.fullmatch(path)) is not None:
            if route.method == method:
                return route, unquote(found[1]) if found.groups() else ""
            allowed.append(route.method)
    if allowed:
        raise RequestError(
            405, f"{method[:20]} is not a method of {path[:200]}", f"use {' or '.join(allowed)}"
        )
    raise RequestError(404, f"there is nothing at {path[:200]}", _near(path))


def _near(path: str) -> str:
    known = [*(route.path for route in ROUTES), DESCRIPTION_PATH]
    head, _, verb = path.rpartition("/")
    if head.startswith("/v1/kernels/"):
        verbs = [place.rpartition("/")[2] for place in known if place.startswith("/v1/kernels/{name}/")]
        return did_you_mean(verb, verbs) or f"a kernel's verbs are {', '.join(verbs)}"
    return did_you_mean(path, known) or f"GET {DESCRIPTION_PATH} describes what there is"


async def answer(steering: Steering, method: str, target: str, body: bytes, role: Role = Role.OWNER) -> Reply:
    """Carry out one request of somebody of this role.  Raises RequestError."""
    try:
        parts = urlsplit(target)
        query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise RequestError(
            400, f"the target is not valid: {error}", "ask for a path such as /v1/status"
        ) from None
    route, kernel = find(method, parts.path)
    if role < route.least:
        _refuse(f"{method} {parts.path}", route.least, role)
    asked = requests.parse(route.asked, query, body)
    if role < Role.OWNER and getattr(asked, "path", None) is not None:
        # It is read as the daemon's account, and its mistakes quote it.
        _refuse("to plan another file", Role.OWNER, role)
    try:
        reply = await route.act(steering, kernel, asked)
    except UnknownKernel as unknown:
        raise RequestError(404, str(unknown), _instead(unknown.name, unknown.known)) from None
    if role > Role.READER:
        return reply
    stream = None if reply.stream is None else stream_without_contents(reply.stream)
    return Reply(reply.status, without_contents(reply.fields), stream)


def _refuse(what: str, least: Role, role: Role) -> NoReturn:
    hint = "[supervisor] operators and readers name the groups (docs/security.md)"
    raise RequestError(403, f"{what} is for {least}, and you are one of the {role}"[:1000], hint)


def _instead(name: str, known: Sequence[str]) -> str:
    there = f"there are {', '.join(known)}" if known else "none is declared"
    return (did_you_mean(name, known) or there)[:1000]
