"""The daemon goes and comes under a notebook, the server under both, and the file changes."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.version import __version__
from tests.e2e.daemon import ROOT, wait_for
from tests.jupyter.lab import Page, Server, until_there

COUNT = "import time\nfor i in range(60): print(i, flush=True); time.sleep(0.1)"


NEWER = "99.0.0"


def newer_code(folder: Path) -> Path:
    """Where another copy of the program is, of another version."""
    to = folder / "newer"
    shutil.copytree(ROOT / "supervisor", to / "supervisor", ignore=shutil.ignore_patterns("__pycache__"))
    version = to / "supervisor" / "version.py"
    version.write_text(version.read_text().replace(__version__, NEWER))
    return to


def wait_daemon_gone(lab: Server, signum: int) -> None:
    assert lab.scene.daemon is not None
    lab.scene.daemon.send_signal(signum)
    lab.scene.daemon.wait(30)


@pytest.mark.parametrize("how", ["detached", "killed", "upgraded"])
def test_a_notebook_goes_on_without_a_daemon_and_orders_are_answered_503(
    page: Page, lab: Server, how: str
) -> None:
    lab.notebook("count.ipynb", "analysis", "", "")
    page.open("count.ipynb")
    before = lab.scene.kernel("analysis")
    page.begin(COUNT)
    page.wait_text("2")

    wait_daemon_gone(lab, signal.SIGKILL if how == "killed" else signal.SIGUSR2)
    asked = {
        verb: lab.ask("POST", f"/api/kernels/{before['id']}/{verb}")[0] for verb in ("interrupt", "restart")
    }
    if how == "upgraded":
        newer = newer_code(lab.scene.directory)
        lab.scene.start("analysis", within=("env", f"PYTHONPATH={newer}", sys.executable))
        assert NEWER == lab.scene.status()["version"]
    else:
        lab.scene.start("analysis")

    page.wait_text("59")
    assert [str(i) for i in range(60)] == page.text().split()
    assert {"interrupt": 503, "restart": 503} == asked
    after = lab.scene.kernel("analysis")
    assert [before[key] for key in ("id", "generation", "pid")] == [
        after[key] for key in ("id", "generation", "pid")
    ]
    page.begin("import time\nprint('sleeping'); time.sleep(60)")
    page.wait_text("sleeping")
    page.press("interrupt")
    page.wait_text("KeyboardInterrupt")
    assert [] == page.dialogs()


def test_a_server_that_starts_without_a_daemon_keeps_the_sessions(page: Page, lab: Server) -> None:
    lab.notebook("away.ipynb", "analysis", "", "")
    page.open("away.ipynb")
    page.run("kept = 11")
    sessions = {s["id"] for s in lab.ask("GET", "/api/sessions")[1] if s["path"] == "away.ipynb"}
    page.watch_connection()
    wait_daemon_gone(lab, signal.SIGKILL)
    lab.end()

    lab.start()

    assert sessions == {s["id"] for s in lab.ask("GET", "/api/sessions")[1] if s["path"] == "away.ipynb"}
    assert "analysis" in lab.ask("GET", "/api/kernelspecs")[1]["kernelspecs"]
    lab.scene.start("analysis")
    page.wait_connected_anew()
    assert "11" == page.run("print(kept)")


def test_a_cell_that_ends_while_the_server_is_away_does_not_hang(page: Page, lab: Server) -> None:
    lab.notebook("gap.ipynb", "analysis", "", "")
    page.open("gap.ipynb")
    page.begin("import time\nprint('begun', flush=True); time.sleep(8); done = 1")
    page.wait_text("begun")
    wait_for(lambda: "begun" in lab.command("replay", "analysis"), "what was asked is on record")
    lab.end(signal.SIGKILL)
    wait_for(lambda: "1" == lab.scene.run("analysis", "print(done)"), "it ends meanwhile")

    lab.start()

    page.wait_text("its answer came while no server was there", deadline=40)
    page.wait_ended()
    assert "1" == page.run("print(done)", 1)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=lambda signum: signum.name)
def test_a_cell_that_runs_while_the_server_is_exchanged_goes_on_and_ends(
    page: Page, lab: Server, signum: signal.Signals
) -> None:
    lab.notebook("exchanged.ipynb", "analysis", "", "")
    page.open("exchanged.ipynb")
    go_on = lab.root / f"go-on-{signum.name}"
    page.begin(f"print('begun', flush=True)\n{until_there(go_on)}print('ended')\n6 * 7")
    page.wait_text("begun")
    wait_for(lambda: "begun" in lab.command("replay", "analysis"), "what was asked is on record")
    page.watch_connection()
    lab.end(signum)

    lab.start()

    page.wait(lambda: page.browser_page.evaluate("window.lost"), "it has noticed", 60)
    page.wait_connected("busy")
    assert "*" in page.prompt()
    go_on.touch()
    page.wait_text(r"begun\s+ended\s+42")
    page.wait_ended()
    assert page.prompt().strip("[]:").isdigit()
    assert "43" == page.run("print(43)", 1)


def test_kernels_that_are_added_renamed_and_removed_follow(lab: Server) -> None:
    scene = lab.scene
    text = scene.config.read_text()

    def specs() -> dict[str, str]:
        found = lab.ask("GET", "/api/kernelspecs")[1]["kernelspecs"]
        return {name: spec["spec"]["display_name"] for name, spec in found.items()}

    scene.config.write_text(
        text.replace("Analysis of three days", "Another name") + scene.ipykernel("new") + "\n"
    )
    wait_for(lambda: "Another name" == specs()["analysis"] and "new" in specs(), specs)
    scene.wait_running("new")
    lab.wait_listed("new")
    id_ = lab.kernel("new")["id"]
    scene.order("restart", "new", new_ports=True)
    lab.wait_listed("new")
    assert id_ == lab.kernel("new")["id"]

    scene.config.write_text(text)

    wait_for(lambda: "new" not in specs(), specs)
    wait_for(lambda: not lab.kernel("new"), "it is not listed")
    wait_for(lambda: not list((scene.state_dir / "recorder").glob(f"{id_}*")), "nothing of it is kept")


def test_a_page_follows_to_new_ports_and_is_told_of_a_restart_by_others(page: Page, lab: Server) -> None:
    lab.notebook("ports.ipynb", "robot", "", "")
    page.open("ports.ipynb")
    page.begin("import time\nprint('sleeping'); time.sleep(60)")
    page.wait_text("sleeping")

    lab.scene.order("restart", "robot", new_ports=True)

    page.wait_text("KernelDied: robot was restarted; started again as run")
    page.wait_ended()
    page.wait_connected("idle")
    assert "False" == page.run("print('time' in globals())", 1)
    assert [] == page.dialogs()


# Shut down, by a client


def test_shut_down_all_and_a_file_that_says_stop(page: Page, browser: Any, lab: Server) -> None:
    other = Page(browser, lab)
    for each, name in ((page, "short.ipynb"), (other, "other.ipynb")):
        lab.notebook(name, "short", "", "")
        each.open(name)
    before = {name: lab.scene.kernel(name)["generation"] for name in ("analysis", "robot")}

    page.browser_page.evaluate("() => window.jupyterapp.serviceManager.kernels.shutdownAll()")

    lab.scene.wait_phase("short", "stopped")
    other.wait(lambda: other.state().get("status") != "idle", "the other page is told")
    after = {name: lab.scene.kernel(name) for name in before}
    assert before == {name: view["generation"] for name, view in after.items()}
    assert {"running"} == {view["phase"] for view in after.values()}
    other.close()
    page.close()
    lab.scene.order("start", "short")
    lab.wait_listed("short")


def test_a_server_that_culls_and_one_that_ends_leave_supervised_kernels(lab: Server) -> None:
    before = {view["name"]: view["generation"] for view in lab.scene.status()["kernels"]}
    culling = Server(lab.scene)
    culling.start(*(f"--MappingKernelManager.{key}" for key in ("cull_idle_timeout=1", "cull_interval=1")))
    try:
        culling.wait_listed("analysis")
        assert 201 == culling.ask("POST", "/api/kernels", {"name": "python3"})[0]
        wait_for(lambda: not culling.kernel("python3"), "its own kernel is culled")
        assert culling.kernel("analysis")
    finally:
        culling.end()

    assert before == {view["name"]: view["generation"] for view in lab.scene.status()["kernels"]}


# The server's own kernels


def test_a_kernel_of_the_servers_own_is_as_ever(page: Page, lab: Server) -> None:
    lab.notebook("local.ipynb", "python3", "", "")
    page.open("local.ipynb")
    pid = page.run("import os; x = 1; print(os.getpid())")
    assert int(pid) not in lab.scene.pids().values()
    page.begin("import time\nprint('sleeping'); time.sleep(60)")
    page.wait_text("sleeping")
    page.press("interrupt")
    page.wait_text("KeyboardInterrupt")
    page.press("restart")
    page.accept()
    wait_for(lambda: "False" == page.run("print('x' in globals())", 1), "it is restarted")
    os.kill(int(page.run("import os; print(os.getpid())", 1)), signal.SIGKILL)
    page.wait(lambda: any("died" in text for text in page.dialogs()), "its death is told")
    page.dismiss()

    page.browser_page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")

    wait_for(lambda: not lab.kernel("python3"), "it is gone")
