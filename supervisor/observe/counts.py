"""How often things happened since the daemon started: what metrics are made of.

Owns the counting.  Numbers only, by kernel and cause; nothing is written.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping

# Upper bounds of how long kernels take until they are ready, in seconds; the last has none.
READY_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counts:
    """The observer that counts."""

    def __init__(self) -> None:
        self._deaths: dict[str, Counter[str]] = defaultdict(Counter)
        self._restarts: dict[str, Counter[str]] = defaultdict(Counter)
        self._unresponsive: dict[str, Counter[str]] = defaultdict(Counter)
        self._loads: Counter[str] = Counter()
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
                self._deaths[kernel][cause] += 1
            case "kernel.restarting":
                cause = str(event.get("reason") or self._last.get(kernel, "unknown"))
                self._restarts[kernel][cause] += 1
            case "kernel.unresponsive":
                self._unresponsive[kernel][str(event.get("check"))] += 1
            case "kernel.ready":
                self._count_ready(kernel, event.get("took"))
            case "config.loaded" | "config.rejected" as name:
                self._loads["accepted" if name == "config.loaded" else "rejected"] += 1
            case "kernel.removed":
                self._forget(kernel)

    def _count_ready(self, kernel: str, took: object) -> None:
        if isinstance(took, int | float):
            buckets = self._ready.setdefault(kernel, [0] * (len(READY_BOUNDS) + 1))
            buckets[bisect_left(READY_BOUNDS, took)] += 1
            self._took[kernel] = self._took.get(kernel, 0.0) + took

    def _forget(self, kernel: str) -> None:
        for counter in (self._deaths, self._restarts, self._unresponsive):
            counter.pop(kernel, None)
        self._ready.pop(kernel, None)
        self._took.pop(kernel, None)
        self._last.pop(kernel, None)

    def fields(self) -> dict[str, object]:
        """The counts as JSON-able values, as ``GET /v1/counts`` answers.

        ``deaths``, ``restarts`` and ``unresponsive``: objects ``{kernel: {cause: count}}``;
        ``ready``: ``{kernel: {"buckets": [...], "seconds": sum}}``, one more bucket than
        ``bounds``; ``loads``: ``{"accepted": n, "rejected": n}``.
        """
        return {
            "deaths": _copied(self._deaths),
            "restarts": _copied(self._restarts),
            "unresponsive": _copied(self._unresponsive),
            "loads": {word: self._loads[word] for word in ("accepted", "rejected")},
            "bounds": list(READY_BOUNDS),
            "ready": {
                kernel: {"buckets": list(buckets), "seconds": round(self._took[kernel], 3)}
                for kernel, buckets in self._ready.items()
            },
        }


def _copied(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {kernel: dict(counter) for kernel, counter in counts.items()}
