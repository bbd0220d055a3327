"""Messages: what we send is understood, what we are sent is believed only if it is signed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from supervisor.kernel import wire

KEY = "0123456789abcdef"


def jupyter(key: str = KEY) -> Session:
    return Session(key=key.encode(), signature_scheme="hmac-sha256")


def a_reply(key: str = KEY) -> list[bytes]:
    session = jupyter(key)
    parent = session.msg("kernel_info_request")
    return session.serialize(session.msg("kernel_info_reply", {"status": "ok", "banner": "é"}, parent=parent))


@pytest.mark.parametrize("key", [KEY, ""])
def test_jupyter_understands_our_requests(key: str) -> None:
    msg_id, frames = wire.request(key, "shutdown_request", {"restart": True}, "a-session")

    _, rest = jupyter(key).feed_identities(frames)
    message = jupyter(key).deserialize(rest)

    assert msg_id == message["header"]["msg_id"]
    assert "a-session" == message["header"]["session"]
    assert "shutdown_request" == message["msg_type"]
    assert {"restart": True} == message["content"]


def test_two_requests_differ() -> None:
    assert wire.request(KEY, "a", {}, "s")[0] != wire.request(KEY, "a", {}, "s")[0]


@pytest.mark.parametrize("key", [KEY, ""])
@pytest.mark.parametrize("identities", [[], [b"kernel.1.status"]])
def test_a_message_of_jupyter_is_understood(key: str, identities: list[bytes]) -> None:
    frames = a_reply(key)

    message = wire.reply(key, [*identities, *frames])

    assert message is not None
    assert "kernel_info_reply" == message.msg_type
    assert json.loads(frames[3])["msg_id"] == message.parent_id
    assert {"status": "ok", "banner": "é"} == message.content


def test_buffers_after_the_content_are_no_matter() -> None:
    assert wire.reply(KEY, [*a_reply(), b"buffer"]) is not None


def test_a_message_signed_with_another_key_is_ignored() -> None:
    assert wire.reply(KEY, a_reply("another")) is None
    assert wire.reply(KEY, a_reply("")) is None


@given(at=st.integers(1, 5), byte=st.integers(0), flip=st.integers(1, 255))
def test_a_message_with_one_byte_changed_is_ignored(at: int, byte: int, flip: int) -> None:
    frames = a_reply()
    changed = bytearray(frames[at])
    changed[byte % len(changed)] ^= flip
    frames[at] = bytes(changed)

    assert wire.reply(KEY, frames) is None


@given(size=st.integers(0, 5))
def test_a_truncated_message_is_ignored(size: int) -> None:
    assert wire.reply(KEY, a_reply()[:size]) is None


@given(st.lists(st.binary(max_size=40) | st.just(wire.DELIMITER), max_size=9), st.sampled_from([KEY, ""]))
def test_no_frames_whatever_raise(frames: list[bytes], key: str) -> None:
    wire.reply(key, frames)


PARTS = st.sampled_from(
    [b"", b"{}", b"[]", b"7", b"null", b"{", b"\xff", b"[" * 5000, b'{"msg_id": 1, "msg_type": "a"}']
)


@given(st.lists(PARTS, min_size=4, max_size=4))
def test_signed_nonsense_is_ignored(parts: list[bytes]) -> None:
    assert wire.reply(KEY, [wire.DELIMITER, wire.signature(KEY, parts), *parts]) is None
