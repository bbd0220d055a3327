"""Puts what was measured into Markdown and a plot; compares it with what was asked for.

Owns the targets and the wording.  Measures nothing; every figure is given to it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.contestants import CONTESTANTS, Contestant, Ours, supervisord_version
from benchmarks.measures import Samples, Survival, spread
from benchmarks.plot import Panel, svg
from supervisor.version import __version__

OURS, FLOOR = Ours.name, "bare loop"


@dataclass(frozen=True)
class Unit:
    """How values of a measure are told."""

    name: str
    factor: float
    digits: int

    def tell(self, value: float) -> str:
        """The value with its unit."""
        return f"{value * self.factor:.{self.digits}f} {self.name}"


MILLISECONDS, SECONDS = Unit("ms", 1000, 0), Unit("s", 1, 2)
MICROSECONDS = Unit("µs", 1e6, 1)
MEGABYTES, PERCENT = Unit("MB", 1, 1), Unit("%", 1, 3)
A_MINUTE, THREADS = Unit("/min", 1, 0), Unit("threads", 1, 0)


def measures(many: Sequence[int]) -> dict[str, tuple[str, Unit]]:
    """Every measure in which the contestants stand side by side, in the order of the report."""
    found = {
        "death_to_process": ("SIGKILL of a kernel → new process", MILLISECONDS),
        "death_to_answer": ("SIGKILL of a kernel → answer on the same port", MILLISECONDS),
    }
    for count in many:
        kernels = "1 kernel" if count == 1 else f"{count} kernels"
        found |= {
            f"start_{count}": (f"start of the manager → all ready, {kernels}", SECONDS),
            f"all_killed_{count}": (f"all killed at once → all answer, {kernels}", SECONDS),
            f"rss_{count}": (f"resident memory of the manager, {kernels}", MEGABYTES),
            f"pss_{count}": (f"proportional memory of the manager, {kernels}", MEGABYTES),
            f"idle_{count}": (f"processor time of the manager at rest, of a core, {kernels}", PERCENT),
            f"woken_{count}": (f"wake-ups of the manager at rest, {kernels}", A_MINUTE),
            f"kernel_woken_{count}": (f"wake-ups of each kernel at rest, {kernels}", A_MINUTE),
            f"threads_{count}": (f"threads of the manager, {kernels}", THREADS),
        }
    return found


@dataclass(frozen=True)
class Target:
    """Something that was asked for, and what was measured."""

    what: str
    asked: str
    found: str
    is_met: bool


def below(what: str, value: float, limit: float, unit: Unit) -> Target:
    """The value must be below the limit; both as they are measured."""
    return Target(what, f"< {unit.tell(limit)}", unit.tell(value), value < limit)


def above(what: str, value: float, limit: float, unit: Unit) -> Target:
    """The value must be above the limit."""
    return Target(what, f"> {unit.tell(limit)}", unit.tell(value), value > limit)


def ratio_below(what: str, value: float, floor: float, limit: float, unit: Unit) -> Target:
    """The value must be less than so many times the floor, of the same run."""
    found = f"{value / floor:.2f} ({unit.tell(value)} / {unit.tell(floor)})"
    return Target(what, f"< {limit:.2f}", found, value / floor < limit)


def side_by_side_targets(samples: Samples) -> list[Target]:
    """Those of the measures that the contestants share."""
    found = []
    if process := samples.get("death_to_process"):
        what = "SIGKILL of a kernel → new process"
        found.append(below(what, median(process[OURS]), 0.050, MILLISECONDS))
    if answer := samples.get("death_to_answer"):
        what = "SIGKILL → answer on the same port, to a bare loop"
        found.append(ratio_below(what, median(answer[OURS]), median(answer[FLOOR]), 1.10, MILLISECONDS))
    if memory := samples.get("rss_20"):
        found.append(below("resident memory with 20 ready kernels", median(memory[OURS]), 45.0, MEGABYTES))
    if idle := samples.get("idle_20"):
        what = "processor time at rest with 20 kernels, of a core"
        found.append(below(what, median(idle[OURS]), 0.2, PERCENT))
    if woken := samples.get("woken_20"):
        found.append(
            below("wake-ups of the manager at rest with 20 kernels", median(woken[OURS]), 61, A_MINUTE)
        )
        ours = median(samples["kernel_woken_20"][OURS]) - median(samples["kernel_woken_20"][FLOOR])
        found.append(below("wake-ups of a kernel at rest by our checks", ours, 21, A_MINUTE))
        found.append(
            below("threads with 20 kernels at rest", median(samples["threads_20"][OURS]), 9, THREADS)
        )
    return found


def targets_table(targets: Sequence[Target]) -> list[str]:
    """Asked, found, met."""
    lines = ["| measure | asked for | found | met |", "| --- | --- | --- | --- |"]
    return lines + [
        f"| {t.what} | {t.asked} | {t.found} | {'yes' if t.is_met else '**no**'} |" for t in targets
    ]


def side_by_side_table(samples: Samples, many: Sequence[int]) -> list[str]:
    """Median, range and the ratio to the bare loop, per contestant."""
    names = [kind.name for kind in CONTESTANTS]
    lines = [f"| measure | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for measure, (title, unit) in measures(many).items():
        if measure in samples:
            cells = [_cell(samples[measure], name, unit) for name in names]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _cell(found: Mapping[str, list[float]], name: str, unit: Unit) -> str:
    if not found.get(name):
        return "never ready"
    middle, least, largest = spread(found[name])
    text = f"**{unit.tell(middle)}**"
    if len(found[name]) > 1:
        low, high = (f"{value * unit.factor:.{unit.digits}f}" for value in (least, largest))
        text += f" ({low}–{high}, n={len(found[name])})"
    if name != FLOOR and found.get(FLOOR) and (floor := median(found[FLOOR])) > 0:
        ratio = middle / floor
        text += f" ×{ratio:.2f}" if ratio < 100 else f" ×{ratio:.0f}"
    return text


def survival_table(survival: Survival, count: int) -> list[str]:
    """What becomes of the kernels when the manager is killed."""
    lines = [
        f"| manager | of {count} kernels alive 3 s later | taken up by the next manager "
        "(same processes, none started twice) | and kept alive by it |",
        "| --- | --- | --- | --- |",
    ]
    for name, (alive, is_taken_up, is_kept) in survival.items():
        lines.append(f"| {name} | {alive} | {_yes(is_taken_up)} | {_yes(is_kept)} |")
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def circumstances(command: str, rest: float, load: float) -> list[str]:
    """Where and with what it was measured."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    model = cpus[0].partition(":")[2].strip() if cpus else platform.machine()
    libraries = ("ipykernel", "jupyter_client", "pyzmq", "tornado")
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return [
        f"- command: `{command}`",
        f"- machine: {len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GB, "
        f"Linux {platform.release()}",
        f"- load average at the beginning: {load:.1f}, at the end (1, 5, 15 min): {loads}",
        f"- versions: kernel-supervisor {__version__}, Python {platform.python_version()}, {versions}, "
        f"supervisord {supervisord_version()}",
        *(f"- {kind.name}: {kind.settings}" for kind in CONTESTANTS),
        "- cells: median (least–largest, number of values) ×ratio to the bare loop; MB are 10⁶ bytes; "
        f"rest is {rest:.0f} s without orders",
        "- every kernel is the same command, `python -m ipykernel_launcher -f FILE`, and is asked "
        "`kernel_info` on shell by the same client",
    ]


def plot(samples: Samples, many: Sequence[int]) -> str:
    """The side-by-side measures as bars."""
    return svg(
        [
            Panel(
                f"{title} (logarithmic)",
                [_bar(samples[measure], k, unit) for k in CONTESTANTS if samples[measure].get(k.name)],
            )
            for measure, (title, unit) in measures(many).items()
            if measure in samples and not measure.startswith(("pss", "threads"))
        ]
    )


def _bar(found: Mapping[str, list[float]], kind: type[Contestant], unit: Unit) -> tuple[str, float, str]:
    middle = median(found[kind.name])
    return kind.name, middle, unit.tell(middle)
