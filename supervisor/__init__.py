"""Keeps Jupyter kernels alive at a stable address.

The names of the public API are imported when they are first asked for: the
command line imports this package and must stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.version import __version__

if TYPE_CHECKING:
    from supervisor.control.client import connection_file
    from supervisor.manager import (
        AsyncKernelManager,
        AsyncMultiKernelManager,
        KernelManager,
        MultiKernelManager,
        run_kernel,
        start_new_async_kernel,
        start_new_kernel,
    )
    from supervisor.settings.config import KernelConfig
    from supervisor.supervision.embedded import Supervisor

__all__ = [
    "AsyncKernelManager",
    "AsyncMultiKernelManager",
    "KernelConfig",
    "KernelManager",
    "MultiKernelManager",
    "Supervisor",
    "__version__",
    "connection_file",
    "run_kernel",
    "start_new_async_kernel",
    "start_new_kernel",
]

# The others are in supervisor.manager.
_HOMES = {
    "KernelConfig": "supervisor.settings.config",
    "Supervisor": "supervisor.supervision.embedded",
    "connection_file": "supervisor.control.client",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "supervisor.manager")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
