"""Bytes of a hostile kernel on the control and heartbeat channels: ignored and counted, never fatal."""

from __future__ import annotations

import asyncio

import msgspec
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.kernel import wire
from supervisor.kernel.channel import Channel
from supervisor.kernel.connection import Address

KEY = "k" * 64
ADDRESS = Address("tcp", "127.0.0.1", 1, 2, 3, 4, 5, key=KEY)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
headers = st.fixed_dictionaries(
    {},
    optional={"msg_id": json_values, "msg_type": json_values, "version": json_values, "session": json_values},
)
parts = st.one_of(
    st.binary(max_size=60),
    headers.map(msgspec.json.encode),
    json_values.map(msgspec.json.encode),
    st.sampled_from(
        [
            b"",
            b"{}",
            b"[" * 50_000,
            b'{"msg_id":' * 5_000,
            b"\xff\xfe",
            b'{"msg_id": "\\ud800"}',
            b"x" * (1 << 20),
        ]
    ),
)
frames = st.lists(parts | st.just(wire.DELIMITER), max_size=9)


def signed(five: list[bytes]) -> list[bytes]:
    """Rightly signed, whatever it says: a hostile kernel knows its own key."""
    return [wire.DELIMITER, wire.signature(KEY, five), *five]


@settings(max_examples=400)
@given(frames | st.lists(parts, min_size=4, max_size=4).map(signed))
def test_reading_a_reply_never_raises(got: list[bytes]) -> None:
    message = wire.reply(KEY, got)

    if message is not None:
        assert isinstance(message.msg_id, str)
        assert isinstance(message.content, dict)


@settings(max_examples=200)
@given(
    st.lists(
        frames.filter(bool) | st.lists(parts, min_size=4, max_size=4).map(signed), min_size=1, max_size=8
    )
)
def test_what_is_no_answer_is_counted_and_the_answer_is_still_heard(lies: list[list[bytes]]) -> None:
    async def tell() -> None:
        channel = Channel(ADDRESS, context=zmq.Context.instance())
        heard: list[object] = []
        token, asked = wire.request(KEY, "kernel_info_request", {}, "session")
        channel._open[token] = heard.append
        for lie in lies:
            channel._hear_control(lie)
            channel._hear_echo(lie)
        assert 2 * len(lies) == channel.ignored
        assert [] == heard

        header = msgspec.json.encode({"msg_id": "1", "msg_type": "kernel_info_reply"})
        answer = signed([header, asked[2], b"{}", b'{"status": "ok"}'])
        channel._hear_control(answer)
        channel._hear_control(answer)  # replayed

        assert [{"status": "ok"}] == heard
        assert 2 * len(lies) + 1 == channel.ignored
        channel.close()

    asyncio.run(tell())
