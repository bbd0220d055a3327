"""The layers of ARCHITECTURE.md, read off the source: imports go down only, lazy ones too.

Also the shape of the modules: files under 400 lines, functions under 40
without their docstring, and no module that is named after nothing.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "supervisor"

# A module has the floor of its own name, of a pattern of names, or of its package.
FLOORS = {
    "supervisor.config": 0,
    "supervisor.keys": 0,
    "supervisor.mistakes": 0,
    "supervisor.preflight": 0,
    "supervisor.schema": 0,
    "supervisor.toml_*": 0,
    "supervisor.unit_text": 0,
    "supervisor.instants": 0,
    "supervisor.version": 0,
    "supervisor.core": 1,
    "supervisor.kernel": 2,
    "supervisor.runner": 3,
    "supervisor.views": 3,
    "supervisor.settings_file": 4,
    "supervisor.control": 4,
    "supervisor.observe": 4,
    "supervisor": 5,
    "supervisor.daemon": 5,
    "supervisor.daemon_*": 5,
    "supervisor.manager": 5,
    "supervisor.manager_*": 5,
    "supervisor.steered": 5,
    "supervisor.supervision": 5,
    "supervisor.embedded": 5,
    "supervisor.__main__": 6,
    "supervisor.cli": 6,
    "supervisor.systemd_unit": 6,
}

# Types and arithmetic: nothing that reads a clock, rolls dice, waits, logs, or reaches the machine.
PURE = {
    "__future__",
    "collections.abc",
    "dataclasses",
    "enum",
    "math",
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
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def key_of(name: str) -> str | None:
    """The entry of FLOORS that decides about a module; a new module of the top needs one of its own."""
    if name in FLOORS:
        return name
    for pattern in FLOORS:
        if fnmatchcase(name, pattern):
            return pattern
    package = name.rpartition(".")[0]
    return key_of(package) if package not in ("", "supervisor") else None


def floor_of(name: str) -> int:
    key = key_of(name)
    assert key is not None, f"{name} has no floor in FLOORS"
    return FLOORS[key]


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body, without its docstring: a long list of settings is no long function."""
    first = function.body[1 if ast.get_docstring(function) is not None and function.body[1:] else 0]
    assert function.end_lineno is not None
    return function.end_lineno - first.lineno + 1


@every_module
def test_imports_go_down_only(module: Module) -> None:
    upward = [
        target
        for target in module.imports
        if target.split(".")[0] == "supervisor" and floor_of(target) > floor_of(module.name)
    ]

    assert [] == upward


@every_module
def test_nothing_below_the_composition_imports_the_package_itself(module: Module) -> None:
    if floor_of(module.name) < FLOORS["supervisor"]:
        assert "supervisor" not in module.imports


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("supervisor.control", ("supervisor.kernel", "supervisor.observe")),
        ("supervisor.observe", ("supervisor.kernel", "supervisor.control")),
    ],
)
def test_control_and_observe_know_neither_the_kernels_nor_each_other(
    package: str, others: tuple[str, ...]
) -> None:
    found = [
        (module.name, target)
        for module in MODULES
        if module.name == package or module.name.startswith(f"{package}.")
        for target in module.imports
        for other in others
        if target == other or target.startswith(f"{other}.")
    ]

    assert [] == found


@every_module
def test_the_core_is_pure(module: Module) -> None:
    if not module.name.startswith("supervisor.core"):
        return
    foreign = {target for target in module.imports if not target.startswith("supervisor.core")}

    assert set() == foreign - PURE - {"supervisor.config"}


@every_module
def test_files_and_functions_are_short(module: Module) -> None:
    functions = [
        node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = {function.name: code_lines(function) for function in functions if code_lines(function) >= 40}

    assert {} == long
    assert len(module.path.read_text().splitlines()) < 400


@every_module
def test_no_module_is_named_after_nothing(module: Module) -> None:
    words = set(module.name.rpartition(".")[2].lower().split("_"))

    assert set() == words & {"util", "utils", "helper", "helpers", "misc", "common", "lib"}


@every_module
def test_each_module_says_what_it_owns(module: Module) -> None:
    is_empty = not module.tree.body
    assert is_empty or ast.get_docstring(module.tree)


def test_the_reader_of_imports_misses_none() -> None:
    source = """
import os.path, supervisor.kernel.host
from supervisor import kernel
from supervisor.core.model import State
from . import runner
from .core import machine
def later():
    from supervisor.control import api
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
        "supervisor.control.api",
        "asyncio",
    } == found
    inside = set(imports(ast.parse("from . import model"), "supervisor.core", is_package=True))
    assert {"supervisor.core.model"} == inside


def test_a_docstring_is_not_counted_as_code() -> None:
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    return 1\n'
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)

    assert 1 == code_lines(function)


def test_every_module_has_a_floor() -> None:
    assert {"supervisor", "supervisor.core.machine"} <= {module.name for module in MODULES}
    assert [] == [module.name for module in MODULES if key_of(module.name) is None]


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
