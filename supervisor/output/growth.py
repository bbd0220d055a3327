"""Tells when a file is written to, and costs nothing as long as it is not (inotify(7)).

Owns the one descriptor for all files of a loop.  Never reads a file.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

# <linux/inotify.h>
_MODIFY, _ONESHOT, _DONT_FOLLOW = 0x2, 0x8000_0000, 0x0200_0000
_EVENT = struct.Struct("iIII")
_BUFFER = 64 * 1024


class Growth:
    """To be used on the running loop; only ``watch`` may block, and may be called in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grown: dict[int, asyncio.Event] = {}
        # Written to before it was noted who is to be told.
        self._early: set[int] = set()
        self._loop = asyncio.get_running_loop()
        self._add: Callable[..., int] | None = None
        self._fd = self._open()
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._read)

    def _open(self) -> int:
        if sys.platform != "linux":
            return -1
        import ctypes

        libc: Any = ctypes.CDLL(None, use_errno=True)
        self._add = libc.inotify_add_watch
        return int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def watch(self, path: Path, grown: asyncio.Event) -> bool:
        """Have ``grown`` set at the next write to the file; ``False`` where that cannot be told."""
        if self._fd < 0 or self._add is None:
            return False
        watch = self._add(self._fd, os.fsencode(path), _MODIFY | _ONESHOT | _DONT_FOLLOW)
        with self._lock:
            if watch in self._early:
                self._early.discard(watch)
                self._loop.call_soon_threadsafe(grown.set)
            elif watch >= 0:
                self._grown[watch] = grown
        return watch >= 0

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _BUFFER)
        except OSError:
            return
        while data:
            watch, mask, _, length = _EVENT.unpack_from(data)
            data = data[_EVENT.size + length :]
            if mask & _MODIFY:
                self._tell(watch)

    def _tell(self, watch: int) -> None:
        with self._lock:
            if (grown := self._grown.pop(watch, None)) is None:
                self._early.add(watch)
            else:
                grown.set()

    def close(self) -> None:
        """Tell nothing any more."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
