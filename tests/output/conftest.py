"""Files of both kinds: those of which blocks can be taken out, and those that can only have a hole."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from supervisor.output import file as module


@pytest.fixture(params=["shortened", "holed"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file where blocks can be taken out of a file, and one where there can only be a hole."""
    if request.param == "holed":
        real = module._fallocate

        def without_collapse(fd: int, mode: int, offset: int, length: int) -> None:
            if mode == module._COLLAPSE_RANGE:
                raise OSError(errno.EOPNOTSUPP, "not here")
            real(fd, mode, offset, length)

        monkeypatch.setattr(module, "_fallocate", without_collapse)
    return tmp_path / "a.log"
