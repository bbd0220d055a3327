"""The file of what was read and not answered: whole or not there, whoever is killed within a write."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import time
from pathlib import Path

import pytest

from supervisor.warm.inside.pending import IDLE, PAGE, REPLIED, SIZE, SLOT, UNREPLIED, Pending, read

ROUNDS = 40


def header(msg_id: str) -> bytes:
    return json.dumps({"msg_id": msg_id, "msg_type": "execute_request", "pad": "h" * 300}).encode()


def taken(file: Path, *ids: str, run: int = 1) -> Pending:
    pending = Pending(str(file), run)
    for msg_id in ids:
        pending.take(msg_id, [b"client"], header(msg_id), f"code of {msg_id}".encode())
    return pending


def test_what_was_not_answered_is_found_in_its_order_with_what_is_known_of_it(tmp_path: Path) -> None:
    pending = taken(tmp_path / "p", "a", "b", "c")
    pending.start("a", 41)
    for msg_id in ("b",):
        pending.mark(msg_id, REPLIED)
        pending.mark(msg_id, IDLE)

    left = read(str(tmp_path / "p")).requests

    assert [("code of a", 41, [b"client"]), ("code of c", 0, [b"client"])] == [
        (one.code, one.execution_count, one.idents) for one in left
    ]
    assert abs(time.time() - (left[0].started or 0)) < 60
    assert left[1].started is None
    assert ["a", "c"] == [json.loads(one.header)["msg_id"] for one in Pending(str(tmp_path / "p"), 2).left]


def test_nothing_of_the_code_is_left_once_it_has_been_answered(tmp_path: Path) -> None:
    pending = taken(tmp_path / "p", "a")

    pending.mark("a", IDLE)
    pending.mark("a", REPLIED)

    assert b"code of" not in (tmp_path / "p").read_bytes()
    assert 0o600 == (tmp_path / "p").stat().st_mode & 0o777


def test_why_a_start_failed_is_told_until_the_next_run(tmp_path: Path) -> None:
    taken(tmp_path / "p").fail("x" * 5000 + "NameError: é")

    assert read(str(tmp_path / "p")).reason.endswith("xNameError: é")
    taken(tmp_path / "p", run=2)
    assert "" == read(str(tmp_path / "p")).reason


@pytest.mark.parametrize("content", [b"", b"KSpend1\n", os.urandom(SIZE), b"KSpend1\n" + os.urandom(SIZE)])
def test_a_file_of_any_content_is_read_and_taken_into_use(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "p"
    file.write_bytes(content)

    assert [] == read(str(file)).requests
    taken(file, "a")
    assert 1 == len(read(str(file)).requests)


def test_a_link_is_not_followed_and_a_full_file_takes_no_more(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):  # noqa: PT011 - ELOOP has no class of its own
        Pending(str(tmp_path / "link"), 1)
    pending = taken(tmp_path / "p", *map(str, range((SIZE - PAGE) // SLOT)))

    pending.take("one more", [b"client"], header("one more"))

    assert pending.taken("one more") is None


def test_requests_that_never_get_a_reply_do_not_fill_the_file(tmp_path: Path) -> None:
    pending = taken(tmp_path / "p")

    for msg_id in map(str, range(2 * SIZE // SLOT)):
        pending.take(msg_id, [b"client"], header(msg_id))
        pending.start(msg_id, 1)
        pending.mark(msg_id, IDLE)
    pending.take("next", [b"client"], header("next"))

    assert pending.taken("next") is not None
    assert UNREPLIED + 1 == len(read(str(tmp_path / "p")).requests)


def test_a_reply_that_is_on_its_way_while_many_end_is_noted(tmp_path: Path) -> None:
    ids = list(map(str, range(UNREPLIED)))
    pending = taken(tmp_path / "p", *ids)
    for msg_id in ids:
        pending.mark(msg_id, IDLE)

    assert ids == [json.loads(one.header)["msg_id"] for one in read(str(tmp_path / "p")).requests]
    for msg_id in ids:
        pending.mark(msg_id, REPLIED)
    assert [] == read(str(tmp_path / "p")).requests


def test_a_forked_child_changes_nothing(tmp_path: Path) -> None:
    pending = taken(tmp_path / "p", "a")
    pid = os.fork()
    if pid == 0:
        pending.mark("a", REPLIED)
        pending.mark("a", IDLE)
        os._exit(0)
    os.waitpid(pid, 0)

    assert 1 == len(read(str(tmp_path / "p")).requests)


def write_for_ever(file: Path, run: int, say: int) -> None:
    """Take, start and settle without end; each step is said before and after it is made."""
    pending, live, number = Pending(str(file), run), list[int](), 0
    for request in pending.left:
        pending.settle(request)
    while True:
        os.write(say, struct.pack("<cI", b"t", number))
        pending.take(str(number), [b"id"], header(str(number)), b"n" * 200)
        os.write(say, struct.pack("<cI", b"T", number))
        live.append(number)
        number += 1
        if len(live) > 5:
            oldest = live.pop(0)
            pending.start(str(oldest), oldest)
            os.write(say, struct.pack("<cI", b"m", oldest))
            pending.mark(str(oldest), REPLIED)
            pending.mark(str(oldest), IDLE)
            os.write(say, struct.pack("<cI", b"M", oldest))


def test_a_writer_that_is_killed_at_any_moment_leaves_each_request_whole_or_not_at_all(
    tmp_path: Path,
) -> None:
    for run in range(1, ROUNDS):
        reading, saying = os.pipe()
        pid = os.fork()
        if pid == 0:
            write_for_ever(tmp_path / "p", run, saying)
        os.close(saying)
        said, until = b"", time.monotonic() + random.uniform(0.001, 0.02)
        os.set_blocking(reading, False)
        while time.monotonic() < until or not said:
            said += _available(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while more := _available(reading):
            said += more
        os.close(reading)
        sure, maybe = set[int](), set[int]()
        for at in range(0, len(said) - 4, 5):
            step, number = struct.unpack_from("<cI", said, at)
            {b"t": maybe.add, b"T": sure.add, b"m": maybe.add, b"M": maybe.discard}[step](number)
            if step in b"Tm":
                (maybe if step == b"T" else sure).discard(number)

        found = [int(json.loads(one.header)["msg_id"]) for one in read(str(tmp_path / "p")).requests]

        assert len(found) == len(set(found))
        assert sure <= set(found) <= sure | maybe


def _available(reading: int) -> bytes:
    try:
        return os.read(reading, 1 << 16)
    except BlockingIOError:
        return b""
