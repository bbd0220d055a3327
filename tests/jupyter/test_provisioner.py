"""Batch tools and local clients, which reach a supervised kernel by its provisioner and own none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.daemon import wait_for
from tests.jupyter.lab import Server
from tests.jupyter.test_libraries import SLEEP, kill_when_busy, program

NBCLIENT = """
import sys, nbformat, time
from nbclient import NotebookClient
book = nbformat.v4.new_notebook()
book.cells = [nbformat.v4.new_code_cell(code) for code in sys.argv[2:]]
try:
    NotebookClient(book, kernel_name=sys.argv[1], timeout=60).execute()
    print("".join(output.text for cell in book.cells for output in cell.outputs).strip())
except Exception as error:
    print(type(error).__name__, time.time())
"""
PAPERMILL = """
import sys, nbformat, papermill, time
book = nbformat.v4.new_notebook()
book.cells = [nbformat.v4.new_code_cell(code) for code in sys.argv[2:]]
book.metadata["kernelspec"] = {"name": sys.argv[1], "display_name": "", "language": "python"}
nbformat.write(book, "in.ipynb")
try:
    done = papermill.execute_notebook("in.ipynb", "out.ipynb", progress_bar=False)
    print("".join("".join(o.get("text", "")) for cell in done.cells for o in cell.outputs).strip())
except Exception as error:
    print(type(error).__name__, time.time())
"""


@pytest.fixture(scope="module", autouse=True)
def _kernelspecs(lab: Server) -> None:
    lab.command("jupyter", "kernelspecs", "--user")


@pytest.mark.parametrize("tool", [NBCLIENT, PAPERMILL], ids=["nbclient", "papermill"])
def test_a_batch_tool_runs_on_the_living_kernel_and_leaves_it(lab: Server, tool: str) -> None:
    before = lab.scene.kernel("robot")
    lab.scene.execute("robot", "kept = 42")

    assert "42" == program(lab, tool, "robot", "print(kept)")

    assert before["pid"] == lab.scene.kernel("robot")["pid"]
    assert "42" == lab.scene.run("robot", "print(kept)")


@pytest.mark.parametrize("tool", [NBCLIENT, PAPERMILL], ids=["nbclient", "papermill"])
def test_a_kernel_that_is_killed_in_a_cell_of_a_batch_tool_is_an_error(
    lab: Server, tool: str, record_property: Callable[[str, object], None]
) -> None:
    killed = kill_when_busy(lab, "robot")

    told, at = program(lab, tool, "robot", SLEEP.format(str(lab.root / "in-a-cell"))).split()

    assert "DeadKernelError" == told
    record_property("seconds", float(at) - killed())
    lab.scene.wait_running("robot")


def test_a_batch_tool_that_ends_does_not_interrupt_the_cell_of_another(lab: Server) -> None:
    with lab.scene.client("robot") as client:
        client.execute("import time; time.sleep(4); print('whole')")
        wait_for(lambda: lab.kernel("robot")["execution_state"] == "busy", "it is busy")

        program(
            lab,
            "import sys, asyncio\nfrom jupyter_client.manager import KernelManager\n"
            "m = KernelManager(kernel_name='robot'); m.start_kernel(); m.shutdown_kernel()",
        )

        def heard() -> bool:
            return client.get_iopub_msg(timeout=20)["content"].get("text", "").strip() == "whole"

        wait_for(heard, "the cell ended by itself")


def test_a_restart_by_a_local_client_is_an_order(lab: Server) -> None:
    before = lab.scene.kernel("robot")["generation"]

    told = program(
        lab,
        "from jupyter_client.manager import start_new_kernel\n"
        "m, c = start_new_kernel(kernel_name='robot')\nc.execute('w = 1', reply=True)\n"
        "m.restart_kernel(); c.wait_for_ready(timeout=30)\n"
        "print(c.execute_interactive(\"print('w' in globals())\", timeout=30)['content']['status'])\n"
        "m.shutdown_kernel()",
    )

    assert "False\nok" == told
    assert before + 1 == lab.scene.kernel("robot")["generation"]
