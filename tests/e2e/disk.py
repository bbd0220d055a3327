"""A file system of its own, in a file, to be frozen, filled and had again.

It is thawed and unmounted whatever becomes of us: on one that stays frozen every process that
comes by hangs for good.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.waiting import DEADLINE

# Waits until nobody can write to its standard input any more.
_GUARD = 'read -r _; fsfreeze --unfreeze "$0"; umount --lazy "$0"'


class NoDisk(Exception):
    """None is to be had here; says why."""


class Disk:
    """It freezes as one does of which a snapshot is taken.  Raises NoDisk."""

    def __init__(self, directory: Path, name: str = "image") -> None:
        if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount", "fsfreeze"))):
            raise NoDisk("mounting and freezing a file system takes root, mkfs.ext4 and fsfreeze")
        self.image = directory / name
        self.mounted: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        with self.image.open("wb") as image:
            image.truncate(64 << 20)
        _run("mkfs.ext4", "-q", "-m", "0", str(self.image))

    def mount(self, place: Path) -> None:
        """Mount it there.  Raises NoDisk."""
        place.mkdir(exist_ok=True)
        try:
            _run("mount", "-o", "loop,errors=remount-ro", str(self.image), str(place))
        except subprocess.CalledProcessError as error:
            raise NoDisk(f"no loop device is to be had: {error.stderr.decode().strip()}") from None
        self.mounted = place
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, str(place)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        place.chmod(0o700)
        if (place / "lost+found").exists():
            (place / "lost+found").rmdir()

    def freeze(self) -> None:
        _run("fsfreeze", "--freeze", str(self.mounted))

    def thaw(self) -> None:
        _run("fsfreeze", "--unfreeze", str(self.mounted))

    def break_down(self) -> None:
        """Have it find itself damaged: it is read-only from then on, for good."""
        found = subprocess.run(
            ["findmnt", "--noheadings", "--output", "SOURCE", str(self.mounted)],
            capture_output=True,
            text=True,
            check=True,
        )
        Path("/sys/fs/ext4", Path(found.stdout.strip()).name, "trigger_fs_error").write_text("here")

    def fill(self) -> None:
        """Leave no block free."""
        with self._ballast.open("ab") as ballast:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, size)
                except OSError:
                    continue

    def ease(self) -> None:
        """Have it thawed and with room, whatever it was before."""
        if self.mounted is not None:
            subprocess.run(["fsfreeze", "--unfreeze", str(self.mounted)], capture_output=True, check=False)
            self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        self.ease()
        if self._guard is not None:
            self._guard.communicate(timeout=DEADLINE)
        self.mounted = self._guard = None

    @property
    def _ballast(self) -> Path:
        assert self.mounted is not None
        return self.mounted / "ballast"


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE)
