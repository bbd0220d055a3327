"""Trouble with disks: the directories of a daemon have file systems of their own, which freeze and fill up.

Owns these disks and until when there is trouble with them; which and when is the caller's choice.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.e2e.disk import Disk, NoDisk


class Trouble:
    """The disks of these directories; ``why_none`` tells why there are none."""

    def __init__(self, directory: Path, *places: Path) -> None:
        self.why_none = ""
        self._directory = directory
        self._places = places
        self._disks: list[Disk] = []
        self._until: float | None = None

    def mount(self) -> None:
        """Have the disks, if that may be done here."""
        try:
            for place in self._places:
                disk = Disk(self._directory, f"{place.name}.image")
                disk.mount(place)
                self._disks.append(disk)
        except NoDisk as reason:
            self.close()
            self.why_none = str(reason)

    @property
    def is_possible(self) -> bool:
        return bool(self._disks)

    @property
    def is_over(self) -> bool:
        """Whether it is time to end what was begun."""
        return self._until is not None and time.monotonic() > self._until

    @property
    def lasts(self) -> bool:
        return self._until is not None

    def freeze(self, which: tuple[int, ...], seconds: float) -> None:
        """Freeze these disks, for so long unless all ends before."""
        self.ease()
        self._until = time.monotonic() + seconds
        for number in which:
            self._disks[number].freeze()

    def fill(self, which: tuple[int, ...], seconds: float) -> None:
        """Fill these disks, for so long."""
        self.ease()
        self._until = time.monotonic() + seconds
        for number in which:
            self._disks[number].fill()

    def ease(self) -> bool:
        """End the trouble; whether there was any."""
        there_was, self._until = self._until is not None, None
        if there_was:
            for disk in self._disks:
                disk.ease()
        return there_was

    def close(self) -> None:
        """Let go of the disks; what is in the directories stays there."""
        self.ease()
        while self._disks:
            disk, place = self._disks.pop(), self._places[len(self._disks)]
            copy = self._directory / f"{place.name}.copy"
            shutil.copytree(place, copy, ignore=shutil.ignore_patterns("*.sock", "ipc"))
            disk.close()
            place.rmdir()
            copy.rename(place)
