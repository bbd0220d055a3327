"""What passes the door is what a kernel without one would have read, however much it is."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient

from supervisor.warm.command import read_command
from supervisor.warm.inside.pending import SLOTS, read
from tests.waiting import wait_for
from tests.warm.kept import Kept
from tests.warm.test_same_kernel import PYTHONS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

PATIENCE = 30.0
# More than the record has room for.
MANY = SLOTS + 200


@pytest.fixture(params=PYTHONS)
def kept(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Kept]:
    kept = Kept(tmp_path, str(request.param))
    kept.start()
    yield kept
    kept.close()


def wait_full(kept: Kept) -> None:
    wait_for(lambda: SLOTS == len(read(str(kept.pending)).requests), "the record is full")


def send(client: BlockingKernelClient, kind: str, content: dict[str, object]) -> str:
    message = client.session.msg(kind, content)
    client.shell_channel.send(message)
    return str(message["header"]["msg_id"])


def wait_reply(client: BlockingKernelClient, asked: str) -> dict[str, object]:
    while True:
        message = client.get_shell_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") == asked:
            return dict(message["content"])


def test_an_error_ends_all_that_waits_behind_it(kept: Kept) -> None:
    client = kept.client()
    go_on = kept.folder / "go-on"
    asked = [
        client.execute(f"import os, time\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n1 / 0")
    ]
    asked += [client.execute("1") for _ in range(SLOTS - 1)]
    wait_full(kept)

    go_on.touch()

    found = [client.get_shell_msg(timeout=PATIENCE) for _ in asked]
    assert asked == [message["parent_header"]["msg_id"] for message in found]
    assert {"error": 1, "aborted": SLOTS - 1} == collections.Counter(m["content"]["status"] for m in found)


def test_what_no_kernel_replies_to_does_not_make_it_deaf(kept: Kept) -> None:
    client = kept.client()
    for _ in range(MANY):
        send(client, "unheard_request", {})

    assert "ok" == wait_reply(client, client.kernel_info())["status"]


def test_a_queue_whose_client_has_died_with_the_kernel_keeps_nobody_waiting(kept: Kept) -> None:
    gone = kept.client()
    gone.execute("import time; time.sleep(600)")
    for _ in range(MANY):
        gone.execute("1")
    wait_full(kept)
    gone.stop_channels()
    kept.kill()

    kept.start()

    client = kept.client()
    assert "ok" == wait_reply(client, client.execute("1"))["status"]


def test_odd_headers_are_as_for_a_kernel_without_a_door(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = Kept(tmp_path / "plain", kept.argv[0], "cold")
    plain.start()
    try:
        assert replies_to_odd(plain.client()) == replies_to_odd(kept.client())
    finally:
        plain.close()


def replies_to_odd(client: BlockingKernelClient) -> list[object]:
    """The requests that are answered, of some whose ``msg_id`` is no text."""
    session = client.session
    header = json.loads(json.dumps(session.msg_header("kernel_info_request"), default=str))
    for odd in (["odd"], {"odd": 1}, 1, None):
        parts = [json.dumps({**header, "msg_id": odd}).encode(), b"{}", b"{}", b"{}"]
        client.shell_channel.socket.send_multipart([b"<IDS|MSG>", session.sign(parts), *parts])
    last, answered = client.kernel_info(), list[object]()
    while last not in answered:
        answered.append(client.get_shell_msg(timeout=PATIENCE)["parent_header"].get("msg_id"))
    return answered[:-1]


def test_a_kernel_that_fails_to_begin_exits(kept: Kept) -> None:
    kept.kill()
    (kept.folder / "failing.py").write_text(
        "from ipykernel.ipkernel import IPythonKernel\n"
        "class Failing(IPythonKernel):\n"
        "    def __init__(self, **words): super().__init__(**words); raise RuntimeError('it fails')\n"
    )
    kept.env["PYTHONPATH"] = str(kept.folder)
    kept.parts = read_command([*kept.argv, "--IPKernelApp.kernel_class=failing.Failing"])

    kept.start()

    kept.wait()
    assert 1 == kept.process.returncode
    assert "RuntimeError: it fails" in kept.output.read_text()
