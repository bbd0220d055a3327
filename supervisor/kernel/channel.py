"""Talking to one run of a kernel: readiness, polite requests, whether it is busy.

Owns the sockets of one run, and what is asked over them.  Decides nothing.

Never subscribes to iopub: ipykernel greets only the first subscriber of a topic
(``iopub_welcome``), which must be a client, and Deno has no topics at all.  Whether
a kernel executes something is asked on shell, where kernels answer in turn: an answer
means that what came before is done.  Tried on ipykernel, bash_kernel and Deno.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from types import MappingProxyType
from typing import Any, Literal, cast
from weakref import WeakSet

import zmq

from supervisor.kernel import wire
from supervisor.kernel.connection import Address, ChannelName
from supervisor.kernel.line import Context, Line

Token = bytes | str
Ask = Callable[[], tuple[Token, list[bytes]]]
Heard = Callable[[Mapping[str, Any]], None]
Hears = Callable[[list[bytes]], object]
Trouble = Callable[[str | None], None]

_FIRST_PATIENCE = 0.5
_LONGEST_PATIENCE = 5.0
_LONGEST_IDLE_PATIENCE = 600.0
# So many of the questions that were put again and again may still be answered.
_LATE_ANSWERS = 8
# A kernel that serves its heartbeat this long and not `kernel_info` on control is asked on shell,
# and the answer there counts if control says nothing for some more.
_CONTROL_PATIENCE = 1.0
_CONTROL_GRACE = 0.5
_REPLY_TIMEOUT = 2.0
# Idle is two answers in turn, the second within this: kernels take the requests of several
# clients by turns, so one answer may come from between two of another client's.
_IDLE_CONFIRMATION = 0.1
# A socket that cannot be opened (no descriptor is left, say) is tried again this often, in seconds.
_OPEN_INTERVAL = 0.5


class Question:
    """One question, put once or several times; the first answer counts.  ``None``: the channel was closed.

    The line is listened to until ``close``.  ``heard`` is called at once when it is answered.
    """

    def __init__(
        self, line: Line, ask: Ask, open_questions: dict[Token, Heard], heard: Callable[[], None]
    ) -> None:
        self.answer: asyncio.Future[Mapping[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._line = line
        self._ask = ask
        self._tokens: list[Token] = []
        self._open = open_questions
        self._told = heard
        line.listen()

    def put(self) -> bool:
        """Put it (again); False, and not at all, if too much waits to be sent already."""
        return self._line.send(self._frames())

    async def deliver(self) -> None:
        """Put it (again), if need be once there is room; the caller sets the deadline."""
        await self._line.deliver(self._frames())

    def look(self) -> None:
        """Take in what has arrived, should the loop have been kept from it."""
        self._line.drain()

    def close(self) -> None:
        """Take no interest in an answer any more; again is no error."""
        for token in self._tokens:
            self._open.pop(token, None)
        if not self.answer.done():
            self.answer.cancel()
        self._line.unlisten()

    def end(self) -> None:
        """The channel was closed."""
        if not self.answer.done():
            self.answer.set_result(None)

    def _frames(self) -> list[bytes]:
        token, frames = self._ask()
        self._tokens.append(token)
        self._open[token] = self._heard
        if len(self._tokens) > _LATE_ANSWERS:
            self._open.pop(self._tokens.pop(0), None)
        return frames

    def _heard(self, content: Mapping[str, Any]) -> None:
        if not self.answer.done():
            self.answer.set_result(content)
            self._told()


class Channel:
    """What can be asked of one run of a kernel; sockets are opened at first use.

    ``control_is_served`` is None until known, and False for a kernel that
    answers ``kernel_info`` on shell only.  ``ignored`` counts what arrived
    and was no answer to an open question: wrongly signed, malformed, replayed, late.
    ``trouble`` is told why no socket can be opened, and ``None`` once one can.
    All waits need a running loop, always the same one.
    """

    def __init__(
        self, address: Address, *, context: Context | None = None, trouble: Trouble = lambda _: None
    ) -> None:
        self._address = address
        self._context = context or zmq.Context.instance()
        self._session = uuid.uuid4().hex
        self._lines: dict[str, Line] = {}
        self._open: dict[Token, Heard] = {}
        self._asked: WeakSet[Question] = WeakSet()
        self.is_closed = False
        self.control_is_served: bool | None = None
        self.ignored = 0
        self._trouble = trouble
        self._is_in_trouble = False
        self._hears: dict[str, Hears] = {
            "hb": self._hear_echo,
            "control": self._hear_control,
            "shell": self._hear,
        }

    # Questions with a deadline

    async def ping(self, timeout: float) -> bool:
        """Whether the heartbeat echoes a new payload within so many seconds."""
        return await self._ask_on("hb", self._new_ping, timeout) is not None

    async def kernel_info(
        self, timeout: float, channel: Literal["control", "shell"] = "control"
    ) -> Mapping[str, Any] | None:
        """The content of the ``kernel_info_reply``, or None if none came within so many seconds."""
        return await self._ask_on(channel, self._new_request("kernel_info_request"), timeout)

    async def shutdown_request(self, restart: bool, timeout: float = _REPLY_TIMEOUT) -> bool:
        """Ask the kernel to exit; whether it replied in time, which proves nothing (a busy one does too)."""
        return await self._order("shutdown_request", {"restart": restart}, timeout)

    async def interrupt_request(self, timeout: float = _REPLY_TIMEOUT) -> bool:
        """Ask the kernel to interrupt what it executes; whether it replied in time."""
        return await self._order("interrupt_request", {}, timeout)

    async def is_busy(self, patience: float = 0.3) -> bool:
        """Whether the kernel leaves a question on shell unanswered so long: it executes, or is stuck or gone.

        What runs beside the shell channel (threads, background tasks, subshells) is not seen.
        """
        return await self.kernel_info(patience, "shell") is None

    # Conditions without one: the caller cancels.  ConnectionAbortedError once closed.

    async def wait_ready(self, longest_patience: float = _LONGEST_PATIENCE) -> Mapping[str, Any]:
        """Wait until the kernel answers its heartbeat and ``kernel_info``; the content of the reply.

        On control; on shell for a kernel that does not serve control.  One that is
        silent is asked ever more seldom, at last every ``longest_patience`` seconds.
        """
        info = self._new_request("kernel_info_request")
        heartbeat = asyncio.create_task(self._until_answered("hb", self._new_ping, longest_patience))
        control = asyncio.create_task(self._until_answered("control", info, longest_patience))
        shell: asyncio.Task[Mapping[str, Any]] | None = None
        try:
            await heartbeat
            await asyncio.wait({control}, timeout=_CONTROL_PATIENCE)
            if not control.done():
                shell = asyncio.create_task(self._until_answered("shell", info, longest_patience))
                await asyncio.wait({control, shell}, return_when=asyncio.FIRST_COMPLETED)
                # A kernel that boots slowly answers on both at once.
                await asyncio.wait({control}, timeout=_CONTROL_GRACE)
            self.control_is_served = control.done()
            return control.result() if control.done() or shell is None else shell.result()
        finally:
            tasks = [task for task in (heartbeat, control, shell) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def execute(self, code: str) -> Mapping[str, Any]:
        """Run code, silently and once, and return the content of the reply."""
        content = {
            "code": code,
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        async with self._line_for("shell") as shell:
            with closing(self._question(shell, self._new_request("execute_request", content))) as question:
                await question.deliver()
                if (reply := await question.answer) is None:
                    raise ConnectionAbortedError("the channel is closed")
                return reply

    async def wait_idle(self) -> None:
        """Wait until the kernel executes nothing and has nothing queued; see ``is_busy`` for what is seen."""
        async with self._line_for("shell") as shell:
            ask = self._new_request("kernel_info_request")
            patience = _FIRST_PATIENCE
            while True:
                # Asked again in case a connection was lost, and ever more seldom: it piles up in the kernel.
                if await self._ask(shell, ask, patience) is None:
                    self._refuse_closed()
                    patience = min(2 * patience, _LONGEST_IDLE_PATIENCE)
                elif await self._ask(shell, ask, _IDLE_CONFIRMATION) is not None:
                    return

    # Without waiting, for the checks

    def begin(self, channel: Literal["control", "hb"], heard: Callable[[], None]) -> Question | None:
        """Begin a question of a check; ``None`` if no socket can be opened now, which is nobody's answer.

        Raises ConnectionAbortedError once closed.
        """
        line = self._try_line(channel)
        ask = self._new_ping if channel == "hb" else self._new_request("kernel_info_request")
        return None if line is None else self._question(line, ask, heard)

    def close(self) -> None:
        """Close the sockets; what is being asked counts as unanswered.  Again is no error."""
        self.is_closed = True
        self._drop()
        self._note_trouble(None)

    # Inside

    def _note_trouble(self, message: str | None) -> None:
        if self._is_in_trouble != (message is not None):
            self._is_in_trouble = message is not None
            self._trouble(message)

    def _try_line(self, name: str) -> Line | None:
        """The socket of that name, opened now if it is not; ``None`` if none can be opened."""
        self._refuse_closed()
        if name in self._lines:
            return self._lines[name]
        channel = cast("ChannelName", name.partition(" ")[0])
        try:
            endpoint = self._address.endpoint(channel)
            self._lines[name] = Line(self._context, endpoint, self._hears[channel])
        except (zmq.ZMQError, OSError) as error:
            self._note_trouble(str(error))
            return None
        self._note_trouble(None)
        return self._lines[name]

    def _drop(self) -> None:
        lines, self._lines = self._lines, {}
        self._open.clear()
        for question in self._asked:
            question.end()
        for line in lines.values():
            line.close()

    def _refuse_closed(self) -> None:
        if self.is_closed:
            raise ConnectionAbortedError("the channel is closed")

    async def _order(self, msg_type: str, content: Mapping[str, Any], timeout: float) -> bool:
        ask = self._new_request(msg_type, content)
        channel: ChannelName = "shell" if self.control_is_served is False else "control"
        return await self._ask_on(channel, ask, timeout) is not None

    @asynccontextmanager
    async def _line_for(self, channel: ChannelName) -> AsyncIterator[Line]:
        # On shell a socket of its own each time: it is the clients' channel, and we are rarely on it.
        name = f"shell {secrets.token_hex(4)}" if channel == "shell" else channel
        while (line := self._try_line(name)) is None:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(_OPEN_INTERVAL)
        try:
            yield line
        finally:
            if name != channel:
                self._lines.pop(name, None)
                line.close()

    async def _until_answered(
        self, channel: ChannelName, ask: Ask, longest_patience: float
    ) -> Mapping[str, Any]:
        # Asked again in case a connection was lost; whichever question is answered, it is an answer.
        patience = _FIRST_PATIENCE
        async with self._line_for(channel) as line:
            with closing(self._question(line, ask)) as question:
                while not question.answer.done():
                    try:
                        async with asyncio.timeout(patience):
                            await question.deliver()
                            await asyncio.wait({question.answer})
                    except TimeoutError:
                        patience = min(2 * patience, longest_patience)
                if (content := question.answer.result()) is None:
                    raise ConnectionAbortedError("the channel is closed")
                return content

    async def _ask_on(self, channel: ChannelName, ask: Ask, timeout: float) -> Mapping[str, Any] | None:
        try:
            async with asyncio.timeout(timeout), self._line_for(channel) as line:
                return await self._ask(line, ask, timeout)
        except (TimeoutError, ConnectionAbortedError):
            return None

    async def _ask(self, line: Line, ask: Ask, timeout: float) -> Mapping[str, Any] | None:
        with closing(self._question(line, ask)) as question:
            try:
                async with asyncio.timeout(timeout):
                    await question.deliver()
                    return await question.answer
            except (TimeoutError, ConnectionAbortedError):
                return None

    def _question(self, line: Line, ask: Ask, heard: Callable[[], None] = lambda: None) -> Question:
        question = Question(line, ask, self._open, heard)
        self._asked.add(question)
        return question

    def _new_ping(self) -> tuple[Token, list[bytes]]:
        # The empty frame is the envelope that a REP socket insists on (zmq_socket(3)).
        payload = secrets.token_bytes(16)
        return payload, [b"", payload]

    def _new_request(self, msg_type: str, content: Mapping[str, Any] = MappingProxyType({})) -> Ask:
        return lambda: wire.request(self._address.key, msg_type, dict(content), self._session)

    def _hear_echo(self, frames: list[bytes]) -> None:
        self._accept(frames[-1], {})

    def _hear(self, frames: list[bytes]) -> bool:
        message = wire.reply(self._address.key, frames)
        if message is None:
            self.ignored += 1
            return False
        return self._accept(message.parent_id, message.content)

    def _hear_control(self, frames: list[bytes]) -> None:
        if self._hear(frames):
            self.control_is_served = True

    def _accept(self, token: Token, content: Mapping[str, Any]) -> bool:
        heard = self._open.pop(token, None)
        if heard is None:
            self.ignored += 1
            return False
        heard(content)
        return True
