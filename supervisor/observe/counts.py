"""How often things happened since the daemon started: what metrics are made of.

Owns the counting.  Numbers only, by kernel and cause; nothing is written.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

# Upper bounds of how long kernels take until they are ready, in seconds; the last has none.
READY_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counts:
    """The observer that counts."""

    def __init__(self) -> None:
        # What happened, of which kernel, why.
        self._counts: dict[str, dict[str, Counter[str]]] = {
            what: defaultdict(Counter) for what in ("deaths", "restarts", "unresponsive")
        }
        self._loads = {"accepted": 0, "rejected": 0}
        self._ready: dict[str, list[int]] = {}
        self._took: dict[str, float] = {}
        # Why a kernel died last: the restart that follows is for the same reason.
        self._last: dict[str, str] = {}

    def __call__(self, event: Mapping[str, object]) -> None:
        """Count the event, if it is one of those that count."""
        kernel = str(event.get("kernel") or "")
        match event.get("event"):
            case "kernel.died":
                self._last[kernel] = cause = str(event.get("cause"))
                self._counts["deaths"][kernel][cause] += 1
            case "kernel.restarting":
                cause = str(event.get("reason") or self._last.get(kernel, "unknown"))
                self._counts["restarts"][kernel][cause] += 1
            case "kernel.unresponsive":
                self._counts["unresponsive"][kernel][str(event.get("check"))] += 1
            case "kernel.ready":
                self._count_ready(kernel, event.get("took"))
            case "config.loaded":
                self._loads["accepted"] += 1
            case "config.rejected":
                self._loads["rejected"] += 1
            case "kernel.removed":
                tables: list[dict[str, Any]] = [self._ready, self._took, self._last, *self._counts.values()]
                for table in tables:
                    table.pop(kernel, None)

    def _count_ready(self, kernel: str, took: object) -> None:
        if isinstance(took, int | float):
            buckets = self._ready.setdefault(kernel, [0] * (len(READY_BOUNDS) + 1))
            buckets[bisect_left(READY_BOUNDS, took)] += 1
            self._took[kernel] = self._took.get(kernel, 0.0) + took

    def fields(self) -> dict[str, object]:
        """The counts as JSON-able values, as ``GET /v1/counts`` answers.

        ``deaths``, ``restarts`` and ``unresponsive``: objects ``{kernel: {cause: count}}``;
        ``ready``: ``{kernel: {"buckets": [...], "seconds": sum}}``, one more bucket than
        ``bounds``; ``loads``: ``{"accepted": n, "rejected": n}``.
        """
        ready = {
            kernel: {"buckets": list(buckets), "seconds": round(self._took[kernel], 3)}
            for kernel, buckets in self._ready.items()
        }
        told = {"loads": self._loads, "bounds": list(READY_BOUNDS), "ready": ready}
        return {**{what: dict(kernels) for what, kernels in self._counts.items()}, **told}
