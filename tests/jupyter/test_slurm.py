"""A notebook in JupyterLab whose kernel is a job of a real Slurm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.jupyter.lab import Page, Server
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import cluster
from tests.slurm.lab import Lab

__all__ = ["cluster"]  # the fixture

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

NODE = "import os; print(os.environ['SLURMD_NODENAME'], 'kept' in globals())"


class LabServer(Server):
    """A JupyterLab on kernels of a cluster."""

    scene: Lab


@pytest.fixture(scope="module")
def lab(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    scene = Lab(tmp_path_factory.mktemp("lab"), cluster)
    scene.write(scene.job("big", kernel="ipykernel", memory="400M"))
    with LabServer(scene).running("big") as server:
        yield server


@pytest.fixture
def page(browser: Any, lab: LabServer) -> Iterator[Page]:
    lab.notebook("big.ipynb", "big", "", "")
    made = Page(browser, lab)
    yield made.open("big.ipynb")
    made.close()


def test_a_notebook_goes_on_after_its_kernel_has_moved(page: Page, lab: LabServer) -> None:
    node, _ = page.run(NODE).split()
    page.run("kept = 1")
    assert f"{node} True" == page.run(NODE)
    with lab.scene.without(node):
        # The cluster takes it away; nobody has asked us.
        lab.scene.cluster.run("scancel", lab.scene.kernel("big")["job"]["number"])
        lab.scene.wait_running("big", after=1)
        page.wait_connected("idle")

        moved, is_kept = page.run(NODE).split()
    assert (True, "False") == (node != moved, is_kept)
    assert "\n".join(map(str, range(100))) == page.run("for i in range(100): print(i)", 1)
    assert all("It will restart automatically" in told for told in page.dialogs())
