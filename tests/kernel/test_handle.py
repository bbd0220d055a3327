"""A run that is a process here: what ends with it, and what has left it."""

from __future__ import annotations

import pytest

from supervisor.kernel import handle as handles
from tests.kernel.hosting import Hosting, config


async def test_an_end_is_told_though_what_is_left_behind_cannot_be_looked_for(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(process: object) -> bool:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(handles, "end_group", fail)

    await hosting.kill(await hosting.spawn(config()))
