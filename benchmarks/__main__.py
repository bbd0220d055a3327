"""Measures and prints: ``python -m benchmarks [--write] [--quick] [NAME…]``.

Without a name all but ``warm``, which has a page of its own.  With ``--write``, docs/benchmarks.md and
docs/benchmarks.svg, or docs/benchmarks-warm.md, are what was printed.
"""

from __future__ import annotations

import argparse
import compileall
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
MODULES = [name for name in ("numpy", "pandas", "matplotlib.pyplot") if find_spec(name.partition(".")[0])]
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

    def first(self) -> None:
        """One kernel, from the start of its manager on."""
        found = measures.starts(self.directory, self.rounds(9))
        ours, floor = median(found[report.OURS]), median(found[report.FLOOR])
        what = "start of the manager → one kernel ready, to a bare loop"
        self.targets.append(report.ratio_below(what, ours, floor, 1.35, report.MILLISECONDS))

    def warm_one(self) -> None:
        """Kernels that are begun warm, one at a time."""
        self._comebacks("SIGKILL → answer", 1, self.rounds(15), ((0.35, 0.17), (0.15, 0.07)))

    def warm_many(self) -> None:
        """Twenty of them."""
        self._comebacks("20 killed at once → all answer", 20, self.rounds(4), ((0.30, 0.12), (0.12, 0.05)))
        found = warm.starts(self._place("starts"), 20, self.rounds(3), ())
        what, value, bare = "fork: start of 20", median(found["fork"]), median(found["bare"])
        self.targets.append(report.ratio_below(what, value, bare, 0.35, report.MILLISECONDS))

    def warm_memory(self) -> None:
        """What ten of them take."""
        found = warm.memory(self._place("memory"), 10, MODULES)
        for kind, limit in (("fork", 0.45), ("standby", 0.75)):
            what = f"{kind}, with imports: proportional memory of 10, spares and zygote included"
            self.targets.append(report.ratio_below(what, found[kind], found["bare"], limit, report.MEGABYTES))

    def warm_clients(self) -> None:
        """Stock clients that ask right after a kill, with the usual grace."""
        for kind in ("fork", "standby"):
            replies, whole = warm.stock(self._place(f"stock-{kind}"), kind, self.rounds(50), MODULES)
            what = f"{kind}, with imports: reply to a stock client, median of {len(replies)}"
            self.targets.append(report.below(what, median(replies), 0.260, report.MILLISECONDS))
            what, found = f"{kind}: stock clients that see the whole output", f"{whole} of {len(replies)}"
            self.targets.append(report.Target(what, "all", found, whole == len(replies)))

    def warm_request(self) -> None:
        """The way through the door."""
        found = warm.request(self._place("request"), self.rounds(1000))
        what = f"prepared: what a request costs more, median of {len(found['off'])} pairs"
        self.targets.append(report.below(what, warm.dearer(found), 150e-6, report.MICROSECONDS))
        self.notes.append(
            "A request to execute `1`, medians: "
            + ", ".join(f"{kind} {1000 * median(values):.2f} ms" for kind, values in found.items())
            + "."
        )

    def _comebacks(self, told: str, count: int, rounds: int, limits: Sequence[tuple[float, float]]) -> None:
        for what, modules, (fork, standby) in zip(
            ("plain", "with imports"), ([], MODULES), limits, strict=True
        ):
            place = self._place(f"back-{count}-{len(modules)}")
            found = warm.comebacks(place, count, rounds, modules, ("fork", "standby"))
            for kind, limit in (("fork", fork), ("standby", standby)):
                value, bare = median(found[kind]), median(found["bare"])
                what_of = f"{kind}, {what}: {told}"
                self.targets.append(report.ratio_below(what_of, value, bare, limit, report.MILLISECONDS))

    def _place(self, name: str) -> Path:
        place = self.directory / name
        place.mkdir()
        return place

    def relay(self) -> None:
        """What passes through the relay, beside the direct way, in the same run."""
        found = relaying.costs(self._place("relay"), self.rounds(15))
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
    "relay": Run.relay,
    "first": Run.first,
}
# These have a page of their own.
WARM: dict[str, Callable[[Run], None]] = {
    "warm-one": Run.warm_one,
    "warm-many": Run.warm_many,
    "warm-memory": Run.warm_memory,
    "warm-clients": Run.warm_clients,
    "warm-request": Run.warm_request,
}


def write(run: Run, lines: Sequence[str], *, is_warm: bool) -> None:
    """Put the report where readers look for it."""
    command = f"make bench WRITE=1{' NAMES=warm' if is_warm else ''}"
    head = ["# Benchmarks", "", f"Made by `{command}`; every figure is what one run printed.", ""]
    if is_warm:
        (ROOT / "docs/benchmarks-warm.md").write_text("\n".join([*head, *lines]))
        return
    picture = ["![Side by side](benchmarks.svg)", ""]
    (ROOT / "docs/benchmarks.md").write_text("\n".join([*head, *lines[:-1], "", *picture]))
    (ROOT / "docs/benchmarks.svg").write_text(report.plot(run.samples, run.many))


def main() -> int:
    """Measure what was named; returns the exit code: 0 whether or not targets are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    every = [*PARTS, "warm", *WARM]
    parser.add_argument("names", nargs="*", choices=[[], *every], metavar="NAME", help=", ".join(every))
    parser.add_argument("--write", action="store_true", help="write the page of a whole run, or of `warm`")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    arguments = parser.parse_args()
    is_warm = arguments.names == ["warm"]
    if arguments.write and (arguments.quick or (arguments.names and not is_warm)):
        parser.error("--write needs a whole run, or `warm` alone")
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    # As an installation does: some machines write no bytecode by themselves.
    compileall.compile_dir(ROOT / "supervisor", quiet=1)
    with tempfile.TemporaryDirectory(prefix="kernels-") as directory:
        run = Run(Path(directory), arguments.quick)
        for name in WARM if is_warm else arguments.names or PARTS:
            print(f"{name} …", flush=True)
            (PARTS | WARM)[name](run)
        lines = run.lines(command)
    print("\n" + "\n".join(lines))
    if arguments.write:
        write(run, lines, is_warm=is_warm)
    return 0


if __name__ == "__main__":
    sys.exit(main())
