"""One kernel across its runs, for programs: IPython's ``KernelManager`` and its two functions."""

from __future__ import annotations

from supervisor.manager.kernel_manager import KernelManager, run_kernel, start_new_kernel

__all__ = ["KernelManager", "run_kernel", "start_new_kernel"]
