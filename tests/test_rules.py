"""The rules of the tests themselves, read off their syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent

# Where a sleep is the subject, and why; everything else waits for a condition (tests/waiting.py).
SLEEPERS = {
    "waiting.py": "the one place that waits",
    "control/test_watch.py": "writes that follow one another faster than the pause that ends them",
    "e2e/test_outliving.py": "the moment at which the daemon is killed is what is random",
    "faults/daemon_with_faults.py": "a fault that stalls",
    "fuzz/hostile.py": "a kernel",
    "kernel/closing.py": "a program that floods a kernel",
    "kernel/test_channel.py": "libzmq looks again only after some milliseconds",
    "kernel/test_monitor.py": "the loop that stands still",
    "kernels/mini.py": "a kernel",
    "manager/test_stopping.py": "one of many interleavings",
    "soak/soak.py": "the moments of the acts are what is random",
    "supervision/test_supervision.py": "a system call that takes long",
    "systemd/service.py": "waits by itself, in a machine that has no tests",
}


def is_sleep(node: ast.AST) -> bool:
    """A call of ``sleep``; ``sleep(0)`` is no time, but a turn of the loop."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    is_a_turn = [0] == [getattr(argument, "value", None) for argument in node.args]
    return called.lstrip("_") == "sleep" and not is_a_turn


def test_nothing_sleeps_but_where_a_sleep_is_the_subject() -> None:
    sleeping = {
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if any(is_sleep(node) for node in ast.walk(ast.parse(path.read_text())))
    }

    assert set(SLEEPERS) == sleeping


def test_a_sleep_is_seen_however_it_is_spelled() -> None:
    source = "time.sleep(1)\nsleep(x)\nawait asyncio.sleep(0)\nasyncio.sleep(0.01)\n_sleep(f())\nwait(2)"

    assert 4 == sum(is_sleep(node) for node in ast.walk(ast.parse(source)))
