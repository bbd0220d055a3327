"""The instructions of the Containerfile, as Containerfile(5) has them."""

from __future__ import annotations

import json

from tests.cli.tools import ROOT

FILE = ROOT / "packaging/Containerfile"


def instructions() -> list[tuple[str, str]]:
    """Each with what stands behind it, lines that go on joined."""
    lines = [line for line in FILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined if line)]


def of(word: str) -> list[str]:
    """What stands behind the instructions of this kind."""
    return [rest for each, rest in instructions() if each == word]


def command(word: str) -> list[str]:
    """The command of one, which is no shell's."""
    (rest,) = of(word)
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found
