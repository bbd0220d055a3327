"""What the control door sees of the daemon: one protocol, and the values that pass through it.

Owns the contract between the door and the daemon.  Nothing here acts; the
daemon implements ``Steering`` and the door calls it, both on one event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from supervisor.control.requests import EventsRequest, OutputRequest
from supervisor.core.events import Order

Fields = dict[str, Any]
"""A JSON object.  Enums, paths and tuples in it are fine: the door encodes them."""


class UnknownKernel(LookupError):
    """No kernel of this name is declared; ``known`` are the names that are."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no kernel is named {name!r}")
        self.name = name
        self.known = tuple(known)


class Steering(Protocol):
    """The daemon, as far as the door may know it.

    ``instance`` names this life of the daemon: another start has another one.
    """

    instance: str

    def status(self, names: Sequence[str]) -> Fields:
        """The state of the daemon, and views of these kernels (of all where none is named).

        Keys: ``instance``, ``pid``, ``version``, ``started_at``, ``config``
        (``path``, ``loaded_at``, ``ahead_since``, ``mistakes``,
        ``last_good_in_use``), ``state_dir``, ``events_file``, ``cgroups``
        (``state``, ``advice``), ``seq`` (the number of the last event), ``degraded``,
        ``kernels`` (views, as in docs/api.md).  Raises UnknownKernel.
        """

    def names(self) -> list[str]:
        """The names of the declared kernels, in the order of the file."""

    async def order(self, order: Order, *, wait: bool, timeout: float | None) -> Fields:
        """Submit an order: ``{"ok", "message", "kernel"}``, the last a view.

        With ``wait`` it returns once the kernel has settled or ``timeout``
        seconds have passed; else at once.  The order is submitted before the
        first await, and cancelling the wait never takes it back.  ``ok`` is
        False when it was refused or came to nothing.  Raises UnknownKernel.
        """

    async def reload(self) -> Fields:
        """Read the file now: ``{"accepted", "mistakes", "changes", "supervisor"}``, lines of a plan."""

    async def plan(self, path: str | None) -> Fields:
        """What loading this file would do: ``{"accepted", "mistakes", "kernels", "supervisor"}``.

        ``None`` means the daemon's own file.  A line is ``{"kernel", "action",
        "keys", "note"}``, the action one of none, start, stop, restart,
        apply, pending, remove.  Those of ``supervisor`` are the keys of that
        table which are not as in force, ``{"key", "action"}``: apply, or
        pending until the daemon is started anew.
        """

    def connection(self, name: str) -> Fields:
        """The connection file: ``{"path", "content"}``, the latter without its key.  Raises UnknownKernel."""

    async def executing(self, name: str) -> Fields | None:
        """The cell that it executes, ``{"count", "since", "code"}``, as far as it tells."""

    async def stacks(self, name: str) -> list[str]:
        """The Python stacks of a kernel that is prepared, innermost first.  Raises UnknownKernel."""

    def settings(self, name: str) -> list[Fields]:
        """The settings in force: ``{"key", "value", "origin"}``, a value as TOML spells it.

        ``origin`` is own, defaults or built in.  Values of the environment are left out.
        Raises UnknownKernel.
        """

    async def usage(self, names: Sequence[str]) -> dict[str, Fields]:
        """What these kernels (all where none is named) use, of those that have a process; measured now.

        ``memory`` in bytes, ``is_exact`` (proportional, else resident), ``cpu_seconds``,
        ``core`` (the share of one at present), ``threads``, ``descriptors``, ``children``.
        Raises UnknownKernel.
        """

    async def counts(self) -> Fields:
        """How often things happened since the daemon started; what it uses itself is in ``daemon``."""

    def output(self, name: str, asked: OutputRequest) -> AsyncIterator[Sequence[Fields]]:
        """What the kernel process wrote, as ``{"text"}``: its last lines, then what comes."""

    async def test_hook(self, label: str) -> Fields:
        """Run a hook with a sample event: ``{"ok", "message"}``."""

    def events(self, asked: EventsRequest) -> AsyncIterator[Sequence[Fields]]:
        """Replay past events, many at once, then, with ``follow``, tell each as it happens.

        Each has a number, ``seq``, which grows, also from one daemon to the next: those
        ``after`` one come once each.  ``brief`` leaves out ``output_tail``.  The door stops
        asking for more while its client does not read, so what piles up here must be
        bounded; events lost that way are told by one ``stream.gap``.
        """

    async def detach(self) -> str | None:
        """Begin to exit, leaving the kernels running; why not, if that is refused."""

    async def shutdown(self, *, now: bool) -> None:
        """Begin to stop all kernels and exit; ``now`` goes straight to SIGKILL."""
