"""The rules of the operator's settings: delays, budgets, which death is whose end.

Owns the arithmetic.  Knows neither phases nor actions; changes nothing.
"""

from __future__ import annotations

from math import inf
from zlib import crc32

from supervisor.core.model import Cause, Exit
from supervisor.settings.config import BackoffConfig, KernelConfig


def backoff_delay(backoff: BackoffConfig, attempt: int, salt: str) -> float:
    """Seconds to wait before the restart that follows the ``attempt``-th death in a row.

    The jitter comes from ``salt``, so that the same story always ends the same
    way, and kernels that died together come back apart.
    """
    plain = backoff.initial if attempt <= 1 else backoff.next
    if attempt > 2 and plain > 0:
        try:
            plain *= backoff.factor ** (attempt - 2)
        except OverflowError:
            plain = inf
    spread = crc32(salt.encode()) / 0xFFFFFFFF * 2 - 1
    # Once more after the jitter: no delay is longer than max.
    return float(min(min(plain, backoff.max) * (1 + backoff.jitter * spread), backoff.max))


def recent_failures(failures: tuple[float, ...], window: float, now: float) -> tuple[float, ...]:
    """The deaths that still count against the budget."""
    return tuple(at for at in failures if now - at < window)


def is_clean(exit: Exit) -> bool:
    """Whether the process ended by itself and said that all was well."""
    return exit.cause is Cause.EXITED and exit.code == 0


def may_restart(config: KernelConfig, exit: Exit) -> bool:
    """Whether the kernel's ``restart`` setting wants another run after this end."""
    return config.restart == "always" or (config.restart == "on-failure" and not is_clean(exit))


def describe(exit: Exit) -> str:
    """How a process ended, in a few words: ``SIGKILL (killed)``, ``exit code 7``."""
    if exit.detail:
        return exit.detail
    if exit.signal is not None:
        return f"{exit.signal} ({exit.cause.value})"
    if exit.code is not None:
        return f"exit code {exit.code}"
    return f"{exit.cause.value}, exit status unknown"


def is_of_outside(exit: Exit) -> bool:
    """Whether it says nothing of the kernel: no room for it, its port or its place was given to another.

    That is tried again for as long as it takes, and does not count.
    """
    return exit.is_passing or exit.cause in (Cause.PORT_TAKEN, Cause.PREEMPTED, Cause.NODE_FAILED)


def reason_to_give_up(config: KernelConfig, exit: Exit, failures: int) -> str | None:
    """Why no further run is tried, or ``None`` to try again."""
    if is_of_outside(exit):
        return None  # there was no run yet
    if exit.cause is Cause.NOT_FOUND:
        return describe(exit)
    # A hang is ended only where its check has action = "restart", which is an order to restart.
    if config.restart == "never" and exit.cause is not Cause.UNRESPONSIVE:
        return f'ended with {describe(exit)}, and restart = "never"'
    if config.max_restarts and failures > config.max_restarts:
        return f"died {failures} times within {config.restart_window:g} s, last with {describe(exit)}"
    return None
