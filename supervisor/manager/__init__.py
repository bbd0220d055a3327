"""Kernels across their runs, for programs: ``KernelManager`` and what jupyter_client has beside it."""

from __future__ import annotations

from supervisor.manager.asynchronous import AsyncKernelManager, run_kernel, start_new_async_kernel
from supervisor.manager.kernel_manager import KernelManager, start_new_kernel
from supervisor.manager.multi import AsyncMultiKernelManager, MultiKernelManager

__all__ = [
    "AsyncKernelManager",
    "AsyncMultiKernelManager",
    "KernelManager",
    "MultiKernelManager",
    "run_kernel",
    "start_new_async_kernel",
    "start_new_kernel",
]
