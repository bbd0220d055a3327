"""A summary of events, kernel by kernel: deaths by cause, the longest run, how long it takes to be ready."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.cli.table import Cell, Column, render
from supervisor.cli.words import how_it_died
from supervisor.wording import span

_COLUMNS = (
    Column("NAME", least=12),
    Column("DEATHS", is_number=True),
    Column("BY CAUSE", least=12),
    Column("RESTARTS", is_number=True),
    Column("LONGEST RUN", is_number=True),
    Column("MEAN TIME TO READY", is_number=True),
)


@dataclass
class Summary:
    """What is known of one kernel; spans in seconds."""

    deaths: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    longest: float = 0.0
    ready: list[float] = field(default_factory=list)

    def take(self, event: Mapping[str, Any]) -> None:
        """Count an event of it."""
        uptime = event.get("uptime")
        if isinstance(uptime, int | float):
            self.longest = max(self.longest, uptime)
        match event.get("event"):
            case "kernel.died":
                self.deaths[how_it_died(event)] += 1
            case "kernel.restarting":
                self.restarts += 1
            case "kernel.ready" if isinstance(event.get("took"), int | float):
                self.ready.append(event["took"])
            case _:
                pass

    @property
    def mean_ready(self) -> float | None:
        """The mean time to readiness."""
        return sum(self.ready) / len(self.ready) if self.ready else None

    def fields(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "deaths": dict(self.deaths),
            "restarts": self.restarts,
            "longest_run": self.longest,
            "mean_ready": self.mean_ready,
        }


def summarise(events: Iterable[Mapping[str, Any]]) -> dict[str, Summary]:
    """The summary of each kernel that the events are about, in the order in which they come."""
    found: dict[str, Summary] = {}
    for event in events:
        if name := event.get("kernel"):
            found.setdefault(str(name), Summary()).take(event)
    return found


def table(found: Mapping[str, Summary], width: int | None, *, colours: bool) -> list[str]:
    """The lines of a table, the kernel with the most deaths first."""
    rows = sorted(found.items(), key=lambda item: -item[1].deaths.total())
    return render(_COLUMNS, [_row(name, summary) for name, summary in rows], width, colours=colours)


def _row(name: str, summary: Summary) -> list[Cell]:
    causes = ", ".join(f"{cause} ×{count}" for cause, count in summary.deaths.most_common())
    mean = summary.mean_ready
    return [
        Cell(name),
        Cell(str(summary.deaths.total()), "red" if summary.deaths else "plain"),
        Cell(causes or "-"),
        Cell(str(summary.restarts)),
        Cell(span(summary.longest) if summary.longest else "-"),
        Cell("-" if mean is None else span(mean)),
    ]
