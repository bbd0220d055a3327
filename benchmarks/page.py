"""What looking on costs the daemon at rest: hooks, a Jupyter server, the page of all kernels, that of one.

Owns the table that it prints.  In the environment of the tests of Jupyter, with a
browser: ``python -m benchmarks.page [SECONDS]``.  All daemons rest at the same time,
so that whatever else the machine does is the same for all.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from benchmarks.processes import processor_time, proportional, wakeups
from tests.e2e.daemon import Scene
from tests.jupyter.lab import CHROMIUM, FLAGS, Server

KERNELS = tuple("abcdefghij")
SETTLING = 30.0
HOOKS = '[[hooks]]\nevents = ["*"]\ncommand = ["true"]\n' * 3
# What looks on: hooks, and the place of a page that is open ("": the list, None: no page, no server).
CASES: dict[str, tuple[str, str | None]] = {
    "nothing": ("", None),
    "three hooks": (HOOKS, None),
    "a Jupyter server, no page": ("", "about:blank"),
    "and the page of all kernels": ("", ""),
    "the same in a hidden tab": ("", "hidden"),
    "and the page of one kernel": ("", "#/kernel/a"),
}
HIDE = """() => { Object.defineProperty(document, 'hidden', { value: true });
  document.dispatchEvent(new Event('visibilitychange')); }"""


def begin(ends: ExitStack, browser: Browser, hooks: str, place: str | None) -> int:
    """Start a daemon, and what looks on; the pid of the daemon."""
    scene = Scene(Path(ends.enter_context(tempfile.TemporaryDirectory())))
    scene.write(*(scene.mini(name) for name in KERNELS), head=hooks)
    server = Server(scene, "-m", "supervisor", "serve", "--token-file", str(scene.directory / "token"))
    ends.callback(server.clean_up)
    daemon = scene.start(*KERNELS)
    if place is not None:
        server.start_with_token(scene.directory / "token")
        server.wait_listed(*KERNELS)
    if place not in (None, "about:blank"):
        page = browser.new_page()
        page.goto(f"{server.url}/supervisor/?token={server.token}{place.removeprefix('hidden')}")
        page.wait_for_selector("main > section")
        if place == "hidden":
            page.evaluate(HIDE)
    return daemon.pid


def spent(pid: int) -> tuple[float, int]:
    """Processor time in seconds, and how often a thread was woken."""
    return processor_time(pid), wakeups(pid)


def measure(seconds: float) -> dict[str, dict[str, Any]]:
    """What each daemon spends within so many seconds of rest."""
    with ExitStack() as ends:
        playwright = ends.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        pids = {case: begin(ends, browser, *how) for case, how in CASES.items()}
        time.sleep(SETTLING)
        before = {case: spent(pid) for case, pid in pids.items()}
        time.sleep(seconds)
        after = {case: spent(pid) for case, pid in pids.items()}
        return {
            case: {
                "of a core": f"{(after[case][0] - before[case][0]) / seconds:.3%}",
                "woken a minute": round((after[case][1] - before[case][1]) * 60 / seconds),
                "PSS": f"{proportional(pid):.1f} MB",
            }
            for case, pid in pids.items()
        }


def main() -> None:
    """Print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    print("| looks on | of a core | woken a minute | memory (PSS) |\n| --- | --- | --- | --- |")
    for case, found in measure(seconds).items():
        print(f"| {case} | {' | '.join(map(str, found.values()))} |", flush=True)


if __name__ == "__main__":
    main()
