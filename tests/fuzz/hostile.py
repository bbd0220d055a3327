"""A kernel that means harm: ``python hostile.py MODE CONNECTION_FILE``.

lies     each answer comes after wrongly signed, truncated, replayed, late and meaningless ones
flood    as lies, and from the first question on it sends rightly signed nonsense as fast as it can
huge     it answers with more bytes than anybody wants
deep     it answers with JSON nested a hundred thousand times, rightly signed
echo     its heartbeat answers many times, and with other bytes
noise    it listens on its ports and speaks no ZMTP at all
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from tests.kernels.mini import CHANNELS, DELIMITER, Kernel, options_of

HUGE = b"x" * (8 << 20)


class Hostile(Kernel):
    """Answers honestly, at the end of what it says."""

    def __init__(self, connection_file: str, mode: str) -> None:
        super().__init__(connection_file, options_of(["-f", connection_file]))
        self.mode = mode
        self.said: list[list[bytes]] = []
        self.flooding = False

    def send(self, socket, identities, parent, kind, content):  # type: ignore[no-untyped-def]
        if socket is self.control:
            for lie in self.lies(parent):
                with self.sent:
                    socket.send_multipart([*identities, *lie])
            if self.mode == "flood" and not self.flooding:
                self.flooding = True
                threading.Thread(target=self.flood, args=(socket, identities), daemon=True).start()
        super().send(socket, identities, parent, kind, content)

    def lies(self, parent: dict[str, str]) -> list[list[bytes]]:
        header = json.dumps({"msg_id": "1", "msg_type": "kernel_info_reply"}).encode()
        parts = [header, json.dumps(parent).encode(), b"{}", b'{"status": "ok"}']
        if self.mode == "huge":
            return [[DELIMITER, self.signature(parts), *parts[:3], HUGE], [HUGE]]
        if self.mode == "deep":
            deep = [*parts[:3], b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
            return [[DELIMITER, self.signature(deep), *deep]]
        other = [header, b'{"msg_id": "another"}', b"{}", b"{}"]
        right = [DELIMITER, self.signature(parts), *parts]
        replayed, self.said = self.said, [right]
        return [
            [DELIMITER, b"0" * 64, *parts],
            [DELIMITER, b"", *parts],
            *(right[:length] for length in range(1, 6)),
            [DELIMITER, self.signature(other), *other],
            [DELIMITER, self.signature([b"{"] * 4), *[b"{"] * 4],
            [b"", b"\xff" * 100, b"\0"],
            *replayed * 3,
        ]

    def flood(self, socket, identities):  # type: ignore[no-untyped-def]
        parts = [b'{"msg_id": "1", "msg_type": "x"}', b'{"msg_id": "2"}', b"{}", b'"' + b"y" * 1000 + b'"']
        frames = [*identities, DELIMITER, self.signature(parts), *parts]
        while True:
            for _ in range(100):
                with self.sent:
                    socket.send_multipart(frames)
            time.sleep(0.001)

    def serve_heartbeat(self) -> None:
        if self.mode != "echo":
            super().serve_heartbeat()
        import zmq

        port, ip = self.connection["hb_port"], self.connection["ip"]
        self.hb.close(linger=0)
        router = self.context.socket(zmq.ROUTER)
        while True:
            try:
                router.bind(f"tcp://{ip}:{port}")
                break
            except zmq.ZMQError:
                time.sleep(0.01)
        while True:
            identity, *frames = router.recv_multipart()
            for answer in (
                [b""],
                [os.urandom(16)],
                [b"", os.urandom(16)],
                frames,
                frames,
                [b"", *frames] * 3,
            ):
                router.send_multipart([identity, *answer])


def noise(connection_file: str) -> None:
    connection = json.loads(Path(connection_file).read_text())
    for channel in CHANNELS:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((connection["ip"], connection[f"{channel}_port"]))
        server.listen()
        threading.Thread(target=_shout, args=(server,), daemon=True).start()
    time.sleep(3600)


def _shout(server: socket.socket) -> None:
    while True:
        caller, _ = server.accept()
        try:
            for _ in range(100):
                caller.sendall(os.urandom(10_000))
        except OSError:
            pass
        caller.close()


if __name__ == "__main__":
    if sys.argv[1] == "noise":
        noise(sys.argv[2])
    Hostile(sys.argv[2], sys.argv[1]).main()
