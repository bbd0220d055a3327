"""``AsyncKernelManager``: the same orders, awaited on the caller's loop; and a kernel for a ``with`` block.

Owns nothing but the way to wait.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

from supervisor.manager.kernel_manager import KernelManager, done, new_kernel, start_new_kernel
from supervisor.manager.thread import Work
from supervisor.observe.callbacks import Callback, Callbacks

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.blocking.client import BlockingKernelClient

K = TypeVar("K")
P = ParamSpec("P")
T = TypeVar("T")


def awaited(method: Callable[Concatenate[K, P], T]) -> Callable[Concatenate[K, P], Coroutine[Any, Any, T]]:
    """The same method, where what it returns is to be awaited."""

    @functools.wraps(method)
    async def call(manager: K, /, *arguments: P.args, **keywords: P.kwargs) -> T:
        return cast("T", await done(method(manager, *arguments, **keywords)))

    return call


class AsyncKernelManager(KernelManager):
    """A ``KernelManager`` whose orders are awaited, on any loop.

    Callbacks run on the loop on which the last of them was registered or the kernel
    started: functions, and coroutine functions as well.
    """

    client_class = "jupyter_client.asynchronous.client.AsyncKernelClient"
    _context_class = "zmq.asyncio.Context"

    @classmethod
    def _new_callbacks(cls) -> Callbacks:
        return Callbacks(on_loop=True)

    async def _wait(self, work: Work[T]) -> T:  # type: ignore[override]
        self._carrier.callbacks.loop = asyncio.get_running_loop()
        return await self._carrier.wait(work)

    start_kernel = awaited(KernelManager.start_kernel)  # type: ignore[assignment]
    restart_kernel = awaited(KernelManager.restart_kernel)  # type: ignore[assignment]
    shutdown_kernel = awaited(KernelManager.shutdown_kernel)  # type: ignore[assignment]
    request_shutdown = awaited(KernelManager.request_shutdown)  # type: ignore[assignment]
    finish_shutdown = awaited(KernelManager.finish_shutdown)  # type: ignore[assignment]
    cleanup = awaited(KernelManager.cleanup)  # type: ignore[assignment]
    cleanup_resources = awaited(KernelManager.cleanup_resources)  # type: ignore[assignment]
    interrupt_kernel = awaited(KernelManager.interrupt_kernel)  # type: ignore[assignment]
    signal_kernel = awaited(KernelManager.signal_kernel)  # type: ignore[assignment]
    wait_ready = awaited(KernelManager.wait_ready)  # type: ignore[assignment]

    def add_restart_callback(self, callback: Callback, event: str = "restart") -> None:
        """As there; ``callback`` may be a coroutine function."""
        super().add_restart_callback(callback, event)
        try:
            self._carrier.callbacks.loop = asyncio.get_running_loop()
        except RuntimeError:
            pass  # the one on which it is started

    async def is_alive(self) -> bool:  # type: ignore[override]
        """Whether the process is there and has not ended."""
        return await self._ask(super().is_alive)

    @property
    def ready(self) -> asyncio.Future[None]:  # type: ignore[override]
        """As there, to be awaited."""
        return asyncio.wrap_future(self._ready)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown_kernel()

    if TYPE_CHECKING:

        def client(self, **kw: Any) -> AsyncKernelClient: ...  # type: ignore[override]


async def start_new_async_kernel(
    startup_timeout: float | None = 60, kernel_name: str = "python", **kw: Any
) -> tuple[AsyncKernelManager, AsyncKernelClient]:
    """As ``start_new_kernel``, awaited."""
    return await new_kernel(AsyncKernelManager, startup_timeout, kernel_name, kw)


class run_kernel:  # noqa: N801 - the name is the original's, where it is a function
    """A kernel for the length of a ``with`` block: gives its client, and shuts it down in any case.

    In an ``async with`` block, an asynchronous client.  Keywords are those of ``start_new_kernel``.
    """

    def __init__(self, **kw: Any) -> None:
        self._keywords: Mapping[str, Any] = kw
        self._kernel: tuple[Any, Any]

    def __enter__(self) -> BlockingKernelClient:
        self._kernel = _, client = start_new_kernel(**self._keywords)
        return client

    async def __aenter__(self) -> AsyncKernelClient:
        self._kernel = _, client = await start_new_async_kernel(**self._keywords)
        return client

    def __exit__(self, *_: object) -> None:
        manager, client = self._kernel
        try:
            client.stop_channels()
        finally:
            manager.shutdown_kernel(now=True)

    async def __aexit__(self, *_: object) -> None:
        manager, client = self._kernel
        try:
            client.stop_channels()
        finally:
            await manager.shutdown_kernel(now=True)
