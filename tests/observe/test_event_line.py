"""An event as one line of JSON, and back."""

from enum import IntEnum
from pathlib import Path
from types import MappingProxyType

from supervisor.observe.event_line import decode, encode


def test_every_value_becomes_a_line_of_json() -> None:
    class Number(IntEnum):
        ONE = 1

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    loop: dict[str, object] = {}
    loop["loop"] = loop
    event = {
        "event": "x",
        "nan": float("nan"),
        "path": Path("/a"),
        "surrogate": "\udc80é",
        "set": {1},
        "proxy": MappingProxyType({1: (2, None)}),
        "number": Number.ONE,
        "broken": Broken(),
        "loop": loop,
        "bytes": b"\xff",
    }

    line = encode(event)

    assert line.endswith(b"}\n")
    assert 1 == line.count(b"\n")
    found = decode(line)
    assert found is not None
    assert ["nan", "/a", "\udc80é", [1], {"1": [2, None]}, 1, "<Broken>"] == [
        found[name] for name in ("nan", "path", "surrogate", "set", "proxy", "number", "broken")
    ]
