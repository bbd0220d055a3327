"""Notebooks that the server itself executes: jupyter-collaboration with jupyter-server-nbmodel.

They change a JupyterLab as a whole, so that they are not in the environment of the other tests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.e2e.daemon import Scene, wait_for
from tests.jupyter.lab import Page, Server, until_there

NEEDED = ("jupyter_server_nbmodel", "jupyter_collaboration")
MISSING = [name for name in NEEDED if find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"not in this environment, as it would change the JupyterLab of the other tests: {MISSING}",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    scene = Scene(tmp_path_factory.mktemp("nbmodel"))
    scene.write(scene.ipykernel("analysis"))
    with Server(scene).running("analysis") as server:
        yield server


def answer(lab: Server, code: str, meanwhile: Any = lambda: None) -> dict[str, Any]:
    """What comes of code that the server executes."""
    id_ = lab.kernel("analysis")["id"]
    asked = lab.ask("POST", f"/api/kernels/{id_}/execute", {"code": code})[1]
    meanwhile()

    def done() -> dict[str, Any] | None:
        status, found = lab.ask("GET", asked["request_url"])
        return found if status != 202 else None

    return dict(wait_for(done, "the execution is answered"))


def test_an_execution_by_the_server_ends_with_the_run_and_the_next_one_works(lab: Server) -> None:
    assert "ok" == answer(lab, "x = 1")["status"]

    def kill() -> None:
        wait_for(lambda: lab.kernel("analysis")["execution_state"] == "busy", "it is executed")
        os.kill(lab.scene.kernel("analysis")["pid"], signal.SIGKILL)

    died = answer(lab, "import time; time.sleep(60)", kill)

    assert "error" == died["status"]
    assert "analysis died: killed by SIGKILL" in died["outputs"]
    lab.wait_listed("analysis")
    assert "False" in answer(lab, "print('x' in globals())")["outputs"]


def test_what_a_cell_gives_after_a_reload_is_in_the_cell(page: Page, lab: Server) -> None:
    go_on = lab.root / "go-on"
    lab.notebook("shared.ipynb", "analysis", f"print('begun')\n{until_there(go_on)}print('ended')", "")
    page.open("shared.ipynb")
    page.begin(None)
    page.wait_text("begun")
    page.browser_page.reload()
    page.wait_connected("busy")

    go_on.touch()

    page.wait_text(r"begun\s+ended")


def test_a_death_in_a_cell_of_a_shared_notebook_is_told_there(page: Page, lab: Server) -> None:
    lab.notebook("dying.ipynb", "analysis", "print('in a cell'); import time; time.sleep(60)", "")
    page.open("dying.ipynb")
    page.begin(None)
    page.wait_text("in a cell")

    os.kill(lab.scene.kernel("analysis")["pid"], signal.SIGKILL)

    page.wait_text("KernelDied: analysis died: killed by SIGKILL")
    page.wait_ended()
    page.dismiss()
    page.wait_connected("idle")
    assert "2" == page.run("print(1 + 1)", 1)
