"""``python -m tests.soak [--minutes 10] [--seed N] [--kernels 12]``: soak, and tell how it was."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from supervisor.observe.events_file import replay
from tests.soak.soak import Soak


def table(soak: Soak, seed: int, took: float) -> str:
    """What was done, and what it came to."""
    # Not line by line: of one that was torn by a full disk there is a part besides the whole.
    events = Counter(str(event["event"]) for event in replay(soak.scene.state_dir / "events.jsonl"))
    first, last = soak.usages[min(1, len(soak.usages) - 1)], soak.usages[-1]
    rows = [
        ("seed, seconds, kernels", f"{seed}, {took:.0f}, {len(soak.intents.names)}"),
        *((f"{name.replace('_', ' ')}", str(count)) for name, count in sorted(soak.counts.items())),
        ("orders refused (undeclared kernel)", str(soak.refused)),
        ("longest answer to an order, ms", f"{1000 * soak.longest_answer:.0f}"),
        ("longest status while disks were bad, ms", f"{1000 * soak.longest_status:.0f}"),
        ("daemons", str(events.get("daemon.started", 0))),
        (
            "kernels launched / ready / died",
            "{} / {} / {}".format(*_counts(events, "starting", "ready", "died")),
        ),
        ("kernels adopted / unresponsive", "{} / {}".format(*_counts(events, "adopted", "unresponsive"))),
        ("looks at the machine from outside", str(soak.watch.looks)),
        ("two processes of a kernel, changed addresses, files left", "0, 0, 0"),
        ("descriptors, first → last", f"{first.descriptors} → {last.descriptors}"),
        ("threads", f"{first.threads} → {last.threads}"),
        ("memory, MB", f"{first.memory:.1f} → {last.memory:.1f}"),
        ("inotify watches", f"{first.watches} → {last.watches}"),
        ("zombies", f"{first.zombies} → {last.zombies}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        ["| " + "what".ljust(width) + " | count |", f"| {'-' * width} | ----- |"]
        + [f"| {name.ljust(width)} | {value} |" for name, value in rows]
    )


def _counts(events: dict[str, int], *names: str) -> list[int]:
    return [events.get(f"kernel.{name}", 0) for name in names]


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kernels", type=int, default=12)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # its end is the usual one
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    tell(f"soak: seed {seed}, {options.minutes:g} minutes, {options.kernels} kernels")
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(directory, seed, options.kernels, 60 * options.minutes)
    begin = time.monotonic()
    try:
        soak.run()
    except Exception as error:
        took, what = time.monotonic() - begin, f"{type(error).__name__}: {str(error)[-4000:]}"
        tell(f"soak: FAILED after {took:.0f} s: {what}")
        tell(f"soak: what was done: {dict(soak.counts)}; files are in {directory}")
        again = (
            f"python -m tests.soak --seed {seed} --minutes {options.minutes:g} --kernels {options.kernels}"
        )
        tell(f"soak: again: {again}")
        return 1
    tell(table(soak, seed, time.monotonic() - begin))
    if soak.trouble.why_none:
        tell(f"soak: no disk was frozen or filled: {soak.trouble.why_none}")
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
