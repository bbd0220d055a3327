"""Managers of the small kernel, for all tests of managers whose files are the test's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manager.managing import make

__all__ = ["make"]


@pytest.fixture(autouse=True)
def _runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
