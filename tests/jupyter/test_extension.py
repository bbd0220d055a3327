"""Whether the extension may put its managers in the place of the server's."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from traitlets.config import Config

from supervisor.jupyter.extension import CLASSES, link


def app(**sections: dict[str, object]) -> Any:
    return SimpleNamespace(config=Config(sections), config_file_paths=[], log=logging.getLogger("server"))


def linked(server: Any) -> bool:
    link(server)
    there = {trait: getattr(server, trait, None) for trait in CLASSES}
    assert there in (CLASSES, dict.fromkeys(CLASSES))
    return there == CLASSES


def test_a_server_of_which_nothing_is_said_has_them() -> None:
    assert linked(app())


@pytest.mark.parametrize("trait", CLASSES)
def test_a_class_that_somebody_has_configured_stays(trait: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not linked(app(ServerApp={trait: "another"}))

    assert f"ServerApp.{trait} is configured to another: supervised kernels are not shown" in caplog.text


def test_a_server_with_a_gateway_keeps_its_own(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not linked(app(GatewayClient={"url": "http://gateway"}))
    monkeypatch.setenv("JUPYTER_GATEWAY_URL", "http://gateway")
    assert not linked(app())

    assert 2 == caplog.text.count("takes its kernels from a gateway")


def test_which_daemon_is_meant_is_configured_like_all_of_the_server() -> None:
    server = app(SupervisedKernels={"socket": "/s"})

    assert linked(server)
    assert "/s" == server.config.SupervisedKernels["socket"]
