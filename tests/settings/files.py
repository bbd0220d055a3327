"""Files to be read, and what is told of those that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.settings.file import ConfigError, load

SPEC = 'kernelspec = "python3"\n'


def write(path: Path, text: str = f"[kernels.a]\n{SPEC}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def told_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.digest
    return [str(mistake).replace(f"{path.parent}/", "") for mistake in caught.value.mistakes]
