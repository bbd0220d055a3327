"""``MultiKernelManager``: many kernels, each by its id.

Owns which managers there are.  Everything else is theirs.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import uuid
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from jupyter_client.multikernelmanager import DuplicateKernelError

from supervisor.manager.asynchronous import AsyncKernelManager
from supervisor.manager.connection_file import imported
from supervisor.manager.kernel_manager import KernelManager, done
from supervisor.manager.thread import drive

if TYPE_CHECKING:
    from collections.abc import Awaitable

M = TypeVar("M")
P = ParamSpec("P")
T = TypeVar("T")

Awaiting = Callable[..., Coroutine[Any, Any, T]]

# So many kernels are shut down at a time.
_AT_A_TIME = 32


def of_kernel(method: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[Any, str, P], T]:
    """The method of the manager of a kernel, for its id."""

    @functools.wraps(method)
    def call(managers: MultiKernelManager, kernel_id: str, /, *arguments: P.args, **keywords: P.kwargs) -> T:
        done: T = getattr(managers.get_kernel(kernel_id), method.__name__)(*arguments, **keywords)
        return done

    return call


class MultiKernelManager:
    """The managers of many kernels.  Keywords are its attributes; ``config`` is for the managers.

    Where a kernel id is taken, KeyError is raised for an unknown one.
    """

    default_kernel_name: str = "python3"
    kernel_manager_class: str | type[KernelManager] = KernelManager
    kernel_manager_factory: Any = None
    kernel_spec_manager: Any = None
    connection_dir: str | os.PathLike[str] = ""
    context: Any = None
    shared_context = True
    config: Any = None
    parent: Any = None
    log: Any = logging.getLogger(__name__)

    def __init__(self, **keywords: Any) -> None:
        self._kernels: dict[str, KernelManager] = {}
        for name, value in keywords.items():
            if name.startswith("_") or not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__}: {name}: no such keyword")
            setattr(self, name, value)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return drive(work)  # the managers return nothing to be awaited

    # Which there are

    def list_kernel_ids(self) -> list[str]:
        """The ids of the kernels, in the order of their starts."""
        return list(self._kernels)

    def __len__(self) -> int:
        return len(self._kernels)

    def __contains__(self, kernel_id: object) -> bool:
        return kernel_id in self._kernels

    def get_kernel(self, kernel_id: str) -> KernelManager:
        """The manager of a kernel."""
        try:
            return self._kernels[kernel_id]
        except KeyError:
            raise KeyError(f"Kernel with id not found: {kernel_id}") from None

    def remove_kernel(self, kernel_id: str) -> KernelManager | None:
        """Know the kernel no more; returns its manager, or ``None`` if it was not known."""
        return self._kernels.pop(kernel_id, None)

    def new_kernel_id(self, **_: Any) -> str:
        """The id of a kernel that is given none: a UUID."""
        return str(uuid.uuid4())

    # Starting and ending

    def start_kernel(self, kernel_name: str | None = None, **kw: Any) -> str:
        """Start a kernel; returns its id, that of ``kernel_id=`` or a new one.

        Further keywords and exceptions are those of ``KernelManager.start_kernel``;
        DuplicateKernelError if there is one with the id.
        """
        return self._run(self._start(kernel_name, kw))

    async def _start(self, kernel_name: str | None, keywords: dict[str, Any]) -> str:
        kernel_id = keywords.pop("kernel_id", None) or self.new_kernel_id(**keywords)
        if kernel_id in self:
            raise DuplicateKernelError(f"Kernel already exists: {kernel_id}")
        made = imported(self.kernel_manager_factory or self.kernel_manager_class)(
            kernel_name=kernel_name or self.default_kernel_name,
            kernel_id=kernel_id,
            **self._shared(kernel_id),
        )
        self._kernels[kernel_id] = made
        try:
            await done(made.start_kernel(**keywords))
        except BaseException:
            self.remove_kernel(kernel_id)
            raise
        return kernel_id

    def _shared(self, kernel_id: str) -> Mapping[str, Any]:
        file = Path(self.connection_dir, f"kernel-{kernel_id}.json") if self.connection_dir else ""
        context = self.context if self.shared_context else None
        given = {"kernel_spec_manager": self.kernel_spec_manager, "config": self.config, "context": context}
        known = {name: value for name, value in given.items() if value is not None}
        return {"connection_file": str(file), "log": self.log, **known}

    def shutdown_kernel(self, kernel_id: str, now: bool = False, restart: bool = False) -> None:
        """Shut a kernel down, and know it no more."""
        return self._run(self._shut_down(kernel_id, now=now, restart=restart))

    async def _shut_down(self, kernel_id: str, *, now: bool, restart: bool) -> None:
        kernel: Any = self.get_kernel(kernel_id)
        await done(kernel.shutdown_kernel(now=now, restart=restart))
        self.remove_kernel(kernel_id)

    def shutdown_all(self, now: bool = False) -> None:
        """Shut all kernels down, beside each other."""
        ended: list[Future[None]] = []
        with ThreadPoolExecutor(_AT_A_TIME, "shutdown") as pool:
            for kernel_id in self.list_kernel_ids():
                try:
                    ended.append(pool.submit(MultiKernelManager.shutdown_kernel, self, kernel_id, now))
                except RuntimeError:  # the program ends, and no thread is to be had
                    self.shutdown_kernel(kernel_id, now)
        for each in ended:
            each.result()

    restart_kernel = of_kernel(KernelManager.restart_kernel)
    request_shutdown = of_kernel(KernelManager.request_shutdown)
    finish_shutdown = of_kernel(KernelManager.finish_shutdown)
    cleanup_resources = of_kernel(KernelManager.cleanup_resources)
    interrupt_kernel = of_kernel(KernelManager.interrupt_kernel)
    signal_kernel = of_kernel(KernelManager.signal_kernel)
    is_alive = of_kernel(KernelManager.is_alive)
    update_env = of_kernel(KernelManager.update_env)
    add_restart_callback = of_kernel(KernelManager.add_restart_callback)
    remove_restart_callback = of_kernel(KernelManager.remove_restart_callback)
    get_connection_info = of_kernel(KernelManager.get_connection_info)
    connect_shell = of_kernel(KernelManager.connect_shell)
    connect_iopub = of_kernel(KernelManager.connect_iopub)
    connect_stdin = of_kernel(KernelManager.connect_stdin)
    connect_control = of_kernel(KernelManager.connect_control)
    connect_hb = of_kernel(KernelManager.connect_hb)


class AsyncMultiKernelManager(MultiKernelManager):
    """A ``MultiKernelManager`` of ``AsyncKernelManager``s, whose orders are awaited."""

    kernel_manager_class = AsyncKernelManager

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:  # type: ignore[override]
        return await work

    async def shutdown_all(self, now: bool = False) -> None:  # type: ignore[override]
        """Shut all kernels down, beside each other."""
        await asyncio.gather(
            *(self._shut_down(kernel_id, now=now, restart=False) for kernel_id in self.list_kernel_ids())
        )

    restart_kernel: Awaiting[None] = of_kernel(AsyncKernelManager.restart_kernel)  # type: ignore[assignment]
    request_shutdown: Awaiting[None] = of_kernel(AsyncKernelManager.request_shutdown)  # type: ignore[assignment]
    finish_shutdown: Awaiting[None] = of_kernel(AsyncKernelManager.finish_shutdown)  # type: ignore[assignment]
    cleanup_resources: Awaiting[None] = of_kernel(AsyncKernelManager.cleanup_resources)  # type: ignore[assignment]
    interrupt_kernel: Awaiting[None] = of_kernel(AsyncKernelManager.interrupt_kernel)  # type: ignore[assignment]
    signal_kernel: Awaiting[None] = of_kernel(AsyncKernelManager.signal_kernel)  # type: ignore[assignment]
    is_alive: Awaiting[bool] = of_kernel(AsyncKernelManager.is_alive)  # type: ignore[assignment]

    if TYPE_CHECKING:

        def start_kernel(self, kernel_name: str | None = None, **kw: Any) -> Awaitable[str]: ...  # type: ignore[override]
        def shutdown_kernel(  # type: ignore[override]
            self, kernel_id: str, now: bool = False, restart: bool = False
        ) -> Awaitable[None]: ...
        def get_kernel(self, kernel_id: str) -> AsyncKernelManager: ...
