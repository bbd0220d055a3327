"""The verb ``hooks``: how a hook went that was sent a sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.program import main
from tests.control.fake_steering import FakeSteering


@pytest.mark.usefixtures("daemon")
def test_how_a_hook_went_is_told_and_is_the_exit_code(
    steering: FakeSteering,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def test_hook(label: str) -> dict[str, Any]:
        if label == "mail":
            return {"ok": True, "message": "hook mail: ended\x1b[2J well"}
        return {"ok": False, "message": f"no hook is named {label!r}", "hint": "there are: mail"}

    monkeypatch.setattr(steering, "test_hook", test_hook)
    where = ("--socket", str(tmp_path / "s"))

    assert 0 == main(["hooks", "test", "mail", *where])
    assert "hook mail: ended\\x1b[2J well\n" == capsys.readouterr().out
    assert 0 == main(["hooks", "test", "mail", "--json", *where])
    assert json.loads(capsys.readouterr().out)["ok"]
    assert 1 == main(["hooks", "test", "male", *where])
    assert "kernel-supervisor: no hook is named 'male': there are: mail\n" == capsys.readouterr().err
