"""Files to be read, and what is told of those that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.settings.file import ConfigError, load, parse

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


def mistakes(text: str | bytes) -> list[str]:
    """The mistakes in a text, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")

    assert all("f.toml" == mistake.file for mistake in caught.value.mistakes)
    assert "\n".join(map(str, caught.value.mistakes)) == str(caught.value)
    return [str(mistake).removeprefix("f.toml: ") for mistake in caught.value.mistakes]
