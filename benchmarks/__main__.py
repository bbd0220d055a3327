"""Measures and prints: ``python -m benchmarks [--write] [--quick] [NAME…]``.

Names: deaths, many, survival, decide, status, orders, warm, relay; all of them without a name.
With ``--write``, docs/benchmarks.md and docs/benchmarks.svg are what was printed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks import answers, measures, relaying, report, warm
from benchmarks.contestants import ROOT
from benchmarks.decide import decisions

DECLARED = 50
SURVIVORS = 2


@dataclass
class Run:
    """One run of the benchmarks: how thorough, and what was found so far."""

    directory: Path
    is_quick: bool
    many: Sequence[int] = (1, 20)
    samples: measures.Samples = field(default_factory=dict)
    targets: list[report.Target] = field(default_factory=list)
    survival: measures.Survival = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """The load average at the beginning: what others did on the machine."""

    def rounds(self, count: int) -> int:
        """That many, or few."""
        return 2 if self.is_quick else count

    @property
    def rest(self) -> float:
        """Seconds without orders in which the processor time is measured."""
        return 5.0 if self.is_quick else 40.0

    def deaths(self) -> None:
        """One kernel at a time."""
        self.samples.update(measures.deaths(self.directory, self.rounds(15), self.rounds(45)))

    def many_kernels(self) -> None:
        """Starts, mass deaths, rest."""
        for count in self.many:
            many = measures.Many(self.directory, count, rounds=self.rounds(3), rest=self.rest)
            for _ in range(1 if self.is_quick or count == 1 else 2):
                many.sweep()
            self.samples.update(many.samples)
            self.notes += [f"Measured again after: {failure}." for failure in many.failures]

    def survive(self) -> None:
        """The manager's own death."""
        self.survival = measures.survival(self.directory, SURVIVORS)

    def decide(self) -> None:
        """The pure machine."""
        found = decisions(DECLARED)
        slowest = max(found, key=lambda what: found[what])
        what = f"one decision with {DECLARED} kernels, median of the slowest kind of event ({slowest})"
        self.targets.append(report.below(what, found[slowest], 50e-6, report.MICROSECONDS))
        told = "; ".join(f"{kind}: {report.MICROSECONDS.tell(value)}" for kind, value in found.items())
        self.notes.append(f"Decisions with {DECLARED} kernels, with the next deadline, medians: {told}.")

    def status(self) -> None:
        """The command line."""
        count = self.many[-1]
        found = answers.status(self.directory, count, self.rounds(25))
        what = f'`status` with {count} kernels, to `python -c "import argparse, http.client, json"`'
        middle, floor = median(found["status"]), median(found["floor"])
        self.targets.append(report.ratio_below(what, middle, floor, 1.5, report.MILLISECONDS))

    def orders(self) -> None:
        """One kernel's slow stop must not delay another's order."""
        found = answers.orders(self.directory, self.rounds(12) + 1)
        what = f"an order while another kernel is in its stop ladder, slowest of {len(found)}"
        self.targets.append(report.below(what, max(found), 0.1, report.Unit("ms", 1000, 1)))

    def warm(self) -> None:
        """Kernels that are begun warm, to a bare loop in the same run."""
        modules = [
            name for name in ("numpy", "pandas", "matplotlib.pyplot") if find_spec(name.partition(".")[0])
        ]
        for what, imports, limits in (
            ("plain", [], (0.35, 0.17)),
            ("with its imports", modules, (0.15, 0.07)),
        ):
            if what != "plain" and not imports:
                continue
            place = self.directory / f"warm-{what.partition(' ')[0]}"
            place.mkdir()
            found = warm.comebacks(place, 1, self.rounds(15), imports)
            bare = median(found["bare"])
            for kind, limit in zip(("fork", "standby"), limits, strict=True):
                told = f"{kind}, {what}: SIGKILL to the answer, to a bare loop"
                value = median(found[kind])
                self.targets.append(report.ratio_below(told, value, bare, limit, report.MILLISECONDS))

    def relay(self) -> None:
        """What passes through the relay, beside the direct way, in the same run."""
        place = self.directory / "relay"
        place.mkdir()
        found = relaying.costs(place, self.rounds(15))
        above = median(found["echo"]["relay"]) - median(found["echo"]["direct"])
        what = "an echo of the heartbeat through the relay, above the direct way"
        self.targets.append(report.below(what, above, 50e-6, report.MICROSECONDS))
        rate, gigabytes = median(found["rate"]["relay"]), report.Unit("GB/s", 1e-9, 2)
        self.targets.append(report.above("through the relay", rate, 1e9, gigabytes))
        for name, echoes in found["echo"].items():
            told = (
                f"{report.MICROSECONDS.tell(median(echoes))}, {gigabytes.tell(median(found['rate'][name]))}"
            )
            self.notes.append(f"An echo of the heartbeat, and bytes one way, {name}: {told}.")
        cpu, memory = (median(found[name]["relay"]) for name in ("cpu", "memory"))
        self.notes.append(f"The relay itself: {cpu:.2f} s of a core for a GB, {memory:.1f} MB (PSS).")

    def lines(self, command: str) -> list[str]:
        """The report."""
        blocks: list[list[str]] = []
        targets = report.side_by_side_targets(self.samples) + self.targets
        if targets:
            blocks.append(["## What was asked for", "", *report.targets_table(targets)])
        if self.samples:
            blocks.append(["## Side by side", "", *report.side_by_side_table(self.samples, self.many)])
        if self.survival:
            table = report.survival_table(self.survival, SURVIVORS)
            blocks.append(["## SIGKILL of the manager itself", "", *table])
        if self.notes:
            blocks.append(["## More", "", *(f"- {note}" for note in self.notes)])
        blocks.append(["## How it was measured", "", *report.circumstances(command, self.rest, self.load)])
        return [line for block in blocks for line in [*block, ""]]


PARTS: dict[str, Callable[[Run], None]] = {
    "decide": Run.decide,
    "deaths": Run.deaths,
    "many": Run.many_kernels,
    "survival": Run.survive,
    "status": Run.status,
    "orders": Run.orders,
    "warm": Run.warm,
    "relay": Run.relay,
}


def write(run: Run, lines: Sequence[str]) -> None:
    """Put the report where readers look for it."""
    head = ["# Benchmarks", "", "Made by `make bench WRITE=1`; every figure is what one run printed.", ""]
    picture = ["![Side by side](benchmarks.svg)", ""]
    (ROOT / "docs/benchmarks.md").write_text("\n".join([*head, *lines[:-1], "", *picture]))
    (ROOT / "docs/benchmarks.svg").write_text(report.plot(run.samples, run.many))


def main() -> int:
    """Measure what was named; returns the exit code: 0 whether or not targets are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PARTS], metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and the plot")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    arguments = parser.parse_args()
    if arguments.write and (arguments.names or arguments.quick):
        parser.error("--write needs a whole run")
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    with tempfile.TemporaryDirectory(prefix="kernels-") as directory:
        run = Run(Path(directory), arguments.quick)
        for name in arguments.names or PARTS:
            print(f"{name} …", flush=True)
            PARTS[name](run)
        lines = run.lines(command)
    print("\n" + "\n".join(lines))
    if arguments.write:
        write(run, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
