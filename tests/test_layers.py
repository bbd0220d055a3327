"""The layers of ARCHITECTURE.md, read off the source: imports go down only, lazy ones too.

Also the shape of the modules: files of at most 600 lines, functions under 40
without their docstring, and no module that is named after nothing.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "supervisor"

# The rooms, from the ground up, and which of them each may enter: ARCHITECTURE.md has the same as a picture.
ROOMS: dict[str, set[str]] = {
    "version": set(),
    "wording": set(),
    "settings": set(),
    "disk": set(),
    "core": {"settings"},
    "output": {"disk"},
    "observe": {"disk", "wording"},
    "process": {"core", "wording"},
    "records": {"core", "disk", "output", "settings"},
    "control": {"core", "disk", "settings", "wording"},
    "runner": {"core", "wording"},
    "views": {"core", "wording", "settings"},
    "warm": set(),
    "machines": {"core", "disk", "settings", "wording"},
    "cgroups": {"settings", "wording"},
    "kernel": {
        *(
            "cgroups",
            "core",
            "disk",
            "machines",
            "output",
            "process",
            "records",
            "settings",
            "warm",
            "wording",
        ),
    },
    "manager": {
        *("control", "core", "disk", "kernel", "observe", "process", "records", "runner", "settings"),
    },
    "supervision": {
        *(
            "cgroups",
            "control",
            "core",
            "disk",
            "kernel",
            "observe",
            "process",
            "records",
            "runner",
            "settings",
            "views",
            "wording",
        ),
    },
    "cli": {
        *("control", "core", "disk", "kernel", "observe", "output", "page", "process", "settings"),
        *("version", "wording"),
    },
    "daemon": {
        *("control", "core", "disk", "kernel", "wording", "observe", "output", "process", "settings"),
        *("supervision", "version", "views"),
    },
    "jupyter": {"cli", "control", "disk", "page", "wording"},
    "supervisor": {"control", "manager", "settings", "supervision", "version"},
    "page": {"control"},
    "__main__": {"cli"},
}
MOST_FLOORS = 6

# Types and arithmetic: nothing that reads a clock, rolls dice, waits, logs, or reaches the machine.
PURE = {
    "__future__",
    "collections.abc",
    "enum",
    "math",
    "msgspec",
    "msgspec.structs",
    "signal",
    "typing",
    "zlib",
}

LIGHT_VERBS = {
    "status": [],
    "start": ["a"],
    "stop": ["a"],
    "restart": ["a"],
    "interrupt": ["a"],
    "kill": ["a"],
    "reset": ["a"],
    "signal": ["TERM", "a"],
    "reload": [],
    "logs": [],
    "connection": ["a"],
    "detach": [],
    "shutdown": [],
}


@dataclass(frozen=True)
class Module:
    """A module of the package, and what it imports wherever in its text."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def imports(self) -> set[str]:
        """The full names of the modules that it imports."""
        is_package = self.path.name == "__init__.py"
        return set(imports(self.tree, self.name, is_package=is_package))


def imports(tree: ast.Module, name: str, *, is_package: bool) -> Iterator[str]:
    """Every module that is imported in ``tree``, at its top or within."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if is_module(inner) else base


def is_module(name: str) -> bool:
    """Whether the name is a module of the package, rather than something within one."""
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("supervisor.") and (path.is_dir() or path.with_suffix(".py").is_file())


def read_modules() -> list[Module]:
    """Every module of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text(), str(path))))
    return found


MODULES = read_modules()


def room_of(name: str) -> str:
    """The room that a module of the package is in: its first name below the package."""
    return name.split(".")[1] if "." in name else name


def floors() -> dict[str, int]:
    """How high each room is: one floor above the highest that it may enter."""
    found: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a circle of rooms: {' -> '.join([*above, room])}"
        if room not in found:
            found[room] = 1 + max((floor(other, (*above, room)) for other in ROOMS[room]), default=0)
        return found[room]

    for room in ROOMS:
        floor(room)
    return found


def imports_within(modules: list[Module]) -> dict[str, set[str]]:
    """Which modules of the package each one imports, those for types and those within functions too."""
    known = {module.name for module in modules}
    return {module.name: {t for t in module.imports if t in known} - {module.name} for module in modules}


GRAPH = imports_within(MODULES)


def in_a_circle(graph: dict[str, set[str]]) -> set[str]:
    """The modules that import themselves by way of others."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for target in graph[ahead.pop()] - seen:
                seen.add(target)
                ahead.append(target)
        return seen

    return {name for name in graph if name in reachable(name)}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body, without its docstring: a long list of settings is no long function."""
    first = function.body[1 if ast.get_docstring(function) is not None and function.body[1:] else 0]
    assert function.end_lineno is not None
    return function.end_lineno - first.lineno + 1


