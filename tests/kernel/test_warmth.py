"""How a launch is to begin: as ever, prepared, or why it cannot."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import AS_EVER, Begun, Cause
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.launch import Command
from supervisor.kernel.warmth import Launching, Warmth
from supervisor.process.account import Account
from supervisor.settings.config import KernelConfig
from supervisor.warm.inside.pending import IDLE, REPLIED, Pending

IPYKERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
ALICE = Account("alice", 4242, 4242, (), "/home/alice", "/bin/sh")


def launching(
    folder: Path, argv: tuple[str, ...] = IPYKERNEL, account: Account | None = None, **settings: Any
) -> Launching:
    config = KernelConfig(name="a", argv=argv, **settings)
    command = Command(argv, {}, "/", "signal", "", "", "", account)
    files = (folder / "kernel-a.json", folder / "output", folder / "pending" / "a")
    return Launching(config, command, *files, "digest/a/2", "digest/+", 2, None)


def way_of(wanted: Launching) -> tuple[Begun, tuple[str, str], bool]:
    way = Warmth().way(wanted, lambda *_: None)
    if way.order >= 0:
        os.close(way.order)
    return way.begun, way.startup, way.parts is not None


def test_a_kernel_that_is_not_to_start_warm_begins_as_ever(tmp_path: Path) -> None:
    assert (AS_EVER, ("x = 1", "<startup>"), False) == way_of(launching(tmp_path, startup="x = 1"))


@pytest.mark.parametrize(
    ("argv", "account", "why"),
    [
        (("sh", "-c", "{connection_file}"), None, "it is not run by python itself"),
        ((sys.executable, "x.py"), None, "it is not an ipykernel (python -m ipykernel_launcher)"),
        (IPYKERNEL, ALICE, "it runs as alice: only kernels of the daemon's own account start warm"),
    ],
)
@pytest.mark.parametrize("warm_start", ["prepared", "fork", "standby"])
def test_one_that_cannot_begins_cold_and_says_why(
    tmp_path: Path, argv: tuple[str, ...], account: Account | None, why: str, warm_start: str
) -> None:
    wanted = launching(tmp_path, argv, account, warm_start=warm_start)

    assert (Begun("cold", why), ("", "<startup>"), False) == way_of(wanted)


def test_one_that_is_prepared_is_given_an_order(tmp_path: Path) -> None:
    wanted = launching(tmp_path, warm_start="prepared", startup="x = 1", executing=False)

    way = Warmth().way(wanted, lambda *_: None)

    with os.fdopen(way.order, encoding="utf-8") as file:
        order = json.load(file)
    assert (Begun("prepared"), "ipykernel_launcher") == (way.begun, order["module"])
    assert wanted.argv == order["argv"]
    told = {"run": 2, "mark": "digest/a/2", "code": 0, "death": None, "startup": "x = 1"}
    assert told == {key: order[key] for key in told}
    assert tmp_path / "pending" / "a" == Path(order["pending"])


def test_start_up_code_of_a_file_has_its_name_and_plain_ends_of_lines(tmp_path: Path) -> None:
    file = tmp_path / "startup.py"
    file.write_bytes(b"x = 1\r\ny = 2\r\n")

    assert ("x = 1\ny = 2\n", str(file)) == launching(tmp_path, startup_file=str(file)).startup


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_start_up_code_that_cannot_be_read_fails_the_launch(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "startup.py"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(LaunchError, match=r"startup_file .*: mend it or change the key") as caught:
        Warmth().way(launching(tmp_path, startup_file=str(file)), lambda *_: None)

    assert Cause.STARTUP is caught.value.cause


def test_nobody_answers_where_nothing_is_left_to_be_answered(tmp_path: Path) -> None:
    wanted = launching(tmp_path)
    assert Warmth().answer(wanted, {}) is None
    wanted.pending.parent.mkdir()
    pending = Pending(str(wanted.pending), 1)
    pending.take("m", [b"c"], b"{}")
    pending.mark("m", REPLIED)
    pending.mark("m", IDLE)

    assert Warmth().answer(wanted, {}) is None
    assert not wanted.pending.exists()
