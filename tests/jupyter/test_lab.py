"""What a person sees in JupyterLab."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.daemon import wait_for
from tests.jupyter.lab import PAGE_DEADLINE, Page, Server, until_there

# What is measured is for the documents: ``--junit-xml FILE -o junit_family=xunit1``.
Figure = Callable[[str, object], None]


def open_on(page: Page, name: str, kernel: str = "analysis", *cells: str) -> Page:
    page.server.notebook(name, kernel, *(cells or ("", "", "")))
    return page.open(name)


def test_kernels_are_listed_by_name_before_use_and_the_notebook_runs_in_the_daemons(
    page: Page, lab: Server
) -> None:
    specs = lab.ask("GET", "/api/kernelspecs")[1]["kernelspecs"]
    assert {"python3", "analysis", "robot", "short"} == set(specs)
    assert "Analysis of three days" == specs["analysis"]["spec"]["display_name"]
    open_on(page, "one.ipynb")

    assert "Analysis of three days" == page.state()["name"]
    assert lab.scene.kernel("analysis")["id"] == page.state()["id"]
    assert str(lab.scene.kernel("analysis")["pid"]) == page.run("import os; print(os.getpid())")


def test_the_page_of_kernels_opens_a_notebook_on_that_very_kernel_and_the_same_one_again(
    page: Page, lab: Server
) -> None:
    kernels, opened = page.browser_page, []
    kernels.goto(f"{lab.url}/supervisor/?token={lab.token}#/kernel/robot")
    for _ in range(2):
        with kernels.expect_popup() as popup:
            kernels.get_by_role("button", name="Open in JupyterLab").click()
        page.browser_page = popup.value
        # What was open before in this workspace may be restored first.
        page.wait(lambda: str(page.state().get("path")).startswith("robot"), "its notebook", PAGE_DEADLINE)
        page.wait_connected()

        assert lab.scene.kernel("robot")["id"] == page.state()["id"]
        assert str(lab.scene.kernel("robot")["pid"]) == page.run("import os; print(os.getpid())")
        opened.append(popup.value.evaluate("window.jupyterapp.shell.currentWidget.context.path"))
    kernels.close()

    assert ["robot.ipynb"] * 2 == opened


def test_notebook_7_runs_on_the_living_kernel(page: Page, lab: Server) -> None:
    lab.notebook("seven.ipynb", "analysis", "import os; print('pid', os.getpid())")
    shown = page.browser_page
    shown.goto(f"{lab.url}/notebooks/seven.ipynb?token={lab.token}")
    shown.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content")
    shown.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')

    def has_run() -> bool:
        if "[ ]" in page.prompt():  # a key that is pressed while the page is still made does nothing
            shown.click(".jp-CodeCell .cm-content")
            shown.keyboard.press("Control+Enter")
        return shown.locator(f".jp-OutputArea-output:has-text('pid {pid}')").count() > 0

    pid = lab.scene.kernel("analysis")["pid"]
    page.wait(has_run, "it has run")

    assert (
        "Analysis of three days" in shown.locator(".jp-KernelName, .jp-Toolbar-kernelName").first.inner_text()
    )


def test_interrupt_keeps_the_state(page: Page, record_property: Figure) -> None:
    open_on(page, "interrupt.ipynb")
    page.run("x = 41")
    page.begin("import time\nprint('sleeping'); time.sleep(60)")
    page.wait_text("sleeping")

    page.press("interrupt")

    record_property("seconds", page.wait_text("KeyboardInterrupt"))
    page.wait_ended()
    assert "41" == page.run("print(x)", 1)
    assert [] == page.dialogs()


def test_the_restart_button_makes_one_new_run(page: Page, lab: Server) -> None:
    open_on(page, "restart.ipynb")
    page.run("y = 5")
    before = lab.scene.kernel("analysis")

    page.press("restart")
    page.accept()

    lab.scene.wait_running("analysis", after=before["generation"])
    page.wait_connected("idle")
    assert "False" == page.run("print('y' in globals())")
    assert before["generation"] + 1 == lab.scene.kernel("analysis")["generation"]
    assert [] == page.dialogs()


def test_two_pages_that_restart_at_once_restart_once(page: Page, browser: Any, lab: Server) -> None:
    other = Page(browser, lab)
    open_on(page, "first.ipynb")
    open_on(other, "second.ipynb")
    before = lab.scene.kernel("analysis")["generation"]
    for each in (page, other):
        each.press("restart")

    for each in (page, other):
        each.accept()

    lab.scene.wait_running("analysis", after=before)
    for each in (page, other):
        each.wait_connected("idle")
        assert "2" == each.run("print(1 + 1)")
        assert [] == each.dialogs()
    assert before + 1 == lab.scene.kernel("analysis")["generation"]
    other.close()


def test_a_death_while_idle_is_told(page: Page, lab: Server, record_property: Figure) -> None:
    open_on(page, "idle.ipynb")
    before = lab.scene.kernel("analysis")
    os.kill(before["pid"], signal.SIGKILL)

    told = page.wait(lambda: any("died" in text for text in page.dialogs()), "it is told")
    record_property("seconds", told)
    page.dismiss()
    page.wait_connected("idle")
    assert "False" == page.run("print('y' in globals())")


def test_a_death_in_a_cell_is_told_there_and_the_next_cell_runs(
    page: Page, lab: Server, record_property: Figure
) -> None:
    open_on(page, "death.ipynb")
    page.begin("print('in a cell'); import time; time.sleep(60)")
    page.wait_text("in a cell")
    page.begin("print('queued')", 1)

    generation, pid = (lab.scene.kernel("analysis")[key] for key in ("generation", "pid"))
    os.kill(pid, signal.SIGKILL)

    record_property("seconds", page.wait_text("KernelDied: analysis died: killed by SIGKILL"))
    assert f"started again as run {generation + 1}, its variables are lost" in page.text()
    page.wait_ended()
    page.wait_ended(1)
    page.dismiss()
    page.wait_connected("idle")
    assert "alive" == page.run("print('alive')", 2)
    assert "" == page.text(1)


@pytest.mark.skipif("PICTURE" not in os.environ, reason="the picture of the README is made with PICTURE=FILE")
def test_the_picture_of_the_readme(page: Page, lab: Server) -> None:
    cells = (
        "import time\nframes = list(range(259_200))\nlen(frames)",
        "for frame in frames:\n    time.sleep(1)",
    )
    open_on(page, "three days.ipynb", "analysis", *cells, "'frames' in globals()")
    page.command("application:toggle-left-area")
    page.run(None)
    page.begin(None, 1)
    page.wait(lambda: "busy" == page.state()["status"], "it is busy")
    os.kill(lab.scene.kernel("analysis")["pid"], signal.SIGKILL)
    page.wait_text("KernelDied", 1)
    page.wait(lambda: bool(page.dialogs()), "the dialog")
    page.dismiss()
    page.wait_connected("idle")
    page.run(None, 2)
    page.browser_page.set_viewport_size({"width": 1000, "height": 360})
    page.browser_page.add_style_tag(content=".Toastify { display: none }")
    page.browser_page.wait_for_timeout(1000)
    page.browser_page.screenshot(path=os.environ["PICTURE"])


def test_a_page_that_is_reloaded_while_the_kernel_is_busy_sees_it_busy(page: Page, lab: Server) -> None:
    go_on = lab.root / "reloaded"
    open_on(page, "reload.ipynb")
    page.begin(f"print('begun')\n{until_there(go_on)}")
    page.wait_text("begun")

    page.browser_page.reload()

    page.wait_connected()
    assert "busy" == page.state()["status"]
    go_on.touch()
    page.wait_connected("idle")


def test_what_a_cell_gave_while_no_page_was_open_is_there_when_one_is(page: Page, lab: Server) -> None:
    code = "import time\nfor i in range(30): print(i, flush=True); time.sleep(0.1)\ni"
    open_on(page, "closed.ipynb", "analysis", code, "print('saved')")
    page.begin(None)
    page.wait_text("3")
    page.command("docmanager:save")
    page.browser_page.goto("about:blank")
    wait_for(lambda: lab.kernel("analysis")["execution_state"] == "idle", "it ends meanwhile")

    page.open("closed.ipynb")

    assert [*map(str, range(30)), "29"] == page.text().split()
    assert "" == page.text(1)
    # What is saved afterwards is not made anew.
    page.browser_page.evaluate(
        "() => { window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs') }"
    )
    page.command("docmanager:save")
    wait_for(lambda: "29" not in (lab.root / "closed.ipynb").read_text(), "it is saved")
    page.open("closed.ipynb")
    assert "" == page.text()


def test_a_connection_that_was_lost_brings_what_was_written_meanwhile(page: Page, lab: Server) -> None:
    open_on(page, "lost.ipynb")
    page.begin("import time\nfor i in range(40): print(i, flush=True); time.sleep(0.1)\nprint('end')")
    page.wait_text("3")
    page.browser_page.context.set_offline(True)
    page.browser_page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel._ws.close()"
    )
    wait_for(lambda: lab.kernel("analysis")["execution_state"] == "idle", "it ends meanwhile")

    page.browser_page.context.set_offline(False)

    page.wait_text("end")
    # But for what was on its way at the moment of the loss, which a page has that is opened anew.
    missing = {*map(str, range(40)), "end"} - set(page.text().split())
    assert 2 >= len(missing), missing
    assert sorted(page.text().split()[:-1], key=int) == page.text().split()[:-1]
    page.wait_ended()


def test_shut_down_in_the_client_leaves_the_kernel(page: Page, lab: Server) -> None:
    open_on(page, "leave.ipynb")
    page.run("z = 7")
    before = lab.scene.kernel("analysis")["generation"]

    page.browser_page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")

    assert "running" == lab.scene.kernel("analysis")["phase"]
    assert before == lab.scene.kernel("analysis")["generation"]
    page.open("leave.ipynb")
    assert "7" == page.run("print(z)")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=lambda signum: signum.name)
def test_a_page_goes_on_by_itself_when_the_server_comes_back(
    page: Page, lab: Server, signum: int, record_property: Figure
) -> None:
    open_on(page, "server.ipynb")
    page.run("z = 8")
    before = lab.scene.kernel("analysis")
    page.watch_connection()

    lab.end(signum)
    lab.start()

    record_property("seconds", page.wait_connected_anew())
    assert before["id"] == page.state()["id"]
    assert "8" == page.run("print(z)")
    assert before["generation"] == lab.scene.kernel("analysis")["generation"]
