"""The run of all checks in the container, one after the other, under a real systemd.

Each check is a function whose name is the sentence that is true.  They run with
the container's own Python and the standard library; ``test_in_a_container``
tells what came of them.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from service import CHECKS, Skipped, run

MODULES = ("checks_of_start", "checks_of_life", "checks_of_service", "checks_of_cgroups")
MODULES += ("checks_of_accounts", "checks_of_end")


def main(results: str, *modules: str) -> None:
    """Make all checks; a line of JSON for each."""
    for module in modules or MODULES:
        import_module(module)
    wanted = Path(__file__).with_name("wanted").read_text().splitlines()
    with Path(results).open("w") as out:
        # The first one installs it, which all others build on.
        for function in [check for check in CHECKS if check is CHECKS[0] or check.__name__ in wanted]:
            begin = time.monotonic()
            outcome, text = "passed", ""
            try:
                function()
            except Skipped as skipped:
                outcome, text = "skipped", str(skipped)
            except BaseException:
                outcome, text = "failed", f"{traceback.format_exc()}\n{_journal_since(begin)}"
            took = round(time.monotonic() - begin, 2)
            line = {"name": function.__name__, "outcome": outcome, "text": text, "took": took}
            out.write(json.dumps(line) + "\n")
            out.flush()


def _journal_since(begin: float) -> str:
    seconds = int(time.monotonic() - begin) + 1
    return run("journalctl", "--no-pager", "--output=short-precise", f"--since=-{seconds}s", expect=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
