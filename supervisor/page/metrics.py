"""The daemon and its kernels as Prometheus metrics.

Owns names, types and labels, after the conventions of Prometheus
(https://prometheus.io/docs/practices/naming/).  All numbers are the daemon's:
its status, its counts since it started, and the usage that it measures when asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

Fields = Mapping[str, Any]

PREFIX = "kernel_supervisor"
PHASES = ("stopped", "waiting", "starting", "running", "stopping", "backoff", "failed")
_COUNTED = {
    "deaths": ("kernel_deaths", "Ends of runs that nobody wanted, by cause.", "cause"),
    "restarts": (
        "kernel_restarts",
        "Restarts, by the cause of the death or why they were wanted.",
        "cause",
    ),
    "unresponsive": ("kernel_unresponsive_episodes", "Times that a check was found unanswered.", "check"),
}
_USED = {
    "memory": ("kernel_memory_bytes", "Memory of the process tree: proportional, else resident."),
    "threads": ("kernel_threads", "Threads of the process tree."),
    "descriptors": ("kernel_open_fds", "Open descriptors of the process tree."),
    "children": ("kernel_child_processes", "Processes below the kernel's own."),
}


def exposition(status: Fields, usage: Mapping[str, Fields], counts: Fields) -> str:
    """The text for Prometheus: ``/v1/status``, ``/v1/usage`` by kernel, and ``/v1/counts``."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(status, usage, counts))
    return generate_latest(registry).decode()


class _Snapshot(Collector):
    """The metrics of one moment."""

    def __init__(self, status: Fields, usage: Mapping[str, Fields], counts: Fields) -> None:
        self._status = status
        self._usage = usage
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        yield from self._daemon()
        yield from self._kernels()
        yield from self._counted()
        yield from self._used()

    def _daemon(self) -> Iterable[Metric]:
        status, own = self._status, self._counts.get("daemon") or {}
        info = GaugeMetricFamily(f"{PREFIX}_build_info", "The version of the daemon.", labels=["version"])
        info.add_metric([str(status.get("version"))], 1)
        yield info
        mistakes = len((status.get("config") or {}).get("mistakes") or ())
        yield _gauge("config_mistakes", "Mistakes in the file, which keep it from being in force.", mistakes)
        yield _gauge("degraded", "What is not as it should be.", len(status.get("degraded") or ()))
        loads = CounterMetricFamily(f"{PREFIX}_config_loads", "Edits of the file.", labels=["result"])
        for result, count in (self._counts.get("loads") or {}).items():
            loads.add_metric([result], count)
        yield loads
        for name, key, text in (
            ("loop_lag_seconds", "lag", "How late the daemon's loop was for a turn at this moment."),
            ("memory_bytes", "memory", "Resident memory of the daemon."),
            ("open_fds", "descriptors", "Open descriptors of the daemon."),
        ):
            if key in own:
                yield _gauge(name, text, own[key])

    def _kernels(self) -> Iterable[Metric]:
        phase = GaugeMetricFamily(
            f"{PREFIX}_kernel_phase", "1 for the phase that the kernel is in.", labels=["kernel", "phase"]
        )
        well = GaugeMetricFamily(
            f"{PREFIX}_kernel_responsive", "1 if the kernel runs and answers its checks.", labels=["kernel"]
        )
        wanted = GaugeMetricFamily(f"{PREFIX}_kernel_wanted", "1 if it is wanted up.", labels=["kernel"])
        uptime = GaugeMetricFamily(
            f"{PREFIX}_kernel_uptime_seconds", "How long its process has been there.", labels=["kernel"]
        )
        for view in self._status.get("kernels") or ():
            name = str(view["name"])
            for word in PHASES:
                phase.add_metric([name, word], view.get("phase") == word)
            well.add_metric([name], view.get("phase") == "running" and view.get("health") == "ok")
            wanted.add_metric([name], view.get("want") == "up")
            if view.get("uptime") is not None:
                uptime.add_metric([name], view["uptime"])
        yield from (phase, well, wanted, uptime)

    def _counted(self) -> Iterable[Metric]:
        for key, (name, text, label) in _COUNTED.items():
            family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=["kernel", label])
            for kernel, by_word in (self._counts.get(key) or {}).items():
                for word, count in by_word.items():
                    family.add_metric([kernel, word], count)
            yield family
        ready = HistogramMetricFamily(
            f"{PREFIX}_kernel_ready_seconds", "From the process to readiness.", labels=["kernel"]
        )
        bounds = [*map(str, self._counts.get("bounds") or ()), "+Inf"]
        for kernel, found in (self._counts.get("ready") or {}).items():
            total, buckets = 0, []
            for bound, count in zip(bounds, found["buckets"], strict=True):
                total += count
                buckets.append((bound, total))
            ready.add_metric([kernel], buckets, found["seconds"])
        yield ready

    def _used(self) -> Iterable[Metric]:
        for key, (name, text) in _USED.items():
            family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["kernel"])
            for kernel, found in self._usage.items():
                family.add_metric([kernel], found[key])
            yield family
        spent = CounterMetricFamily(
            f"{PREFIX}_kernel_cpu_seconds", "Processor time of the process tree.", labels=["kernel"]
        )
        for kernel, found in self._usage.items():
            spent.add_metric([kernel], found["cpu_seconds"])
        yield spent


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value)
