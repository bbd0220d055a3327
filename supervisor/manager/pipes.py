"""Pipes of ``stdout=PIPE`` and ``stderr=PIPE``, which never fill up.

Owns the thread that empties one into the kernel's output, and keeps what was
written last for whoever reads it.
"""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from supervisor.disk.files import open_own

# Of what nobody has read, this much is kept, in bytes; what is older is lost.
MAX_UNREAD = 1 << 20
_PIECE = 1 << 16
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class Drained(io.RawIOBase):
    """The reading end: what a kernel wrote into its pipe; ends when all writers have closed theirs."""

    def __init__(self, reader: int, output: Path) -> None:
        self._unread = bytearray()
        self._has_ended = False
        self._changed = threading.Condition()
        try:
            threading.Thread(target=self._drain, args=(reader, output), name="pipe", daemon=True).start()
        except RuntimeError:
            os.close(reader)
            raise

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for something to read; 0 at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._unread or self._has_ended)
            piece = self._unread[: len(buffer)]
            del self._unread[: len(piece)]
        buffer[: len(piece)] = piece
        return len(piece)

    def _drain(self, reader: int, output: Path) -> None:
        try:
            while piece := os.read(reader, _PIECE):
                with self._changed:
                    self._unread += piece
                    del self._unread[:-MAX_UNREAD]
                    self._changed.notify_all()
                with suppress(OSError), os.fdopen(open_own(output, _APPEND), "ab", 0) as file:
                    file.write(piece)  # on a full disk, say: the kernel must not notice
        finally:
            os.close(reader)
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()


class Pipes:
    """The pipes of one launch: a context manager, within which there is something to launch with them.

    All that can fail is done before there is a process.
    """

    def __init__(self, options: Mapping[str, Any], output: Path) -> None:
        self.options = dict(options)
        self._output = output
        self._files: dict[str, Any] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with self._open as undone:
            for stream in ("stdout", "stderr"):
                if self.options.get(stream) == subprocess.PIPE:
                    reader, writer = os.pipe()
                    undone.callback(os.close, writer)
                    self._files[stream] = self._readable(reader)
                    self.options[stream] = writer
            self._open = undone.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _readable(self, reader: int) -> Any:
        """What is emptied from now on into ``output``, as a file of the kind that ``Popen`` would make."""
        words = {name: self.options[name] for name in ("encoding", "errors") if self.options.get(name)}
        file = io.BufferedReader(Drained(reader, self._output))
        is_text = words or self.options.get("text") or self.options.get("universal_newlines")
        return io.TextIOWrapper(file, **words) if is_text else file

    def give(self, popen: subprocess.Popen[Any]) -> None:
        """Have it read from these files."""
        for stream, file in self._files.items():
            setattr(popen, stream, file)
