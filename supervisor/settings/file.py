"""A TOML file -> Config, or every mistake in it at once.

Owns reading the file and what it includes, applying ``[defaults]``, and the
digest of what was read.  Whatever the bytes, the outcome is a Config or a
ConfigError.  Starts nothing and writes nothing.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from supervisor.settings.config import (
    NAME_PATTERN,
    Config,
    File,
    HookConfig,
    KernelConfig,
    SupervisorConfig,
)
from supervisor.settings.keys import Key, keys_of
from supervisor.settings.lines import Lines
from supervisor.settings.mistakes import (
    ConfigError,
    Mistake,
    bare_or_quoted,
    described,
    dotted,
    escaped,
    quoted,
    spelled,
)
from supervisor.settings.rules import (
    Draft,
    check_contents,
    check_hook,
    check_kernel,
    check_supervisor,
    check_together,
    has,
)
from supervisor.settings.source import NotReadError, read_bytes, read_toml
from supervisor.settings.text import effective_toml
from supervisor.settings.values import Path as KeyPath
from supervisor.settings.values import (
    Tell,
    Values,
    WrongValueError,
    convert_strings,
    convert_table,
    matches,
    no_such_key,
)

__all__ = ["ConfigError", "Loaded", "Mistake", "effective_toml", "load", "parse"]

# Keys that were right when the text was written, and may be wrong by what has become of the machine.
_OF_THE_MACHINE = (("user",), ("operators",), ("readers",))
_MOST_FILES = 1000
_MOST_MISTAKES = 500  # a file with more is no configuration, and its reading must end soon


class _EnoughError(Exception):
    """More mistakes were found than anybody reads."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that was read: its settings, where they came from, and a hash that changes with them.

    ``files`` are the file and those that it includes, in the order of reading.
    ``digest`` is the same for the same bytes in files of the same names.
    ``patterns`` are the paths that more of them may come to match.  ``origins`` tell of
    each kernel's keys where they are set, "own" or "defaults"; the others are built in.
    """

    config: Config
    path: Path
    files: tuple[Path, ...]
    digest: str
    patterns: tuple[Path, ...] = ()
    origins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def load(path: str | os.PathLike[str]) -> Loaded:
    """Read a file and what it includes.  Raises ConfigError with every mistake, also if it cannot be read."""
    reading = _Reading(Path(path))
    config = reading.config(None)
    digest = reading.digest.hexdigest()
    files, patterns = tuple(reading.files), tuple(reading.patterns)
    return Loaded(config, reading.main, files, digest, patterns, reading.origins)


def parse(text: str | bytes, path: str | os.PathLike[str], *, is_kept: bool = False) -> Config:
    """The settings that a text declares; ``path`` names it in messages and is where ``include`` begins.

    In one that ``is_kept``, an account or a group may be gone by now: other kernels depend on it.
    Raises ConfigError with every mistake.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return _Reading(Path(path), is_kept=is_kept).config(data)


