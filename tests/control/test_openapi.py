"""The description of the control API, and the examples of its document."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.control.conftest import ask
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import DEADLINE


def test_the_description_names_every_path_that_the_document_names(daemon: FakeDaemon) -> None:
    document = ask(daemon, "GET", "/v1/openapi.json").body
    verbs = ("start", "stop", "restart", "interrupt", "kill", "reset", "signal")

    assert "3.1.0" == document["openapi"]
    for path in [
        *("/v1/status", "/v1/kernels/{name}", "/v1/kernels/{name}/connection", "/v1/events"),
        *("/v1/reload", "/v1/plan", "/v1/detach", "/v1/shutdown"),
        *(f"/v1/kernels/{{name}}/{verb}" for verb in verbs),
    ]:
        assert path in document["paths"]
    restart = document["paths"]["/v1/kernels/{name}/restart"]["post"]
    schema = restart["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert {"wait", "timeout", "if_generation", "now", "new_ports"} == set(
        document["components"]["schemas"][schema]["properties"]
    )


def examples() -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```sh\n")[1:]]
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.parametrize("example", examples())
def test_an_example_of_the_documentation_works(
    daemon: FakeDaemon, steering: FakeSteering, example: str
) -> None:
    daemon.run(steering.tell(event="kernel.ready", kernel="robot"))

    done = subprocess.run(
        ["bash", "-c", example],
        env={"SOCKET": str(daemon.path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    for line in done.stdout.splitlines():
        assert isinstance(json.loads(line), dict)
