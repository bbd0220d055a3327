"""One daemon, one JupyterLab and one browser for all; they need an environment of their own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.jupyter.lab import Page, Server

if find_spec("jupyterlab") is None or find_spec("playwright") is None:
    collect_ignore_glob = ["test_*.py"]

KERNELS = ("analysis", "robot", "short")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tests.e2e.daemon import Scene
    from tests.jupyter.lab import Server

    scene = Scene(tmp_path_factory.mktemp("lab"))
    scene.write(
        scene.ipykernel("analysis", display_name='"Analysis of three days"'),
        scene.ipykernel("robot"),
        scene.ipykernel("short", on_client_shutdown='"stop"'),
        supervisor='on_exit = "keep"',
    )
    with Server(scene).running(*KERNELS) as server:
        yield server


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tests.e2e.daemon import Scene
    from tests.jupyter.lab import Server

    scene = Scene(tmp_path_factory.mktemp("serve"))
    scene.write(scene.ipykernel("analysis"), scene.ipykernel("robot"))
    served = Server(
        scene, "-m", "supervisor", "serve", "--root", str(scene.directory), "--socket", str(scene.socket)
    )
    token = scene.directory / "jupyter" / "data" / "kernel-supervisor" / "token"
    try:
        scene.start("analysis", "robot")
        served.start_with_token(token)
        served.wait_listed("analysis", "robot")
        yield served
        assert "could not be told" not in served.log.read_text()
    finally:
        served.clean_up()


# Not for the whole session: as long as it is there, asyncio believes that a loop runs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    from tests.jupyter.lab import CHROMIUM, FLAGS

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, lab: Server) -> Iterator[Page]:
    from tests.jupyter.lab import Page

    made = Page(browser, lab)
    yield made
    made.close()
