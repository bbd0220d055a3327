"""The paths of the control API, and what each asks of the daemon.

Owns the table from method and path to ``Steering``; never reads from a socket.
The table is also what ``openapi.py`` describes, so that the two agree.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from supervisor.control import requests
from supervisor.control.requests import Request, RequestError
from supervisor.control.steering import Fields, Steering, UnknownKernel
from supervisor.core import events
from supervisor.settings.mistakes import did_you_mean


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, and a JSON object or a stream of them."""

    status: int
    fields: Fields | None = None
    stream: AsyncIterator[Fields] | None = None


Act = Callable[[Steering, str, Any], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path: ``{name}`` in it stands for a kernel."""

    method: str
    path: str
    asked: type[Request]
    act: Act
    summary: str

    @property
    def operation(self) -> str:
        """A name for the operation, for clients that are generated."""
        words = re.findall(r"\w+", self.path.removeprefix("/v1/").removesuffix(".json"))
        return "_".join([self.method.lower(), *words])

    def kernel_in(self, path: str) -> str | None:
        """The kernel that a path names, ``""`` on a path without one, ``None`` when it is another path."""
        head, found, tail = self.path.partition("{name}")
        if not found:
            return "" if path == self.path else None
        middle = path.removeprefix(head).removesuffix(tail) if tail else path.removeprefix(head)
        matches = path.startswith(head) and path.endswith(tail) and "/" not in middle and bool(middle)
        return unquote(middle) if matches and len(path) == len(head) + len(middle) + len(tail) else None


async def _status(steering: Steering, _: str, asked: requests.StatusRequest) -> Reply:
    return Reply(200, steering.status(list(asked.kernel) or None))


async def _kernel(steering: Steering, name: str, _: Request) -> Reply:
    views = steering.status([name])["kernels"]
    return Reply(200, {"kernel": views[0]})


async def _connection(steering: Steering, name: str, _: Request) -> Reply:
    return Reply(200, steering.connection(name))


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
    stream = steering.events(
        follow=asked.follow,
        kernels=list(asked.kernel) or None,
        event=asked.event,
        since=requests.instant(asked.since),
        last=asked.last,
    )
    return Reply(200, stream=stream)


async def _detach(steering: Steering, _: str, __: Request) -> Reply:
    await steering.detach()
    return Reply(202, {"ok": True, "message": "the daemon exits, the kernels stay"})


async def _shutdown(steering: Steering, _: str, asked: requests.ShutdownRequest) -> Reply:
    await steering.shutdown(now=asked.now)
    return Reply(202, {"ok": True, "message": "the daemon stops its kernels and exits"})


def _ordering(make: Callable[[str, Any], events.Order]) -> Act:
    async def act(steering: Steering, name: str, asked: requests.OrderRequest) -> Reply:
        order = replace(make(name, asked), if_generation=asked.if_generation)
        outcome = await steering.order(order, wait=asked.wait, timeout=asked.timeout)
        if outcome["ok"]:
            return Reply(200 if asked.wait else 202, outcome)
        hint = f"GET /v1/kernels/{name} and GET /v1/events?kernel={name} tell more"
        return Reply(409, {**outcome, "error": outcome["message"], "hint": hint})

    return act


def _order_route(
    verb: str, asked: type[Request], make: Callable[[str, Any], events.Order], summary: str
) -> Route:
    return Route("POST", f"/v1/kernels/{{name}}/{verb}", asked, _ordering(make), summary)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/status", requests.StatusRequest, _status, "The daemon and its kernels."),
    Route("GET", "/v1/kernels/{name}", requests.NoFields, _kernel, "One kernel."),
    Route(
        "GET",
        "/v1/kernels/{name}/connection",
        requests.NoFields,
        _connection,
        "Its address, without the key.",
    ),
    _order_route("start", requests.OrderRequest, lambda name, _: events.Start(name), "Want the kernel up."),
    _order_route("stop", requests.StopRequest, lambda name, a: events.Stop(name, now=a.now), "Want it down."),
    _order_route(
        "restart",
        requests.RestartRequest,
        lambda name, a: events.Restart(name, now=a.now, new_ports=a.new_ports),
        "Want a new run of it, at the same address.",
    ),
    _order_route(
        "interrupt",
        requests.OrderRequest,
        lambda name, _: events.Interrupt(name),
        "Interrupt what it executes.",
    ),
    _order_route(
        "kill",
        requests.OrderRequest,
        lambda name, _: events.Stop(name, now=True),
        "Stop it with SIGKILL; it stays stopped.",
    ),
    _order_route(
        "reset", requests.OrderRequest, lambda name, _: events.Reset(name), "Clear its failures and start it."
    ),
    _order_route(
        "signal",
        requests.SignalRequest,
        lambda name, a: events.SendSignal(name, requests.signal_number(a.signal)),
        "Send a signal to its process group.",
    ),
    Route("POST", "/v1/reload", requests.NoFields, _reload, "Read the configuration now."),
    Route("POST", "/v1/plan", requests.PlanRequest, _plan, "What a reload would do; does nothing."),
    Route("GET", "/v1/events", requests.EventsRequest, _events, "Lifecycle events, one JSON object a line."),
    Route("POST", "/v1/detach", requests.NoFields, _detach, "Exit; the kernels stay."),
    Route("POST", "/v1/shutdown", requests.ShutdownRequest, _shutdown, "Stop all kernels, then exit."),
)
DESCRIPTION_PATH = "/v1/openapi.json"


def find(method: str, path: str) -> tuple[Route, str]:
    """The route for a request, and the kernel it names.  Raises RequestError."""
    allowed = []
    for route in ROUTES:
        kernel = route.kernel_in(path)
        if kernel is not None and route.method == method:
            return route, kernel
        if kernel is not None:
            allowed.append(route.method)
    if allowed or path == DESCRIPTION_PATH:
        method_hint = f"use {' or '.join(allowed or ['GET'])}"
        raise RequestError(405, f"{method[:20]} is not a method of {path[:200]}", method_hint)
    known = [*(route.path for route in ROUTES), DESCRIPTION_PATH]
    raise RequestError(404, f"there is nothing at {path[:200]}", _near(path, known))


def _near(path: str, known: Sequence[str]) -> str:
    head, _, verb = path.rpartition("/")
    if head.startswith("/v1/kernels/"):
        verbs = [place.rpartition("/")[2] for place in known if place.startswith("/v1/kernels/{name}/")]
        return did_you_mean(verb, verbs) or f"a kernel's verbs are {', '.join(verbs)}"
    return did_you_mean(path, known) or f"GET {DESCRIPTION_PATH} describes what there is"


async def answer(
    steering: Steering, method: str, path: str, query: Mapping[str, Sequence[str]], body: bytes
) -> Reply:
    """Carry out one request.  Raises RequestError."""
    if (method, path) == ("GET", DESCRIPTION_PATH):
        from supervisor.control.openapi import document

        return Reply(200, document(ROUTES))
    route, kernel = find(method, path)
    asked = requests.parse(route.asked, query, body)
    try:
        return await route.act(steering, kernel, asked)
    except UnknownKernel as unknown:
        known = f"there are {', '.join(unknown.known)}" if unknown.known else "none is declared"
        hint = did_you_mean(unknown.name, unknown.known) or known
        raise RequestError(404, str(unknown), hint[:1000]) from None
