"""The rules of the tests themselves, read off their syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent

# Where a sleep is the subject, and why; everything else waits for a condition (tests/waiting.py).
SLEEPERS = {
    "e2e/test_warm.py": "the daemon is killed at any moment",
    "waiting.py": "the one place that waits",
    "control/test_watch.py": "writes that follow one another faster than the pause that ends them",
    "e2e/test_outliving.py": "the moment at which the daemon is killed is what is random",
    "faults/daemon_with_faults.py": "a fault that stalls",
    "fuzz/hostile.py": "a kernel",
    "kernel/closing.py": "a program that floods a kernel",
    "jupyter/test_serve.py": "looks at the memory as a flood goes by",
    "kernel/test_channel.py": "libzmq looks again only after some milliseconds",
    "kernel/test_monitor.py": "the loop that stands still",
    "kernels/mini.py": "a kernel",
    "manager/test_asynchronous.py": "turns of the loop that are counted, and one of many interleavings",
    "manager/test_own.py": "one of many interleavings",
    "soak/soak.py": "the moments of the acts are what is random",
    "slurm/test_jobs.py": "the moment at which the daemon is killed is what is random",
    "supervision/test_supervision.py": "a system call that takes long",
    "test_runner.py": "the loop that stands still",
    "systemd/service.py": "waits by itself, in a machine that has no tests",
}

# The private names that tests put something else in the place of, and why nothing else reaches there.
PATCHED = {
    "_ETC": "a directory of the system",
    "_RUN": "a directory of the system",
    "_EPHEMERAL_FILE": "a file of the system",
    "_account": "another user",
    "_add": "a disk that is slow at one moment",
    "_choose_ports": "two threads within one choice",
    "_fallocate": "a file system that cannot do it",
    "_secrets": "one set for the whole process",
    "_send": "a process that no signal reaches",
    "_SELDOM": "minutes",
    "_FIRST_PATIENCE": "seconds",
    "_REAPER_PATIENCE": "seconds",
}

# Modules that have no test file of their own name, and why; the others have one in the room of their name.
UNTESTED = {
    "daemon/run": "the verb: told from outside, in tests/e2e",
    "warm/inside/launch": "told with all that it loads",
}
# Suites that are about no one module, beside those in rooms of their own.
STORIES = {
    "core/test_found": "the second half of loading",
    "core/test_properties": "what holds of all of the core",
    "core/test_queue": "runs that a cluster has wait, through all of the core",
    "daemon/test_edit_sequences": "any sequence of files ends as the last one",
    "kernel/test_hanging": "launches and adoptions whose disk hangs",
    "machines/test_ssh": "the node, the relay, and a real ssh between them",
    "manager/test_ipykernel": "managers of a real kernel",
    "jupyter/test_hostile": "daemons and files that do what they should not",
    "jupyter/test_lab": "a person in JupyterLab",
    "jupyter/test_libraries": "the client libraries of editors and agents",
    "jupyter/test_outliving": "daemon and server come and go under a notebook",
    "jupyter/test_page": "a person at the page",
    "jupyter/test_slurm": "a notebook whose kernel moves",
    "warm/test_same_kernel": "a warm kernel is as a cold one",
    "test_distribution": "what is built of the project",
    "test_home": "the tests themselves",
    "test_layers": "the rooms",
    "test_off_loop": "what runs on the loop, in all rooms",
    "test_rules": "the tests themselves",
}
# Rooms of tests that are about no one module.
ROOMS_OF_STORIES = {
    "e2e",
    "faults",
    "fuzz",
    "soak",
    "systemd",
    "docs",
    "packaging",
    "slurm",
}
PATCHES = ("setattr", "delattr", "setitem")
SUPERVISOR = TESTS.parent / "supervisor"


def is_sleep(node: ast.AST) -> bool:
    """A call of ``sleep``; ``sleep(0)`` is no time, but a turn of the loop."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    is_a_turn = [0] == [getattr(argument, "value", None) for argument in node.args]
    return called.lstrip("_") == "sleep" and not is_a_turn


def patched_by(node: ast.AST) -> Iterator[str]:
    """The private names that a call of ``setattr`` or ``delattr`` replaces."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PATCHES:
        for argument in node.args[:2]:
            name = str(argument.value).rpartition(".")[2] if isinstance(argument, ast.Constant) else ""
            if re.match("_[^_]", name):
                yield name


def test_private_names_are_patched_only_where_nothing_else_reaches() -> None:
    trees = (ast.parse(path.read_text()) for path in TESTS.rglob("*.py"))

    assert set(PATCHED) == {name for tree in trees for node in ast.walk(tree) for name in patched_by(node)}


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


def named(root: Path, pattern: str) -> set[str]:
    """The files of a tree, each as its room and its name."""
    return {str(path.relative_to(root).with_suffix("")) for path in root.rglob(pattern)}


def test_every_module_has_a_test_file_of_its_name_in_its_room_and_the_other_way_round() -> None:
    modules, tests = (
        {name for name in names if "__" not in name and name.split("/")[0] not in ROOMS_OF_STORIES}
        for names in (named(SUPERVISOR, "*.py"), named(TESTS, "test_*.py"))
    )
    wanted = {str(Path(name).with_name(f"test_{Path(name).name}")): name for name in modules}

    assert set(UNTESTED) == {module for test, module in wanted.items() if test not in tests}
    assert set(STORIES) == tests - set(wanted)


def test_the_tests_that_documents_name_are_there() -> None:
    documents = [*TESTS.parent.glob("*.md"), *TESTS.parent.glob("docs/*.md")]
    named_there = {name for it in documents for name in re.findall(r"tests/[\w/]+\.py", it.read_text())}

    assert named_there
    assert set() == {name for name in named_there if not (TESTS.parent / name).exists()}


def test_the_page_has_at_most_a_thousand_lines_of_script() -> None:
    scripts = (SUPERVISOR / "page" / "static").glob("*.js")
    texts = [re.sub(r"/\*.*?\*/", "", script.read_text(), flags=re.DOTALL) for script in scripts]
    lines = [line.strip() for text in texts for line in text.splitlines()]

    assert 100 < len([line for line in lines if line and not line.startswith("//")]) <= 1000