@dataclass(slots=True, repr=False)  # it holds the values of environments
class _Reading:
    """One reading of a file: what was read so far and the mistakes found in it."""

    main: Path
    files: list[Path] = field(default_factory=list)
    patterns: list[Path] = field(default_factory=list)
    mistakes: dict[Mistake, KeyPath | None] = field(default_factory=dict)  # in order, each once
    # The tables of the kernels as written, and the files that they were written in.
    declared: dict[str, tuple[dict[str, Any], Path]] = field(default_factory=dict)
    digest: Any = field(default_factory=sha256)
    texts: dict[str, bytes] = field(default_factory=dict)
    origins: dict[str, Mapping[str, str]] = field(default_factory=dict)
    unread: bool = False
    is_kept: bool = False

    def config(self, data: bytes | None) -> Config:
        """The settings of the main file, of which ``data`` are the bytes if they were read already."""
        config = Config()
        try:
            config = self._config(data)
        except _EnoughError:
            what = f"more than {_MOST_MISTAKES} mistakes: mend these first"
            self.mistakes[Mistake(str(self.main), "", what)] = None
        if self.mistakes:
            raise ConfigError(self._placed(), self.files, self.digest.hexdigest(), self.patterns)
        return config

    def _placed(self) -> list[Mistake]:
        """The mistakes with their lines; only now, as most readings find none."""
        lines = {file: Lines(text.decode("utf-8", "replace")) for file, text in self.texts.items()}
        return [
            mistake if path is None else replace(mistake, line=lines[mistake.file].of(path))
            for mistake, path in self.mistakes.items()
        ]

    def _config(self, data: bytes | None) -> Config:
        tables = self._tables(self.main, data)
        supervisor = self._supervisor(tables)
        hooks = self._hooks(tables)
        self._declare(tables, self.main)
        for fragment, where in self._fragments(tables).items():
            self._include(fragment, where)
        kernels = self._kernels(self._table(tables, "defaults", {}))
        if not (self.declared or self.unread):
            self._tell(self.main, (), "no kernel is declared: add a [kernels.NAME] table")
        return Config(supervisor=supervisor, hooks=hooks, kernels=kernels)

    # What is read

    def _tables(
        self, path: Path, data: bytes | None = None, included: KeyPath | None = None
    ) -> dict[str, Any]:
        """The tables of one file; none, and a mistake, if it cannot be read."""
        self.files.append(path)
        name = os.path.relpath(path, self.main.parent) if path != self.main else ""
        content = b""
        try:
            content = read_bytes(path) if data is None else data
            self.texts[str(path)] = content
            return read_toml(content)
        except NotReadError as reason:
            if included is not None and not reason.place:
                self._unreadable(included, path, reason.what)
            else:
                self.mistakes[Mistake(str(path), reason.place, reason.what, reason.line)] = None
            content = content or reason.what.encode("utf-8", "surrogateescape")
            self.unread = True
            return {}
        finally:
            for part in (os.fsencode(name), content):
                self.digest.update(len(part).to_bytes(8, "big") + part)

    def _fragments(self, tables: Mapping[str, Any]) -> dict[Path, KeyPath]:
        """The files that the main file includes, sorted within each pattern, each with where it says so."""
        key = keys_of(File)["include"]
        fragments: dict[Path, KeyPath] = {}
        patterns = self._patterns(key, tables.get(key.name, []))
        for index, pattern in enumerate(patterns[:_MOST_FILES]):
            where: KeyPath = (key.name, index)
            if not pattern or "**" in pattern:
                what = f'{quoted(pattern)} is not a file or pattern: write one, such as "kernels.d/*.toml"'
                self._tell(self.main, where, what)
                continue
            self.patterns.append(self.main.parent / pattern)
            paths = self._matching(pattern, where)
            if any(_same_file(path, self.main) for path in paths):
                what = f"{quoted(pattern)} is this file too: put the others into a directory of their own"
                self._tell(self.main, where, what)
            for path in paths:
                if not _same_file(path, self.main):
                    fragments.setdefault(path, where)
        if max(len(patterns), len(fragments)) > _MOST_FILES:
            self._tell(self.main, (key.name,), f"more than {_MOST_FILES} files: include fewer")
            self.unread = True
            return {}
        return fragments

    def _matching(self, pattern: str, where: KeyPath) -> list[Path]:
        """The files that a pattern names; a plain name names its file even if there is none."""
        names = [pattern]
        if glob.has_magic(pattern):
            self._see_into(Path(pattern).parent, where)
            names = sorted(glob.glob(pattern, root_dir=self.main.parent))  # noqa: PTH207 - takes absolute ones
        return [self.main.parent / name for name in names]

    def _see_into(self, directory: Path, where: KeyPath) -> None:
        """What is in a directory that cannot be read is not nothing: kernels would be stopped for it."""
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                if not glob.has_magic(str(directory)):
                    os.scandir(self.main.parent / directory).close()
        except OSError as error:
            self._unreadable(where, self.main.parent / directory, f"cannot be looked into: {error.strerror}")

    def _unreadable(self, where: KeyPath, path: Path, what: str) -> None:
        self._tell(self.main, where, f"{escaped(str(path))}: {what}")
        self.unread = True

    def _patterns(self, key: Key, value: Any) -> tuple[str, ...]:
        try:
            return convert_strings(key, value, (key.name,), self._teller(self.main, ()))
        except WrongValueError as mistake:
            self._tell(self.main, (key.name,), str(mistake))
            return ()

    def _include(self, fragment: Path, where: KeyPath) -> None:
        tables = self._tables(fragment, included=where)
        for key in tables:
            if key in keys_of(File) and key != "kernels":
                what = f"only [kernels.NAME] tables may stand in an included file: move it to {self.main}"
                self._tell(fragment, (key,), what)
        self._declare(tables, fragment)

    def _declare(self, tables: Mapping[str, Any], file: Path) -> None:
        """Take the kernels of a file; tell unknown tables, and names that are wrong or taken."""
        for key, value in tables.items():
            if key not in keys_of(File):
                self._tell(file, (key,), no_such_key(key, value, File, ()))
        for name, raw in self._table(tables, "kernels", {}, file).items():
            where: KeyPath = ("kernels", name)
            if not matches(NAME_PATTERN, name):
                todo = 'use letters, digits, ".", "_" and "-", a letter or digit first, at most 64'
                self._tell(file, where, f"{spelled(name)} is not a name for a kernel: {todo}")
            if name in self.declared:
                what = f"declared in {self.declared[name][1]} too: remove or rename one of them"
                self._tell(file, where, what)
            elif isinstance(raw, dict):
                self.declared[name] = raw, file
            else:
                what = f"{described(raw, secret=True)}, not a table: write [kernels.{bare_or_quoted(name)}]"
                self._tell(file, where, what)
                self.unread = True

    def _table(
        self, tables: Mapping[str, Any], key: str, default: dict[str, Any], file: Path | None = None
    ) -> dict[str, Any]:
        value = tables.get(key, default)
        if isinstance(value, dict):
            return value
        header = "[kernels.NAME] for each kernel" if key == "kernels" else f"[{key}] and its keys below it"
        self._tell(file or self.main, (key,), f"{described(value, secret=True)}, not a table: write {header}")
        self.unread |= key == "kernels"
        return default

    # What it means

    def _supervisor(self, tables: Mapping[str, Any]) -> SupervisorConfig:
        where: KeyPath = ("supervisor",)
        raw = self._table(tables, "supervisor", {})
        values = convert_table(SupervisorConfig, raw, where, self._teller(self.main, ()))
        check_supervisor(values, self._teller(self.main, where))
        return SupervisorConfig(**values)

    def _hooks(self, tables: Mapping[str, Any]) -> tuple[HookConfig, ...]:
        tell, known = self._teller(self.main, ()), len(self.mistakes)
        values = convert_table(File, {k: v for k, v in tables.items() if k == "hooks"}, (), tell)
        hooks: list[Values] = values.get("hooks", [])
        for index, hook in enumerate(hooks):
            check_hook(hook, self._teller(self.main, ("hooks", index)))
            if hook.get("command"):
                hook["command"] = (_placed(hook["command"][0], self.main), *hook["command"][1:])
        return () if len(self.mistakes) > known else tuple(HookConfig(**hook) for hook in hooks)

    def _kernels(self, raw_defaults: dict[str, Any]) -> dict[str, KernelConfig]:
        tell_defaults = self._teller(self.main, ("defaults",))
        defaults, wrong = _checked(raw_defaults, "defaults", tell_defaults)
        _place(defaults, self.main)
        drafts: list[tuple[Draft, KernelConfig]] = []
        for name, (raw, file) in self.declared.items():
            tell = self._teller(file, ("kernels", name))
            own, own_wrong = _checked(raw, "kernels", tell, name)
            _place(own, file)
            inherited = {path for path in wrong if not has(own, path)}
            bad = frozenset(own_wrong | inherited)
            draft = Draft(name, own, defaults, raw, bad, tell, tell_defaults)
            drafts.append((draft, check_kernel(draft)))
            self.origins[name] = draft.origins()
        check_together(drafts)
        return {draft.name: kernel for draft, kernel in drafts}

    def _teller(self, file: Path, above: KeyPath) -> Tell:
        return lambda path, what: self._tell(file, (*above, *path), what)

    def _tell(self, file: Path, path: KeyPath, what: str) -> None:
        if self.is_kept and path[-1:] in _OF_THE_MACHINE:
            return
        if len(self.mistakes) >= _MOST_MISTAKES:
            raise _EnoughError
        self.mistakes.setdefault(Mistake(str(file), dotted(path), what), path)


