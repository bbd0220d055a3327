"""The verb ``metrics``: what the page has, for a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.program import main
from tests.control.fake_steering import FakeSteering

USED = {"memory": 7, "cpu_seconds": 1.5, "threads": 4, "descriptors": 20, "children": 1}


@pytest.mark.usefixtures("daemon")
def test_the_metrics_of_this_moment_are_text_or_what_they_are_made_of(
    steering: FakeSteering,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def usage(_: object) -> dict[str, Any]:
        return {"robot": USED}

    monkeypatch.setattr(steering, "usage", usage)
    where = ("--socket", str(tmp_path / "s"))

    assert 0 == main(["metrics", *where])
    lines = capsys.readouterr().out.splitlines()
    assert 'kernel_supervisor_kernel_memory_bytes{kernel="robot"} 7.0' in lines
    assert 'kernel_supervisor_kernel_phase{kernel="stats",phase="running"} 1.0' in lines
    assert 0 == main(["metrics", "--json", *where])
    told = json.loads(capsys.readouterr().out)
    assert (["status", "usage", "counts"], {"robot": USED}) == (list(told), told["usage"]["usage"])


def test_what_it_needs_and_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "supervisor.page.metrics", raising=False)

    assert 1 == main(["metrics", "--socket", str(tmp_path / "none")])
    told = "prometheus_client is not installed: pip install prometheus_client into this environment"
    assert f"kernel-supervisor: {told}\n" == capsys.readouterr().err
