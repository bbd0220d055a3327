"""What a prepared kernel is told at its start, and how it looks from within."""

from __future__ import annotations

import json
import os
import sys

import pytest

from supervisor.warm.inside.prepared import read_order, resemble


def test_an_order_is_read_and_its_descriptor_closed() -> None:
    reading, writing = os.pipe()
    os.write(writing, json.dumps({"run": 2}).encode())
    os.close(writing)

    assert {"run": 2} == read_order(reading)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


@pytest.mark.parametrize("module", ["json.tool", "no_such_module"])
def test_it_looks_as_if_it_was_started_by_its_module(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    for name in ("argv", "orig_argv"):
        monkeypatch.setattr(sys, name, ["supervisor"])
    argv = ["python", "-m", module, "-f", "c.json"]

    resemble({"module": module, "argv": argv}, ["-f", "c.json"])

    assert sys.argv[0].endswith("json/tool.py" if module == "json.tool" else module)
    assert (["-f", "c.json"], argv) == (sys.argv[1:], sys.orig_argv)