def _checked(raw: dict[str, Any], table: str, tell: Tell, name: str = "") -> tuple[Values, set[KeyPath]]:
    """The keys of a kernel or of ``[defaults]`` that are right, and the paths of those that are wrong."""
    above: KeyPath = (table, name) if name else (table,)
    wrong: set[KeyPath] = set()

    def note(path: KeyPath, what: str) -> None:
        inner = path[len(above) :]
        wrong.add(inner)
        tell(inner, what)

    values = convert_table(KernelConfig, raw, above, note)
    check_contents(values, tell)
    return values, wrong


def _place(values: Values, file: Path) -> None:
    """Make a relative ``cwd`` or ``startup_file`` an absolute one, below the directory of the file.

    One below ``~`` is expanded at each launch, so that another $HOME restarts no kernel.
    """
    for key in ("cwd", "startup_file"):
        path = values.get(key)
        if path is not None and not path.startswith(("/", "~")):
            values[key] = _below(path, file)


def _placed(program: str, file: Path) -> str:
    """The program of a hook: one with a directory is found from that of the file, others on the PATH."""
    return _below(program, file) if "/" in program and not program.startswith(("/", "~")) else program


def _below(path: str, file: Path) -> str:
    directory = file.absolute().parent
    # By one name, however the file was named; links stay, as what they lead to may move.
    return str((directory.resolve() if ".." in directory.parts else directory) / path)


def _same_file(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
