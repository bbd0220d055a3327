"""Who calls, what that entitles them to, and what readers are not told."""

from __future__ import annotations

import grp
import os
import pwd
import socket

import pytest

from supervisor.control.callers import Caller, Circle, Role, without_contents
from supervisor.control.requests import RequestError
from supervisor.control.routes import ROUTES, answer
from tests.control.fake_steering import FakeSteering

CIRCLE = Circle(operators=70, readers=71)
OTHER = os.geteuid() + 1


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        ({70}, Role.OPERATOR),
        ({70, 71}, Role.OPERATOR),
        ({71, 5}, Role.READER),
        ({5}, Role.STRANGER),
        (set(), Role.STRANGER),
    ],
)
def test_a_role_is_that_of_the_groups(groups: set[int], role: Role) -> None:
    caller = Caller(1, OTHER, frozenset(groups))

    assert role is CIRCLE.role(caller)
    assert Role.STRANGER is Circle().role(caller)


def test_our_own_user_and_root_own_the_daemon_and_so_does_whom_no_system_tells() -> None:
    for caller in (Caller(1, 0, frozenset()), Caller(1, os.geteuid(), None), None):
        assert Role.OWNER is CIRCLE.role(caller)
        assert Role.OWNER is Circle().role(caller)


def test_a_group_that_is_not_named_makes_nobody_anything() -> None:
    assert Role.STRANGER is Circle(operators=70).role(Caller(1, OTHER, frozenset({71})))
    assert Role.STRANGER is Circle(readers=71).role(Caller(1, OTHER, frozenset({70})))


def test_groups_that_the_socket_does_not_tell_are_those_of_the_user() -> None:
    other = next(user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid()))
    caller = Caller(1, other.pw_uid)

    assert CIRCLE.role(caller) is None
    assert Role.READER is Circle(readers=other.pw_gid).role(caller.looked_up())
    assert Role.STRANGER is CIRCLE.role(Caller(1, 4_000_000_000).looked_up())


def test_a_socket_tells_pid_user_and_groups_of_the_process_that_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        caller = Caller.at(ours)

    assert caller == Caller(os.getpid(), os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def test_groups_are_known_by_their_names() -> None:
    group = grp.getgrgid(os.getegid())

    assert Circle(group.gr_gid, None) == Circle.named(group.gr_name, None)
    assert Circle() == Circle.named(None, None)
    with pytest.raises(KeyError):
        Circle.named(None, "no such group")


READING = {
    *("GET /v1/status", "GET /v1/kernels/{name}", "GET /v1/kernels/{name}/connection", "GET /v1/usage"),
    *("GET /v1/kernels/{name}/usage", "GET /v1/counts", "GET /v1/events"),
}
OWNING = {"POST /v1/detach", "POST /v1/shutdown"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_each_request_is_for_those_for_whom_it_is(route: object, steering: FakeSteering) -> None:
    method, path = route.method, route.path  # type: ignore[attr-defined]
    name = f"{method} {path}"
    least = Role.READER if name in READING else Role.OWNER if name in OWNING else Role.OPERATOR
    target = path.replace("{name}", "analysis")
    body = b'{"signal": "USR1"}' if path.endswith("/signal") else b""

    for role in Role:
        if role < least:
            with pytest.raises(RequestError) as refused:
                await answer(steering, method, target, body, role)
            assert (403, True) == (refused.value.status, f"is for {least}" in refused.value.message)
            assert [] == steering.orders
            assert [] == steering.ended
    assert (await answer(steering, method, target, body, least)).status < 500


async def test_only_our_own_user_has_another_file_planned(steering: FakeSteering) -> None:
    body = b'{"path": "/etc/shadow"}'
    with pytest.raises(RequestError) as refused:
        await answer(steering, "POST", "/v1/plan", body, Role.OPERATOR)

    assert 403 == refused.value.status
    assert steering.planned_path is None
    assert 200 == (await answer(steering, "POST", "/v1/plan", body, Role.OWNER)).status


async def test_readers_are_told_nothing_of_what_is_in_a_kernel(steering: FakeSteering) -> None:
    steering.views["analysis"]["last_death"] = {"exit_code": 7, "output_tail": ["hush"], "detail": "hush"}
    steering.lines = [
        {"event": "kernel.died", "timestamp": "2025-01-31T12:00:00+00:00", "seq": 1, "executing": "hush"}
    ]

    for target in ("/v1/status", "/v1/kernels/analysis"):
        told = await answer(steering, "GET", target, b"", Role.READER)
        assert "hush" not in str(told.fields)
        assert "'exit_code': 7" in str(told.fields)
    reply = await answer(steering, "GET", "/v1/events", b"", Role.READER)
    assert reply.stream is not None
    assert [[{"event": "kernel.died", "timestamp": "2025-01-31T12:00:00+00:00", "seq": 1}]] == [
        b async for b in reply.stream
    ]
    assert 0 == steering.followers
    assert {"a": [{"b": 1}], "c": None} == without_contents(
        {"a": ({"b": 1, "executing": {}},), "c": None, "stacks": []}
    )