def test_a_room_enters_only_those_that_it_may() -> None:
    astray = [
        (module.name, target)
        for module in MODULES
        for target in GRAPH[module.name]
        if room_of(target) != room_of(module.name) and room_of(target) not in ROOMS[room_of(module.name)]
    ]

    assert [] == astray


def test_no_room_is_allowed_more_than_it_takes() -> None:
    taken: dict[str, set[str]] = {}
    for name, targets in GRAPH.items():
        taken.setdefault(room_of(name), set()).update(room_of(target) for target in targets)

    assert {} == {room: unused for room in ROOMS if (unused := ROOMS[room] - taken[room])}


def test_the_daemon_never_loads_what_is_for_jupyter() -> None:
    assert [] == [room for room, others in ROOMS.items() if "jupyter" in others]
    assert {"cli", "control", "disk", "page", "wording"} >= ROOMS["jupyter"]


def test_the_rooms_are_on_few_floors() -> None:
    assert MOST_FLOORS >= max(floors().values())


def test_the_core_is_pure() -> None:
    foreign = {
        (module.name, target)
        for module in MODULES
        if room_of(module.name) == "core"
        for target in module.imports
        if not target.startswith("supervisor.core") and target not in PURE | {"supervisor.settings.config"}
    }

    assert set() == foreign


def test_files_are_short() -> None:
    lines = {module.name: len(module.path.read_text().splitlines()) for module in MODULES}

    assert {} == {name: length for name, length in lines.items() if length > 600}


def test_functions_are_short() -> None:
    functions = [
        (module.name, node)
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert [] == [(name, function.name) for name, function in functions if code_lines(function) >= 40]


def test_no_module_is_named_after_nothing() -> None:
    nothing = {"util", "utils", "helper", "helpers", "misc", "common", "lib"}

    assert [] == [m.name for m in MODULES if nothing & set(m.name.rpartition(".")[2].lower().split("_"))]


def test_each_module_says_what_it_owns() -> None:
    assert [] == [module.name for module in MODULES if not ast.get_docstring(module.tree)]


def test_the_reader_of_imports_misses_none() -> None:
    source = """
import os.path, supervisor.kernel.host
from supervisor import kernel
from supervisor.core.model import State
from . import runner
from .core import machine
def later():
    from supervisor.control import door
    if True:
        import asyncio as a
"""
    found = set(imports(ast.parse(source), "supervisor.invented", is_package=False))

    assert {
        "os.path",
        "supervisor.kernel.host",
        "supervisor.kernel",
        "supervisor.core.model",
        "supervisor.runner",
        "supervisor.core.machine",
        "supervisor.control.door",
        "asyncio",
    } == found
    inside = set(imports(ast.parse("from . import model"), "supervisor.core", is_package=True))
    assert {"supervisor.core.model"} == inside


def test_a_docstring_is_not_counted_as_code() -> None:
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    return 1\n'
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)

    assert 1 == code_lines(function)


def test_every_module_is_in_a_room() -> None:
    assert {"supervisor", "supervisor.core.machine"} <= {module.name for module in MODULES}
    assert [] == [module.name for module in MODULES if room_of(module.name) not in ROOMS]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert set() == in_a_circle(GRAPH)


def test_a_circle_of_modules_is_found() -> None:
    assert {"a", "b"} == in_a_circle({"a": {"b"}, "b": {"a", "c"}, "c": set()})


def test_a_daemon_without_jobs_loads_nothing_of_them() -> None:
    program = "import sys, supervisor.daemon.run, supervisor.kernel.host; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    loaded = done.stdout.splitlines()
    assert "supervisor.kernel.entry" in loaded
    assert not [name for name in loaded if name == "supervisor.kernel.jobs" or "supervisor.machines" in name]


def test_verbs_that_only_ask_the_daemon_load_neither_zmq_nor_tornado_nor_structlog(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "no.sock")
    program = f"""
import sys
from supervisor.cli.program import main
codes = {{}}
for verb, words in {LIGHT_VERBS!r}.items():
    codes[verb] = main([verb, *words, "--socket", {nowhere!r}])
heavy = {{"zmq", "tornado", "structlog", "jupyter_client", "watchdog", "psutil"}} & set(sys.modules)
unanswered = {{verb for verb, code in codes.items() if code == 3}}
print(sorted(heavy), sorted(set(codes) - unanswered))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert "[] []" == done.stdout.strip(), done.stderr
