"""What runs on the event loop opens no file, read off the syntax trees: ARCHITECTURE.md has the rule.

A function blocks if it calls one that does, as far as a call tells by its name which one of
its own module or of those imported there it means.  No coroutine may call one: it hands it
to a lane.  Nor does anybody else make threads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.test_layers import MODULES, Module

# Of pathlib, shutil and tempfile; a method of that name, whosever it is.
METHODS = {
    *("read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rmdir", "touch", "chmod"),
    *("stat", "lstat", "exists", "is_file", "is_dir", "is_symlink", "iterdir", "rglob", "readlink"),
    *("symlink_to", "hardlink_to", "rmtree", "mkdtemp"),
}
OF_OS = {
    *(
        "open",
        "stat",
        "lstat",
        "unlink",
        "remove",
        "rename",
        "replace",
        "mkdir",
        "makedirs",
        "rmdir",
        "chmod",
    ),
    *("link", "symlink", "listdir", "scandir", "fsync", "truncate", "ftruncate"),
}

# /proc and /sys are no disks: what is read there is in the memory of the system.
NO_DISK = {"supervisor.process"}
# They run in programs of their own, on no loop of ours.
ELSEWHERE = {"supervisor.cli", "supervisor.jupyter", "supervisor.warm"}

BLOCKING_COROUTINES = {
    ("supervisor.daemon.daemon", "run"): "before the daemon serves anybody",
    ("supervisor.daemon.daemon", "_supervise"): "before the daemon serves anybody",
    (
        "supervisor.control.watch",
        "run",
    ): "looks at names, which no frozen disk holds up; a network file system may",
    ("supervisor.control.watch", "_look"): "the same",
    ("supervisor.control.watch", "_wait_calm"): "the same",
    ("supervisor.supervision.supervision", "look_back"): "before anything is supervised",
    ("supervisor.kernel.survivors", "take_stock"): "before anything is supervised",
    ("supervisor.kernel.local", "cleanup"): "for whoever runs it on a loop of his own",
    ("supervisor.manager.own", "start"): "a directory of its own, empty yet, when it cannot begin",
    ("supervisor.manager.own", "restart"): "the same",
    ("supervisor.manager.own", "_order_launch"): "the same",
    ("supervisor.manager.own", "_launch"): "the same",
    ("supervisor.manager.own", "_open"): "the same",
    ("supervisor.manager.own", "_leave"): "when the program ends",
    ("supervisor.page.handlers", "get"): "a file of the package",
    ("supervisor.supervision.embedded", "__aenter__"): "before anything is supervised",
    ("supervisor.supervision.embedded", "__aexit__"): "when nothing is supervised any more",
}

THREADS = {"Thread", "to_thread", "run_in_executor", "ThreadPoolExecutor"}
THREAD_MAKERS = {
    "supervisor.disk.off_loop": "the one way",
    "supervisor.kernel.line": "asks whether the system has threads for libzmq",
    "supervisor.manager.thread": "the loop of the managers itself",
    "supervisor.manager.multi": "ends many kernels where there is no loop",
    "supervisor.manager.pipes": "empties a pipe as long as it is open",
    "supervisor.control.asking": "reads from the daemon as long as it tells",
    "supervisor.manager.attached": "follows a daemon where there is no loop",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    """All functions and methods of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def calls(function: Function) -> Iterator[ast.Call]:
    """The calls that are made when a function is called; what is within another is not."""
    ahead: list[ast.AST] = list(function.body)
    while ahead:
        node = ahead.pop()
        if isinstance(node, Function | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            yield node
        ahead += ast.iter_child_nodes(node)


def opens(call: ast.Call) -> bool:
    """Whether a call goes to a file system by its very name."""
    match call.func:
        case ast.Name(id="open" | "open_own" | "read_own"):
            return True
        case ast.Attribute(value=ast.Name(id="os"), attr=name):
            return name in OF_OS
        case ast.Attribute(attr=name):
            return name in METHODS
    return False


def targets(call: ast.Call, module: str, imported: dict[str, tuple[str, str]]) -> tuple[str, str] | None:
    """The function of ours that a call means: of this module, of ``self``, or imported by its name."""
    match call.func:
        case ast.Name(id=name):
            return imported.get(name, (module, name))
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            return module, name
    return None


def imported_names(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """By which names functions of other modules are called here."""
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def blocking(modules: list[Module]) -> dict[tuple[str, str], bool]:
    """The functions that block, and whether each is a coroutine."""
    bodies: dict[tuple[str, str], list[tuple[bool, tuple[str, str] | None]]] = {}
    is_coroutine: dict[tuple[str, str], bool] = {}
    for module in modules:
        imported = imported_names(module.tree)
        for function in functions(module.tree):
            key = (module.name, function.name)
            is_coroutine[key] = isinstance(function, ast.AsyncFunctionDef)
            found = [(opens(call), targets(call, module.name, imported)) for call in calls(function)]
            bodies.setdefault(key, []).extend(found)
    found = {key for key, body in bodies.items() if any(opening for opening, _ in body)}
    while True:
        more = {key for key, body in bodies.items() if any(target in found for _, target in body)} - found
        if not more:
            return {key: is_coroutine[key] for key in found}
        found |= more


def within(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def test_no_coroutine_opens_a_file() -> None:
    on_disk = [module for module in MODULES if not within(module.name, NO_DISK)]

    found = {
        key
        for key, is_coroutine in blocking(on_disk).items()
        if is_coroutine and not within(key[0], ELSEWHERE)
    }

    assert set(BLOCKING_COROUTINES) == found


def test_threads_are_made_in_one_place() -> None:
    makers = {
        module.name
        for module in MODULES
        if not within(module.name, ELSEWHERE)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute | ast.Name)
        and isinstance(node.ctx, ast.Load)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) in THREADS
        and is_called(node, module.tree)
    }

    assert set(THREAD_MAKERS) == makers


def is_called(node: ast.expr, tree: ast.Module) -> bool:
    """Whether a name is called, rather than a type."""
    return any(isinstance(call, ast.Call) and call.func is node for call in ast.walk(tree))


def test_what_blocks_is_found_through_functions_methods_and_imports() -> None:
    source = """
import os
from supervisor.disk.files import write_atomically as write
class A:
    def low(self): os.open("a", 0)
    def middle(self): self.low()
    async def high(self): self.middle()
    async def handed(self): await lane.do(self.low)
async def by_import(): write("a", b"")
async def later(): return lambda: open("a")
"""
    module = Module("supervisor.invented", MODULES[0].path, ast.parse(source))
    files = next(module for module in MODULES if module.name == "supervisor.disk.files")

    found = {name for (where, name), _ in blocking([module, files]).items() if where == module.name}

    assert {"low", "middle", "high", "by_import"} == found
