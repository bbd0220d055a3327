"""A line to a kernel that closes its socket while it is answering, again and again.

``python closing.py ROUNDS``: exits 0 after so many, having heard something in each;
a process that libzmq aborts has no other way to tell than its exit status.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import suppress

import zmq

from supervisor.kernel.line import Line

ANSWER = [b"<IDS|MSG>", b"signature", b"{}", b"{}", b"{}", b"x" * 1000]
ANSWERS = 20
DEADLINE = 30.0  # seconds for a round


def serve(rounds: int, bound: threading.Event, ports: list[int]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for _ in range(rounds):
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        if not ports:
            ports.append(router.bind_to_random_port("tcp://127.0.0.1"))
            bound.set()
        while router.getsockopt(zmq.LAST_ENDPOINT) == b"":
            with suppress(zmq.ZMQError):  # the last one is not gone yet
                router.bind(f"tcp://127.0.0.1:{ports[0]}")
        identity, *_ = router.recv_multipart()
        for _ in range(ANSWERS):
            router.send_multipart([identity, *ANSWER])
        router.close()
    context.term()


async def main(rounds: int) -> None:
    bound, ports, heard = threading.Event(), list[int](), list[list[bytes]]()
    server = threading.Thread(target=serve, args=(rounds, bound, ports))
    server.start()
    bound.wait(DEADLINE)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    line = Line(context, f"tcp://127.0.0.1:{ports[0]}", heard.append)
    line.listen()
    async with asyncio.timeout(rounds * DEADLINE):
        while server.is_alive():
            line.send([b"", b"question"])
            await asyncio.sleep(0.001)
    assert heard
    assert all(frames == ANSWER for frames in heard)
    line.close()
    context.term()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
