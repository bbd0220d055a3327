"""A warm kernel is the kernel that ``ipykernel_launcher`` would have been, point by point."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient

from tests.warm.kept import How, Kept

pytestmark = pytest.mark.slow  # seconds each, for every interpreter: make test-warm

# Further interpreters with an ipykernel of their own: make test-warm.
PYTHONS = [sys.executable, *filter(None, os.environ.get("WARM_PYTHONS", "").split(":"))]
SEEN = (Path(__file__).parent / "seen.py").read_text()
WARM: list[How] = ["prepared", "fork", "standby"]
PATIENCE = 30.0


def started(folder: Path, python: str, how: How) -> Kept:
    """A kernel that has been started in this way, at its second run if that takes one."""
    folder.mkdir()
    kept = Kept(folder, python, how)
    kept.env["MARKED"] = "yes"
    kept.start()
    if how == "standby":
        kept.client().stop_channels()
        assert {"parked": True} == kept.park()
        kept.kill()
        kept.start()
    return kept


def run(client: BlockingKernelClient, code: str) -> str:
    """What a cell prints."""
    said: list[str] = []

    def note(message: dict[str, Any]) -> None:
        content = message["content"]
        said.append(content.get("text", "") or "\n".join(content.get("traceback", ())))

    client.execute_interactive(code, timeout=PATIENCE, output_hook=note)
    return "".join(said)


@pytest.fixture(scope="module", params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cold(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    kept = started(tmp_path_factory.mktemp("cold") / "k", python, "cold")
    try:
        yield observed(kept)
    finally:
        kept.close()


@pytest.fixture(scope="module", params=WARM)
def warm(
    python: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kept]:
    kept = started(tmp_path_factory.mktemp("warm") / "k", python, request.param)
    yield kept
    kept.close()


def observed(kept: Kept) -> dict[str, Any]:
    """All that can be seen of it, with the places that are its own named alike."""
    client = kept.client()
    text = run(client, SEEN)
    info = run(client, "%connect_info").replace(str(kept.file), "FILE")
    client.stop_channels()
    ports = json.loads(kept.file.read_text())
    for name, port in ports.items():
        if name.endswith("_port"):
            info = info.replace(str(port), name)
    text = text.replace(str(kept.folder), "FOLDER")
    return {**json.loads(text), "connect_info": info.replace(str(kept.folder), "FOLDER")}


def test_all_that_code_can_see_is_the_same(cold: dict[str, Any], warm: Kept) -> None:
    found = observed(warm)

    assert cold == found


def test_it_is_interrupted_by_a_signal(warm: Kept) -> None:
    client = warm.client()
    threading.Timer(0.5, os.kill, (warm.pid, signal.SIGINT)).start()

    reply = client.execute_interactive(
        "import time\nwhile True: time.sleep(0.01)", timeout=PATIENCE, output_hook=lambda m: None
    )

    assert "KeyboardInterrupt" == reply["content"]["ename"]


def test_its_debugger_stops_at_a_breakpoint(warm: Kept) -> None:
    client = warm.client()
    sequence = iter(range(1, 100))

    def debug(command: str, **arguments: Any) -> dict[str, Any]:
        content = {"type": "request", "seq": next(sequence), "command": command, "arguments": arguments}
        message = client.session.msg("debug_request", content)
        client.control_channel.send(message)
        while True:
            reply = client.get_control_msg(timeout=PATIENCE)
            if reply["parent_header"]["msg_id"] == message["header"]["msg_id"]:
                return dict(reply["content"])

    code = "def f():\n    inside = 1\n    return inside\nf()"
    assert debug("initialize", clientID="t", adapterID="", pathFormat="path")["success"]
    assert debug("attach")["success"]
    source = debug("dumpCell", code=code)["body"]["sourcePath"]
    assert debug("setBreakpoints", source={"path": source}, breakpoints=[{"line": 3}])["success"]
    assert debug("configurationDone")["success"]
    client.execute(code)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        message = client.get_iopub_msg(timeout=PATIENCE)
        if message["msg_type"] == "debug_event" and message["content"]["event"] == "stopped":
            break
    threads = debug("debugInfo")["body"]["stoppedThreads"]
    assert debug("continue", threadId=threads[0])["success"]
    assert "ok" == client.get_shell_msg(timeout=PATIENCE)["content"]["status"]
    assert debug("disconnect", restart=False, terminateDebuggee=False)["success"]
    client.stop_channels()


def test_it_exits_when_asked_to_and_runs_what_was_registered_for_it(warm: Kept) -> None:
    client = warm.client()
    left = warm.folder / "left"
    told = run(client, f"import atexit; _ = atexit.register(lambda: open({str(left)!r}, 'w').write('well'))")
    assert "" == told

    client.shutdown()
    warm.wait()

    assert left.exists(), (getattr(warm, "process", None), warm.output.read_text()[-3000:])
