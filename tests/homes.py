"""What tells a program where the user's things are; no test and no daemon of a test is told."""

from __future__ import annotations

# What leads a program to the user's directories, daemons, kernels and services.
FOREIGN = (
    "XDG_",
    "JUPYTER_",
    "IPYTHON",
    "KERNEL_SUPERVISOR",
    "STATE_DIR",
    "RUNTIME_DIR",
    "CONFIGURATION_DIR",
)
FOREIGN += ("CACHE_DIR", "LOGS_DIR", "NOTIFY_", "WATCHDOG_", "LISTEN_", "JOURNAL_", "INVOCATION_ID", "JPY_")
