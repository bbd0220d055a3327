"""The operator's file as the daemon sees it: what is in force, and whether the file is ahead of it.

Owns the last good configuration, which is kept in the state directory for as
long as kernels depend on it.  Reads files; decides nothing about kernels.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from supervisor.disk.files import read_own, remove_temporaries_of, write_atomically
from supervisor.settings.config import Config
from supervisor.settings.file import ConfigError, Loaded, Mistake, effective_toml, load, parse
from supervisor.wording import timestamp

LAST_GOOD = "last-good.toml"


class Rejected(Struct, frozen=True):
    """The file has mistakes; the configuration before it stays in force."""

    mistakes: tuple[str, ...]
    is_new: bool


class SettingsFile:
    """One file and what it includes, looked at again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loaded_at: str | None = None
        self.ahead_since: str | None = None
        # The mistakes as values, and where the keys in force are set.
        self.found: tuple[Mistake, ...] = ()
        self.origins: Mapping[str, Mapping[str, str]] = {}
        self.last_good_in_use = False
        self._digest = ""
        self._read: Loaded | None = None
        self._files: tuple[Path, ...] = (path,)
        self._patterns: tuple[Path, ...] = ()

    @property
    def mistakes(self) -> tuple[str, ...]:
        """What was wrong at the last look; empty once something is in force."""
        return tuple(map(str, self.found))

    def files(self) -> tuple[Path, ...]:
        """What was read at the last look, and what would be read besides now.

        The patterns are among them: the directory of each is then watched,
        also while nothing in it matches.
        """
        matching = {Path(found) for pattern in self._patterns for found in glob.glob(str(pattern))}  # noqa: PTH207
        return (*self._files, *sorted(matching.difference(self._files)), *self._patterns)

    def load_first(self, state_dir: Callable[[], Path]) -> Config:
        """The configuration to start with.

        If the file has mistakes, and a supervisor has left kernels in its
        state directory without stopping them, the last good one.  Else raises
        ConfigError.
        """
        self.loaded_at = timestamp()
        seen = self.look()
        if isinstance(seen, Config):
            self.accept(seen)
            return seen
        config = _last_good(state_dir())
        if config is None:
            raise ConfigError(self.found)
        self.last_good_in_use = True
        return config

    def look(self) -> Config | Rejected | None:
        """Read the file: what it says, its mistakes, or ``None`` if it says what is in force.

        What it says is in force only once it is accepted.
        """
        try:
            read = load(self.path)
        except ConfigError as error:
            return self._reject(error)
        self._read, self._files, self._patterns = read, read.files, read.patterns
        return None if read.digest == self._digest and not self.found else read.config

    def _reject(self, error: ConfigError) -> Rejected:
        is_new = error.mistakes != self.found or error.digest != self._digest
        self.found, self._digest = error.mistakes, error.digest
        self._files = error.files or self._files
        # A file that cannot be read tells of no others: those of before count.
        self._patterns = error.patterns or self._patterns
        self.ahead_since = self.ahead_since or timestamp()
        return Rejected(self.mistakes, is_new)

    def accept(self, config: Config) -> None:
        """What was read is in force."""
        # Not when it is read: whoever reads may be cancelled before it is in force.
        if self._read is not None and self._read.config is config:
            self._digest, self.origins = self._read.digest, self._read.origins
        self.loaded_at = timestamp()
        self.last_good_in_use = False
        self.found = ()
        self.ahead_since = None


def keep_last_good(config: Config, state_dir: Path) -> None:
    """Keep what is in force for a start after a crash, when the file may be bad.  Raises OSError."""
    # There is one that was killed on the way, perhaps; nobody else writes there.
    remove_temporaries_of(state_dir / LAST_GOOD)
    write_atomically(state_dir / LAST_GOOD, effective_toml(config).encode())


def _last_good(state_dir: Path) -> Config | None:
    """The configuration that was kept; ``None`` if there is none, or none that this version understands."""
    kept = state_dir / LAST_GOOD
    try:
        return parse(read_own(kept), kept, is_kept=True)
    except (OSError, ConfigError):
        return None


def forget_last_good(state_dir: Path) -> None:
    """After an orderly stop no kernel depends on it; the file alone decides at the next start."""
    (state_dir / LAST_GOOD).unlink(missing_ok=True)
