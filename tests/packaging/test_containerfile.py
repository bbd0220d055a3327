"""The Containerfile, read; ``tests/systemd/test_image`` builds and runs it."""

from __future__ import annotations

import re

from supervisor.cli.program import parse
from supervisor.cli.verbs import VERBS
from tests.cli.tools import ROOT
from tests.packaging.containerfile import command, instructions, of

KNOWN = {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def test_it_has_known_instructions_only_and_copies_what_is_there() -> None:
    assert KNOWN == {word for word, _ in instructions()}
    for copied in of("COPY"):
        assert [] == [source for source in copied.split()[:-1] if not (ROOT / source).exists()]


def test_what_it_runs_and_asks_are_verbs_of_the_program_without_a_shell() -> None:
    assert ["kernel-supervisor"] == command("ENTRYPOINT")
    for words in (command("CMD"), command("HEALTHCHECK")[1:]):
        parse(words[0], VERBS[words[0]], words[1:])
    assert "kernel-supervisor health" == " ".join(command("HEALTHCHECK"))
    assert re.search(r"--start-period=\d+s", *of("HEALTHCHECK"))


def test_the_daemon_and_its_health_check_have_the_same_places_and_no_root() -> None:
    environment = dict(line.split("=", 1) for line in of("ENV"))

    assert {
        "PATH",
        "STATE_DIRECTORY",
        "JUPYTER_RUNTIME_DIR",
        "KERNEL_SUPERVISOR_CONFIG",
    } == environment.keys()
    assert environment["PATH"].startswith("/opt/kernel-supervisor/bin:")
    assert environment["JUPYTER_RUNTIME_DIR"].startswith(environment["STATE_DIRECTORY"])
    assert ["kernel-supervisor"] == of("USER")
    assert ["SIGTERM"] == of("STOPSIGNAL")
